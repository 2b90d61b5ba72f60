// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// limited is web with a limit.
func limited(limit int32, addrs ...string) Service {
	s := web(addrs...)
	s.Routes.MaxPendingPerPod = limit
	return s
}

// line are the requests of a test at one route, in the order in which they came. It is used in a bubble only.
type line struct {
	*testing.T
	*fixture
	asked []*ask
}

// ask is a request.
type ask struct {
	visit Visit
	pod   atomic.Pointer[Endpoint]
	err   atomic.Pointer[error]
	leave context.CancelFunc
}

// failure is why the request has no pod; nil while it waits or if it has had one.
func (a *ask) failure() error {
	if err := a.err.Load(); err != nil {
		return *err
	}
	return nil
}

// come lets requests arrive, one after the other.
func (l *line) come(n int, visits ...Visit) {
	l.Helper()
	for i := range n {
		ctx, cancel := context.WithCancel(l.Context())
		one := &ask{leave: cancel}
		if len(visits) > 0 {
			one.visit = visits[i%len(visits)]
		}
		l.asked = append(l.asked, one)
		go func() {
			pod, err := l.route(10000).Pick(ctx, &one.visit)
			if err != nil {
				one.err.Store(&err)
				return
			}
			one.pod.Store(pod)
		}()
		synctest.Wait()
	}
}

// served are the indices of the requests that have a pod.
func (l *line) served() (out []int) {
	for i, one := range l.asked {
		if one.pod.Load() != nil {
			out = append(out, i)
		}
	}
	return out
}

func (l *line) want(what string, served ...int) {
	l.Helper()
	if got := l.served(); !slices.Equal(got, served) {
		l.Errorf("%s: %v are served, want %v", what, got, served)
	}
}

// done ends requests.
func (l *line) done(which ...int) {
	l.Helper()
	for _, i := range which {
		pod := l.asked[i].pod.Swap(nil)
		if pod == nil {
			l.Fatalf("request %d has no pod", i)
		}
		pod.Done()
		synctest.Wait()
	}
}

// ends ends everything, and checks that nothing is left behind.
func (l *line) ends() {
	l.Helper()
	for _, one := range l.asked {
		one.leave()
	}
	synctest.Wait()
	for _, i := range l.served() {
		l.done(i)
	}
	target, g := l.route(10000).Target(), l.route(10000).Target().gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := l.InUse(); n != 0 || l.route(10000).Held() != 0 || target.Held() != 0 || g.waiting != 0 || l.route(10000).any.first() != nil {
		l.Errorf("%d pods in use, %d and %d held, %d queued", n, l.route(10000).Held(), target.Held(), g.waiting)
	}
	for ip, p := range g.pods {
		if p.pending() != 0 {
			l.Errorf("%s has %d requests", ip, p.pending())
		}
	}
}

func inLine(t *testing.T, s Service, test func(*line)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &line{T: t, fixture: newFixture(0)}
		l.SetService(s)
		test(l)
		l.ends()
	})
}

// A pod has no more requests than the limit at a time. The others wait in their order, and a pod that comes takes the first of them.
func TestLimit(t *testing.T) {
	inLine(t, limited(2), func(l *line) {
		l.come(6)
		l.SetService(limited(2, "10.0.0.1:80"))
		synctest.Wait()
		l.want("with a pod", 0, 1)
		l.done(1)
		l.want("after an answer", 0, 2)
		if l.route(10000).TryPick(&Visit{}) != nil {
			t.Error("a new request overtakes those that wait")
		}
		l.SetService(limited(2, "10.0.0.1:80", "10.0.0.2:80"))
		synctest.Wait()
		l.want("with two pods", 0, 2, 3, 4)
		l.SetService(limited(2, "10.0.0.2:80"))
		synctest.Wait()
		l.want("when the first pod has left", 0, 2, 3, 4)
		l.done(0, 2)
		l.want("when it is empty", 3, 4)
		l.done(3)
		l.want("when the second has a place", 4, 5)
	})
}

