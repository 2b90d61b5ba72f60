// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"cmp"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/budget"
	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
)

// Service is all that the watch of Kubernetes knows about one opted-in Service.
type Service struct {
	Namespace string
	// Name is the name of the Service that owns the route slices. RemoveService uses the same name.
	Name   string
	Routes api.Routes
	// Created is when the first route slice was created. If two Services claim a port, the older one gets it.
	Created time.Time
	// Endpoints are the ready pods, as ip:port, by port name.
	Endpoints map[string][]string
	// Unready are the pods that have an address but are not ready, in the same form.
	Unready map[string][]string
	// Pods is the number of pods, ready or not, and IPs has all their addresses, of either family.
	Pods int
	IPs  []string
	// Published is set if a route slice sends traffic to this interceptor itself.
	Published bool
	// Progress is the state of the workload's start.
	Progress api.Progress
	// Calls are workloads of the namespace that the workload is known to call when it wakes, as in Key.Workload: they wake with it.
	Calls []string
	// SleepID changes whenever the pods do. It is the same at every interceptor.
	SleepID string
}

// Sink receives what the watch of Kubernetes sees. Only one goroutine calls it.
type Sink interface {
	// SetService sets the new state of a Service.
	SetService(Service)
	// RemoveService says that the Service has no route slice any more.
	RemoveService(namespace, name string)
	// Synced says that everything that existed at the start has been set.
	Synced()
}

// Listeners opens and closes the ports of routes. Neither method may block or call the Table.
type Listeners interface {
	Open(r *Route)
	Close(r *Route)
}

// TableOptions configure a Table.
type TableOptions struct {
	Listeners Listeners
	Waker     Waker
	// RouteMetrics and TargetMetrics make the observers for a new route and a new target.
	RouteMetrics  func(namespace, service string) Metrics
	TargetMetrics func(Key) TargetMetrics
	// Linger is how long a removed route is still served, because kube-proxies learn of the removal late. Default 10 s.
	Linger time.Duration
	// MaxHeld is how many requests of one route may wait for a pod. Default 10000.
	MaxHeld int64
	// Budget is the memory that all routes share. Default without bounds.
	Budget *budget.Pool
	// Full is called when a route's connections or requests are refused because of their memory, once until it uses much less. It must
	// not block. Default none.
	Full func(*Route)
	// NewPool makes Endpoint.Pool: what package forward keeps for a pod of one route, such as idle connections. It must neither block
	// nor call the Table. An Engine of package forward accepts only pools that it has made. Default none.
	NewPool func(addr string) io.Closer
	// Unreachable is called when a ready pod of a route has been unreachable for long. It must not block. Default none.
	Unreachable func(*Route, *UnreachableError)
	// PodsChanged is called when the pods of a target may have changed. It must neither block nor call the Table. Default none.
	PodsChanged func(*Target)
	// Hub is told about each change of a target's counts. Default one without followers.
	Hub *counts.Hub
	// Memory is what routes have learned about connections, here and at the peers. Default empty.
	Memory *Memory
	// GaveUp is called when clients give up while their requests are held. It must not block. Default none.
	GaveUp func(*Route, GaveUp)
	// MinGaveUp is the shortest wait that GaveUp considers: people lose patience with shorter waits at any time. Default 10 s.
	MinGaveUp time.Duration
	Log       logr.Logger
}

func (o *TableOptions) setDefaults() {
	o.Linger = cmp.Or(o.Linger, 10*time.Second)
	o.MaxHeld = cmp.Or(o.MaxHeld, 10000)
	o.MinGaveUp = cmp.Or(o.MinGaveUp, 10*time.Second)
	if o.PodsChanged == nil {
		o.PodsChanged = func(*Target) {}
	}
	if o.Hub == nil {
		o.Hub = counts.NewHub()
	}
	if o.Memory == nil {
		o.Memory = NewMemory(o.Hub)
	}
}

