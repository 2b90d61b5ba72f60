// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import "time"

const (
	// startWindow is how many requests a pod that has just started gets at first, if more than that are held.
	startWindow = 16
	// quietWindow is how long a window stays as it is while the pod answers nothing.
	quietWindow = time.Second
)

// pod is a pod with all its ports, over all routes of its target. Pods in their node's network share an address, and so their places.
type pod struct {
	// endpoints are those that are listed or still in use.
	endpoints []*Endpoint
	usable    bool // as of the gate's last look
	// window is how many requests the pod may have because it has just started; 0 is no window. quiet is when it last answered or its
	// window last doubled, by clock.
	window, quiet int64
	pace          pace
}

// pace is how fast a pod answers, over the present second and the one before.
type pace struct {
	first, second    int64 // when they began, by clock
	earlier, answers int64
	// best is the shortest time that the pod has taken to answer as many requests as it had.
	best int64
}

func (p *pace) answer(now int64) {
	if now-p.second >= int64(time.Second) {
		*p = pace{first: p.second, second: now, earlier: p.answers, best: p.best}
	}
	p.answers++
}

// keepsUp reports whether the pod answers n requests within a second, or in about the shortest time that it ever took for as many as it
// had.
func (p *pace) keepsUp(n, now int64) bool {
	takes := n * (now - p.first) / (p.earlier + p.answers)
	if p.best == 0 || takes < p.best {
		p.best = takes
	}
	return takes <= max(int64(time.Second), 2*p.best)
}

// pending is the number of the pod's requests.
func (p *pod) pending() int64 {
	var n int64
	for _, e := range p.endpoints {
		n += e.pending.Load()
	}
	return n
}

// hasPlace reports whether the pod may get another request.
func (g *gate) hasPlace(p *pod) bool {
	if g.limit == 0 && p.window == 0 {
		return true
	}
	n := p.pending()
	return (g.limit == 0 || n < g.limit) && (p.window == 0 || n < p.window)
}

// before reports whether e is the better one of two endpoints for a request that may go to either.
func (e *Endpoint) before(other *Endpoint) bool {
	a, b := e.pod.pending(), other.pod.pending()
	return a < b || a == b && e.pending.Load() < other.pending.Load()
}

// first returns the first request that can have a place at the pod, and the endpoint that it gets.
func (p *pod) first(now int64) (to *Endpoint, first *waiter) {
	for _, e := range p.endpoints {
		if !e.takes(now) {
			continue
		}
		for _, q := range [...]*queue{&e.own, &e.route.any} {
			if w := q.first(); w != nil && (first == nil || w.before(first)) {
				to, first = e, w
			}
		}
	}
	return to, first
}
