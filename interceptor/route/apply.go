// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"cmp"
	"iter"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// apply brings the routes of s in line with s.
func (t *Table) apply(s Service) {
	target := t.target(s)
	t.services.forgetEarly(target)
	target.gate.setLimit(t.services.maxPendingPerPod(target.Key)) // before any pod is published
	for _, p := range s.Routes.Ports {
		key := keyOf(s, p)
		if p.ServerFirst {
			t.memory.Learn(News{ServerFirst: []int32{p.Listen}})
		}
		if p.SpokeHTTP {
			t.memory.Learn(News{HTTP: []int32{p.Listen}})
		}
		if owner, taken := t.ports[p.Listen]; taken && owner != key {
			if _, told := t.waiting[key]; !told {
				t.waiting[key] = struct{}{}
				t.options.Log.Error(nil, "Two routes claim one port; the first keeps it", "port", p.Listen,
					"namespace", s.Namespace, "service", s.Name,
					"ownerNamespace", owner.namespace, "owner", owner.service)
			}
			continue
		}
		delete(t.waiting, key)
		r := t.routes[key]
		if r == nil {
			r = t.newRoute(s, p)
			t.routes[key], t.ports[p.Listen] = r, key
			t.memory.add(r)
			t.update(r, target, s, p)
			t.options.Listeners.Open(r)
			continue
		}
		if r.gone != nil {
			r.gone.Stop()
			r.gone = nil
		}
		if r.abandoned != nil {
			r.abandoned.Stop()
			r.abandoned = nil
		}
		t.update(r, target, s, p)
	}
	t.refresh(target)
}

// idleCost is the memory of a route without connections.
const idleCost = 4 << 10

func (t *Table) newRoute(s Service, p api.Port) *Route {
	p.Protocol, p.ProxyProtocol = "", false // these two may change: see Route.Protocol
	r := &Route{
		Namespace: s.Namespace, Service: s.Routes.Service, ServiceUID: s.Routes.ServiceUID, Port: p,
		Metrics: t.options.RouteMetrics(s.Namespace, s.Routes.Service),
		learned: learned{memory: t.memory, listen: p.Listen}, sightings: sightings{clock: t.clock},
		clock: t.clock, waker: t.options.Waker, waiting: waiting{maxHeld: t.options.MaxHeld},
		reportGaveUp: t.options.GaveUp, minGaveUp: t.options.MinGaveUp, reportFull: t.options.Full,
	}
	t.options.Budget.Open(&r.Memory, s.Namespace)
	r.Memory.Force(idleCost)
	r.since.Store(t.clock.now())
	return r
}

// target returns the target of s, and makes it if there is none.
func (t *Table) target(s Service) *Target {
	key := s.target()
	target := t.targets[key]
	if target == nil {
		target = &Target{
			Key: key, clock: t.clock, made: t.clock.now(), metrics: t.options.TargetMetrics(key), hub: t.options.Hub,
			gate: newGate(t.clock), wake: wake{clock: t.clock}, podCount: podCount{clock: t.clock}, starting: starting{clock: t.clock},
			rate: rate{clock: t.clock},
		}
		t.options.Hub.Changed(key)
		t.targets[key] = target
	}
	if old := target.workload.Load(); old == nil || *old != s.Routes.Workload {
		w := s.Routes.Workload // s as a whole must not stay
		target.workload.Store(&w)
	}
	return target
}

// update publishes a new snapshot of r if anything in it has changed.
func (t *Table) update(r *Route, target *Target, s Service, p api.Port) {
	next := &snapshot{
		rules: rules{
			target: target, holdTimeout: time.Duration(s.Routes.HoldTimeout), retiring: s.Routes.Retiring, gone: s.Routes.Gone,
			affinity: s.Routes.ClientAffinity, sleepID: s.SleepID, startID: s.SleepID, protocol: p.Protocol, proxies: p.ProxyProtocol,
			waitingPage: cmp.Or(s.Routes.WaitingPage, api.PageAuto), fullDetails: s.Routes.FullDetails,
			ignored: ignores(&s.Routes, r.snap.Load(), t.usual),
		},
		progress: s.Progress, progressAt: t.clock.now(), reach: s.Routes.Reach,
	}
	old := r.snap.Load()
	same := old != nil && reflect.DeepEqual(old.progress, next.progress)
	if same {
		next.progressAt = old.progressAt
	}
	target.setProgress(next.progress, next.progressAt)
	if old != nil && s.Pods > 0 {
		next.startID = old.startID
	}
	next.endpoints = t.endpoints(r, old, target, s.addrs(r.Port.Name, target.early))
	next.sticky = stickyFor(&s.Routes, old, next.endpoints)
	if old == nil {
		target.routes++
	} else if old.target != target {
		old.target.routes--
		target.routes++
	}
	if !same || next.rules != old.rules || !slices.Equal(next.endpoints, old.endpoints) || !reflect.DeepEqual(next.reach, old.reach) {
		r.publish(next)
	}
	if old != nil && old.target != target {
		t.refresh(old.target)
	}
}

