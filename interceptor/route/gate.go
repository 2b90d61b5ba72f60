// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// gate hands the places at a target's pods to the requests that wait for one, in the order in which they arrived. A request whose
// client stays at a pod waits for that one, and later requests may pass it on their way to others. A place is handed to one request,
// and only that one wakes.
//
// A pod has max-pending-per-pod places. A pod that starts while many requests are held has a window besides: the whole crowd at once
// could kill it. The window grows by one with each answer while the pod keeps up: it needs no longer because it has more requests.
// It doubles after each second without an answer, because these may be long polls or streams. The windows are gone as soon as no
// request waits, until no pod can be used again.
//
// Requests pass an open gate without its lock, and are not queued behind others. The gate then only has those that found no pod.
type gate struct {
	// shut is set while there is a limit or a window.
	shut  atomic.Bool
	clock clock

	mu sync.Mutex // protects all below, the queues of routes and endpoints, and what endpoints and pods say so of
	// limit is max-pending-per-pod; 0 is none.
	limit int64
	pods  map[string]*pod // by IP address; nil until there was one
	// waiting is how many requests are queued. turns counts those that ever were.
	waiting, turns int64
	// usable is set while a pod can be used. fresh is set from the moment when none can until no request waits for one.
	usable, fresh bool
	// timer looks again when a window may grow, or a suspect pod may be tried again; nil until there was a need.
	timer *time.Timer
}

func newGate(c clock) *gate { return &gate{clock: c, fresh: true} }

// setLimit sets max-pending-per-pod; 0 is no limit. Pods that have more requests keep them.
func (g *gate) setLimit(limit int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limit != limit {
		g.limit = limit
		g.handOut()
	}
}

// publish makes s the snapshot of r in place of old, and hands out the places of its pods. The waiters come from another gate.
func (g *gate) publish(r *Route, old, s *snapshot, waiters []*waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range waiters {
		w.gate.Store(g)
		r.any.add(w)
		g.waiting++
	}
	if old != nil && old.target == s.target {
		g.unlist(old.endpoints)
	}
	for _, e := range s.endpoints {
		g.list(e)
	}
	g.forget()
	g.look() // before requests see s: it may shut the gate
	r.snap.Store(s)
	g.sort(r, old, s)
	g.handOut()
}

// leave ends what r has to do with the gate, because r leads to another target now or is closed. then gets the queued requests.
func (g *gate) leave(r *Route, then func([]*waiter)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := r.snap.Load()
	waiters := r.waiters(s, nil)
	g.waiting -= int64(len(waiters))
	g.unlist(s.endpoints)
	g.forget()
	g.look()
	then(waiters)
	g.handOut()
}

// close makes r pass the gate from now on: its last requests go to its last pods.
func (g *gate) close(r *Route) {
	g.leave(r, func(waiters []*waiter) {
		r.left = true
		for _, w := range waiters {
			w.place <- nil
		}
	})
}

func (g *gate) list(e *Endpoint) {
	e.listed = true
	if e.pod != nil {
		return
	}
	ip := hostOf(e.Addr)
	if g.pods == nil {
		g.pods = map[string]*pod{}
	}
	if g.pods[ip] == nil {
		g.pods[ip] = &pod{}
	}
	e.pod = g.pods[ip]
	e.pod.endpoints = append(e.pod.endpoints, e)
}

func (g *gate) unlist(endpoints []*Endpoint) {
	for _, e := range endpoints {
		e.listed = false
	}
}

// forget forgets endpoints that have left and are not in use any more.
func (g *gate) forget() {
	for ip, p := range g.pods {
		p.endpoints = slices.DeleteFunc(p.endpoints, func(e *Endpoint) bool {
			unused := !e.listed && e.pending.Load() == 0
			if unused {
				e.pod = nil
			}
			return unused
		})
		if len(p.endpoints) == 0 {
			delete(g.pods, ip)
		}
	}
}

// look finds out which pods can be used, and begins the windows of those that have just begun to be.
func (g *gate) look() {
	usable, now := false, g.clock.now()
	for _, p := range g.pods {
		before := p.usable
		p.usable = slices.ContainsFunc(p.endpoints, func(e *Endpoint) bool { return e.listed && e.suspect.Load() == 0 })
		if p.usable && !before && g.fresh && g.waiting > startWindow {
			p.window, p.quiet, p.pace = p.pending()+startWindow, now, pace{first: now, second: now}
		}
		usable = usable || p.usable
	}
	if g.usable = usable; !usable {
		g.fresh = true
		g.endWindows()
	}
	g.setShut()
}

func (g *gate) endWindows() {
	for _, p := range g.pods {
		p.window = 0
	}
}

func (g *gate) setShut() {
	shut := g.limit > 0
	for _, p := range g.pods {
		shut = shut || p.window > 0
	}
	if g.shut.Load() != shut {
		g.shut.Store(shut)
	}
}

// takes reports whether e may get a request now: it is listed, and not suspect or due for another try.
func (e *Endpoint) takes(now int64) bool { return e.listed && e.suspect.Load() <= now }

// claim takes a place. A suspect pod goes to one request only, which probes whether it answers again. Until that is known, the pod's
// other clients are lent.
func (g *gate) claim(e *Endpoint, now int64) (ok, probes bool) {
	until := e.suspect.Load()
	probes = until != 0
	if probes && (until > now || !e.suspect.CompareAndSwap(until, now+int64(probeFor))) {
		return false, true
	}
	e.pending.Add(1)
	if probes {
		g.resort(e.route)
	}
	return true, probes
}

