// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestDesired(t *testing.T) {
	s := Scaling{MinReplicas: 0, MaxReplicas: 4, TargetPendingRequests: 10, TargetRequestRate: 0.5}
	rate := func(rate float64) CountAnswer { return CountAnswer{Active: true, Rate: rate} }
	pending := func(pending int64) CountAnswer { return CountAnswer{Active: true, Pending: pending} }
	for name, tc := range map[string]struct {
		count CountAnswer
		want  int32
	}{
		"idle":                        {CountAnswer{}, 0},
		"idle, and its rate decays":   {CountAnswer{Rate: 2}, 0},
		"in use, nothing pending":     {pending(0), 1},
		"as much as two are worth":    {pending(20), 2},
		"a little more":               {pending(21), 3},
		"more than may be":            {pending(1 << 60), 4},
		"a count that lags":           {pending(-1), 1},
		"a slow rate":                 {rate(0.1), 1},
		"a rate that two are worth":   {rate(1), 2},
		"a slightly higher one":       {rate(1.001), 3},
		"a rate that is far too high": {rate(1e300), 4},
		"more pending than the rate":  {CountAnswer{Active: true, Rate: 0.6, Pending: 25}, 3},
		"more rate than pending":      {CountAnswer{Active: true, Rate: 1.2, Pending: 5}, 3},
	} {
		if got := Desired(s, tc.count); got != tc.want {
			t.Errorf("%s: %d replicas, want %d", name, got, tc.want)
		}
	}
	s.TargetRequestRate = 0
	if got := Desired(s, rate(100)); got != 1 {
		t.Errorf("%d replicas for a rate that does not matter", got)
	}
	s.WakeReplicas = 2
	for pending, want := range map[int64]int32{0: 2, 25: 3} {
		if got := Desired(s, CountAnswer{Active: true, Pending: pending}); got != want {
			t.Errorf("an app that wakes with two, %d pending: %d replicas, want %d", pending, got, want)
		}
	}
	for name, tc := range map[string]struct {
		count CountAnswer
		want  int32
	}{"idle": {CountAnswer{}, 2}, "its rate decays": {CountAnswer{Rate: 29}, 3}, "in use": {pending(35), 4}} {
		always := Scaling{MinReplicas: 2, MaxReplicas: 4, TargetPendingRequests: 10, TargetRequestRate: 10}
		if got := Desired(always, tc.count); got != tc.want {
			t.Errorf("an app that never sleeps, %s: %d replicas, want %d", name, got, tc.want)
		}
	}
}

// The count follows what is desired upwards at once, and downwards after five minutes.
func TestStabilization(t *testing.T) {
	type look struct {
		after              time.Duration // since the look before
		has, desired, want int32
	}
	const moment = 15 * time.Second
	for name, looks := range map[string][]look{
		"after a restart, the present count counts": {
			{0, 3, 1, 3}, {stabilizeFor - time.Second, 3, 1, 3}, {time.Second, 3, 1, 1},
		},
		"up at once":                      {{0, 1, 1, 1}, {moment, 1, 3, 3}, {moment, 3, 4, 4}},
		"down after five minutes of less": {{0, 1, 3, 3}, {moment, 3, 1, 3}, {stabilizeFor - moment - 1, 3, 1, 3}, {1, 3, 1, 1}},
		"in steps": {
			{0, 1, 4, 4},
			{time.Minute, 4, 3, 4},
			{time.Minute, 4, 2, 4},
			{time.Minute, 4, 1, 4},
			{2 * time.Minute, 4, 1, 3},
			{time.Minute, 3, 1, 2},
			{time.Minute, 2, 1, 1},
		},
		"one peak renews the time": {
			{0, 1, 3, 3}, {4 * time.Minute, 3, 1, 3}, {0, 3, 3, 3}, {4 * time.Minute, 3, 1, 3}, {59 * time.Second, 3, 1, 3}, {time.Second, 3, 1, 1},
		},
		"a lower peak holds for its own time": {
			{0, 1, 4, 4}, {time.Minute, 4, 2, 4}, {4 * time.Minute, 4, 1, 2}, {time.Minute, 2, 1, 1},
		},
		"somebody scales it up":         {{0, 1, 1, 1}, {time.Minute, 4, 1, 4}, {stabilizeFor - 1, 4, 1, 4}, {1, 4, 1, 1}},
		"somebody scales it down":       {{0, 1, 3, 3}, {time.Minute, 3, 3, 3}, {time.Minute, 2, 1, 3}},
		"nobody looked for a long time": {{0, 1, 1, 1}, {time.Hour, 3, 1, 3}, {time.Hour, 3, 2, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
			woken := now
			var s, before Stabilization
			for i, l := range looks {
				now = now.Add(l.after)
				before = s
				var got, again int32
				got, s = s.Next(now, woken, l.has, l.desired)
				if got != l.want {
					t.Errorf("look %d: %d replicas, want %d", i, got, l.want)
				}
				if again, _ = before.Next(now, woken, l.has, l.desired); again != got {
					t.Errorf("look %d: %d replicas, and asked again %d", i, got, again)
				}
			}
		})
	}
}

