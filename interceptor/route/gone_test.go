// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"cmp"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// heldAt holds a request at r. The channel gets its result.
func heldAt(t *testing.T, r *Route) <-chan error {
	t.Helper()
	got := make(chan error, 1)
	go func() {
		e, err := r.Pick(t.Context(), &Visit{})
		if e != nil {
			e.Done()
		}
		got <- err
	}()
	synctest.Wait()
	return got
}

func isGone(t *testing.T, err error, why string) {
	t.Helper()
	var failed *StartFailedError
	if !errors.As(err, &failed) || !failed.Gone || failed.Progress.Failing != why || failed.Error() != "service shop/web: "+why {
		t.Errorf("got %v, want %q", err, why)
	}
}

// Requests that are held for a workload that no longer exists fail at once. Later requests fail too, and wake nothing.
func TestWorkloadGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web())
		r := f.route(10000)
		got := heldAt(t, r)
		gone := web()
		gone.Routes.Retiring, gone.Routes.Gone = true, "Deployment/web does not exist any more"
		f.SetService(gone)
		isGone(t, <-got, gone.Routes.Gone)
		calls := f.waker.calls.Load()
		_, err := r.Pick(t.Context(), &Visit{})
		isGone(t, err, gone.Routes.Gone)
		_, err = r.PickReady(t.Context(), &Visit{})
		isGone(t, err, gone.Routes.Gone)
		if f.waker.calls.Load() != calls {
			t.Error("the workload was woken")
		}
		// A new Deployment with the same name is accepted again.
		f.SetService(web("10.0.0.1:80"))
		if err := <-heldAt(t, r); err != nil {
			t.Errorf("it is back, and a request got %v", err)
		}
	})
}

// After the Service or the workload is gone, its pods serve until they fail. They stay listed when the route slices are deleted, and
// nobody waits for them.
func TestGoneWithPods(t *testing.T) {
	for _, why := range []string{"Deployment/web does not exist any more", ""} {
		t.Run(why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(0)
				gone := web("10.0.0.1:80", "10.0.0.2:80")
				gone.Routes.Retiring, gone.Routes.Gone = why != "", why
				f.SetService(gone)
				r := f.route(10000)
				f.RemoveService("shop", "web")
				advance(removedGrace)
				for range gone.Endpoints["http"] {
					e, err := r.Pick(t.Context(), &Visit{})
					if err != nil {
						t.Fatal(err)
					}
					e.Unreachable(errors.New("timeout"))
					e.Done()
				}
				isGone(t, <-heldAt(t, r), cmp.Or(why, removed))
				f.Close()
			})
		})
	}
}

// If the route slices are deleted without notice, held requests fail after a moment; otherwise they fail at once.
func TestServiceGone(t *testing.T) {
	for name, tc := range map[string]struct {
		retiring bool
		want     time.Duration
	}{"without notice": {false, removedGrace}, "given back": {true, 0}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(0)
				s := web()
				s.Routes.Retiring = tc.retiring
				f.SetService(s)
				r := f.route(10000)
				got := heldAt(t, r)
				began := time.Now()
				f.RemoveService("shop", "web")
				isGone(t, <-got, removed)
				if took := time.Since(began); took != tc.want {
					t.Errorf("it took %s, want %s", took, tc.want)
				}
				f.Close()
			})
		})
	}
}

// If the slices come back soon, held requests stay held.
func TestSlicesComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web())
		r := f.route(10000)
		got := heldAt(t, r)
		f.RemoveService("shop", "web")
		advance(removedGrace / 2)
		f.SetService(web())
		advance(removedGrace)
		if r.Held() != 1 {
			t.Fatal("the request is not held any more")
		}
		f.SetService(web("10.0.0.1:80"))
		if err := <-got; err != nil {
			t.Errorf("got %v", err)
		}
	})
}

// The pods of a restored app are used until the port closes, whatever happened to the slices.
func TestRestoredServesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		s := web()
		s.Routes.Retiring = true
		f.SetService(s)
		r := f.route(10000)
		got := heldAt(t, r)
		s.Endpoints = map[string][]string{"http": {"10.0.0.1:80"}}
		f.SetService(s)
		f.RemoveService("shop", "web")
		if err := <-got; err != nil {
			t.Errorf("what was held got %v", err)
		}
		advance(2 * removedGrace)
		if err := <-heldAt(t, r); err != nil {
			t.Errorf("a late request got %v", err)
		}
		f.Close()
	})
}

// A poll of the waiting page learns of it as well.
func TestGoneIsNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web())
		r := f.route(10000)
		got := make(chan error, 1)
		go func() {
			_, err := r.Pick(t.Context(), &Visit{Wait: Wait{News: func(s Start) bool { return s.Progress.Failing != "" }}})
			got <- err
		}()
		synctest.Wait()
		f.RemoveService("shop", "web")
		var starting *StartingError
		if err := <-got; !errors.As(err, &starting) {
			t.Errorf("got %v", err)
		}
		if p := r.Start().Progress; p.Failing != removed {
			t.Errorf("the start is %+v", p)
		}
		f.Close()
	})
}
