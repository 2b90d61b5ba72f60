// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// unready returns web with a pod that is not ready.
func unready() Service {
	s := web()
	s.Pods = 1
	return s
}

// staged returns web without a pod address, while the injector says that there is a pod.
func staged() Service {
	s := web()
	s.Progress.Stage = api.StageScheduling
	return s
}

// TestStarting tests, after each step, whether the workload is in a start that still has time.
func TestStarting(t *testing.T) {
	type step struct {
		set  *Service // nil means no change
		wake bool
		pass time.Duration
		want bool
	}
	asleep, pod, word, ready, fails := web(), unready(), staged(), web("10.0.0.1:80"), failing(1)
	patient := unready()
	patient.Routes.HoldTimeout = api.Duration(20 * time.Minute)
	for name, steps := range map[string][]step{
		"asleep":                       {{set: &asleep}, {pass: time.Hour}},
		"woken":                        {{set: &asleep, wake: true, want: true}, {set: &pod, pass: 9 * time.Minute, want: true}, {set: &ready}},
		"woken, without an address":    {{set: &asleep, wake: true, want: true}, {pass: 9 * time.Minute, want: true}, {pass: time.Minute}},
		"woken by another interceptor": {{set: &asleep}, {set: &pod, want: true}, {pass: 9 * time.Minute, want: true}, {pass: time.Minute}},
		"the injector says so": {
			{set: &asleep}, {set: &word, want: true}, {set: &pod, pass: 9 * time.Minute, want: true}, {pass: time.Minute},
		},
		"found starting": {{set: &pod, want: true}},
		"found ready":    {{set: &ready}},
		"its pod starts again": {
			{set: &ready}, {set: &pod, pass: 9 * time.Minute, want: true}, {pass: time.Minute}, {set: &ready}, {set: &pod, want: true},
		},
		"its pods are replaced": {
			{set: &ready}, {set: &asleep, pass: time.Minute, want: true}, {set: &pod, pass: 9 * time.Minute, want: true}, {set: &ready},
		},
		"its pods come and go": {
			{set: &word, want: true},
			{set: &pod, pass: 5 * time.Minute, want: true},
			{set: &word, pass: 4 * time.Minute, want: true},
			{set: &pod, pass: time.Minute},
		},
		"woken after a long sleep": {
			{set: &ready}, {set: &asleep, pass: time.Hour}, {wake: true, want: true}, {set: &pod, pass: 9 * time.Minute, want: true},
		},
		"another's after a long sleep": {{set: &ready}, {set: &asleep, pass: time.Hour}, {set: &pod, pass: 9 * time.Minute, want: true}},
		"put to sleep in its start":    {{set: &pod, want: true}, {set: &asleep, pass: time.Hour}, {set: &pod, want: true}},
		"it cannot start":              {{set: &pod, want: true}, {set: &fails}, {pass: api.FailingFor, want: true}},
		"requests are held for longer": {{set: &patient, pass: 19 * time.Minute, want: true}, {pass: time.Minute}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(0)
				f.SetService(web())
				target := f.route(10000).Target()
				for i, s := range steps {
					if s.set != nil {
						f.SetService(*s.set)
					}
					if s.wake && !target.BeginWake() {
						t.Error("it cannot be woken")
					}
					advance(s.pass)
					if got := target.Starting(); got != s.want {
						t.Errorf("step %d: %v", i, got)
					}
				}
			})
		})
	}
}

// TestFellAsleep tests that a workload without replicas is not starting, and that its next start is a new one.
func TestFellAsleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web("10.0.0.1:80"))
		target := f.route(10000).Target()
		f.SetService(web())
		if !target.Starting() {
			t.Error("its pods may be replaced")
		}
		target.FellAsleep()
		if target.Starting() {
			t.Error("it sleeps")
		}
		f.SetService(web())
		advance(time.Hour)
		f.SetService(unready())
		if !target.Starting() {
			t.Error("it starts")
		}
	})
}