// routeKey identifies a route. If a Service changes and the key stays the same, so does the route.
type routeKey struct {
	namespace, service, port string
	listen                   int32
}

func keyOf(s Service, p api.Port) routeKey {
	return routeKey{namespace: s.Namespace, service: s.Name, port: p.Name, listen: p.Listen}
}

type serviceKey struct{ namespace, service string }

func (s *Service) key() serviceKey { return serviceKey{s.Namespace, s.Name} }

// target returns the key of the workload of s.
func (s *Service) target() Key {
	return Key{Namespace: s.Namespace, Workload: s.Routes.Workload.String()}
}

// serviceIndex has the Services that the watch knows, by name and by workload.
type serviceIndex struct {
	all map[serviceKey]Service
	of  map[Key][]serviceKey
	// published is how many of the Services send traffic to this interceptor.
	published int
	stacks    stacks
}

func (i *serviceIndex) add(s Service) {
	i.all[s.key()] = s
	i.of[s.target()] = append(i.of[s.target()], s.key())
	i.stacks.add(&s)
	if s.Published {
		i.published++
	}
}

func (i *serviceIndex) remove(s Service) {
	delete(i.all, s.key())
	i.stacks.remove(&s)
	target := s.target()
	if rest := slices.DeleteFunc(i.of[target], func(other serviceKey) bool { return other == s.key() }); len(rest) > 0 {
		i.of[target] = rest
	} else {
		delete(i.of, target)
	}
	if s.Published {
		i.published--
	}
}

// Table has all routes and targets.
type Table struct {
	options TableOptions
	clock   clock
	memory  *Memory
	usual   *ignored // of routes without settings of their own
	syncing

	// mu protects the fields below and serializes the writing of snapshots. No request takes it, except one that finds that a suspect
	// pod answers again.
	mu       sync.Mutex
	services serviceIndex
	routes   map[routeKey]*Route
	ports    map[int32]routeKey
	targets  map[Key]*Target
	// waiting are the routes whose port belongs to another route.
	waiting map[routeKey]struct{}
	// left are the pools that unlock has to close.
	left   []io.Closer
	closed bool
}

// NewTable returns an empty Table.
func NewTable(o TableOptions) *Table {
	o.setDefaults()
	return &Table{
		options:  o,
		clock:    newClock(),
		memory:   o.Memory,
		usual:    &ignored{agentNames: newAgentNames(knownAgents())},
		syncing:  syncing{make(chan struct{})},
		services: serviceIndex{all: map[serviceKey]Service{}, of: map[Key][]serviceKey{}, stacks: newStacks()},
		routes:   map[routeKey]*Route{},
		ports:    map[int32]routeKey{},
		targets:  map[Key]*Target{},
		waiting:  map[routeKey]struct{}{},
	}
}

// SetService implements Sink.
func (t *Table) SetService(s Service) {
	t.mu.Lock()
	defer t.unlock()
	if t.closed {
		return
	}
	old, known := t.services.all[s.key()]
	if !known || !sameStack(&old, &s) {
		clear(t.services.stacks.above)
	}
	if known {
		t.services.remove(old)
		t.dropMissing(old, s)
	}
	t.services.add(s)
	t.apply(s)
	if target := t.target(s); !known && target.counted() {
		// The workload had requests here before. Later requests may have gone straight to its pods, so it cannot be called idle yet. Its
		// pods are listed only a little later; but it cannot be asleep, because it was restored in between.
		target.Touch()
	}
}

// RemoveService implements Sink.
func (t *Table) RemoveService(namespace, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := serviceKey{namespace, name}
	old, known := t.services.all[key]
	if !known || t.closed {
		return
	}
	clear(t.services.stacks.above)
	t.services.remove(old)
	t.dropMissing(old, Service{Namespace: namespace, Name: name})
	if target := t.targets[old.target()]; target != nil && len(t.services.of[old.target()]) > 0 {
		target.gate.setLimit(t.services.maxPendingPerPod(old.target())) // without any Service, the last ones of it keep the limit
	}
}