// What two routes give one pod counts together, and the smaller limit holds.
func TestLimitOfAWorkload(t *testing.T) {
	inLine(t, limited(5, "10.0.0.1:80"), func(l *line) {
		other := limited(2, "10.0.0.1:81")
		other.Name, other.Routes.Service = "admin", "admin"
		other.Routes.Ports = []api.Port{{Name: "http", Port: 81, Listen: 10001, Protocol: api.ProtocolAuto}}
		l.SetService(other)
		admin := l.route(10001).TryPick(&Visit{})
		l.come(3)
		l.want("beside a request for the other port", 0)
		admin.Done()
		synctest.Wait()
		l.want("without", 0, 1)
		if l.route(10001).TryPick(&Visit{}) != nil {
			t.Error("the other port has a place too")
		}
		l.RemoveService("shop", "admin")
		synctest.Wait()
		l.want("when the smaller limit is gone", 0, 1, 2)
	})
}

// A limit may come, change and go while requests wait.
func TestLimitChanges(t *testing.T) {
	inLine(t, web("10.0.0.1:80"), func(l *line) {
		l.come(3)
		l.want("without a limit", 0, 1, 2)
		l.SetService(limited(1, "10.0.0.1:80"))
		l.come(4)
		l.want("with a limit", 0, 1, 2)
		l.done(0, 1)
		l.want("before the pod has a place", 2)
		l.done(2)
		l.want("when it has", 3)
		l.SetService(limited(3, "10.0.0.1:80"))
		synctest.Wait()
		l.want("with a higher limit", 3, 4, 5)
		l.SetService(web("10.0.0.1:80"))
		synctest.Wait()
		l.want("without a limit again", 3, 4, 5, 6)
		if l.route(10000).Target().gate.shut.Load() {
			t.Error("the gate is still shut")
		}
	})
}

// A client that goes leaves its position to the next, and so does one to which a place was handed just then.
func TestLeavingTheQueue(t *testing.T) {
	inLine(t, limited(1, "10.0.0.1:80"), func(l *line) {
		l.come(4)
		l.asked[1].leave()
		synctest.Wait()
		l.done(0)
		l.want("when the second has left", 2)
		l.asked[3].leave()
		l.asked[2].pod.Swap(nil).Done() // before the third notices: it either has the place or hands it on
		synctest.Wait()
		l.come(1)
		if last := l.asked[4].pod.Load(); last == nil && l.asked[3].pod.Load() == nil {
			t.Error("the place is lost")
		}
	})
}

// A request whose client stays at a full pod waits for that one, and later ones pass it.
func TestStickyWaits(t *testing.T) {
	addrs := []string{"10.0.0.1:80", "10.0.0.2:80"}
	s := sticky(addrs...)
	s.Routes.MaxPendingPerPod = 1
	inLine(t, s, func(l *line) {
		r := l.route(10000)
		at := map[string][]Visit{}
		for _, c := range clients(100) {
			v := Visit{Client: c}
			addr := r.snap.Load().own(r.clock.now(), &v).Addr
			at[addr] = append(at[addr], v)
		}
		first, second := at[addrs[0]], at[addrs[1]]
		l.come(1, first...)
		l.come(2, first[1:]...)
		l.come(2, second...)
		l.want("of two pods", 0, 3)
		l.done(3)
		l.want("when the other pod is free", 0, 4)
		l.done(4)
		l.want("when nobody waits for the other", 0)
		l.done(0)
		l.want("in turn", 1)
		without := sticky(addrs[1])
		without.Routes.MaxPendingPerPod = 1
		l.SetService(without)
		synctest.Wait()
		l.want("when the client's pod has left", 1, 2)
	})
}

