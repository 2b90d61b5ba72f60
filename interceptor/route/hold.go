// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// waiting are the held requests of a route.
type waiting struct {
	maxHeld int64
	held    atomic.Int64
	// any has those that may go to any pod of the route, and left is set once the route is closed. They are protected by gate.mu.
	any  queue
	left bool
}

// Held is the number of requests that wait for a pod of this route, or for a place at one.
func (w *waiting) Held() int64 { return w.held.Load() }

// heldCost is the memory that holding a request takes in addition to Wait.Bytes: two goroutines, a context and a timer.
const heldCost = 16 << 10

// beginHold counts a held request. If it is one too many, the error is ErrTooManyHeld. Otherwise the caller must call endHold.
func (r *Route) beginHold(bytes int64) error {
	if !r.Memory.Take(heldCost + bytes) {
		r.Refused()
		return ErrTooManyHeld
	}
	if r.held.Add(1) > r.maxHeld {
		r.endHold(bytes)
		return ErrTooManyHeld
	}
	return nil
}

func (r *Route) endHold(bytes int64) {
	r.held.Add(-1)
	r.Memory.Give(heldCost + bytes)
}

// TryPick chooses the pod for a request. It returns nil if the request would have to wait. The caller must call the endpoint's Done.
func (r *Route) TryPick(v *Visit) *Endpoint {
	s := r.snap.Load()
	if s.target.gate.shut.Load() {
		return s.target.gate.tryPick(r, v)
	}
	return s.pick(r.clock, v)
}

// Pick chooses the pod for a request. If there is none, or none has a place, it waits for one, for at most the route's hold timeout
// over all calls for this visit. The caller must call the endpoint's Done, unless the visit has News. The error is ErrTooManyHeld, a
// HoldTimeoutError, an UnreachableError, a StartFailedError, a StartingError or the context's.
func (r *Route) Pick(ctx context.Context, v *Visit) (*Endpoint, error) {
	if v.News == nil {
		if e := r.TryPick(v); e != nil {
			return e, nil
		}
	} else if e, _ := r.snap.Load().choose(r.clock, v); e != nil {
		return e, nil
	}
	return r.hold(ctx, v)
}

// hold is Pick for a request that has to wait.
func (r *Route) hold(ctx context.Context, v *Visit) (e *Endpoint, err error) {
	if err := r.beginHold(v.Bytes); err != nil {
		return nil, err
	}
	defer r.endHold(v.Bytes)
	began, observed := time.Now(), false
	defer func() {
		if !observed && e != nil && v.News == nil { // a fault must not keep the place
			e.giveBack()
		}
	}()
	defer func() {
		held := max(time.Since(began), 1) // not 0, since 0 means that it was not held
		v.Held += held
		if v.News == nil && !v.Quiet { // a poll is repeated again and again
			r.Metrics.Held(held)
		}
		observed = true
	}()
	if v.Began.IsZero() {
		v.Began = began
	}
	h := hold{waiter: newWaiter(r, v), timer: time.NewTimer(time.Hour)}
	defer h.end()
	for {
		s := r.snap.Load()
		h.count(s)
		if e, err := h.wait(ctx, s); e != nil || err != nil {
			return e, err
		}
	}
}

// hold is one hold of a request.
type hold struct {
	*waiter
	timer *time.Timer
	// counts is the count in which the request is now; nil before the first.
	counts *atomic.Int64
}

// count counts the request as one that waits for a pod, or only for a place at one. In the first case it wakes the workload.
func (h *hold) count(s *snapshot) {
	if h.visit.Quiet {
		return
	}
	counts := &s.target.awaited
	if s.offers() {
		counts = &s.target.placeless
	}
	if h.counts == counts {
		return
	}
	h.uncount()
	h.counts = counts
	counts.Add(1)
	if r := h.route; counts == &s.target.awaited && r.mayWake() {
		r.waker.Wake(r, s.target, h.visit)
	}
}

func (h *hold) uncount() {
	if h.counts != nil {
		h.counts.Add(-1)
	}
}

// end leaves nothing of the hold behind, even after a fault.
func (h *hold) end() {
	h.timer.Stop()
	h.uncount()
	if e := h.quit(); e != nil {
		e.giveBack()
	}
}