// TestIdleRunsFromReady tests that the idle time of visitors during the start runs from its end. For others it does not.
func TestIdleRunsFromReady(t *testing.T) {
	for name, tc := range map[string]struct {
		before, during bool
		want           time.Duration
	}{
		"somebody came during the start": {during: true, want: 0},
		"somebody came before":           {before: true, want: 5 * time.Minute},
		"nobody came":                    {want: never},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(0)
				f.SetService(web("10.0.0.1:80"))
				target := f.route(10000).Target()
				if tc.before {
					target.Begin()()
				}
				advance(time.Minute)
				f.SetService(unready()) // its container restarts
				advance(time.Minute)
				if tc.during {
					target.Begin()()
				}
				advance(3 * time.Minute)
				f.SetService(web("10.0.0.1:80"))
				if got := target.Idle(); got != tc.want {
					t.Errorf("idle for %s, want %s", got, tc.want)
				}
				if got := target.ReadyFor(); got != 5*time.Minute {
					t.Errorf("ready for %s: a pod that starts again is no new one", got)
				}
				f.SetService(web())
				if got := target.ReadyFor(); got != never {
					t.Errorf("ready for %s without a pod", got)
				}
				f.SetService(unready())
				advance(time.Minute)
				f.SetService(web("10.0.0.2:80"))
				advance(time.Second)
				if got := target.ReadyFor(); got != time.Second {
					t.Errorf("ready for %s, want 1s", got)
				}
			})
		})
	}
}

// TestPaused tests that nobody wakes a workload that its owner has paused. Without replicas, requests are refused with the reason.
// With replicas, they wait for its pods. Both end with the pause.
func TestPaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		pause := func(asleep bool, addrs ...string) Service {
			s := web(addrs...)
			s.Progress.Paused = &api.Pause{Why: "ScaledObject web is paused", Asleep: asleep}
			return s
		}
		f.SetService(web())
		r := f.route(10000)
		got := make(chan error)
		pick := func() {
			go func() {
				e, err := r.Pick(t.Context(), &Visit{})
				if err == nil {
					e.Done()
				}
				got <- err
			}()
			synctest.Wait()
		}
		pick()
		f.SetService(pause(true))
		wantPaused(t, <-got)
		f.waker.calls.Store(0)
		pick()
		wantPaused(t, <-got)
		if start := r.Start(); start.Progress.Reason != api.ReasonPaused || start.Progress.Failing != "its owner has paused it" {
			t.Errorf("the page is told %+v", start.Progress)
		}
		_, err := r.PickReady(t.Context(), &Visit{})
		wantPaused(t, err)
		advance(time.Hour)
		pick()
		wantPaused(t, <-got)

		f.SetService(pause(false))
		pick()
		if r.Held() != 1 || !r.Target().Paused() {
			t.Errorf("%d held for the pods of a paused workload", r.Held())
		}
		f.SetService(pause(false, "10.0.0.1:80"))
		if err := <-got; err != nil {
			t.Errorf("with a pod: %v", err)
		}
		if n := f.waker.calls.Load(); n != 0 {
			t.Errorf("woken %d times", n)
		}

		f.SetService(web())
		pick()
		if r.Target().Paused() || f.waker.calls.Load() != 1 {
			t.Error("the pause has ended, and nobody wakes")
		}
		f.SetService(web("10.0.0.1:80"))
		if err := <-got; err != nil {
			t.Error(err)
		}
		back := pause(true)
		back.Routes.Retiring = true
		f.SetService(back)
		pick()
		if r.Held() != 1 {
			t.Error("what is being restored comes up")
		}
		f.SetService(web("10.0.0.1:80"))
		if err := <-got; err != nil {
			t.Error(err)
		}
	})
}

func wantPaused(t *testing.T, err error) {
	t.Helper()
	const want = "Deployment/web (for service shop/web) is asleep: its owner has paused it"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
