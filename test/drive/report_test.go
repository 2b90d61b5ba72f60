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

// What a lost node takes with it is counted apart, until Kubernetes has noticed, and only then.
func TestLossWithNode(t *testing.T) {
	lost := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	noticed := lost.Add(50 * time.Second)
	for name, tc := range map[string]struct {
		opened, began, ended time.Duration // after the loss
		unnoticed            bool          // Kubernetes has not noticed yet
		with                 bool
	}{
		"before":                               {-9 * time.Second, -9 * time.Second, -8 * time.Second, false, false},
		"under way when it was lost":           {-time.Second, -time.Second, time.Minute, false, true},
		"begun before Kubernetes noticed":      {49 * time.Second, 49 * time.Second, 140 * time.Second, false, true},
		"begun afterwards":                     {51 * time.Second, 51 * time.Second, 52 * time.Second, false, false},
		"afterwards, over an old connection":   {-time.Second, 51 * time.Second, 140 * time.Second, false, true},
		"begun while nobody has noticed":       {9 * time.Second, 9 * time.Second, 10 * time.Second, true, true},
		"ended before, and nobody noticed yet": {-9 * time.Second, -9 * time.Second, -8 * time.Second, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out)
			r.lose("node2", lost)
			if !tc.unnoticed {
				r.noticed(noticed)
				r.noticed(noticed.Add(time.Hour)) // when it is back
			}
			r.add(result{
				at: lost.Add(tc.began), opened: lost.Add(tc.opened), took: tc.ended - tc.began, kind: "GET", edge: "sleeps", err: errors.New("broken"),
			})
			if got := r.total.withNode == 1 && r.total.lost == 0 && r.verdict() == nil; got != tc.with {
				t.Errorf("lost with the node: %t, want %t: %+v, %v", got, tc.with, r.total, r.verdict())
			}
			if strings.Contains(out.String(), "LOST WITH node2 GET") != tc.with {
				t.Errorf("the report says %s", &out)
			}
			out.Reset()
			if r.summary(&out, 1); tc.with != strings.Contains(out.String(), "noticed: 1 of 1") {
				t.Errorf("the summary says %s", &out)
			}
		})
	}
}

func TestParseNodeFlags(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		ok   bool
	}{
		"none":             {nil, true},
		"drains":           {[]string{"-drain-every", "1m"}, true},
		"losses":           {[]string{"-lose-node-every", "1m", "-stop-node", "x stop", "-start-node", "x start"}, true},
		"no command":       {[]string{"-lose-node-every", "1m"}, false},
		"only one command": {[]string{"-lose-node-every", "1m", "-stop-node", "x stop"}, false},
	} {
		for _, command := range []string{"edges", "restarts"} {
			if _, err := parse(command, tc.args, &strings.Builder{}); (err == nil) != tc.ok {
				t.Errorf("%s, %s: %v", command, name, err)
			}
		}
	}
}
