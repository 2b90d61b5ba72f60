// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// A ready pod to which no connection can be opened is reported after unreachableFor and at least unreachableTries attempts. A pod
	// that refuses connections is reported only after refusedFor, because an app without a readiness probe counts as ready before it
	// listens.
	unreachableFor   = 10 * time.Second
	refusedFor       = time.Minute
	unreachableTries = 5
	// unreachablePause is how long a route waits before it reports another one.
	unreachablePause = 10 * time.Minute
)

// UnreachableError is returned instead of a HoldTimeoutError if pods are ready but none could be connected to.
type UnreachableError struct {
	Service string // namespace/name
	Target  Key
	Ready   int    // pods
	Addr    string // ip:port of one of them
	Err     error  // of the last attempt to connect
	// Details is set if visitors may read all of this.
	Details bool
}

// Visitor returns what a visitor may read.
func (e *UnreachableError) Visitor() string {
	if e.Details {
		return e.Error()
	}
	return fmt.Sprintf("%s has ready pods, but they cannot be reached", e.Target.Workload)
}

func (e *UnreachableError) Error() string {
	pods := "1 ready pod"
	if e.Ready != 1 {
		pods = fmt.Sprintf("%d ready pods", e.Ready)
	}
	question := "does a NetworkPolicy forbid it?"
	if errors.Is(e.Err, syscall.ECONNREFUSED) {
		question = "does the app listen there, or does a NetworkPolicy reject it?"
	}
	return fmt.Sprintf("%s has %s, but connecting to %s failed: %s; %s", e.Target.Workload, pods, e.Addr, DialReason(e.Err), question)
}

// DialReason says briefly, and without addresses, why a connection could not be opened.
func DialReason(err error) string {
	var errno syscall.Errno
	var timeout net.Error
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "i/o timeout"
	default:
		return err.Error()
	}
}

// unreached is why a pod could not be connected to, and since when, by clock.
type unreached struct {
	err   error
	since int64
	told  atomic.Bool
}

// Unreachable is Fail for a pod to which no connection could be opened. err is the reason.
func (e *Endpoint) Unreachable(err error) {
	now := e.clock.now()
	next := &unreached{err: err, since: now}
	if last := e.unreached.Load(); last != nil {
		next.since = last.since
		next.told.Store(last.told.Load())
	}
	e.unreached.Store(next)
	e.Fail()
	if e.outOfReach() && next.told.CompareAndSwap(false, true) {
		e.lost()
	}
}

// outOfReach reports whether it has long been impossible to connect to the pod.
func (e *Endpoint) outOfReach() bool {
	last := e.unreached.Load()
	if last == nil || e.failures.Load() < unreachableTries {
		return false
	}
	lasts := unreachableFor
	if errors.Is(last.err, syscall.ECONNREFUSED) {
		lasts = refusedFor
	}
	return e.clock.now()-last.since >= int64(lasts)
}

// unreachable returns an error about the first ready pod that could not be connected to, or nil. If long is set, it skips pods whose
// failure may be over in a moment.
func (s *snapshot) unreachable(r *Route, long bool) *UnreachableError {
	for _, e := range s.endpoints {
		if last := e.unreached.Load(); last != nil && (!long || e.outOfReach()) {
			return &UnreachableError{
				Service: r.Name(), Target: s.target.Key, Ready: len(s.endpoints), Addr: e.Addr, Err: last.err, Details: s.fullDetails,
			}
		}
	}
	return nil
}

// timedOut returns the error for a request that has waited as long as it may.
func (s *snapshot) timedOut(r *Route, v *Visit, waited time.Duration) error {
	if s.offers() {
		return &HoldTimeoutError{Service: r.Name(), Target: s.target.Key, Waited: waited, Busy: s.busy(r, v)}
	}
	if err := s.unreachable(r, false); err != nil {
		return err
	}
	return &HoldTimeoutError{Service: r.Name(), Target: s.target.Key, Waited: waited}
}

// busy says why v waits although a pod is ready.
func (s *snapshot) busy(r *Route, v *Visit) *Busy {
	g := s.target.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	return &Busy{Ready: len(s.endpoints), PerPod: g.limit, Own: len(s.endpoints) > 1 && s.own(r.clock.now(), v) != nil}
}

// reportUnreachable reports that a pod of the route has been unreachable for long, unless it has reported a pod recently.
func reportUnreachable(r *Route, report func(*Route, *UnreachableError)) {
	s := r.snap.Load()
	if s.gone != "" { // its pods are gone too
		return
	}
	err := s.unreachable(r, true)
	now, last := r.clock.now(), r.reported.Load()
	if err == nil || report == nil || last != 0 && now-last < int64(unreachablePause) || !r.reported.CompareAndSwap(last, now) {
		return
	}
	report(r, err)
}
