// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// Activity decides what is active, from the counts here and at the peers.
type Activity struct {
	Peers Peers
}

// Pending is the number of pending requests at all interceptors.
func (a *Activity) Pending(t *route.Target) int64 {
	pending, _ := a.Peers.Total(t.Key)
	return t.Pending() + pending
}

// Idle is the time since the last request anywhere that is known of, and for how long no request can have gone uncounted.
func (a *Activity) Idle(t *route.Target) (idle, counted time.Duration) {
	_, idle = a.Peers.Total(t.Key)
	return min(idle, t.Idle()), min(t.Known(), a.Peers.SinceLost())
}

// Active says whether the workload is to be up, where it may sleep after an idle time of quiet:
//
//	a request is pending anywhere, or the last one anywhere is younger than quiet          → yes
//	the Service is being restored                                                         → yes, the injector decides
//	it is starting, and may still take the time                                           → yes, even if nobody waits any more
//	counting began more recently, by our start, by injection or because the first pod
//	  was ready, or counts were lost by a peer's end, and the workload has pods           → yes, it may be in use
//	  and it has none                                                                     → no: to call it active would
//	                                                                                        wake every app that sleeps
//	otherwise                                                                             → no
//
// Without a pod in sight that may be an app that was in use, or starting, until it was scaled to zero: before it is woken for
// that, InSight has to agree.
func (a *Activity) Active(t *route.Target, quiet time.Duration) bool {
	pending, idle := a.Peers.Total(t.Key)
	switch {
	case pending > 0 || t.Pending() > 0 || min(idle, t.Idle()) < quiet:
		return true
	case t.Retiring(), t.Starting():
		return true
	default:
		return t.HasPods() && min(t.ReadyFor(), a.Peers.SinceLost()) < quiet
	}
}

// InSight says that calling the workload active cannot wake it in vain: it has a pod, a request waits for one, or the
// injector brings it up.
func (a *Activity) InSight(t *route.Target) bool {
	return t.HasPods() || t.Retiring() || !t.Paused() && a.Pending(t) > 0
}

// Waiting says that requests wait for a pod.
func (a *Activity) Waiting(t *route.Target) bool {
	return !t.Retiring() && !t.Paused() && (t.Held() > 0 || !t.Ready() && a.Pending(t) > 0)
}
