// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// world is a line in which anything may happen.
type world struct {
	*line
	rand    *rand.Rand
	affine  bool
	limit   int32
	pods    []string
	visits  []Visit
	history []string
	// had is how many requests each pod had after the last step, and waited are the indices of the requests that waited then.
	had    map[string]int64
	waited []int
	left   map[int]bool
}

func (w *world) set() {
	s := web(w.pods...)
	s.Routes.ClientAffinity, s.Routes.MaxPendingPerPod = w.affine, w.limit
	w.SetService(s)
}

// step lets something happen, and says what.
func (w *world) step() string {
	served := w.served()
	switch n := w.rand.IntN(20); {
	case n < 6:
		count := 1 + w.rand.IntN(5)
		for range count {
			w.come(1, w.visits[w.rand.IntN(len(w.visits))])
		}
		return fmt.Sprint(count, " come")
	case n < 7:
		w.come(40, w.visits...)
		return "a crowd comes"
	case n < 12 && len(served) > 0:
		i := served[w.rand.IntN(len(served))]
		w.done(i)
		w.left[i] = true
		return fmt.Sprint(i, " ends")
	case n < 14 && len(w.waited) > 0:
		i := w.waited[w.rand.IntN(len(w.waited))]
		w.asked[i].leave()
		w.left[i] = true
		return fmt.Sprint(i, " leaves")
	case n < 15:
		w.limit = int32(w.rand.IntN(4))
		w.set()
		return fmt.Sprint("the limit is ", w.limit)
	case n < 17:
		w.pods = w.pods[:0]
		for i := range 3 {
			if w.rand.IntN(2) == 0 {
				w.pods = append(w.pods, fmt.Sprintf("10.0.0.%d:80", i+1))
			}
		}
		w.set()
		return fmt.Sprint("the pods are ", w.pods)
	case n < 18 && len(w.pods) > 0:
		e := w.route(10000).snap.Load().endpoints[w.rand.IntN(len(w.pods))]
		if w.rand.IntN(2) == 0 {
			e.Fail()
			return e.Addr + " fails"
		}
		e.Succeed()
		return e.Addr + " succeeds"
	default:
		d := time.Duration(w.rand.IntN(1500)) * time.Millisecond
		advance(d)
		return fmt.Sprint(d, " pass")
	}
}

// waits are the indices of the requests that wait.
func (w *world) waits() (out []int) {
	for i, one := range w.asked {
		if one.pod.Load() == nil && one.failure() == nil && !w.left[i] {
			out = append(out, i)
		}
	}
	return out
}

// check checks what must hold whenever nothing moves.
func (w *world) check() {
	synctest.Wait()
	has, waits := map[string]int64{}, w.waits()
	for _, i := range w.served() {
		has[w.asked[i].pod.Load().Addr]++
	}
	for addr, n := range has {
		if w.limit > 0 && n > max(int64(w.limit), w.had[addr]) {
			w.fail("%s has %d requests", addr, n)
		}
	}
	// Whoever has just got a pod came before everybody who still waits and could have had it.
	for _, i := range w.waited {
		if w.asked[i].pod.Load() == nil {
			continue
		}
		for _, other := range waits {
			if other < i && (!w.affine || w.asked[other].visit.Client == w.asked[i].visit.Client) {
				w.fail("%d has overtaken %d", i, other)
			}
		}
	}
	r := w.route(10000)
	s, now, g := r.snap.Load(), r.clock.now(), r.Target().gate
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range s.endpoints {
		room := (w.limit == 0 || has[e.Addr] < int64(w.limit)) && (e.pod.window == 0 || has[e.Addr] < e.pod.window)
		for _, i := range waits {
			own := s.own(now, &w.asked[i].visit)
			if room && e.suspect.Load() == 0 && (own == nil || own == e) {
				w.fail("%d waits although %s has a place", i, e.Addr)
			}
		}
		if e.pod.pending() != has[e.Addr] {
			w.fail("%s counts %d requests, and has %d", e.Addr, e.pod.pending(), has[e.Addr])
		}
	}
	if g.waiting != int64(len(waits)) || r.Held() != int64(len(waits)) || r.Target().Held() != int64(len(waits)) {
		w.fail("%d wait, the gate has %d, and %d are held", len(waits), g.waiting, r.Held())
	}
	w.had, w.waited = has, waits
}

func (w *world) fail(format string, args ...any) {
	w.Helper()
	w.Fatalf(format+"\nafter %q", append(args, w.history)...)
}

// Whatever requests, pods and limits do: no pod gets more than the limit, nobody overtakes, nobody waits for a free place, and nothing
// is left at the end.
func TestGateModel(t *testing.T) {
	first := rand.Uint64()
	for round := range uint64(200) {
		seed := first + round
		synctest.Test(t, func(t *testing.T) {
			l := &line{T: t, fixture: newFixture(0)}
			w := &world{line: l, rand: rand.New(rand.NewPCG(seed, 0)), left: map[int]bool{}, affine: seed%2 == 0}
			for _, c := range clients(8) {
				w.visits = append(w.visits, Visit{Client: c})
			}
			w.history = append(w.history, fmt.Sprint("seed ", seed))
			w.set()
			for range 100 {
				w.history = append(w.history, w.step())
				w.check()
			}
			l.ends()
		})
	}
}

// Requests that come, end and leave at the same time, while pods come and go, never exceed the limit and leave nothing behind.
func TestGateUnderLoad(t *testing.T) {
	const limit = 3
	f := newFixture(0)
	addrs := []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}
	f.SetService(limited(limit, addrs...))
	r := f.route(10000)
	at := map[string]*atomic.Int64{}
	for _, addr := range addrs {
		at[addr] = new(atomic.Int64)
	}
	var served atomic.Int64
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			for range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				if rand.IntN(4) == 0 {
					time.AfterFunc(time.Duration(rand.IntN(300))*time.Microsecond, cancel)
				}
				pod, err := r.Pick(ctx, &Visit{})
				cancel()
				if err != nil {
					continue
				}
				if n := at[pod.Addr].Add(1); n > limit {
					t.Errorf("%s has %d requests", pod.Addr, n)
				}
				served.Add(1)
				if rand.IntN(50) == 0 {
					pod.Fail()
				}
				at[pod.Addr].Add(-1)
				if rand.IntN(10) > 0 {
					pod.Succeed()
				}
				pod.Done()
			}
		})
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				some := slices.DeleteFunc(slices.Clone(addrs), func(string) bool { return rand.IntN(3) == 0 })
				f.SetService(limited(limit, some...))
			}
		}
	}()
	all.Wait()
	close(stop)
	<-stopped
	g := r.Target().gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if served.Load() == 0 || g.waiting != 0 || r.Held() != 0 || r.Target().Held() != 0 || f.InUse() != 0 {
		t.Errorf("%d were served; %d wait, %d and %d are held, %d pods are in use",
			served.Load(), g.waiting, r.Held(), r.Target().Held(), f.InUse())
	}
	for ip, p := range g.pods {
		if p.pending() != 0 {
			t.Errorf("%s has %d requests", ip, p.pending())
		}
	}
}
