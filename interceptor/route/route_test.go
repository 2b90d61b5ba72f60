// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/budget"
)

// fakeListeners, fakeWaker and fakeMetrics stand in for the rest of the interceptor.
type fakeListeners struct{ opened, closed []*Route }

func (l *fakeListeners) Open(r *Route)  { l.opened = append(l.opened, r) }
func (l *fakeListeners) Close(r *Route) { l.closed = append(l.closed, r) }

type fakeWaker struct{ calls, wakes atomic.Int64 }

func (w *fakeWaker) Wake(_ *Route, t *Target, _ *Visit) {
	w.calls.Add(1)
	if t.BeginWake() {
		w.wakes.Add(1)
	}
}

type fakeMetrics struct{ woken, coldStarts, held, ignored atomic.Int64 }

func (m *fakeMetrics) Woken()                  { m.woken.Add(1) }
func (m *fakeMetrics) ColdStart(time.Duration) { m.coldStarts.Add(1) }
func (m *fakeMetrics) Held(time.Duration)      { m.held.Add(1) }
func (m *fakeMetrics) Answered(int)            {}
func (m *fakeMetrics) Ignored()                { m.ignored.Add(1) }

type fixture struct {
	*Table
	listeners fakeListeners
	waker     fakeWaker
	metrics   fakeMetrics
}

func newFixture(maxHeld int64) *fixture {
	f := &fixture{}
	f.Table = NewTable(TableOptions{
		Listeners: &f.listeners, Waker: &f.waker, MaxHeld: maxHeld, Log: logr.Discard(),
		RouteMetrics:  func(string, string) Metrics { return &f.metrics },
		TargetMetrics: func(Key) TargetMetrics { return &f.metrics },
	})
	return f
}

// route returns the route with this port.
func (f *fixture) route(listen int32) *Route {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.routes[f.ports[listen]]
}

func web(addrs ...string) Service {
	return Service{
		Namespace: "shop", Name: "web", Created: time.Unix(1000, 0), Pods: len(addrs),
		Endpoints: map[string][]string{"http": addrs},
		Routes: api.Routes{
			Service: "web", Direct: "web-direct", Workload: api.Workload{Kind: "Deployment", Name: "web"},
			Ports:    []api.Port{{Name: "http", Port: 80, Listen: 10000, Protocol: api.ProtocolAuto}},
			Cooldown: api.Duration(time.Minute), HoldTimeout: api.Duration(time.Minute),
		},
	}
}

// The count is the number of requests that have begun and not ended, in whatever order they begin and end.
func TestCountIsWhatIsPending(t *testing.T) {
	f := newFixture(0)
	f.SetService(web("10.0.0.1:80"))
	target := f.Target(Key{Namespace: "shop", Workload: "Deployment/web"})
	var open []func()
	for range 10000 {
		if len(open) == 0 || rand.IntN(2) == 0 {
			open = append(open, target.Begin())
		} else {
			i := rand.IntN(len(open))
			open[i]()
			open = append(open[:i], open[i+1:]...)
		}
		if got := target.Pending(); got != int64(len(open)) {
			t.Fatalf("pending %d, want %d", got, len(open))
		}
	}
}

func TestReleaseTwicePanics(t *testing.T) {
	f := newFixture(0)
	f.SetService(web())
	release := f.route(10000).Target().Begin()
	release()
	defer func() {
		if recover() == nil {
			t.Error("the second release did not panic")
		}
		if got := f.route(10000).Target().Pending(); got != 0 {
			t.Errorf("pending %d", got)
		}
	}()
	release()
}

// If a workload is removed and comes back, a request is released from the count to which it was added.
func TestCountSurvivesRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web("10.0.0.1:80"))
		release := f.route(10000).Target().Begin()
		f.RemoveService("shop", "web")
		advance(time.Minute)
		if len(f.listeners.closed) != 1 || f.route(10000) != nil {
			t.Fatal("the route is still there")
		}
		f.SetService(web("10.0.0.1:80"))
		target := f.route(10000).Target()
		if got := target.Pending(); got != 1 {
			t.Errorf("pending %d after it came back, want 1", got)
		}
		release()
		if got := target.Pending(); got != 0 {
			t.Errorf("pending %d, want 0", got)
		}
		f.RemoveService("shop", "web")
		advance(time.Minute)
		if n := len(f.Targets()); n != 0 {
			t.Errorf("%d targets are left", n)
		}
	})
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web())
		target := f.route(10000).Target()
		advance(time.Hour)
		if got := target.Idle(); got != never {
			t.Errorf("idle %s before any request", got)
		}
		release := target.Begin()
		advance(time.Hour)
		if got := target.Idle(); got != 0 {
			t.Errorf("idle %s while pending", got)
		}
		release()
		advance(time.Minute)
		if got := target.Idle(); got != time.Minute {
			t.Errorf("idle %s, want 1m", got)
		}
	})
}