// The highest of the last five minutes is what a memory of all looks would say.
func TestStabilizationIsTheHighest(t *testing.T) {
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	var s Stabilization
	var all []Desire
	has := int32(1)
	for range 5000 {
		now = now.Add(time.Duration(rand.IntN(40)) * time.Second)
		desired := 1 + rand.Int32N(10)
		if rand.IntN(20) == 0 {
			now = now.Add(time.Hour)
			all = append(all, Desire{now, has}) // nothing is known
		} else if len(all) == 0 {
			all = append(all, Desire{now, has})
		}
		all = append(all, Desire{now, desired})
		want := int32(0)
		for _, d := range all {
			if now.Sub(d.At) < stabilizeFor {
				want = max(want, d.Replicas)
			}
		}
		var got int32
		if got, s = s.Next(now, time.Time{}, has, desired); got != want {
			t.Fatalf("%d replicas, want %d; %v", got, want, s)
		}
		if len(s.Highest) > 10 {
			t.Fatalf("%d counts are remembered for 10 different ones", len(s.Highest))
		}
		has = got
	}
}

// TestFallsWithoutKEDA has the story of an app whose load comes and goes.
func TestFallsWithoutKEDA(t *testing.T) {
	w := newScaledWorld(t, withoutKEDA, func(w *scaledWorld) {
		w.asks = []Asking{askingFor("web", func(s *Settings) { s.MaxReplicas, s.TargetRequestRate = 4, 10 })}
	}, isReady, settled)
	w.now = w.now.Add(time.Hour)
	var story []string
	look := func(after time.Duration, count CountAnswer) {
		count.Known = true
		w.now, w.count = w.now.Add(after), count
		scaled := "stays"
		if p := w.reconcile(); p.Scale != nil {
			scaled = fmt.Sprint(*p.Scale)
			w.workload.Replicas = *p.Scale
		}
		story = append(story, scaled)
	}
	look(0, CountAnswer{Active: true, Rate: 5})
	look(time.Minute, CountAnswer{Active: true, Rate: 35})
	look(time.Minute, CountAnswer{Active: true, Rate: 12})
	look(4*time.Minute-15*time.Second, CountAnswer{Active: true, Rate: 5})
	look(15*time.Second, CountAnswer{Active: true, Rate: 5})
	look(time.Minute, CountAnswer{Active: true, Pending: 101})
	look(3*time.Minute, CountAnswer{Active: true, Rate: 5})
	look(2*time.Minute, CountAnswer{Active: true, Rate: 5})
	look(15*time.Second, CountAnswer{})
	if got := strings.Join(story, ", "); got != "stays, 4, stays, stays, 2, stays, stays, 1, 0" {
		t.Errorf("it is scaled to %s", got)
	}
}

// TestScaledAfterSleep tests that what an app needed before it slept does not decide how it wakes.
func TestScaledAfterSleep(t *testing.T) {
	s := Scaling{WakeReplicas: 1, MaxReplicas: 5, TargetPendingRequests: 10}
	busy, kept := CountAnswer{Known: true, Active: true, Pending: 45}, s.keptUp()
	n, l := Life{}.Scaled(noon, s, busy, 1)
	if n != 5 {
		t.Fatalf("45 requests get %d replicas, want 5", n)
	}
	if n, _ = l.Scaled(noon.Add(time.Minute), kept, CountAnswer{Known: true}, 0); n != 1 {
		t.Errorf("kept up after a sleep, it gets %d replicas, want 1", n)
	}
}
