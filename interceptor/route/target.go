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

// Key identifies a workload in the cluster.
type Key = counts.Key

// never is the idle time of a target that has had no request since this process started.
const never = time.Duration(math.MaxInt64)

// clock is a monotonic clock that starts when it is made.
type clock struct{ base time.Time }

func newClock() clock { return clock{base: time.Now()} }

// now is never 0, so that 0 can mean "not yet".
func (c clock) now() int64 { return int64(time.Since(c.base)) + 1 }

// Target is a workload and the counts of its requests. All routes of a workload share one.
type Target struct {
	Key Key

	clock    clock
	made     int64 // when it was made, by clock
	workload atomic.Pointer[api.Workload]

	// pending counts the requests that have arrived here and are not answered yet. Only Begin, BeginAgain and BeginQuiet increment
	// it, and only the functions that they return, and Listen, decrement it.
	pending atomic.Int64
	// last is when the last request began or ended here, by clock; 0 if there was none.
	last atomic.Int64
	rate

	wake
	podCount
	starting
	upkeep
	orders
	gate *gate

	// early has the verdicts of Vouch by the pod's IP address: true if the pod takes requests, false if it must not be probed any more.
	// It is protected by Table.mu.
	early map[string]bool

	metrics TargetMetrics
	hub     *counts.Hub
	// noted is set if the hub knows of a change that no follower has read yet.
	noted  atomic.Bool
	routes int // how many routes have this target; protected by Table.mu
}

// TargetMetrics observes what happens to a target.
type TargetMetrics interface {
	Woken()
	ColdStart(time.Duration)
}

// Begin counts a request that has arrived. The returned function ends the count and must be called exactly once. It panics the second
// time, because a count that is decremented twice would put an app to sleep while it is in use.
//
// Begin is small enough to be inlined, so that neither the function nor its state needs the heap.
func (t *Target) Begin() (release func()) {
	released := t.begin()
	return func() { t.end(&released) }
}

// BeginAgain is Begin for a request that repeats an earlier one, which has arrived only once.
func (t *Target) BeginAgain() (release func()) {
	released := t.beginAgain()
	return func() { t.end(&released) }
}

func (t *Target) begin() (released bool) {
	t.pending.Add(1)
	now := t.clock.now()
	t.beginSettling(now) // before last: a reader that sees the new last also sees this
	t.last.Store(now)
	t.note()
	if a := t.arrivals.Load(); a != nil {
		a.add(now)
	}
	return false
}

func (t *Target) beginAgain() (released bool) {
	t.pending.Add(1)
	t.beginSettling(t.clock.now())
	t.Touch()
	return false
}

func (t *Target) end(released *bool) {
	if *released {
		panic("route: a request was released twice")
	}
	*released = true
	t.Touch()
	if t.pending.Add(-1) < 0 {
		t.pending.Add(1) // if the process survives the panic, the count must not stay at -1
		panic("route: more requests were released than begun")
	}
	t.note()
}

// Touch notes that there was activity just now.
func (t *Target) Touch() {
	t.last.Store(t.clock.now())
	t.note()
}

// note tells the hub that the counts have changed, unless the hub knows already. It takes the hub's lock only for the first change
// after a follower has looked.
func (t *Target) note() {
	if !t.noted.Load() && t.noted.CompareAndSwap(false, true) {
		t.hub.Changed(t.Key)
	}
}

// Look returns Demand and Idle, and makes sure that the next change is reported to the hub.
func (t *Target) Look() (pending int64, idle time.Duration) {
	t.noted.Store(false) // first: later changes are reported, and the values below include earlier ones
	return t.Demand(), t.Idle()
}

// counted reports whether a request for the target was counted here.
func (t *Target) counted() bool { return t.last.Load() != 0 }

// Workload is what is scaled.
func (t *Target) Workload() api.Workload { return *t.workload.Load() }

// Pending is the number of requests at this interceptor that have arrived and are not answered yet.
func (t *Target) Pending() int64 { return t.pending.Load() }

// Demand is Pending as far as it may wake the workload: 0 while its wake waits for its turn.
func (t *Target) Demand() int64 {
	if t.Queued() {
		return 0
	}
	return t.Pending()
}

// Idle returns the time since the last request began or ended here; 0 while a request is pending.
func (t *Target) Idle() time.Duration {
	// Read pending after last: a request that ends in between has renewed last, and one that begins is seen.
	last := t.last.Load()
	if t.pending.Load() > 0 {
		return 0
	}
	if last == 0 {
		return never
	}
	return time.Duration(max(0, t.clock.now()-last))
}

// Known returns the time since this process first had a route to the target.
func (t *Target) Known() time.Duration { return time.Duration(t.clock.now() - t.made) }