func TestHold(t *testing.T) {
	pick := func(f *fixture, ctx context.Context) (string, error) {
		e, err := f.route(10000).Pick(ctx, &Visit{})
		if err != nil {
			return "", err
		}
		defer e.Done()
		return e.Addr, nil
	}
	t.Run("until a pod is ready", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(0)
			f.SetService(web())
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					if addr, err := pick(f, t.Context()); err != nil || addr != "10.0.0.1:80" {
						t.Errorf("got %q, %v", addr, err)
					}
				})
			}
			synctest.Wait()
			if got := f.route(10000).Held(); got != 100 {
				t.Errorf("held %d", got)
			}
			advance(30 * time.Second)
			f.SetService(web("10.0.0.1:80"))
			all.Wait()
			target := f.route(10000).Target()
			if f.waker.wakes.Load() != 1 || f.metrics.woken.Load() != 1 || f.metrics.coldStarts.Load() != 1 ||
				f.metrics.held.Load() != 100 || target.Held() != 0 || f.route(10000).Held() != 0 {
				t.Errorf("wakes %d, held %d", f.waker.wakes.Load(), target.Held())
			}
		})
	})
	t.Run("no longer than the timeout", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(0)
			f.SetService(web())
			began := time.Now()
			_, err := pick(f, t.Context())
			var timeout *HoldTimeoutError
			if !errors.As(err, &timeout) || timeout.Service != "shop/web" || timeout.Target.Workload != "Deployment/web" {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took != time.Minute {
				t.Errorf("took %s", took)
			}
		})
	})
	t.Run("the timeout counts all waits of a request", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(0)
			f.SetService(web("10.0.0.1:80"))
			began := time.Now()
			visit := Visit{}
			var err error
			for err == nil {
				var e *Endpoint
				if e, err = f.route(10000).Pick(t.Context(), &visit); err == nil {
					e.Fail()
					e.Done()
				}
			}
			if took := time.Since(began); took < 59*time.Second || took > 62*time.Second {
				t.Errorf("gave up after %s with %v", took, err)
			}
		})
	})
	t.Run("the client goes away", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(1)
			f.SetService(web())
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := pick(f, ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			if got := f.route(10000).Held(); got != 0 {
				t.Errorf("held %d", got)
			}
		})
	})
	t.Run("no more than the limit", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(2)
			f.SetService(web())
			other := web()
			other.Name, other.Routes.Service, other.Routes.Ports = "other", "other", []api.Port{{Name: "http", Listen: 10001}}
			f.SetService(other)
			ctx, cancel := context.WithCancel(t.Context())
			var tooMany atomic.Int64
			var all sync.WaitGroup
			for range 5 {
				all.Go(func() {
					if _, err := pick(f, ctx); errors.Is(err, ErrTooManyHeld) {
						tooMany.Add(1)
					}
				})
			}
			synctest.Wait()
			if got := tooMany.Load(); got != 3 {
				t.Errorf("%d were turned away, want 3", got)
			}
			all.Go(func() {
				if _, err := f.route(10001).Pick(ctx, &Visit{}); errors.Is(err, ErrTooManyHeld) {
					t.Error("one route's requests fill another one's places")
				}
			})
			synctest.Wait()
			cancel()
			all.Wait()
		})
	})
	t.Run("no more than the bytes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &fixture{}
			f.Table = NewTable(TableOptions{
				Listeners: &f.listeners, Waker: &f.waker, Log: logr.Discard(), Budget: budget.NewPool(256 << 20),
				RouteMetrics:  func(string, string) Metrics { return &f.metrics },
				TargetMetrics: func(Key) TargetMetrics { return &f.metrics },
			})
			f.SetService(web())
			idle := f.route(10000).Memory.Used()
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			hold := func(bytes int64) error {
				_, err := f.route(10000).Pick(ctx, &Visit{Wait: Wait{Bytes: bytes}})
				return err
			}
			all.Go(func() { _ = hold(100 << 20) })
			synctest.Wait()
			if err := hold(29 << 20); !errors.Is(err, ErrTooManyHeld) {
				t.Errorf("more than there is room for: %v", err)
			}
			all.Go(func() {
				if err := hold(27 << 20); errors.Is(err, ErrTooManyHeld) {
					t.Error("what was turned away still takes its place")
				}
			})
			synctest.Wait()
			cancel()
			all.Wait()
			if got := f.route(10000).Memory.Used(); got != idle {
				t.Errorf("%d bytes are held by nobody", got-idle)
			}
		})
	})
	t.Run("without a wake when retiring", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(0)
			s := web()
			s.Routes.Retiring = true
			f.SetService(s)
			if _, err := pick(f, t.Context()); err == nil || f.waker.calls.Load() != 0 {
				t.Errorf("got %v, woken %d times", err, f.waker.calls.Load())
			}
		})
	})
}