// endpoints returns the endpoints at addrs, and lets the other endpoints of old leave. An endpoint that was in old stays the same
// object, unless the route has another target now. An address that is listed twice counts once: Kubernetes may be moving it from one
// slice to another.
func (t *Table) endpoints(r *Route, old *snapshot, target *Target, addrs []string) []*Endpoint {
	gone, present := map[string]*Endpoint{}, map[string]bool{}
	if old != nil {
		for _, e := range old.endpoints {
			gone[e.Addr] = e
		}
	}
	var now []*Endpoint
	for _, addr := range addrs {
		if present[addr] {
			continue
		}
		present[addr] = true
		e := gone[addr]
		if e != nil && e.gate == target.gate {
			delete(gone, addr)
		} else {
			e = t.newEndpoint(r, target, addr)
		}
		now = append(now, e)
	}
	for _, e := range gone {
		t.leave(e)
	}
	return now
}

func (t *Table) newEndpoint(r *Route, target *Target, addr string) *Endpoint {
	e := &Endpoint{
		Addr: addr, clock: t.clock, hash: hashText(addr), route: r, gate: target.gate,
		recovered: func() { t.republish(r) }, lost: func() { reportUnreachable(r, t.options.Unreachable) },
	}
	if t.options.NewPool != nil {
		e.Pool = t.options.NewPool(addr)
	}
	return e
}

// leave hands over the pools of endpoints that no new request will find. They are closed as soon as mu is released.
func (t *Table) leave(endpoints ...*Endpoint) {
	for _, e := range endpoints {
		if e.Pool != nil {
			t.left = append(t.left, e.Pool)
		}
	}
}

// unlock releases mu, and then closes the pools of the endpoints that have left, which may take a while.
func (t *Table) unlock() {
	left := t.left
	t.left = nil
	t.mu.Unlock()
	for _, pool := range left {
		if err := pool.Close(); err != nil {
			t.options.Log.V(1).Info("Closing the connections to a pod failed", "error", err.Error())
		}
	}
}

// republish wakes the requests that wait at r although nothing in the snapshot has changed: a suspect pod answers again.
func (t *Table) republish(r *Route) {
	t.mu.Lock()
	defer t.mu.Unlock()
	same := *r.snap.Load()
	r.publish(&same)
}

// refresh recomputes what target derives from its routes. A target without routes stays until nothing is pending, so that a workload
// that comes back meanwhile finds its count again.
func (t *Table) refresh(target *Target) {
	if target.routes == 0 {
		t.drop(target)
		return
	}
	var cooldown, hold time.Duration
	var pods, ready, early int
	var wakeTo int32
	retiring, neverSleeps, paused, kept, expected, noLearning, checked, rated := false, false, false, false, false, false, false, false
	var windows []string
	for _, key := range t.services.of[target.Key] {
		s := t.services.all[key]
		cooldown = max(cooldown, time.Duration(s.Routes.Cooldown))
		hold = max(hold, time.Duration(s.Routes.HoldTimeout))
		if s.Routes.Awake != "" {
			windows = append(windows, s.Routes.Awake)
		}
		retiring = retiring || s.Routes.Retiring
		neverSleeps = neverSleeps || s.Routes.NeverSleeps
		paused = paused || s.Progress.Paused != nil
		kept = kept || s.Progress.Paused != nil && s.Progress.Paused.Kept
		noLearning = noLearning || s.Routes.NoLearning
		checked = checked || s.Routes.Busy != nil
		rated = rated || s.Routes.CountsRate
		expected = expected || s.Progress.Stage != "" || s.Progress.Failing != ""
		pods = max(pods, s.Pods)
		wakeTo = max(wakeTo, s.Progress.WakeTo)
		for _, addrs := range s.Endpoints {
			ready += len(addrs)
		}
		early += s.early(target.early)
	}
	if cooldown > 0 { // with 0, only lingering routes are left, and the old values stay
		target.cooldown.Store(int64(cooldown))
		target.drowsy.Store(int64(api.InactiveAfter(cooldown)))
		target.given.Store(int64(api.StartTime(hold)))
		target.setWindows(windows)
		target.countRate(rated)
	}
	if neverSleeps {
		target.drowsy.Store(0)
	}
	target.retiring.Store(retiring)
	target.paused.Store(paused)
	target.keptAsleep.Store(kept)
	target.wakeTo.Store(wakeTo)
	target.noLearning.Store(noLearning)
	target.checked.Store(checked)
	slept := !target.HasPods()
	target.setPods(int32(pods), int32(ready), early > 0, expected)
	woke := slept && target.HasPods() && t.IsSynced() // what is there at the start has been there before
	t.memory.newcomers.set(target, woke, t.services.pods(target.Key))
	t.options.PodsChanged(target)
}

// maxPendingPerPod is the smallest that a Service of the workload sets; 0 if none sets one.
func (i *serviceIndex) maxPendingPerPod(of Key) int64 {
	var least int64
	for _, key := range i.of[of] {
		if n := int64(i.all[key].Routes.MaxPendingPerPod); n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	return least
}

// pods yields the IP addresses of a workload's pods, ready or not. It may yield an address several times.
func (i *serviceIndex) pods(of Key) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, key := range i.of[of] {
			for _, addr := range i.all[key].IPs {
				if ip, err := netip.ParseAddr(addr); err == nil && !yield(ip.Unmap()) {
					return
				}
			}
		}
	}
}
