// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"slices"
	"sync"
	"time"
)

const (
	// manyGaveUp is how many clients have to give up after the same time. That many point to a timeout in the client or a proxy.
	manyGaveUp = 3
	// alike is by how much waits of "the same time" may differ.
	alike = 2 * time.Second
	// gaveUpFor is how long a client is remembered. It is long because a start may see only one client.
	gaveUpFor = 24 * time.Hour
)

// GaveUp describes several clients that gave up on held requests after the same time.
type GaveUp struct {
	Clients int
	After   time.Duration
	// HoldTimeout is how long they would have been held.
	HoldTimeout time.Duration
	// Last is the last of them.
	Last Visit
	// StartID names the start that they waited for. It is the same at every interceptor.
	StartID string
}

// quitter is a client that gave up.
type quitter struct {
	after time.Duration
	at    int64 // by clock
}

// quitters remembers the clients of a route that gave up while their requests were held.
type quitters struct {
	mu   sync.Mutex // protects all below
	last []quitter  // at most maxQuitters
	told string     // the start in which they were last reported
}

const maxQuitters = 16

// gaveUp notes that the client of a held request has gone. When several clients have gone after the same time, it reports them, once
// for each start.
func (r *Route) gaveUp(v *Visit) {
	s := r.snap.Load()
	waited := time.Since(v.Began)
	if waited < r.minGaveUp || r.reportGaveUp == nil {
		return
	}
	if n := r.quitters.note(quitter{waited, r.clock.now()}, s.startID); n > 0 {
		r.reportGaveUp(r, GaveUp{Clients: n, After: waited, HoldTimeout: s.holdTimeout, Last: *v, StartID: s.startID})
	}
}

// note returns how many clients gave up after the same time as q, or 0 if they need not be reported now.
func (qs *quitters) note(q quitter, startID string) int {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	qs.last = slices.DeleteFunc(qs.last, func(old quitter) bool { return time.Duration(q.at-old.at) > gaveUpFor })
	if len(qs.last) == maxQuitters {
		qs.last = slices.Delete(qs.last, 0, 1)
	}
	qs.last = append(qs.last, q)
	n := 0
	for _, other := range qs.last {
		if (other.after - q.after).Abs() <= alike {
			n++
		}
	}
	if n < manyGaveUp || qs.told == startID {
		return 0
	}
	qs.told, qs.last = startID, nil
	return n
}
