// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"sync/atomic"
	"time"
)

// wake is the state of a target's present wake.
type wake struct {
	clock clock
	// awaited counts the requests that wait for a pod, and placeless those that wait for a place at a pod that is ready.
	awaited, placeless atomic.Int64
	// woken is when the present wake began, by clock; 0 if there is none. A wake ends with the first ready pod.
	woken atomic.Int64
	// queued is set while a wake waits for its turn.
	queued atomic.Bool
	// loop is set while the waker runs a loop for this target.
	loop atomic.Bool
}

// Held is the number of requests at this interceptor that wait, for a pod or for a place at one.
func (w *wake) Held() int64 { return w.awaited.Load() + w.placeless.Load() }

// Awaits reports whether requests at this interceptor wait for a pod to become ready. Those that only wait for a place do not.
func (w *wake) Awaits() bool { return w.awaited.Load() > 0 }

// Waking returns how long the present wake has taken so far; 0 if this interceptor did not see it begin.
func (w *wake) Waking() time.Duration {
	began := w.woken.Load()
	if began == 0 {
		return 0
	}
	return time.Duration(w.clock.now() - began)
}

// AbandonWake forgets a wake that has failed, so that the next request begins another one.
func (w *wake) AbandonWake() { w.woken.Store(0) }

// Queue notes that a wake has to wait for its turn. It ends with Dequeue, or with the first pod.
func (w *wake) Queue() { w.queued.Store(true) }

// Dequeue notes that no wake has to wait for its turn any more. It reports whether one had to.
func (w *wake) Dequeue() bool { return w.queued.Swap(false) }

// Queued reports whether a wake waits for its turn. Nobody must wake the workload for the requests that are held.
func (w *wake) Queued() bool { return w.queued.Load() }

// Looping reports whether the wake loop runs.
func (w *wake) Looping() bool { return w.loop.Load() }

// StartLoop reports whether the caller has to run the wake loop of this target. The caller then has to call StopLoop.
func (w *wake) StartLoop() bool { return w.loop.CompareAndSwap(false, true) }

// StopLoop ends the wake loop and reports whether it really ended. If a request began to wait meanwhile and saw the loop still
// running, StopLoop returns false and the caller goes on.
func (w *wake) StopLoop() bool {
	w.loop.Store(false)
	return !w.Awaits() || !w.StartLoop()
}

// BeginWake reports whether the caller begins a wake. It is true for the first caller since the workload fell asleep, and false if
// another request, perhaps at another interceptor, has woken it already.
func (t *Target) BeginWake() bool {
	now := t.clock.now()
	if !t.MayBeginWake() || !t.woken.CompareAndSwap(0, now) {
		return false
	}
	t.startAt(now)
	t.metrics.Woken()
	return true
}

// MayBeginWake reports whether BeginWake would begin a wake.
func (t *Target) MayBeginWake() bool { return !t.Ready() && !t.HasPods() && t.woken.Load() == 0 }

// awake ends the present wake, if there is one.
func (t *Target) awake() {
	if began := t.woken.Swap(0); began != 0 {
		t.metrics.ColdStart(time.Duration(t.clock.now() - began))
	}
}

// podCount is how many pods a workload has.
type podCount struct {
	clock  clock
	ready  atomic.Int32 // ready endpoints over all routes
	listed atomic.Int32 // endpoints over all routes, ready or not
	up     atomic.Int64 // when the first of the present pods was seen, by clock
	// emptied is how often the last pod has gone.
	emptied atomic.Int64
}

// Ready reports whether a pod is ready.
func (p *podCount) Ready() bool { return p.ready.Load() > 0 }

// HasPods reports whether there is a pod at all, ready or not: the workload is not asleep.
func (p *podCount) HasPods() bool { return p.listed.Load() > 0 }

// Up returns the time since this process first saw a pod of the workload after it had none.
func (p *podCount) Up() time.Duration { return time.Duration(p.clock.now() - p.up.Load()) }

// Emptied is how often the workload's last pod has gone. A wake that began before the latest time is over.
func (p *podCount) Emptied() int64 { return p.emptied.Load() }
