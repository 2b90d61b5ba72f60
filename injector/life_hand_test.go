// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"testing"
	"time"
)

// TestCrossed tests when KEDA has put a workload to sleep that somebody had just scaled up, as it had found it idle before.
func TestCrossed(t *testing.T) {
	up := func(hand int32, ago time.Duration) Life {
		return Life{Known: true, Hand: hand, Woken: noon.Add(-ago)}
	}
	for name, tc := range map[string]struct {
		was      Life
		replicas int32
		want     int32
	}{
		"at once":                      {up(3, 0), 0, 3},
		"as late as KEDA may":          {up(3, crossing), 0, 3},
		"later":                        {up(3, crossing+1), 0, 0},
		"nobody scaled it up":          {up(0, time.Second), 0, 0},
		"it is still up":               {up(3, time.Second), 1, 0},
		"it was asleep":                {Life{Known: true, Asleep: true, Hand: 3, Woken: noon}, 0, 0},
		"nobody has seen it before":    {Life{Hand: 3, Woken: noon}, 0, 0},
		"it was ready in the meantime": {Life{Known: true, Awake: true, Woken: noon.Add(-time.Second)}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			is := tc.was.Next(noon, tc.replicas, false, false)
			if got := is.Crossed(tc.was, noon); got != tc.want {
				t.Errorf("got %d", got)
			}
		})
	}
}

// TestHandAndRepeated tests how long it is remembered that somebody has scaled a workload up, and that this was repeated.
func TestHandAndRepeated(t *testing.T) {
	waking := Life{Known: true, Hand: 3, Repeated: true, Woken: noon.Add(-time.Minute)}
	for name, tc := range map[string]struct {
		was      Life
		replicas int32
		serves   bool
		hand     int32
		repeated bool
	}{
		"it is still waking":      {waking, 1, false, 3, true},
		"it is ready":             {waking, 1, true, 0, false},
		"it sleeps again":         {waking, 0, false, 0, true},
		"it stays ready":          {Life{Known: true, Awake: true, Hand: 3, Repeated: true}, 1, false, 0, false},
		"it stays asleep":         {Life{Known: true, Asleep: true, Hand: 3, Repeated: true}, 0, false, 0, true},
		"nothing was repeated":    {Life{Known: true, Hand: 3}, 1, false, 3, false},
		"nothing was known of it": {Life{Hand: 3, Repeated: true}, 1, false, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			if is := tc.was.Next(noon, tc.replicas, tc.serves, false); is.Hand != tc.hand || is.Repeated != tc.repeated {
				t.Errorf("by hand to %d, repeated %t; want %d, %t", is.Hand, is.Repeated, tc.hand, tc.repeated)
			}
		})
	}
}

// TestBypassingIsKept tests that the moment is known at which requests last went past the interceptors.
func TestBypassingIsKept(t *testing.T) {
	var is Life
	for i, step := range []struct {
		bypassing bool
		bypassed  time.Duration // since noon; -1 is never
	}{{false, -1}, {true, 1}, {true, 2}, {false, 3}, {false, 3}, {true, 5}, {false, 6}, {false, 6}} {
		is = is.Next(noon.Add(time.Duration(i)), 1, true, step.bypassing)
		want := time.Time{}
		if step.bypassed >= 0 {
			want = noon.Add(step.bypassed)
		}
		if is.Bypassing != step.bypassing || !is.Bypassed.Equal(want) {
			t.Errorf("step %d: bypassing %t, at %s, want %s", i, is.Bypassing, is.Bypassed, want)
		}
	}
}

// TestAwokeOnlyIfSeen tests that nobody is told of a wake that no controller has seen.
func TestAwokeOnlyIfSeen(t *testing.T) {
	for name, tc := range map[string]struct {
		was, is Life
		want    bool
	}{
		"it woke":                  {Life{Known: true}, Life{Known: true, Awake: true, Woken: noon}, true},
		"at once":                  {Life{Known: true, Asleep: true}, Life{Known: true, Awake: true, Woken: noon}, true},
		"nobody saw when":          {Life{Known: true}, Life{Known: true, Awake: true}, false},
		"nobody has looked before": {Life{}, Life{Known: true, Awake: true, Woken: noon}, false},
		"it was awake":             {Life{Known: true, Awake: true}, Life{Known: true, Awake: true, Woken: noon}, false},
		"it is waking":             {Life{Known: true, Asleep: true}, Life{Known: true, Woken: noon}, false},
	} {
		if got := tc.is.Awoke(tc.was); got != tc.want {
			t.Errorf("%s: awoke %t", name, got)
		}
	}
}
