// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import "sync"

// BeginQuiet counts a connection whose client has not said anything yet. Like Begin, it makes the workload active while the
// connection is pending. Unlike Begin, it does not renew the idle time, because a check may just connect and close. The returned
// function ends the count, once.
func (t *Target) BeginQuiet() (release func()) {
	t.pending.Add(1)
	t.beginSettling(t.clock.now())
	t.note()
	return sync.OnceFunc(func() {
		t.pending.Add(-1)
		t.note()
	})
}

// beginSettling notes that a request has arrived at a moment when the workload may just have been scaled to zero.
func (t *Target) beginSettling(now int64) {
	if t.drowsyAt(now) {
		t.settled.Store(now + int64(settleFor))
	}
}

// drowsyAt reports whether the last request was so long ago that the workload may have been scaled to zero.
func (t *Target) drowsyAt(now int64) bool {
	drowsy := t.drowsy.Load()
	return drowsy > 0 && now-max(t.last.Load(), t.readyAt.Load()) >= drowsy && !t.surelyAwake()
}

// Drowsy reports whether the workload of r may have been scaled to zero, as far as this interceptor knows.
func (r *Route) Drowsy() bool { return r.Target().drowsyAt(r.clock.now()) }

// Listen ends the count of a request that was begun, instead of its release, while its client keeps listening. Bytes that the client
// receives count by Touch. The end of the connection does not count: the app may have ended it by going to sleep.
func (t *Target) Listen() {
	t.Touch()
	t.pending.Add(-1)
	t.note()
}
