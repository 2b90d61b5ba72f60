// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// turnFor is how long a start counts as a wake that is under way. A slower start, or one that never ends, must not keep others asleep.
const turnFor = 10 * time.Second

// turns bound how many workloads wake at a time, in all and for each source of requests, so that somebody who visits every app, such
// as a port scan, does not start all of them at once. The rest wait for their turn, in the order in which they came.
type turns struct {
	all, each int

	mu      sync.Mutex // protects all below
	taken   map[*route.Target]*turn
	sources map[string]int // how many turns each source has taken
	waiting []*turn
}

// turn is the wake of one workload.
type turn struct {
	target *route.Target
	// sources are the address that connected to us and, if proxies before us name another, the visitor's: who can choose one of them
	// freely cannot choose the other.
	sources []string
	began   time.Time
	// wanted says whether anybody still waits for the wake.
	wanted func() bool
	// begin begins the wake. It is called once, without a lock.
	begin func()
}

func newTurns(all, each int) *turns {
	return &turns{all: all, each: each, taken: map[*route.Target]*turn{}, sources: map[string]int{}}
}

// sourcesOf returns where a request comes from.
func sourcesOf(v *route.Visit) []string {
	sources := []string{network(host(v.Client.String()))}
	if visitor := network(host(v.Remote)); visitor != sources[0] {
		sources = append(sources, visitor)
	}
	return sources
}

// network returns the network of an address that one client can have to itself: of an IPv6 address its first 64 bits.
func network(address string) string {
	addr, err := netip.ParseAddr(address)
	if err != nil || addr.Is4() {
		return address
	}
	return netip.PrefixFrom(addr, 64).Masked().String()
}

// take begins the wake of t now, or has it wait for its turn. It reports whether it has to wait. A wake that already waits keeps its
// place.
func (q *turns) take(t *turn) (waits bool) {
	q.mu.Lock()
	queued := slices.ContainsFunc(q.waiting, func(other *turn) bool { return other.target == t.target })
	if !queued && q.room(t) {
		q.enter(t)
		q.mu.Unlock()
		t.begin()
		return false
	}
	t.target.Queue() // again, if it has had pods meanwhile
	if !queued {
		q.waiting = append(q.waiting, t)
	}
	q.mu.Unlock()
	return true
}

// room reports whether t may begin. The caller holds mu.
func (q *turns) room(t *turn) bool {
	return len(q.taken) < q.all && !slices.ContainsFunc(t.sources, func(s string) bool { return q.sources[s] >= q.each })
}

// enter notes that t begins. The caller holds mu.
func (q *turns) enter(t *turn) {
	q.leave(t.target) // of an earlier wake
	t.began = time.Now()
	q.taken[t.target] = t
	for _, s := range t.sources {
		q.sources[s]++
	}
}

// leave notes that the wake of a workload is over. The caller holds mu.
func (q *turns) leave(of *route.Target) {
	t := q.taken[of]
	if t == nil {
		return
	}
	delete(q.taken, of)
	for _, s := range t.sources {
		if q.sources[s]--; q.sources[s] == 0 {
			delete(q.sources, s)
		}
	}
}

// overdue reports whether the wake of a workload has taken its time.
func (q *turns) overdue(of *route.Target) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.taken[of]
	return t != nil && time.Since(t.began) >= turnFor
}

// give gives back the turn of a workload, if it has one, and lets others begin.
func (q *turns) give(of *route.Target) {
	q.mu.Lock()
	q.leave(of)
	var begin []*turn
	q.waiting = slices.DeleteFunc(q.waiting, func(t *turn) bool {
		switch {
		case !t.target.MayBeginWake(), !t.wanted():
			t.target.Dequeue()
			return true
		case q.room(t):
			q.enter(t)
			t.target.Dequeue()
			t.target.Touch() // tells the peers, which do not know of its requests yet
			begin = append(begin, t)
			return true
		}
		return false
	})
	q.mu.Unlock()
	for _, t := range begin {
		t.begin()
	}
}
