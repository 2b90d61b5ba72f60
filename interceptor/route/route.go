// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// ErrTooManyHeld is returned when the requests that wait for a pod of the route already reach the limit, in number or in bytes.
var ErrTooManyHeld = errors.New("too many requests wait for a pod")

// HoldTimeoutError is returned when no pod became ready while the request was held.
type HoldTimeoutError struct {
	Service string // namespace/name
	Target  Key
	Waited  time.Duration
}

func (e *HoldTimeoutError) Error() string {
	return fmt.Sprintf("no pod of %s (for service %s) became ready within %s",
		e.Target.Workload, e.Service, e.Waited.Round(time.Millisecond))
}

// AsleepError is returned for a request that must not wake the workload, if no pod is ready to answer it.
type AsleepError struct {
	Target Key
	// Starting is set if there is a pod already.
	Starting bool
	// Quiet is set if the request is not a probe, but has waited for other requests to wake the workload.
	Quiet bool
}

func (e *AsleepError) Error() string {
	if e.Starting {
		return e.Target.Workload + " is starting"
	}
	return e.Target.Workload + " is asleep"
}

// DownError is returned for a request that must not wake the workload, if there are pods but none answers: that is no sleep.
type DownError struct {
	Service string // namespace/name
	Target  Key
}

func (e *DownError) Error() string {
	return fmt.Sprintf("no pod of %s (for service %s) is ready and answers", e.Target.Workload, e.Service)
}

// StartFailedError is returned for a request that waits although the workload cannot start.
type StartFailedError struct {
	Service  string // namespace/name
	Target   Key
	Progress api.Progress // Failing is not empty
	// Gone is set if the workload or the Service does not exist any more.
	Gone bool
}

func (e *StartFailedError) Error() string {
	if e.Gone {
		return fmt.Sprintf("service %s: %s", e.Service, e.Progress.Failing)
	}
	return fmt.Sprintf("%s (for service %s) cannot start: %s", e.Target.Workload, e.Service, e.Progress.Failing)
}

// StartingError is returned for a visit that reaches its Limit, or whose News returns true.
type StartingError struct {
	Service string // namespace/name
	Target  Key
}

func (e *StartingError) Error() string {
	return fmt.Sprintf("%s (for service %s) is starting", e.Target.Workload, e.Service)
}

// Start is the state of a workload's start, for those who wait for it.
type Start struct {
	// Progress is what the injector says, with two corrections: a ready pod that refuses connections counts as not ready, and Failing is
	// empty unless it still holds.
	Progress api.Progress
	// Elapsed is how long the present wake has taken so far; 0 if this interceptor did not see it begin.
	Elapsed time.Duration
}

// refusedGrace is how long a request that must not wake waits for a ready pod that refuses: the pod may just be shutting down.
const refusedGrace = time.Second

// Visit describes a request. It is used to choose a pod, and in the event about the wake that the request causes. An attacker may
// have chosen all of it.
type Visit struct {
	Method, Path, Remote, Agent string // Method is empty for a TCP connection
	// Client is the address that connected to us, whatever the request says about other addresses. With session affinity ClientIP it
	// decides the pod. The zero Addr may go to any pod.
	Client netip.Addr
	// Pin is the pod that the interceptors' own cookie names. Session is the hash of the app's session cookie. 0 means that the cookie
	// is missing. Both matter only if the Route is Sticky.
	Pin     PodID
	Session uint64
	Wait
}

// Wait says how a visit waits for a pod, and how long it has waited, over all its calls of Pick.
type Wait struct {
	// Limit is the longest time that the visit is held; it then gets a StartingError. 0 means as long as the route holds requests. The
	// smallest positive value means not at all.
	Limit time.Duration
	// News is for a visit that follows a start. Pick calls it for each state of the start, also if the start fails. When News returns
	// true, the wait ends with a StartingError.
	News func(Start) bool
	// Bytes is the memory that the request takes while it is held.
	Bytes int64
	// Quiet is for a visit that waits for other requests to wake the workload: it neither wakes nor counts. If no other request does so
	// in time, it gets an AsleepError.
	Quiet bool
	// Began is when the request arrived. The hold timeout runs from then. Pick sets it at the first wait.
	Began time.Time
	// Held is how long Pick has waited for a pod; 0 if it did not have to wait.
	Held time.Duration
}

// Waker wakes workloads for the requests that wait for a pod.
type Waker interface {
	// Wake is called once for each request that begins to wait. It must not block.
	Wake(r *Route, t *Target, v *Visit)
}

// Metrics observes a route's requests.
type Metrics interface {
	// Held observes how long a request waited for a pod.
	Held(time.Duration)
	// Answered counts a request by its status code.
	Answered(status int)
	// Ignored counts an ignored request, instead of Answered.
	Ignored()
}

