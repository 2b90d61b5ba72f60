// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// The counts are those that were added, under both headings, and the report of a loss has everything that is known of it.
func TestReport(t *testing.T) {
	var out strings.Builder
	r := newReport(&out)
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	r.add(result{at: at, took: time.Second, app: "app1", kind: "GET", edge: "sleeps", id: "app1-1"})
	r.add(result{at: at, took: 2 * time.Second, app: "app1", kind: "GET", edge: "starts", id: "app1-2", reused: true, raced: true})
	if err := r.verdict(); err != nil {
		t.Errorf("nothing was lost: %v", err)
	}
	r.add(result{at: at, app: "app2", kind: "POST", edge: "starts", id: "app2-1", reused: true, err: errors.New("broken")})
	r.cycle("app1")
	r.cycle("app2")
	if n := r.slept(); n != 2 {
		t.Errorf("%d cycles of both apps, want 2", n)
	}
	if got, want := *r.kinds["GET"], (row{sent: 2, reused: 1, raced: 1, longest: 2 * time.Second}); got != want {
		t.Errorf("GET: %+v, want %+v", got, want)
	}
	if got, want := *r.edges["starts"], (row{sent: 2, reused: 2, raced: 1, lost: 1, longest: 2 * time.Second}); got != want {
		t.Errorf("while it starts: %+v, want %+v", got, want)
	}
	for _, want := range []string{"POST", "app2-1", "03:04:05.006", "starts", "kept connection", "broken"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q does not tell %q", out.String(), want)
		}
	}
	if err := r.verdict(); err == nil || !strings.Contains(err.Error(), "1 of 3") {
		t.Errorf("the verdict is %v", err)
	}
	out.Reset()
	r.summary(&out, 77)
	for _, want := range []string{"seed 77", "2 cycles of 2 apps", "lost: 1\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the summary does not say %q:\n%s", want, &out)
		}
	}
}

func TestVerdict(t *testing.T) {
	good := func() *report {
		r := newReport(&strings.Builder{})
		r.add(result{kind: "GET", edge: "sleeps"})
		return r
	}
	for _, tc := range []struct {
		name string
		do   func(*report)
		ok   bool
	}{
		{"all is well", func(*report) {}, true},
		{"a request that was sent again is not lost", func(r *report) { r.add(result{raced: true}) }, true},
		{"lost", func(r *report) { r.add(result{err: errors.New("broken")}) }, false},
		{"carried out twice", func(r *report) { r.finish(1, 0) }, false},
		{"a problem", func(r *report) { r.problem("%s does not sleep", "app1") }, false},
		{"nothing was sent", func(r *report) { r.total = row{} }, false},
	} {
		r := good()
		if tc.do(r); (r.verdict() == nil) != tc.ok {
			t.Errorf("%s: %v", tc.name, r.verdict())
		}
	}
}
