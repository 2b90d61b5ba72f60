// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/budget"
)

// ErrTooManyHeld is returned when the held requests of the route already reach the limit in number, or use what the route may have of
// the interceptor's memory.
var ErrTooManyHeld = errors.New("too many requests are held")

// HoldTimeoutError is returned when a request was held for as long as it may be.
type HoldTimeoutError struct {
	Service string // namespace/name
	Target  Key
	Waited  time.Duration
	// Busy says why the pods that were ready had no place for the request; nil if none was ready.
	Busy *Busy
}

func (e *HoldTimeoutError) Error() string {
	if e.Busy != nil {
		return fmt.Sprintf("%s (for service %s) within %s", e.Busy.of(e.Target), e.Service, e.Waited.Round(time.Millisecond))
	}
	return fmt.Sprintf("no pod of %s (for service %s) became ready within %s",
		e.Target.Workload, e.Service, e.Waited.Round(time.Millisecond))
}

// Busy describes ready pods that have no place.
type Busy struct {
	// Ready is how many pods are ready. If Own is set, only one of them may serve the client.
	Ready int
	Own   bool
	// PerPod is max-pending-per-pod; 0 if it is not set and the pods have just started.
	PerPod int64
}

// of returns a sentence without an end, to which the time can be added.
func (b *Busy) of(t Key) string {
	who, has, had, did := fmt.Sprintf("all %d ready pods of %s", b.Ready, t.Workload), "have", "each", "they have"
	switch {
	case b.Own:
		who = fmt.Sprintf("the pod of %s that this client stays at", t.Workload)
	case b.Ready == 1:
		who = "the only ready pod of " + t.Workload
	}
	if b.Own || b.Ready == 1 {
		has, had, did = "has", "", "it has"
	}
	if b.PerPod == 0 {
		return fmt.Sprintf("%s %s just started, and %s not answered the requests before this one", who, has, did)
	}
	return strings.Join(strings.Fields(fmt.Sprintf("%s %s the %d pending requests %s that max-pending-per-pod allows, and %s not answered "+
		"enough of those before this one", who, has, b.PerPod, had, did)), " ")
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
	if e.Progress.Reason == api.ReasonPaused {
		return fmt.Sprintf("%s (for service %s) is asleep: %s", e.Target.Workload, e.Service, e.Progress.Failing)
	}
	return fmt.Sprintf("%s (for service %s) cannot start: %s", e.Target.Workload, e.Service, e.Progress.Failing)
}

// StartingError is returned for a visit that reaches its Limit while no pod is ready, or whose News returns true.
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
	// Limit is the longest time that the visit waits for a ready pod; it then gets a StartingError. 0 means as long as the route holds
	// requests. The smallest positive value means not at all. A visit that waits for a place at a ready pod goes on.
	Limit time.Duration
	// News is for a visit that follows a start. Pick calls it for each state of the start, also if the start fails. When News returns
	// true, the wait ends with a StartingError. Such a visit takes no place: it gets a pod that is ready, however many requests the pod
	// has, and does not count as one of them.
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
	// turn decides between requests that arrived at the same moment. It is protected by gate.mu.
	turn int64
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
	// Memory is what the route's connections and requests use, and may use.
	Memory budget.Account

	view
	learned
	sightings

	waiting

	clock        clock
	waker        Waker
	reported     atomic.Int64 // when an unreachable pod was last reported, by clock
	quitters     quitters
	reportGaveUp func(*Route, GaveUp) // may be nil
	reportFull   func(*Route)         // may be nil
	minGaveUp    time.Duration
	// gone ends the route's linger. abandoned fails the held requests if the Service does not come back. Both are protected by Table.mu.
	gone, abandoned *time.Timer
}

// Name is namespace/service.
func (r *Route) Name() string { return r.Namespace + "/" + r.Service }

// Start returns the state of the workload's start, for those who wait.
func (r *Route) Start() Start { return r.snap.Load().start(r) }

// Refused notes that a connection or a request of the route was refused because of its memory. It reports the first of many.
func (r *Route) Refused() {
	if r.Memory.FirstRefusal() && r.reportFull != nil {
		r.reportFull(r)
	}
}