// Target returns the target with this key, or nil.
func (t *Table) Target(key Key) *Target {
	t.mu.Lock()
	defer t.mu.Unlock()
	target := t.targets[key]
	if target == nil || t.drop(target) {
		return nil
	}
	return target
}

// drop forgets a target without routes once none of its requests is pending, and reports whether it did. The caller holds mu.
func (t *Table) drop(target *Target) bool {
	if target.routes > 0 || target.Pending() > 0 {
		return false
	}
	delete(t.targets, target.Key)
	t.memory.newcomers.remove(target)
	t.options.Hub.Changed(target.Key)
	return true
}

// Targets returns all targets, in no order.
func (t *Table) Targets() []*Target {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Target, 0, len(t.targets))
	for _, target := range t.targets {
		if !t.drop(target) {
			all = append(all, target)
		}
	}
	return all
}

// Service returns the state of a Service, by the name of the Service that owns the route slices.
func (t *Table) Service(namespace, name string) (Service, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, known := t.services.all[serviceKey{namespace, name}]
	return s, known
}

// Routes returns all routes, in no order.
func (t *Table) Routes() []*Route {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Values(t.routes))
}

// InUse returns how many pods, over all routes, were picked and not yet returned with Done. It is 0 when nothing runs.
func (t *Table) InUse() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var n int64
	for _, r := range t.routes {
		for _, e := range r.snap.Load().endpoints {
			n += e.pending.Load()
		}
	}
	return n
}

// Published reports whether any route slice still sends traffic to this interceptor.
func (t *Table) Published() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.services.published > 0
}

// Close stops the timers of lingering routes and closes the pools of all pods; nothing changes afterwards.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.unlock()
	if t.closed {
		return
	}
	t.closed = true
	t.memory.newcomers.close()
	for _, r := range t.routes {
		if r.gone != nil {
			r.gone.Stop()
		}
		if r.abandoned != nil {
			r.abandoned.Stop()
		}
		t.leave(r.snap.Load().endpoints...)
	}
}

// dropMissing lets the routes linger that old has and now does not. They keep their last endpoints, because the direct slices may be
// deleted first.
func (t *Table) dropMissing(old, now Service) {
	keep := map[routeKey]bool{}
	for _, p := range now.Routes.Ports {
		keep[keyOf(now, p)] = true
	}
	for _, p := range old.Routes.Ports {
		key := keyOf(old, p)
		r := t.routes[key]
		if !keep[key] {
			delete(t.waiting, key)
		}
		if keep[key] || r == nil || r.gone != nil {
			continue
		}
		r.gone = time.AfterFunc(t.options.Linger, func() { t.expire(key, r) })
		t.abandonLater(key, r)
	}
}

// expire closes a route whose linger is over, and gives its port to a Service that waits for the port.
func (t *Table) expire(key routeKey, r *Route) {
	t.mu.Lock()
	defer t.unlock()
	if t.closed || t.routes[key] != r || r.gone == nil {
		return // closed, or in use again
	}
	delete(t.routes, key)
	delete(t.ports, key.listen)
	t.memory.remove(r)
	target := r.Target()
	target.routes--
	t.refresh(target)
	t.abandon(r)
	target.gate.close(r)
	t.options.Listeners.Close(r)
	r.Memory.Give(idleCost)
	r.Memory.Close()
	t.leave(r.snap.Load().endpoints...)
	waiting := make([]Service, 0, 1)
	for other := range t.waiting {
		if s, ok := t.services.all[serviceKey{other.namespace, other.service}]; ok && other.listen == key.listen {
			waiting = append(waiting, s)
		}
	}
	slices.SortFunc(waiting, func(a, b Service) int { return a.Created.Compare(b.Created) })
	for _, s := range waiting {
		t.apply(s)
	}
}
