// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"sync/atomic"
	"time"
)

const (
	// rateSeconds is the time over which the rate of requests is averaged, in seconds.
	rateSeconds = 60
	// minRateSeconds is the least time to average over. When counting has just begun, the first requests would else look like very many.
	minRateSeconds = 10
)

// rate counts the requests that arrive at a target, if one of its routes asks for that.
type rate struct {
	clock    clock
	arrivals atomic.Pointer[arrivals] // nil while nobody asks
}

// arrivals counts requests second by second. No goroutine keeps it up: it is as good after an hour without a request as after one with.
type arrivals struct {
	since int64 // the second in which counting began
	// seconds has a second in the upper half and how many requests came in it in the lower half, at that second modulo the length. The
	// length is more than rateSeconds, so that a second is complete and not yet overwritten when it is read.
	seconds [64]atomic.Uint64
}

func secondOf(clock int64) int64 { return clock / int64(time.Second) }

// Arrived counts a request that was not begun by Target.Begin.
func (r *rate) Arrived() {
	if a := r.arrivals.Load(); a != nil {
		a.add(r.clock.now())
	}
}

// add counts a request that arrives now, by clock.
func (a *arrivals) add(now int64) {
	second := secondOf(now)
	of := &a.seconds[second%int64(len(a.seconds))]
	begun := uint64(second) << 32 //nolint:gosec // seconds since this process started
	for {
		old := of.Load()
		if old>>32 == begun>>32 {
			of.Add(1)
			return
		}
		if old>>32 > begun>>32 || of.CompareAndSwap(old, begun+1) { // a request that is late by a minute may be lost
			return
		}
	}
}

// Rate returns how many requests a second have arrived in the last minute, as far as they were counted. It is 0 if nobody asks for
// that. If moves is false, it stays the same until another request arrives.
func (r *rate) Rate() (each float64, moves bool) {
	a := r.arrivals.Load()
	if a == nil {
		return 0, false
	}
	now := secondOf(r.clock.now())
	var n uint64
	for i := range a.seconds {
		of := a.seconds[i].Load()
		second, arrived := int64(of>>32), of&(1<<32-1)
		if second < now-rateSeconds || arrived == 0 {
			continue
		}
		moves = true
		if second < now { // the present second is not over yet
			n += arrived
		}
	}
	return float64(n) / float64(min(max(now-a.since, minRateSeconds), rateSeconds)), moves
}

// countRate begins or ends the counting. The caller holds Table.mu.
func (r *rate) countRate(on bool) {
	switch {
	case !on:
		r.arrivals.Store(nil)
	case r.arrivals.Load() == nil:
		r.arrivals.Store(&arrivals{since: secondOf(r.clock.now())})
	}
}