func TestLeastPendingFirst(t *testing.T) {
	f := newFixture(0)
	f.SetService(web("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"))
	got := map[string]int{}
	for range 30 {
		got[f.route(10000).TryPick(&Visit{}).Addr]++
	}
	for addr, n := range got {
		if n != 10 {
			t.Errorf("%s has %d of 30", addr, n)
		}
	}
}

// A pod that refuses is avoided for longer and longer. One request at a time finds out whether the pod is back, and the others learn
// of it at once.
func TestSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web("10.0.0.1:80"))
		r := f.route(10000)
		up := time.Now().Add(10 * time.Second)
		var dials, done atomic.Int64
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				visit := Visit{}
				for {
					e, err := r.Pick(t.Context(), &visit)
					if err != nil {
						t.Error(err)
						return
					}
					dials.Add(1)
					ok := time.Now().After(up)
					if ok {
						e.Succeed()
					} else {
						e.Fail()
					}
					e.Done()
					if ok {
						done.Add(1)
						return
					}
				}
			})
		}
		all.Wait()
		if took := time.Since(up); took > suspectMax {
			t.Errorf("noticed %s late", took)
		}
		// The first 50 dials may all find the pod not suspect yet.
		if got := dials.Load() - done.Load(); got > 50+20 {
			t.Errorf("%d dials failed", got)
		}
	})
}

// If one request reaches a pod while another fails to, the pod is not left suspect, whichever comes first.
func TestSuspectAndReached(t *testing.T) {
	recovered := 0
	f := newFixture(0)
	f.SetService(web("10.0.0.1:80"))
	e := f.route(10000).snap.Load().endpoints[0]
	e.recovered = func() { recovered++ }
	e.Fail()
	e.failures.Store(0) // like a Succeed in the middle of Fail
	e.Succeed()
	if e.suspect.Load() != 0 || recovered != 1 {
		t.Errorf("suspect until %d, told %d times", e.suspect.Load(), recovered)
	}
	if e.Succeed(); recovered != 1 {
		t.Error("told again")
	}
}

func TestTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		older, newer := web("10.0.0.1:80"), web("10.0.0.2:80")
		newer.Name, newer.Routes.Service, newer.Created = "newer", "newer", time.Unix(2000, 0)
		newer.Routes.Workload.Name = "newer"
		f.SetService(older)
		f.SetService(newer)
		if got := f.route(10000); got.Service != "web" || len(f.listeners.opened) != 1 {
			t.Fatalf("%s has the port", got.Name())
		}
		// The same Service again changes nothing, and wakes nobody.
		before := f.route(10000).snap.Load()
		f.SetService(older)
		if f.route(10000).snap.Load() != before {
			t.Error("the same service made a new snapshot")
		}
		// A removed route lingers with its endpoints even if its pods go, and comes back as the same route.
		first := f.route(10000)
		f.RemoveService("shop", "web")
		advance(9 * time.Second)
		if !first.HasEndpoint() || len(f.listeners.closed) != 0 {
			t.Error("the route did not linger")
		}
		f.SetService(older)
		advance(time.Minute)
		if f.route(10000) != first || len(f.listeners.closed) != 0 {
			t.Error("the route that came back was closed")
		}
		// When the route is gone for good, the other Service gets the port.
		f.RemoveService("shop", "web")
		advance(time.Minute)
		if got := f.route(10000); got == nil || got.Service != "newer" || len(f.listeners.closed) != 1 {
			t.Errorf("the port went to %v", got)
		}
		// A different port number is a different route. The old route lingers.
		newer.Routes.Ports = []api.Port{{Name: "http", Port: 80, Listen: 10007, Protocol: api.ProtocolHTTP}}
		f.SetService(newer)
		if f.route(10007) == nil || f.route(10000) == nil {
			t.Error("both ports have to be served for a while")
		}
		advance(time.Minute)
		if f.route(10000) != nil {
			t.Error("the old port is still served")
		}
	})
}

