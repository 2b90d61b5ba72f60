// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"sync/atomic"
	"time"
)

// wake is the wake of a target that is under way.
type wake struct {
	clock clock
	// held counts the requests that wait for a pod.
	held atomic.Int64
	// woken is when the wake began by clock; 0 while none is under way. It ends with the first ready pod.
	woken atomic.Int64
	// loop says that the waker has a loop running for this target.
	loop atomic.Bool
}

// Held is the number of requests at this interceptor that wait for a pod.
func (w *wake) Held() int64 { return w.held.Load() }

// Waking is how long the wake under way takes already, if it was seen to begin here, and else 0.
func (w *wake) Waking() time.Duration {
	began := w.woken.Load()
	if began == 0 {
		return 0
	}
	return time.Duration(w.clock.now() - began)
}

// AbandonWake forgets a wake that has come to nothing, so that the next request begins another one.
func (w *wake) AbandonWake() { w.woken.Store(0) }

// StartLoop reports whether the caller is to run the wake loop of this target; it then has to call StopLoop.
func (w *wake) StartLoop() bool { return w.loop.CompareAndSwap(false, true) }

// StopLoop ends the wake loop and reports whether that is final. It is not when a request began to wait meanwhile and
// saw the loop still running: then the caller goes on.
func (w *wake) StopLoop() bool {
	w.loop.Store(false)
	return w.held.Load() == 0 || !w.StartLoop()
}

// BeginWake reports whether the caller begins a wake: true for the first caller since the workload fell asleep, and
// false where another request, perhaps at another interceptor, has woken it already.
func (t *Target) BeginWake() bool {
	now := t.clock.now()
	if t.Ready() || t.HasPods() || !t.woken.CompareAndSwap(0, now) {
		return false
	}
	t.startAt(now)
	t.metrics.Woken()
	return true
}

// awake ends the wake under way, if there is one.
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
	up     atomic.Int64 // when the first of the pods that there are was seen, by clock
	// emptied is how often the last pod has gone.
	emptied atomic.Int64
}

// Ready says that a pod is ready.
func (p *podCount) Ready() bool { return p.ready.Load() > 0 }

// HasPods says that there is a pod at all, ready or not: the workload is not asleep.
func (p *podCount) HasPods() bool { return p.listed.Load() > 0 }

// Up is the time since this process first saw the workload with a pod, since it last had none.
func (p *podCount) Up() time.Duration { return time.Duration(p.clock.now() - p.up.Load()) }

// Emptied is how often the workload's last pod has gone. A wake from before that is over.
func (p *podCount) Emptied() int64 { return p.emptied.Load() }