// wait waits for a pod, or until the snapshot s is old. It returns neither a pod nor an error if the request has to wait longer.
func (h *hold) wait(ctx context.Context, s *snapshot) (*Endpoint, error) {
	var e *Endpoint
	var retry int64
	if h.visit.News != nil {
		e, retry = s.choose(h.route.clock, h.visit)
	} else {
		e = h.enter(s)
	}
	if e != nil {
		return e, nil
	}
	left, err := h.route.mayWait(s, h.visit)
	if err != nil {
		if e := h.quit(); e != nil {
			return e, nil // a pod at the last moment
		}
		return nil, err
	}
	if h.visit.News != nil {
		return nil, h.route.await(ctx, s, h.timer, left, retry)
	}
	e, err = h.await(ctx, s, h.timer, left)
	if errors.Is(err, context.Canceled) && !s.offers() {
		h.route.gaveUp(h.visit)
	}
	return e, err
}

// mayWait returns how much longer v may wait for a snapshot newer than s, or the error if it may not wait.
func (r *Route) mayWait(s *snapshot, v *Visit) (time.Duration, error) {
	if v.News != nil {
		if v.News(s.start(r)) {
			return 0, &StartingError{Service: r.Name(), Target: s.target.Key}
		}
	} else if err := s.failed(r); err != nil {
		return 0, err
	}
	waited := time.Since(v.Began)
	left := s.holdTimeout - waited
	busy := s.offers()
	if left <= 0 && v.Quiet && !busy {
		return 0, &AsleepError{Target: s.target.Key, Starting: s.target.HasPods(), Quiet: true}
	}
	if left <= 0 {
		return 0, s.timedOut(r, v, waited)
	}
	if v.Limit > 0 && !busy {
		left = min(left, v.Limit-waited)
	}
	if left <= 0 {
		return 0, &StartingError{Service: r.Name(), Target: s.target.Key}
	}
	return left, nil
}

// await waits for a snapshot newer than s, for at most left. If retry is not 0, it also ends at retry (by clock).
func (r *Route) await(ctx context.Context, s *snapshot, timer *time.Timer, left time.Duration, retry int64) error {
	if retry != 0 {
		left = min(left, time.Duration(max(0, retry-r.clock.now())))
	}
	timer.Reset(left)
	select {
	case <-s.changed:
	case <-timer.C:
	case <-ctx.Done():
		return fmt.Errorf("waiting for a pod: %w", context.Cause(ctx))
	}
	return nil
}

// PickReady is Pick for a request that neither wakes nor counts: it is not held while no pod is ready. If none is, the error is an
// AsleepError. It is a DownError if the workload has had pods for longer than the hold timeout: that is not sleep, and monitoring has
// to see it. A ready pod that refuses gets a moment before the error is a DownError too. A request that only has to wait for a place
// waits like any other: the app is up.
func (r *Route) PickReady(ctx context.Context, v *Visit) (*Endpoint, error) {
	if e := r.TryPick(v); e != nil {
		return e, nil
	}
	if err := r.beginHold(v.Bytes); err != nil {
		return nil, err
	}
	defer r.endHold(v.Bytes)
	if v.Began.IsZero() {
		v.Began = time.Now()
	}
	w := newWaiter(r, v)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s := r.snap.Load()
		left, err := r.mayWaitReady(s, v)
		if err == nil {
			var e *Endpoint
			if e = w.enter(s); e == nil {
				e, err = w.await(ctx, s, timer, left)
			}
			if e != nil || err != nil {
				return e, err
			}
			continue
		}
		if e := w.quit(); e != nil {
			return e, nil
		}
		return nil, err
	}
}

// mayWaitReady is mayWait for PickReady.
func (r *Route) mayWaitReady(s *snapshot, v *Visit) (time.Duration, error) {
	if err := s.failed(r); err != nil {
		return 0, err
	}
	waited := time.Since(v.Began)
	if len(s.endpoints) == 0 {
		if up := s.target.HasPods(); !up || s.target.Up() < s.holdTimeout {
			return 0, &AsleepError{Target: s.target.Key, Starting: up}
		}
		return 0, &DownError{Service: r.Name(), Target: s.target.Key}
	}
	if s.offers() {
		if left := s.holdTimeout - waited; left > 0 {
			return left, nil
		}
		return 0, s.timedOut(r, v, waited)
	}
	if left := refusedGrace - waited; left > 0 {
		return left, nil
	}
	return 0, &DownError{Service: r.Name(), Target: s.target.Key}
}
