// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
)

// The table, the route and the target show what the watch has set.
func TestWhatAServiceSays(t *testing.T) {
	f := newFixture(0)
	if f.IsSynced() {
		t.Error("synced before it is")
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.WaitSynced(done); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting ended with %v", err)
	}
	s := web("10.0.0.1:80")
	s.SleepID, s.Routes.WaitingPage, s.Routes.NeverSleeps = "s1", api.PageNever, true
	s.Routes.Reach = &api.Reach{Direct: true}
	s.Routes.Ports[0].Protocol, s.Routes.Ports[0].ProxyProtocol = api.ProtocolHTTP, true
	f.SetService(s)
	f.Synced()
	if err := f.WaitSynced(t.Context()); err != nil || !f.IsSynced() {
		t.Errorf("synced %v, %v", f.IsSynced(), err)
	}
	r := f.route(10000)
	if r.Protocol() != api.ProtocolHTTP || !r.ProxyProtocol() || r.WaitingPage() != api.PageNever || !r.Reach().Direct ||
		r.SleepID() != "s1" ||
		r.Retiring() || !r.HasEndpoint() || r.Sticky() != nil {
		t.Errorf("the route says something else: %+v", r.snap.Load().rules)
	}
	target := r.Target()
	if target.Sleeps() || target.Workload() != s.Routes.Workload || target.Emptied() != 0 || target.Known() < 0 || target.Up() < 0 {
		t.Errorf("the target says something else: %+v", target.Workload())
	}
	if got, ok := f.Service("shop", "web"); !ok || !reflect.DeepEqual(got, s) {
		t.Errorf("the table has %+v", got)
	}
	if _, ok := f.Service("shop", "other"); ok || len(f.Routes()) != 1 || len(f.Targets()) != 1 {
		t.Error("the table has other Services, routes or targets")
	}
	e := r.TryPick(&Visit{})
	if f.InUse() != 1 {
		t.Errorf("%d pods are in use", f.InUse())
	}
	e.Done()
	func() {
		defer func() {
			if recover() == nil || f.InUse() != 0 {
				t.Errorf("a use was ended twice, and then %d are in use", f.InUse())
			}
		}()
		e.Done()
	}()
	f.SetService(web())
	if target.Emptied() != 1 {
		t.Errorf("the pods have gone %d times", target.Emptied())
	}
	f.RemoveService("shop", "web")
	f.RemoveService("shop", "web")
}

// A request that is neither held nor counted is answered by a ready pod, or at once by the state of the workload.
func TestPickReady(t *testing.T) {
	for name, tc := range map[string]struct {
		ready  bool
		pods   int
		up     time.Duration
		fails  bool // whether the pod refuses
		paused bool
		want   error
		took   time.Duration
	}{
		"awake":              {ready: true, pods: 1},
		"asleep":             {want: &AsleepError{}},
		"starting":           {pods: 1, up: time.Second, want: &AsleepError{Starting: true}},
		"never ready":        {pods: 1, up: 2 * time.Minute, want: &DownError{}},
		"refusing":           {ready: true, pods: 1, fails: true, want: &DownError{}, took: refusedGrace},
		"paused without any": {paused: true, want: &StartFailedError{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(0)
				s := web()
				if tc.ready {
					s = web("10.0.0.1:80")
				}
				s.Pods = tc.pods
				if tc.paused {
					s.Progress.Paused = &api.Pause{Why: "its owner says so", Asleep: true}
				}
				f.SetService(s)
				advance(tc.up)
				r := f.route(10000)
				if tc.fails {
					e := r.TryPick(&Visit{})
					e.Done()
					for range 10 {
						e.Fail()
					}
					if e.Failures() != 10 {
						t.Errorf("%d failures", e.Failures())
					}
					time.AfterFunc(refusedGrace/2, e.Fail)
				}
				began := time.Now()
				e, err := r.PickReady(t.Context(), &Visit{})
				if reflect.TypeOf(err) != reflect.TypeOf(tc.want) || (e != nil) != (tc.want == nil) {
					t.Fatalf("got %v, %v; want %v", e, err, tc.want)
				}
				if asleep, ok := errors.AsType[*AsleepError](err); ok && asleep.Starting != (tc.pods > 0) {
					t.Errorf("starting %v: %v", asleep.Starting, err)
				}
				if err != nil && err.Error() == "" {
					t.Error("the error says nothing")
				}
				if took := time.Since(began); took < tc.took || took > tc.took+time.Second {
					t.Errorf("it took %s", took)
				}
				if e != nil {
					e.Done()
				}
				synctest.Wait()
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web("10.0.0.1:80"))
		r := f.route(10000)
		e := r.TryPick(&Visit{})
		e.Done()
		e.Fail()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(suspectMin/2, cancel)
		if _, err := r.PickReady(ctx, &Visit{}); !errors.Is(err, context.Canceled) {
			t.Errorf("a client that has gone got %v", err)
		}
	})
}

