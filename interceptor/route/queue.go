// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"container/list"
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// waiter is a request that waits for a place at a pod.
type waiter struct {
	route *Route
	visit *Visit
	// place receives the pod that the request may use, which has been counted as used; or nil if the request has to enter again.
	place chan *Endpoint
	// gate is where the request waits; nil if it does not. The request's own goroutine sets it, and a gate that moves it to another.
	gate atomic.Pointer[gate]

	// Protected by gate.mu:
	in *queue // nil if it is not queued
	at *list.Element
}

// queue has waiters in the order in which their requests arrived. It is protected by gate.mu.
type queue struct{ list list.List }

// first is nil if nobody waits.
func (q *queue) first() *waiter {
	if front := q.list.Front(); front != nil {
		return front.Value.(*waiter)
	}
	return nil
}

// add queues w. Nearly always w is the last; a request that comes back from a pod that did not answer is among the first.
func (q *queue) add(w *waiter) {
	w.in = q
	if first := q.first(); first != nil && w.before(first) {
		w.at = q.list.PushFront(w)
		return
	}
	after := q.list.Back()
	for after != nil && w.before(after.Value.(*waiter)) {
		after = after.Prev()
	}
	if after == nil {
		w.at = q.list.PushFront(w)
	} else {
		w.at = q.list.InsertAfter(w, after)
	}
}

// take empties the queue, and appends its waiters to to.
func (q *queue) take(to []*waiter) []*waiter {
	for w := q.first(); w != nil; w = q.first() {
		w.leave()
		to = append(to, w)
	}
	return to
}

// leave takes w out of its queue. The caller holds gate.mu.
func (w *waiter) leave() {
	w.in.list.Remove(w.at)
	w.in, w.at = nil, nil
}

// before reports whether the request of w arrived before that of other.
func (w *waiter) before(other *waiter) bool {
	if c := w.visit.Began.Compare(other.visit.Began); c != 0 {
		return c < 0
	}
	return w.visit.turn < other.visit.turn
}

func newWaiter(r *Route, v *Visit) *waiter {
	return &waiter{route: r, visit: v, place: make(chan *Endpoint, 1)}
}

// enter takes a place at once, or queues w at the gate of s, unless it is queued already. It returns nil if w has to wait.
func (w *waiter) enter(s *snapshot) *Endpoint {
	select {
	case e := <-w.place:
		if w.gate.Store(nil); e != nil {
			return e
		}
	default:
	}
	if w.gate.Load() != nil {
		return nil
	}
	g := s.target.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if s = w.route.snap.Load(); s.target.gate != g {
		return nil // s is old, so that w does not wait long
	}
	if e := g.take(w.route, s, w.visit); e != nil {
		return e
	}
	if w.visit.turn == 0 {
		g.turns++
		w.visit.turn = g.turns
	}
	w.gate.Store(g)
	g.queue(s, g.clock.now(), w)
	g.waiting++
	g.schedule()
	return nil
}

// quit ends the wait. It returns the pod if w has just been handed a place.
func (w *waiter) quit() *Endpoint {
	g := w.lock()
	if g == nil {
		return nil
	}
	defer g.mu.Unlock()
	w.gate.Store(nil)
	if w.in == nil {
		return <-w.place
	}
	w.leave()
	g.waiting--
	g.settle()
	return nil
}

// lock locks the gate at which w waits, and returns it; nil if w does not wait.
func (w *waiter) lock() *gate {
	for {
		g := w.gate.Load()
		if g == nil {
			return nil
		}
		g.mu.Lock()
		if w.gate.Load() == g {
			return g
		}
		g.mu.Unlock() // w has been moved meanwhile
	}
}

// await waits for a place, or for a snapshot newer than s, for at most left. The error is the context's: then w has ended its wait.
func (w *waiter) await(ctx context.Context, s *snapshot, timer *time.Timer, left time.Duration) (*Endpoint, error) {
	timer.Reset(left)
	select {
	case e := <-w.place:
		w.gate.Store(nil)
		return e, nil
	case <-s.changed:
	case <-timer.C:
	case <-ctx.Done():
		if e := w.quit(); e != nil {
			e.giveBack()
		}
		return nil, fmt.Errorf("waiting for a pod: %w", context.Cause(ctx))
	}
	return nil, nil //nolint:nilnil // no place yet, and no reason to end the wait
}

// giveBack returns a place that the request did not need.
func (e *Endpoint) giveBack() { e.release(false) }
