// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
)

// Key names a workload in the cluster.
type Key = counts.Key

// never is the idle time of a target that has had no request since this process began.
const never = time.Duration(math.MaxInt64)

// clock counts time from when it was made, monotonically.
type clock struct{ base time.Time }

func newClock() clock { return clock{base: time.Now()} }

// now is never 0, so that 0 can mean "not yet".
func (c clock) now() int64 { return int64(time.Since(c.base)) + 1 }

// Target is a workload with what is known of its requests. All routes of a workload share one.
type Target struct {
	Key Key

	clock    clock
	made     int64 // when it was made, by clock
	workload atomic.Pointer[api.Workload]

	// pending counts the requests that have arrived here and are not answered yet. Only Begin adds, and only the
	// function that it returned takes away again.
	pending atomic.Int64
	// last is when the last request began or ended here by clock; 0 is never.
	last atomic.Int64

	wake
	podCount
	starting

	cooldown atomic.Int64 // the longest of the routes'
	drowsy   atomic.Int64 // the idle time after which it may be scaled to zero; 0 is never
	settled  atomic.Int64 // until when by clock it may turn out that it was; 0 is not at all
	retiring atomic.Bool  // a route of it is being restored
	paused   atomic.Bool  // its owner does not want it to be woken

	// early has the pods of which Vouch has said something, by IP address: true if they take requests, false if they are not to
	// be asked any more. It is protected by Table.mu.
	early map[string]bool

	metrics TargetMetrics
	hub     *counts.Hub
	// noted says that the hub knows of a change that no follower has looked at.
	noted  atomic.Bool
	routes int // how many routes point here; protected by Table.mu
}

// TargetMetrics observes what happens to a target.
type TargetMetrics interface {
	Woken()
	ColdStart(time.Duration)
}

// Begin counts a request that has arrived. The function that it returns ends the count and must be called exactly
// once: it panics the second time, since a count that is taken away twice would put an app to sleep under its visitors.
//
// It is small enough to be inlined, so that neither the function nor its state need the heap.
func (t *Target) Begin() (release func()) {
	released := t.begin()
	return func() { t.end(&released) }
}

func (t *Target) begin() (released bool) {
	t.pending.Add(1)
	now := t.clock.now()
	t.beginSettling(now) // before last: a reader that sees that sees this
	t.last.Store(now)
	t.note()
	return false
}

func (t *Target) end(released *bool) {
	if *released {
		panic("route: a request was released twice")
	}
	*released = true
	t.Touch()
	if t.pending.Add(-1) < 0 {
		t.pending.Add(1) // a process that survives the panic must not count on with -1
		panic("route: more requests were released than begun")
	}
	t.note()
}

// Touch says that something happened just now.
func (t *Target) Touch() {
	t.last.Store(t.clock.now())
	t.note()
}

// note reports to the hub that the counts have changed, unless it knows. It takes the hub's lock only for the first change after
// a follower has looked.
func (t *Target) note() {
	if !t.noted.Load() && t.noted.CompareAndSwap(false, true) {
		t.hub.Changed(t.Key)
	}
}

// Look returns Pending and Idle, and has the next change reported to the hub.
func (t *Target) Look() (pending int64, idle time.Duration) {
	t.noted.Store(false) // first: what changes from here on is reported, and what changed before is seen
	return t.Pending(), t.Idle()
}

// counted says that a request of it was counted here.
func (t *Target) counted() bool { return t.last.Load() != 0 }

// Workload is what is scaled.
func (t *Target) Workload() api.Workload { return *t.workload.Load() }

// Pending is the number of requests at this interceptor that have arrived and are not answered yet.
func (t *Target) Pending() int64 { return t.pending.Load() }

// Idle is the time since the last request began or ended here, and 0 while one is pending.
func (t *Target) Idle() time.Duration {
	// Pending is read after last: a request that ends between the two has renewed last, and one that begins is seen.
	last := t.last.Load()
	if t.pending.Load() > 0 {
		return 0
	}
	if last == 0 {
		return never
	}
	return time.Duration(max(0, t.clock.now()-last))
}

// Known is the time since this process first had a route to it.
func (t *Target) Known() time.Duration { return time.Duration(t.clock.now() - t.made) }

// Cooldown is how long the workload stays up after its last request.
func (t *Target) Cooldown() time.Duration { return time.Duration(t.cooldown.Load()) }

// Sleeps says that the workload is put to sleep when it has no visits.
func (t *Target) Sleeps() bool { return t.drowsy.Load() > 0 }

// Paused says that the owner of the workload does not want it to be woken.
func (t *Target) Paused() bool { return t.paused.Load() }

// Retiring says that a route of the workload is being restored, so that it must be neither woken nor put to sleep.
func (t *Target) Retiring() bool { return t.retiring.Load() }