// Route is one port of one opted-in Service.
type Route struct {
	Namespace, Service, ServiceUID string
	Port                           api.Port
	Metrics                        Metrics

	view
	learned
	sightings

	clock                 clock
	waker                 Waker
	maxHeld, maxHeldBytes int64
	held, heldBytes       atomic.Int64
	reported              atomic.Int64 // when an unreachable pod was last reported, by clock
	quitters              quitters
	reportGaveUp          func(*Route, GaveUp) // may be nil
	minGaveUp             time.Duration
	// gone ends the route's linger. abandoned fails the held requests if the Service does not come back. Both are protected by Table.mu.
	gone, abandoned *time.Timer
}

// Name is namespace/service.
func (r *Route) Name() string { return r.Namespace + "/" + r.Service }

// Start returns the state of the workload's start, for those who wait.
func (r *Route) Start() Start { return r.snap.Load().start(r) }

// Held is the number of requests that wait for a pod of this route.
func (r *Route) Held() int64 { return r.held.Load() }

// TryPick chooses the pod for a request. It returns nil if the request would have to wait. The caller must call the endpoint's Done.
func (r *Route) TryPick(v *Visit) *Endpoint {
	e, _ := r.snap.Load().choose(r.clock, v)
	if e != nil {
		e.pending.Add(1)
	}
	return e
}

// Pick chooses the pod for a request. If there is none it waits for one, for at most the route's hold timeout over all calls for this
// visit. The caller must call the endpoint's Done. The error is ErrTooManyHeld, a HoldTimeoutError, an UnreachableError, a
// StartFailedError, a StartingError or the context's.
func (r *Route) Pick(ctx context.Context, v *Visit) (*Endpoint, error) {
	if e := r.TryPick(v); e != nil {
		return e, nil
	}
	e, err := r.hold(ctx, v)
	if e != nil {
		e.pending.Add(1)
	}
	return e, err
}

// hold is Pick for a request that has to wait. It does not count the use of the pod.
func (r *Route) hold(ctx context.Context, v *Visit) (*Endpoint, error) {
	defer r.held.Add(-1)
	defer r.heldBytes.Add(-v.Bytes)
	if n, bytes := r.held.Add(1), r.heldBytes.Add(v.Bytes); n > r.maxHeld || bytes > r.maxHeldBytes {
		return nil, ErrTooManyHeld
	}
	began := time.Now()
	defer func() {
		held := max(time.Since(began), 1) // not 0, since 0 means that it was not held
		v.Held += held
		if v.News == nil && !v.Quiet { // a poll is repeated again and again
			r.Metrics.Held(held)
		}
	}()
	if v.Began.IsZero() {
		v.Began = began
	}
	target := r.Target()
	if !v.Quiet {
		target.held.Add(1)
		defer target.held.Add(-1)
		if r.mayWake() {
			r.waker.Wake(r, target, v)
		}
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s := r.snap.Load()
		e, retry := s.choose(r.clock, v)
		if e != nil {
			return e, nil
		}
		left, err := r.mayWait(s, v)
		if err != nil {
			return nil, err
		}
		if err := r.await(ctx, s, timer, left, retry); err != nil {
			if errors.Is(err, context.Canceled) && v.News == nil {
				r.gaveUp(v)
			}
			return nil, err
		}
	}
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
	if left <= 0 && v.Quiet {
		return 0, &AsleepError{Target: s.target.Key, Starting: s.target.HasPods(), Quiet: true}
	}
	if left <= 0 {
		return 0, s.timedOut(r, waited)
	}
	if v.Limit > 0 {
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

// PickReady is Pick for a request that neither wakes nor counts: it is not held. If no pod is ready, the error is an AsleepError. It
// is a DownError if the workload has had pods for longer than the hold timeout: that is not sleep, and monitoring has to see it. A
// ready pod that refuses gets a moment before the error is a DownError too.
func (r *Route) PickReady(ctx context.Context, v *Visit) (*Endpoint, error) {
	if e := r.TryPick(v); e != nil {
		return e, nil
	}
	if v.Began.IsZero() {
		v.Began = time.Now()
	}
	timer := time.NewTimer(refusedGrace)
	defer timer.Stop()
	for {
		s := r.snap.Load()
		if err := s.failed(r); err != nil {
			return nil, err
		}
		if len(s.endpoints) == 0 {
			if up := s.target.HasPods(); !up || s.target.Up() < s.holdTimeout {
				return nil, &AsleepError{Target: s.target.Key, Starting: up}
			}
			return nil, &DownError{Service: r.Name(), Target: s.target.Key}
		}
		e, retry := s.choose(r.clock, v)
		if e != nil {
			e.pending.Add(1)
			return e, nil
		}
		left := refusedGrace - time.Since(v.Began)
		if left <= 0 {
			return nil, &DownError{Service: r.Name(), Target: s.target.Key}
		}
		if err := r.await(ctx, s, timer, left, retry); err != nil {
			return nil, err
		}
	}
}
