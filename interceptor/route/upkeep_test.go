// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"testing"
	"testing/synctest"
	"time"
)

// A workload is kept awake in the windows of all its Services, whatever becomes of one of them.
func TestKeptAwakeByAllServices(t *testing.T) {
	at := func(hour int) time.Time { return time.Date(2026, 3, 2, hour, 30, 0, 0, time.UTC) } // a Monday
	f := newFixture(0)
	set := func(name string, listen int32, awake string) {
		s := web("10.0.0.1:80")
		s.Name, s.Routes.Service, s.Routes.Ports[0].Listen, s.Routes.Awake = name, name, listen, awake
		f.SetService(s)
	}
	set("web", 10000, "Mon 08:00-10:00 UTC")
	target := f.route(10000).Target()
	want := func(what string, hours ...int) {
		t.Helper()
		awake := map[int]bool{}
		for _, hour := range hours {
			awake[hour] = true
		}
		for hour := range 24 {
			if got := target.KeptAwake(at(hour)); got != awake[hour] {
				t.Errorf("%s: kept awake at %d: %v", what, hour, got)
			}
		}
	}
	want("one Service", 8, 9)
	set("admin", 10001, "Mon 09:00-11:00 UTC")
	want("two", 8, 9, 10)
	same := target.windows.Load()
	set("web", 10000, "Mon 08:00-10:00 UTC")
	if target.windows.Load() != same {
		t.Error("the same windows were read again")
	}
	set("web", 10000, "never")
	want("one says never", 9, 10)
	set("admin", 10001, "")
	want("none says when")
	if target.windows.Load() != nil {
		t.Error("a target without windows has some to look at")
	}
	set("web", 10000, "always")
	set("admin", 10001, "Mon 08:00-10:00 UTC")
	f.RemoveService("shop", "web")
	f.SetService(func() Service { s := web(); s.Name, s.Routes.Ports[0].Listen = "third", 10002; return s }())
	want("one is gone", 8, 9)
}

// A request need not wait for whether the workload falls asleep, if that cannot be: inside a window, but not near its ends.
func TestNoSettlingInAWindow(t *testing.T) {
	for name, tc := range map[string]struct {
		clock  time.Duration // after midnight
		drowsy bool
	}{
		"long before":        {7 * time.Hour, true},
		"it has just begun":  {8*time.Hour + 30*time.Second, true},
		"inside":             {9 * time.Hour, false},
		"it is about to end": {10*time.Hour - 30*time.Second, true},
		"after":              {10 * time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // the bubble begins at midnight
				f := newFixture(0)
				s := web("10.0.0.1:80")
				s.Routes.Awake = "Mon-Sun 08:00-10:00 UTC"
				f.SetService(s)
				advance(tc.clock)
				r := f.route(10000)
				r.LeaveTab(Tab{Client: 1}, time.Hour)
				defer r.Target().Begin()()
				if got := !r.Settled(); got != tc.drowsy {
					t.Errorf("it may be falling asleep: %v", got)
				}
				if got := r.HasTabs(); got != tc.drowsy {
					t.Errorf("its silent connection was ended by its sleep: %v", got)
				}
			})
		})
	}
}

// Every request asks whether the workload is drowsy, and KEDA's streams whether it is kept awake.
func BenchmarkNotKeptAwake(b *testing.B) {
	f := newFixture(0)
	f.SetService(web("10.0.0.1:80"))
	target := f.route(10000).Target()
	now := time.Now()
	for b.Loop() {
		target.KeptAwake(now)
	}
}
