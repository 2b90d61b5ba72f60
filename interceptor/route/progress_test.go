// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// failing returns a Service whose workload cannot start. seen is the time of the injector's look.
func failing(seen int64) Service {
	s := web()
	s.Pods = 1
	s.Progress = api.Progress{Stage: api.StagePulling, Failing: "no such image", Reason: "ImagePullBackOff", Seen: time.Unix(seen, 0)}
	return s
}

// As soon as it is known that the workload cannot start, waiting requests get the reason, and so do later ones.
func TestStartFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web())
		r := f.route(10000)
		got := make(chan error)
		for range 2 {
			go func() {
				_, err := r.Pick(t.Context(), &Visit{})
				got <- err
			}()
		}
		synctest.Wait()
		starting := web()
		starting.Pods, starting.Progress.Stage = 1, api.StagePulling
		f.SetService(starting)
		synctest.Wait()
		if p := r.snap.Load().progress; r.Held() != 2 || p.Stage != api.StagePulling {
			t.Errorf("%d held, progress %+v", r.Held(), p)
		}
		f.SetService(failing(1))
		var failed *StartFailedError
		for range 2 {
			if err := <-got; !errors.As(err, &failed) || failed.Service != "shop/web" || failed.Progress.Failing != "its image cannot be pulled" {
				t.Errorf("got %v", err)
			}
		}
		if _, err := r.Pick(t.Context(), &Visit{}); !errors.As(err, &failed) {
			t.Errorf("who comes later got %v", err)
		}
		if _, err := r.PickReady(t.Context(), &Visit{}); !errors.As(err, &failed) {
			t.Errorf("a probe got %v", err)
		}
		ready := failing(1)
		ready.Endpoints = map[string][]string{"http": {"10.0.0.1:80"}}
		f.SetService(ready)
		if e, err := r.Pick(t.Context(), &Visit{}); err != nil {
			t.Errorf("with a pod that is ready: %v", err)
		} else {
			e.Done()
		}
	})
}

// A failure that is not renewed ends after a while. A renewed one does not.
func TestStartFailsForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(failing(1))
		r := f.route(10000)
		var failed *StartFailedError
		advance(api.FailingFor - time.Second)
		f.SetService(failing(1)) // nothing new
		if _, err := r.Pick(t.Context(), &Visit{}); !errors.As(err, &failed) {
			t.Errorf("got %v", err)
		}
		f.SetService(failing(2))
		advance(2 * time.Second)
		if _, err := r.Pick(t.Context(), &Visit{}); !errors.As(err, &failed) {
			t.Errorf("renewed: got %v", err)
		}
		advance(api.FailingFor)
		var timeout *HoldTimeoutError
		if _, err := r.Pick(t.Context(), &Visit{}); !errors.As(err, &timeout) {
			t.Errorf("not renewed: got %v, want it to be held", err)
		}
	})
}

// A visit with a limit gives up for itself only. A visit that follows the start goes on until there is news.
func TestWaitLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web())
		r := f.route(10000)
		var starting *StartingError
		began := time.Now()
		for _, v := range []*Visit{{Wait: Wait{Limit: 1}}, {Wait: Wait{Limit: 2 * time.Second}}} {
			if _, err := r.Pick(t.Context(), v); !errors.As(err, &starting) || starting.Service != "shop/web" || v.Held < v.Limit {
				t.Errorf("got %v after %s", err, v.Held)
			}
		}
		if waited := time.Since(began); waited < 2*time.Second || waited > 3*time.Second || f.waker.calls.Load() != 2 {
			t.Errorf("%s held, and the waker called %d times", waited, f.waker.calls.Load())
		}
		if start := r.Start(); start.Elapsed != time.Since(began) {
			t.Errorf("the wake takes %s, of %s", start.Elapsed, time.Since(began))
		}
		// A limit longer than the hold timeout ends with the hold timeout.
		var timeout *HoldTimeoutError
		if _, err := r.Pick(t.Context(), &Visit{Wait: Wait{Limit: time.Hour}}); !errors.As(err, &timeout) {
			t.Errorf("got %v", err)
		}

		follow := func() <-chan error {
			before := r.Start().Progress
			got := make(chan error, 1)
			go func() {
				_, err := r.Pick(t.Context(), &Visit{Wait: Wait{News: func(s Start) bool {
					return s.Progress.Stage != before.Stage || s.Progress.Failing != before.Failing
				}}})
				got <- err
			}()
			synctest.Wait()
			return got
		}
		got := follow()
		f.SetService(failing(1))
		if err := <-got; !errors.As(err, &starting) {
			t.Errorf("failing: got %v", err)
		}
		got = follow()
		f.SetService(failing(2)) // nothing new
		synctest.Wait()
		if len(got) > 0 || r.Held() != 1 {
			t.Errorf("it does not follow any more, with %d held", r.Held())
		}
		f.SetService(web())
		if err := <-got; !errors.As(err, &starting) {
			t.Errorf("recovered: got %v", err)
		}
		if n := f.metrics.held.Load(); n != 3 {
			t.Errorf("%d held requests are measured, of 3 that wanted an answer of the app", n)
		}
	})
}
