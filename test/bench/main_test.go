// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"strings"
	"testing"
	"time"
)

func TestParseOptions(t *testing.T) {
	for name, tc := range map[string]struct {
		args string
		want func(options) bool
		err  string
	}{
		"defaults": {
			args: "", want: func(o options) bool { return o.rounds == 5 && o.duration == 4*time.Second && o.connections == 64 },
		},
		"the whole":          {args: "-rounds 3", want: func(o options) bool { return o.out == "test/bench" }},
		"a part":             {args: "-only p99", want: func(o options) bool { return o.out == "bin" && o.only.MatchString("p99-vs-nginx") }},
		"a check":            {args: "-check", want: func(o options) bool { return o.out == "bin" }},
		"quick":              {args: "-quick", want: func(o options) bool { return o.out == "bin" && o.duration == time.Second }},
		"out goes first":     {args: "-quick -out /x", want: func(o options) bool { return o.out == "/x" }},
		"no round":           {args: "-rounds 0", err: "at least 1"},
		"less than a second": {args: "-duration 500ms", err: "whole seconds"},
		"parts of a second":  {args: "-duration 1500ms", err: "whole seconds"},
		"bad expression":     {args: "-only (", err: "-only"},
		"something else":     {args: "fast", err: `unexpected argument "fast"`},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parseOptions(strings.Fields(tc.args))
			switch {
			case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
				t.Errorf("got error %v, want %q", err, tc.err)
			case tc.err == "" && err != nil:
				t.Error(err)
			case tc.err == "" && !tc.want(o):
				t.Errorf("got %+v", o)
			}
		})
	}
}
