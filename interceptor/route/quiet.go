// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import "sync"

// BeginQuiet counts a connection whose client has not said anything yet. Like Begin it makes the workload active while
// the connection is pending, but it leaves no trace: a check that connects and closes must not renew the idle time. The
// function that it returns ends the count, once.
func (t *Target) BeginQuiet() (release func()) {
	t.pending.Add(1)
	t.beginSettling(t.clock.now())
	t.note()
	return sync.OnceFunc(func() {
		t.pending.Add(-1)
		t.note()
	})
}

// beginSettling notes that a request has come when the workload may just have been scaled to zero.
func (t *Target) beginSettling(now int64) {
	if t.drowsyAt(now) {
		t.settled.Store(now + int64(settleFor))
	}
}

// drowsyAt says that the last request was so long ago that the workload may have been scaled to zero.
func (t *Target) drowsyAt(now int64) bool {
	drowsy := t.drowsy.Load()
	return drowsy > 0 && now-max(t.last.Load(), t.readyAt.Load()) >= drowsy
}

// Drowsy says that for the workload of r, as far as this interceptor knows.
func (r *Route) Drowsy() bool { return r.Target().drowsyAt(r.clock.now()) }

// Listen ends the count of a request that was begun, in the place of its release, while its client goes on to listen. What
// it hears counts by Touch; that it ends, as when the app goes to sleep, does not.
func (t *Target) Listen() {
	t.Touch()
	t.pending.Add(-1)
	t.note()
}