// The hub learns of the first change after each look, whatever the change is.
func TestNotes(t *testing.T) {
	hub := counts.NewHub()
	f := &fixture{}
	f.Table = NewTable(TableOptions{
		Listeners: &f.listeners, Waker: &f.waker, Hub: hub,
		RouteMetrics: func(string, string) Metrics { return &f.metrics }, TargetMetrics: func(Key) TargetMetrics { return &f.metrics },
	})
	all := hub.FollowAll()
	f.SetService(web("10.0.0.1:80"))
	target := f.route(10000).Target()
	target.Look()
	all.Take()
	for name, change := range map[string]func(){
		"a touch":               target.Touch,
		"a request":             func() { target.Begin()() },
		"a silent connection":   func() { target.BeginQuiet()() },
		"a client that listens": func() { target.Begin(); target.Listen() },
	} {
		change()
		change()
		if got := all.Take(); len(got) != 1 || got[0] != target.Key {
			t.Errorf("%s: the hub has heard %v", name, got)
		}
		if pending, idle := target.Look(); pending != 0 || idle < 0 {
			t.Errorf("%s: %d pending, idle for %s", name, pending, idle)
		}
		if got := all.Take(); got != nil {
			t.Errorf("%s: looking is a change: %v", name, got)
		}
	}
	f.RemoveService("shop", "web")
	f.expire(keyOf(web(), web().Routes.Ports[0]), f.route(10000))
	if got := all.Take(); len(got) != 1 || f.Target(target.Key) != nil {
		t.Errorf("the end of a target: the hub has heard %v", got)
	}
}

func TestErrorsSayWhatHappened(t *testing.T) {
	key := Key{Namespace: "shop", Workload: "Deployment/web"}
	for want, err := range map[string]error{
		"the only ready pod of Deployment/web has just started, and it has not answered the requests before this one (for service shop/web) " +
			"within 1m0s": &HoldTimeoutError{
			Service: "shop/web", Target: Key{Workload: "Deployment/web"}, Waited: time.Minute, Busy: &Busy{Ready: 1},
		},
		"the pod of Deployment/web that this client stays at has the 5 pending requests that max-pending-per-pod allows, and it has not " +
			"answered enough of those before this one (for service shop/web) within 1m0s": &HoldTimeoutError{
			Service: "shop/web", Target: Key{Workload: "Deployment/web"}, Waited: time.Minute, Busy: &Busy{Ready: 2, Own: true, PerPod: 5},
		},
		"no pod of Deployment/web (for service shop/web) became ready within 1m0s": &HoldTimeoutError{
			Service: "shop/web", Target: key, Waited: time.Minute,
		},
		"Deployment/web is asleep":   &AsleepError{Target: key},
		"Deployment/web is starting": &AsleepError{Target: key, Starting: true},
		"no pod of Deployment/web (for service shop/web) is ready and answers": &DownError{Service: "shop/web", Target: key},
		"Deployment/web (for service shop/web) is starting":                    &StartingError{Service: "shop/web", Target: key},
		"Deployment/web (for service shop/web) cannot start: no image": &StartFailedError{
			Service: "shop/web", Target: key, Progress: api.Progress{Failing: "no image"},
		},
		"service shop/web: it is gone": &StartFailedError{
			Service: "shop/web", Target: key, Progress: api.Progress{Failing: "it is gone"}, Gone: true,
		},
	} {
		if err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
	}
}