// While a request waits for a place, it is held, but neither wakes nor counts as one that waits for a pod. It is one once the pods go.
func TestWaitingForAPlace(t *testing.T) {
	inLine(t, limited(1, "10.0.0.1:80"), func(l *line) {
		l.come(3)
		target := l.route(10000).Target()
		if l.waker.calls.Load() != 0 || target.Awaits() || target.Held() != 2 || l.route(10000).Held() != 2 {
			t.Errorf("%d wakes, %d held", l.waker.calls.Load(), target.Held())
		}
		l.SetService(limited(1))
		synctest.Wait()
		if l.waker.wakes.Load() != 1 || !target.Awaits() || target.Held() != 2 {
			t.Errorf("without a pod: %d wakes, %d held", l.waker.wakes.Load(), target.Held())
		}
		l.SetService(limited(1, "10.0.0.2:80"))
		synctest.Wait()
		if target.Awaits() || target.Held() != 1 {
			t.Errorf("with a pod: %d held", target.Held())
		}
		l.done(0)
		l.want("of the pod that has left", 1)
		l.done(1)
		l.want("of the new pod", 2)
		if got := l.asked[2].visit.Held; got <= 0 {
			t.Errorf("held for %s", got)
		}
	})
}

// The hold timeout runs while a request waits for a place, and the error says so.
func TestHoldTimeoutForAPlace(t *testing.T) {
	const tail = " (for service shop/web) within 1m0s"
	for name, tc := range map[string]struct {
		service Service
		want    string
	}{
		"one pod": {
			limited(1, "10.0.0.1:80"), "the only ready pod of Deployment/web has the 1 pending requests that max-pending-per-pod allows, " +
				"and it has not answered enough of those before this one" + tail,
		},
		"two pods": {
			limited(3, "10.0.0.1:80", "10.0.0.2:80"), "all 2 ready pods of Deployment/web have the 3 pending requests each that " +
				"max-pending-per-pod allows, and they have not answered enough of those before this one" + tail,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inLine(t, tc.service, func(l *line) {
				l.come(7)
				advance(time.Minute)
				var timeout *HoldTimeoutError
				if err := l.asked[6].failure(); !errors.As(err, &timeout) || err.Error() != tc.want {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

// Patience is for a start: a browser that waits for a place gets no waiting page. A poll of the page takes no place.
func TestPatienceAndPolls(t *testing.T) {
	inLine(t, limited(1, "10.0.0.1:80"), func(l *line) {
		l.come(2, Visit{Wait: Wait{Limit: time.Second}})
		advance(2 * time.Second)
		if err := l.asked[1].failure(); err != nil {
			t.Errorf("got %v", err)
		}
		for range 3 {
			pod, err := l.route(10000).Pick(l.Context(), &Visit{Wait: Wait{News: func(Start) bool { return false }}})
			if err != nil || pod.pending.Load() != 1 {
				t.Errorf("a poll got %v, with %d requests at the pod", err, pod.pending.Load())
			}
		}
		l.done(0)
		l.want("after the polls", 1)
	})
}

// A request of a probe waits for a place like any other, but for no pod.
func TestPickReadyForAPlace(t *testing.T) {
	inLine(t, limited(1, "10.0.0.1:80"), func(l *line) {
		l.come(1)
		got := make(chan error, 1)
		go func() {
			pod, err := l.route(10000).PickReady(l.Context(), &Visit{})
			if err == nil {
				pod.Done()
			}
			got <- err
		}()
		synctest.Wait()
		l.come(1)
		advance(2 * refusedGrace)
		l.done(0)
		if err := <-got; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		l.want("after the probe", 1)

		go func() {
			_, err := l.route(10000).PickReady(l.Context(), &Visit{})
			got <- err
		}()
		synctest.Wait()
		l.SetService(limited(1))
		var asleep *AsleepError
		if err := <-got; !errors.As(err, &asleep) {
			t.Errorf("without a pod: %v", err)
		}
	})
}

// A request that fails at one pod and comes back is before those that arrived later.
func TestComingBack(t *testing.T) {
	inLine(t, limited(1, "10.0.0.1:80"), func(l *line) {
		l.come(1)
		one := l.asked[0]
		l.come(1)
		second := l.asked[1]
		l.done(0)
		pod := second.pod.Swap(nil)
		l.come(1)
		pod.Fail()
		pod.Done()
		go func() {
			pod, err := l.route(10000).Pick(l.Context(), &second.visit)
			if err == nil {
				second.pod.Store(pod)
			}
		}()
		synctest.Wait()
		l.want("of a suspect pod")
		advance(suspectMin)
		l.want("when it is tried again", 1)
		second.pod.Load().Succeed()
		l.done(1)
		l.want("in turn", 2)
		if err := one.failure(); err != nil {
			t.Error(err)
		}
	})
}

// A workload whose Service gets another target keeps its queue, at the new target.
func TestQueueMovesToAnotherTarget(t *testing.T) {
	inLine(t, limited(1, "10.0.0.1:80"), func(l *line) {
		l.come(4)
		old := l.route(10000).Target()
		moved := limited(1, "10.0.0.1:80")
		moved.Routes.Workload.Name = "web2"
		l.SetService(moved)
		synctest.Wait()
		l.want("at the new target", 0, 1) // the first is the old target's
		if old.gate.waiting != 0 || old.Held() != 0 || l.route(10000).Target().Held() != 2 {
			t.Errorf("%d wait at the old target, %d are held", old.gate.waiting, old.Held())
		}
		l.done(0)
		l.want("when the old one is done", 1)
		l.done(1)
		l.want("in turn", 2)
	})
}

// A pod that starts gets 16 of the held requests, one more with each answer, and twice as many after a second without one. An answer
// does not count if the pod is so slow that it would need more than a second for what it has.
func TestSlowStart(t *testing.T) {
	all := func(n int) (out []int) {
		for i := range n {
			out = append(out, i)
		}
		return out
	}
	for _, n := range []int{1, startWindow} {
		inLine(t, web(), func(l *line) {
			l.come(n)
			l.SetService(web("10.0.0.1:80"))
			synctest.Wait()
			l.want("few requests", all(n)...)
			if l.route(10000).Target().gate.shut.Load() {
				t.Error("the gate is shut")
			}
		})
	}
	inLine(t, web(), func(l *line) {
		l.come(100)
		l.SetService(web("10.0.0.1:80"))
		synctest.Wait()
		l.want("at first", all(16)...)
		advance(10 * time.Millisecond)
		l.done(0, 1)
		l.want("after two answers", all(20)[2:]...)
		advance(quietWindow / 2)
		l.done(2)
		advance(quietWindow * 3 / 4)
		l.want("less than a second later", all(21)[3:]...)
		advance(quietWindow / 4)
		l.want("after a second", all(18*2 + 3)[3:]...)
		l.come(1)
		advance(quietWindow)
		l.want("after two", all(18*4 + 3)[3:]...)
		advance(quietWindow)
		l.want("after three", all(101)[3:]...)
		l.come(500)
		l.want("when nobody waits any more", all(601)[3:]...)
		// The window is gone for good, even for another pod.
		l.SetService(web("10.0.0.1:80", "10.0.0.2:80"))
		l.come(100)
		l.want("with another pod", all(701)[3:]...)
		// It comes back with the next start.
		l.SetService(web())
		l.come(100)
		l.SetService(web("10.0.0.3:80"))
		synctest.Wait()
		l.want("after another start", all(717)[3:]...)
	})
}

// A pod that is ready before it listens counts as started when it answers: until then, one request at a time finds that out.
func TestSlowStartOfAPodThatRefuses(t *testing.T) {
	inLine(t, web(), func(l *line) {
		l.come(1)
		l.SetService(web("10.0.0.1:80"))
		synctest.Wait()
		pod := l.asked[0].pod.Load()
		pod.Unreachable(dialError(syscall.ECONNREFUSED))
		l.done(0)
		l.come(100)
		advance(suspectMin)
		l.want("the one that tries again", 1)
		pod.Unreachable(dialError(syscall.ECONNREFUSED))
		l.done(1)
		advance(suspectMin)
		l.want("too early")
		advance(suspectMin)
		l.want("and again", 2)
		pod.Succeed()
		synctest.Wait()
		if got := len(l.served()); got != 1+startWindow {
			t.Errorf("%d are served", got)
		}
	})
}

// A pod that handles one request after the other gets about as many as it handles in a second. One that handles all at a time soon gets
// them all, however long each takes.
func TestSlowStartFollowsThePace(t *testing.T) {
	most := func(size, threads int, each time.Duration) (most int64, took time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(0)
			f.SetService(web())
			free := make(chan struct{}, threads)
			var now int64
			var mu sync.Mutex // protects now and most
			var all sync.WaitGroup
			for range size {
				all.Go(func() {
					pod, err := f.route(10000).Pick(t.Context(), &Visit{})
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					now++
					most = max(most, now)
					mu.Unlock()
					free <- struct{}{}
					<-time.After(each)
					<-free
					mu.Lock()
					now--
					mu.Unlock()
					pod.Done()
				})
			}
			synctest.Wait()
			began := time.Now()
			f.SetService(web("10.0.0.1:80"))
			all.Wait()
			took = time.Since(began)
		})
		return most, took
	}
	if n, took := most(1000, 1, 20*time.Millisecond); n < 40 || n > 60 || took != 20*time.Second {
		t.Errorf("one at a time: up to %d at once, for %s", n, took)
	}
	for _, each := range []time.Duration{20 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second} {
		if n, took := most(1000, 1000, each); n < 400 || took > 8*each {
			t.Errorf("all at a time: up to %d at once, for %s", n, took)
		}
	}
}

// Each of several pods has a window and a limit of its own.
func TestSlowStartOfSeveral(t *testing.T) {
	inLine(t, limited(20), func(l *line) {
		l.come(200)
		l.SetService(limited(20, "10.0.0.1:80"))
		synctest.Wait()
		l.SetService(limited(20, "10.0.0.1:80", "10.0.0.2:80"))
		synctest.Wait()
		if got := len(l.served()); got != 32 {
			t.Errorf("%d are served", got)
		}
		advance(quietWindow)
		if got := len(l.served()); got != 40 {
			t.Errorf("%d are served after a second, want both limits", got)
		}
	})
}

// Nobody has to wait for a crowd that has left.
func TestSlowStartEndsWhenTheCrowdLeaves(t *testing.T) {
	inLine(t, web(), func(l *line) {
		l.come(50)
		l.SetService(web("10.0.0.1:80"))
		synctest.Wait()
		for _, one := range l.asked[16:] {
			one.leave()
		}
		synctest.Wait()
		l.come(50)
		if got := len(l.served()); got != 66 {
			t.Errorf("%d are served", got)
		}
	})
}

// A gate that is shut allocates nothing for a request that finds a place.
func TestShutGateAllocations(t *testing.T) {
	assertNoAllocations(t, limited(10, pods(2)...))
}

func BenchmarkShutGate(b *testing.B) {
	for _, waiting := range []int{0, 10000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			f := newFixture(20000)
			s := sticky(pods(2)...)
			s.Routes.MaxPendingPerPod = 10
			f.SetService(s)
			r := f.route(10000)
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			busy, free := Visit{Client: netip.MustParseAddr("10.2.0.1")}, Visit{Client: netip.MustParseAddr("10.2.0.1")}
			for r.snap.Load().own(r.clock.now(), &free) == r.snap.Load().own(r.clock.now(), &busy) {
				free.Client = free.Client.Next()
			}
			if waiting > 0 {
				for range 10 {
					r.TryPick(&busy)
				}
			}
			for range waiting {
				v := busy
				go func() { _, _ = r.Pick(ctx, &v) }()
			}
			for r.Held() < int64(waiting) {
				<-time.After(time.Millisecond)
			}
			b.ReportAllocs()
			for b.Loop() {
				r.TryPick(&free).Done()
			}
		})
	}
}
