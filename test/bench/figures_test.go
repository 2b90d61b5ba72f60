// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFigures(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range allFigures() {
		if seen[f.name] {
			t.Errorf("two figures are called %s", f.name)
		}
		seen[f.name] = true
		if !slices.ContainsFunc(allLoads(), func(l load) bool { return l.name == f.load }) {
			t.Errorf("%s needs load %q, which there is not", f.name, f.load)
		}
		if f.more && f.goal == 0 || f.ours != ours {
			t.Errorf("%s: %+v", f.name, f)
		}
	}
}

func TestChosen(t *testing.T) {
	all := regexp.MustCompile("")
	for name, tc := range map[string]struct {
		only  *regexp.Regexp
		check bool
		load  string
		want  []string
	}{
		"all":                 {only: all, load: "get", want: []string{ours, nginx, reverseProxy, haproxy}},
		"another load":        {only: all, load: "tcp", want: []string{ours, haproxy}},
		"one":                 {only: regexp.MustCompile("^cpu-get-vs-nginx$"), load: "get", want: []string{ours, nginx}},
		"none of that load":   {only: regexp.MustCompile("^cpu-get-vs-nginx$"), load: "tcp"},
		"twins of references": {only: all, check: true, load: "tcp", want: []string{haproxy + twin, haproxy}},
	} {
		t.Run(name, func(t *testing.T) {
			figures := chosen(allFigures(), tc.only, tc.check)
			if diff := cmp.Diff(tc.want, proxiesOf(figures, tc.load)); diff != "" {
				t.Error(diff)
			}
			if tc.check && slices.ContainsFunc(figures, func(f figure) bool { return f.goal != 0 }) {
				t.Error("a twin has a goal to miss")
			}
		})
	}
}

func TestRotated(t *testing.T) {
	for name, tc := range map[string]struct {
		names []string
		round int
		want  []string
	}{
		"first":        {[]string{"a", "b", "c"}, 0, []string{"a", "b", "c"}},
		"second":       {[]string{"a", "b", "c"}, 1, []string{"b", "c", "a"}},
		"begins again": {[]string{"a", "b", "c"}, 3, []string{"a", "b", "c"}},
		"nothing":      {nil, 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, rotated(tc.names, tc.round)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestKindOf(t *testing.T) {
	if kindOf(nginx+twin) != nginx || kindOf(nginx) != nginx {
		t.Error("a twin is of another kind")
	}
}