// The workload's cool-down is the longest of its Services, and it is retiring if any of them is.
func TestTargetOfTwoServices(t *testing.T) {
	f := newFixture(0)
	a, b := web("10.0.0.1:80"), web()
	b.Name, b.Routes.Service, b.Routes.Ports = "b", "b", []api.Port{{Name: "http", Listen: 10001}}
	b.Routes.Cooldown, b.Routes.Retiring = api.Duration(time.Hour), true
	f.SetService(a)
	f.SetService(b)
	target := f.route(10001).Target()
	if target != f.route(10000).Target() || len(f.Targets()) != 1 {
		t.Fatal("two targets for one workload")
	}
	if target.Cooldown() != time.Hour || !target.Retiring() || !target.Ready() || !target.HasPods() {
		t.Errorf("cooldown %s, retiring %v, ready %v", target.Cooldown(), target.Retiring(), target.Ready())
	}
}

func TestPublished(t *testing.T) {
	f := newFixture(0)
	s := web()
	s.Published = true
	f.SetService(s)
	if !f.Published() {
		t.Error("not published")
	}
	f.SetService(web())
	if f.Published() {
		t.Error("published")
	}
}

// A request that begins to wait while the wake loop ends is not forgotten.
func TestLoopHandover(t *testing.T) {
	f := newFixture(0)
	f.SetService(web())
	target := f.route(10000).Target()
	if !target.StartLoop() || target.StartLoop() {
		t.Fatal("one loop has to run")
	}
	target.awaited.Add(1)
	if target.StopLoop() {
		t.Error("the loop ended although a request waits")
	}
	target.awaited.Add(-1)
	if !target.StopLoop() || !target.StartLoop() {
		t.Error("the loop did not end")
	}
}

// A request allocates nothing if a pod is ready.
func TestWarmPathAllocations(t *testing.T) {
	for name, s := range map[string]Service{
		"plain": web(pods(2)...), "affinity": sticky(pods(2)...), "cookie": withCookie("sid", pods(2)...),
	} {
		t.Run(name, func(t *testing.T) { assertNoAllocations(t, s) })
	}
}

func assertNoAllocations(t *testing.T, s Service) {
	t.Helper()
	f := newFixture(0)
	f.SetService(s)
	r, ctx := f.route(10000), t.Context()
	visit := Visit{Client: clients(1)[0], Session: 1}
	if got := testing.AllocsPerRun(1000, func() {
		release := r.Target().Begin()
		defer release()
		e, err := r.Pick(ctx, &visit)
		if err != nil {
			t.Fatal(err)
		}
		e.Done()
	}); got > 0 {
		t.Errorf("%v allocations", got)
	}
}

func BenchmarkWarmPath(b *testing.B) {
	type shape struct {
		pods     int
		affinity bool
	}
	for _, tc := range []shape{{1, false}, {3, false}, {10, false}, {3, true}, {10, true}} {
		b.Run(fmt.Sprintf("pods=%d,affinity=%t", tc.pods, tc.affinity), func(b *testing.B) {
			f := newFixture(0)
			s := web(pods(tc.pods)...)
			s.Routes.ClientAffinity = tc.affinity
			f.SetService(s)
			r := f.route(10000)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				visit := Visit{Client: clients(1)[0]}
				for pb.Next() {
					release := r.Target().Begin()
					e, err := r.Pick(b.Context(), &visit)
					if err != nil {
						b.Error(err)
						return
					}
					e.Done()
					release()
				}
			})
		})
	}
}

// advance advances the bubble's clock by d.
func advance(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a bubble this takes no time
	synctest.Wait()
}