// tryPick is Route.TryPick while the gate is shut.
func (g *gate) tryPick(r *Route, v *Visit) *Endpoint {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := r.snap.Load()
	if s.target.gate != g {
		return nil // the route has just moved to another target; it is held there
	}
	return g.take(r, s, v)
}

// take takes a place for a request that nobody waits before: whoever waits could not have had it.
func (g *gate) take(r *Route, s *snapshot, v *Visit) *Endpoint {
	if r.left {
		return s.pick(r.clock, v)
	}
	now := g.clock.now()
	for {
		best := s.own(now, v)
		if best == nil {
			for _, e := range s.endpoints {
				if e.takes(now) && (best == nil || e.before(best)) && g.hasPlace(e.pod) {
					best = e
				}
			}
		}
		if best == nil || !best.takes(now) || !g.hasPlace(best.pod) {
			return nil
		}
		ok, probes := g.claim(best, now)
		if probes {
			g.handOut()
		}
		if ok {
			return best
		}
	}
}

// freed says that a place at e is free again, because the pod has answered a request or because the request did not need it.
func (g *gate) freed(e *Endpoint, answered bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := e.pod
	if p == nil {
		return // its pod has been forgotten
	}
	if answered && p.window > 0 && e.suspect.Load() == 0 {
		now := g.clock.now()
		p.quiet = now
		if p.pace.answer(now); p.pace.keepsUp(p.window, now) {
			p.window++
		}
	}
	for g.waiting > 0 && g.hasPlace(p) {
		to, w := p.first(g.clock.now())
		if w == nil {
			break
		}
		if g.give(to, w) {
			g.handOut()
		}
	}
	g.settle()
}

// failed says that e has become suspect.
func (g *gate) failed(e *Endpoint) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.look()
	g.resort(e.route)
	g.handOut()
}

// handOut gives all free places to the requests that fit, the first of them first.
func (g *gate) handOut() {
	g.setShut()
	for g.waiting > 0 {
		var to *Endpoint
		var first *waiter
		now := g.clock.now()
		for _, p := range g.pods {
			if !g.hasPlace(p) {
				continue
			}
			e, w := p.first(now)
			if w != nil && (first == nil || w.before(first) || w == first && e.before(to)) {
				to, first = e, w
			}
		}
		if first == nil {
			break
		}
		g.give(to, first)
	}
	g.settle()
	g.schedule()
}

// give hands a place to a request, and reports whether others may have places elsewhere now.
func (g *gate) give(to *Endpoint, w *waiter) (lends bool) {
	ok, probes := g.claim(to, g.clock.now())
	if ok {
		w.leave()
		g.waiting--
		w.place <- to
	}
	return probes
}

// settle ends the windows if nobody waits.
func (g *gate) settle() {
	if g.waiting == 0 && g.usable && g.fresh {
		g.fresh = false
		g.endWindows()
		g.setShut()
	}
}

// sort queues the requests of r anew after a change of its snapshot: their own pods may be others now.
func (g *gate) sort(r *Route, old, s *snapshot) {
	if !s.prefers() && (old == nil || !old.prefers()) {
		return
	}
	waiters := r.waiters(s, old)
	slices.SortFunc(waiters, func(a, b *waiter) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	now := g.clock.now()
	for _, w := range waiters {
		g.queue(s, now, w)
	}
}

// waiters empties the queues of r, whose snapshots are s and, if there was another one before, old.
func (r *Route) waiters(s, old *snapshot) []*waiter {
	all := r.any.take(nil)
	for _, e := range s.endpoints {
		all = e.own.take(all)
	}
	if old != nil && old.target == s.target {
		for _, e := range old.endpoints {
			all = e.own.take(all)
		}
	}
	return all
}

// resort is sort after a change of what is suspect.
func (g *gate) resort(r *Route) {
	if s := r.snap.Load(); s.target.gate == g {
		g.sort(r, nil, s)
	}
}

// queue queues a request at its own pod, or for any pod of its route.
func (g *gate) queue(s *snapshot, now int64, w *waiter) {
	if own := s.own(now, w.visit); own != nil {
		own.own.add(w)
	} else {
		w.route.any.add(w)
	}
}

// tick lets windows grow, and tries suspect pods again.
func (g *gate) tick() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now, routes := g.clock.now(), map[*Route]struct{}{}
	for _, p := range g.pods {
		if p.window > 0 && now-p.quiet >= int64(quietWindow) {
			p.window, p.quiet = 2*p.window, now
		}
		for _, e := range p.endpoints {
			if e.suspect.Load() != 0 {
				routes[e.route] = struct{}{}
			}
		}
	}
	g.look()
	for r := range routes {
		g.resort(r)
	}
	g.handOut()
}

// schedule has tick called when it next has something to do.
func (g *gate) schedule() {
	var next int64
	now := g.clock.now()
	if g.waiting > 0 {
		for _, p := range g.pods {
			if p.window > 0 {
				next = earlier(next, p.quiet+int64(quietWindow))
			}
			for _, e := range p.endpoints {
				if until := e.suspect.Load(); e.listed && until > now {
					next = earlier(next, until)
				}
			}
		}
	}
	switch {
	case next == 0 && g.timer != nil:
		g.timer.Stop()
	case next == 0:
	case g.timer == nil:
		g.timer = time.AfterFunc(time.Duration(next-now), g.tick)
	default:
		g.timer.Reset(time.Duration(next - now))
	}
}
