// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// quits makes a client of r give up after a while.
func quits(t *testing.T, r *Route, after time.Duration, cause error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() {
		_, err := r.Pick(ctx, &Visit{Method: "GET", Path: "/report"})
		done <- err
	}()
	advance(after)
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		t.Fatalf("after %s: %v", after, err)
	}
}

func TestGaveUp(t *testing.T) {
	minute := time.Minute
	for name, tc := range map[string]struct {
		after []time.Duration
		start func(i int) int // which start the request waits for
		cause error
		pause time.Duration // between the starts
		want  string
	}{
		"a proxy's time-out":  {after: []time.Duration{minute, minute + time.Second, minute}, want: "s0: 3 after 1m0s of 5m0s"},
		"two are not many":    {after: []time.Duration{minute, minute}},
		"people, at any time": {after: []time.Duration{20 * time.Second, minute, 40 * time.Second, 90 * time.Second, 30 * time.Second}},
		"people, at once":     {after: []time.Duration{time.Second, time.Second, time.Second, 2 * time.Second}},
		"among people": {
			after: []time.Duration{minute, 20 * time.Second, minute, 80 * time.Second, minute}, want: "s0: 3 after 1m0s of 5m0s",
		},
		"once a start": {
			after: []time.Duration{minute, minute, minute, minute, minute, minute, minute}, want: "s0: 3 after 1m0s of 5m0s",
		},
		"one in each start": {
			after: []time.Duration{minute, minute, minute}, start: func(i int) int { return i }, want: "s2: 3 after 1m0s of 5m0s",
		},
		"again in a later start": {
			after: []time.Duration{minute, minute, minute, minute, minute, minute}, start: func(i int) int { return i / 3 },
			want: "s0: 3 after 1m0s of 5m0s s1: 3 after 1m0s of 5m0s",
		},
		"days apart": {
			after: []time.Duration{minute, minute, minute}, start: func(i int) int { return i }, pause: 20 * time.Hour,
		},
		"the interceptor's own doing": {after: []time.Duration{minute, minute, minute}, cause: errors.New("shutting down")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(0)
				got := ""
				f.options.GaveUp = func(_ *Route, g GaveUp) {
					if got != "" {
						got += " "
					}
					got += fmt.Sprintf("%s: %d after %s of %s", g.StartID, g.Clients, g.After.Round(5*time.Second), g.HoldTimeout)
					if g.Last.Path != "/report" {
						t.Errorf("the last is %+v", g.Last)
					}
				}
				cause := tc.cause
				if cause == nil {
					cause = context.Canceled
				}
				now := -1
				for i, after := range tc.after {
					start := 0
					if tc.start != nil {
						start = tc.start(i)
					}
					if start != now {
						now = start
						s := web()
						s.Routes.HoldTimeout *= 5
						s.SleepID = fmt.Sprintf("s%d", start)
						f.SetService(s)
						s.SleepID, s.Pods = "a pod that is not ready", 1
						f.SetService(s)
						advance(tc.pause)
					}
					quits(t, f.route(10000), after, cause)
				}
				if got != tc.want {
					t.Errorf("%q, want %q", got, tc.want)
				}
			})
		})
	}
}
