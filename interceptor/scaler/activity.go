// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"slices"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// Activity decides which workloads are active, from the counts here and at the peers.
type Activity struct {
	Peers Peers
	// Leaders are the workloads whose use keeps another one up, and Callers those whose wake wakes it, as route.Stacks returns them. Nil
	// is none.
	Leaders, Callers func(*route.Target) []*route.Target
	// Now is the clock of the windows in which a workload is kept awake. Default time.Now.
	Now func() time.Time
}

// keptAwake says that the owner of t wants it awake now, even without requests.
func (a *Activity) keptAwake(t *route.Target) bool {
	now := a.Now
	if now == nil {
		now = time.Now
	}
	return t.KeptAwake(now())
}

// leaders are those of t.
func (a *Activity) leaders(t *route.Target) []*route.Target {
	if a.Leaders == nil {
		return nil
	}
	return a.Leaders(t)
}

// led says that a leader of t has a pending request anywhere, or has had one more recently than quiet.
func (a *Activity) led(t *route.Target, quiet time.Duration) bool {
	return slices.ContainsFunc(a.leaders(t), func(leader *route.Target) bool {
		pending, idle := a.Peers.Total(leader.Key)
		return pending > 0 || leader.Demand() > 0 || min(idle, leader.Idle()) < quiet
	})
}

// called says that a workload whose wake wakes t is waking, and has requests.
func (a *Activity) called(t *route.Target) bool {
	return a.Callers != nil && slices.ContainsFunc(a.Callers(t), func(caller *route.Target) bool {
		return caller.Wakes() && !caller.Paused() && a.Pending(caller) > 0
	})
}

// Pending returns the number of pending requests at all interceptors, without those whose wake waits for its turn.
func (a *Activity) Pending(t *route.Target) int64 {
	pending, _ := a.Peers.Total(t.Key)
	return t.Demand() + pending
}

// Rate returns how many requests a second have arrived at all interceptors in the last minute. It is 0 if they are not counted.
func (a *Activity) Rate(t *route.Target) float64 {
	rate, _ := t.Rate()
	return rate + a.Peers.Rate(t.Key)
}

// Idle returns the time since the last known request at any interceptor, and for how long every request has been counted.
func (a *Activity) Idle(t *route.Target) (idle, counted time.Duration) {
	idle = t.Idle()
	for _, one := range append(a.leaders(t), t) {
		_, elsewhere := a.Peers.Total(one.Key)
		idle = min(idle, one.Idle(), elsewhere)
	}
	return idle, min(t.Known(), a.Peers.SinceLost())
}

// Active reports whether the workload should be up. It may sleep after an idle time of quiet:
//
//	its owner keeps it asleep, and no Service is being restored                           → no, whoever asks for it
//	a request is pending anywhere, or the last one anywhere is younger than quiet         → yes
//	the Service is being restored                                                         → yes, the injector decides
//	its owner wants it awake at this time                                                 → yes
//	another workload that wakes it too is waking                                          → yes
//	it is starting, and still has time                                                    → yes, even if nobody waits any more
//	we have counted for less than quiet, because we started, the app was injected, its
//	  first pod became ready or a peer's counts were lost, and the workload has pods      → yes, it may be in use
//	  and it has none                                                                     → no, "yes" would wake every
//	                                                                                        sleeping app
//	otherwise                                                                             → no
//
// A workload without a pod in sight may have been in use, or starting, until it was scaled to zero. Before it is woken because Active
// says so, InSight has to agree.
func (a *Activity) Active(t *route.Target, quiet time.Duration) bool {
	pending, idle := a.Peers.Total(t.Key)
	switch {
	case t.KeptAsleep() && !t.Retiring():
		return false
	case pending > 0 || t.Demand() > 0 || min(idle, t.Idle()) < quiet:
		return true
	case t.Retiring(), t.Starting(), a.keptAwake(t), a.led(t, quiet), a.called(t):
		return true
	default:
		return t.HasPods() && min(t.ReadyFor(), a.Peers.SinceLost()) < quiet
	}
}

// InSight reports whether calling the workload active cannot wake it in vain: it has a pod, a request waits for one, its owner wants
// it awake, or the injector restores it.
func (a *Activity) InSight(t *route.Target) bool {
	return t.HasPods() || t.Retiring() || !t.Paused() && (a.keptAwake(t) || a.Pending(t) > 0 || a.led(t, 0) || a.called(t))
}

// Waiting reports whether requests wait for a pod.
func (a *Activity) Waiting(t *route.Target) bool {
	return !t.Retiring() && !t.Paused() && (t.Awaits() && !t.Queued() || !t.Ready() && (a.Pending(t) > 0 || a.led(t, 0) || a.called(t)))
}
