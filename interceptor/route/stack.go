// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"maps"
	"slices"
)

// stacks has which Services wake together with which. Their owners name them by their own names: an Ingress's traffic has an alias
// Service of another name. What was learned names workloads.
type stacks struct {
	// named has the entries of serviceIndex.all by the opted-in Service's name, if that is another one than their own, and namedBy those
	// whose Routes name it.
	named, namedBy map[serviceKey]map[serviceKey]struct{}
	// calledBy has the entries whose Calls have a workload.
	calledBy map[Key]map[serviceKey]struct{}
	// above has what Leaders and Callers have found since the Services last changed in a way that matters for it. KEDA's streams ask
	// every second for every workload.
	above map[Key]above
}

// above are workloads that keep another one up, and those that wake it.
type above struct{ leaders, callers []Key }

// maxStack is how many workloads wake together with one at most, those that lie nearest.
const maxStack = 100

func newStacks() stacks {
	return stacks{
		named: map[serviceKey]map[serviceKey]struct{}{}, namedBy: map[serviceKey]map[serviceKey]struct{}{},
		calledBy: map[Key]map[serviceKey]struct{}{}, above: map[Key]above{},
	}
}

// sameStack reports whether two states of a Service mean the same for what wakes together.
func sameStack(a, b *Service) bool {
	return a.Routes.Service == b.Routes.Service && a.target() == b.target() && a.Routes.NoLearning == b.Routes.NoLearning &&
		slices.Equal(a.Routes.WakeWith, b.Routes.WakeWith) && slices.Equal(a.Calls, b.Calls)
}

// own is the key by which other Services name s.
func (s *Service) own() serviceKey { return serviceKey{s.Namespace, s.Routes.Service} }

func (s *stacks) add(of *Service) {
	if of.own() != of.key() { // else serviceIndex.all has it by that name
		put(s.named, of.own(), of.key())
	}
	for _, name := range of.Routes.WakeWith {
		put(s.namedBy, serviceKey{of.Namespace, name}, of.key())
	}
	for _, callee := range of.calls() {
		put(s.calledBy, callee, of.key())
	}
}

func (s *stacks) remove(of *Service) {
	drop(s.named, of.own(), of.key())
	for _, name := range of.Routes.WakeWith {
		drop(s.namedBy, serviceKey{of.Namespace, name}, of.key())
	}
	for _, callee := range of.calls() {
		drop(s.calledBy, callee, of.key())
	}
}

// calls are the workloads that the workload of s is known to call when it wakes.
func (s *Service) calls() []Key {
	if s.Routes.NoLearning {
		return nil
	}
	keys := make([]Key, 0, len(s.Calls))
	for _, workload := range s.Calls {
		keys = append(keys, Key{Namespace: s.Namespace, Workload: workload})
	}
	return keys
}

func put[K comparable](in map[K]map[serviceKey]struct{}, key K, entry serviceKey) {
	if in[key] == nil {
		in[key] = map[serviceKey]struct{}{}
	}
	in[key][entry] = struct{}{}
}

func drop[K comparable](in map[K]map[serviceKey]struct{}, key K, entry serviceKey) {
	if delete(in[key], entry); len(in[key]) == 0 {
		delete(in, key)
	}
}

// Stacks answers which workloads of a Table wake together.
type Stacks struct{ Table *Table }

// Led are routes of the workloads that wake together with the target, one of each: those that its Services name or that it is known
// to call, and those of which the same is true for these in turn.
func (s Stacks) Led(target *Target) []*Route {
	t := s.Table
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*Route
	for _, key := range t.services.led(target.Key) {
		if r := s.routeTo(key); r != nil {
			out = append(out, r)
		}
	}
	return out
}

// LedKeys are the keys of the workloads that Led has routes to.
func (s Stacks) LedKeys(key Key) []Key {
	s.Table.mu.Lock()
	defer s.Table.mu.Unlock()
	return s.Table.services.led(key)
}

func (i *serviceIndex) led(key Key) []Key {
	return i.reach(key, func(s *Service) []serviceKey {
		var next []serviceKey
		for _, name := range s.Routes.WakeWith {
			named := serviceKey{s.Namespace, name}
			if one, known := i.all[named]; known && one.own() == named {
				next = append(next, named)
			}
			next = slices.AppendSeq(next, maps.Keys(i.stacks.named[named]))
		}
		for _, callee := range s.calls() {
			if i.learns(callee) {
				next = append(next, i.of[callee]...)
			}
		}
		return next
	})
}

// Leaders are the other workloads that keep the target up while they are in use: they lead it by name.
func (s Stacks) Leaders(target *Target) []*Target {
	return s.above(target, func(a above) []Key { return a.leaders })
}

// Callers are the other workloads that wake the target when they wake: its Leaders, and those that are known to call it.
func (s Stacks) Callers(target *Target) []*Target {
	return s.above(target, func(a above) []Key { return a.callers })
}

func (s Stacks) above(target *Target, pick func(above) []Key) []*Target {
	t := s.Table
	t.mu.Lock()
	defer t.mu.Unlock()
	all, known := t.services.stacks.above[target.Key]
	if !known {
		all = t.services.aboveOf(target.Key)
		t.services.stacks.above[target.Key] = all
	}
	var out []*Target
	for _, key := range pick(all) {
		if one := t.targets[key]; one != nil {
			out = append(out, one)
		}
	}
	return out
}

func (i *serviceIndex) aboveOf(key Key) above {
	leaders := func(s *Service) []serviceKey { return slices.Collect(maps.Keys(i.stacks.namedBy[s.own()])) }
	return above{
		leaders: i.reach(key, leaders),
		callers: i.reach(key, func(s *Service) []serviceKey {
			next := leaders(s)
			if callers := i.stacks.calledBy[s.target()]; len(callers) > 0 && i.learns(s.target()) {
				next = slices.AppendSeq(next, maps.Keys(callers))
			}
			return next
		}),
	}
}

// learns reports whether a workload may wake because another one is known to call it: none of its Services forbids that.
func (i *serviceIndex) learns(key Key) bool {
	return !slices.ContainsFunc(i.of[key], func(of serviceKey) bool {
		s := i.all[of]
		return s.Routes.NoLearning
	})
}

// reach returns the workloads that next leads to from the Services of one, without that one, the nearest first. The caller holds
// Table.mu.
func (i *serviceIndex) reach(from Key, next func(*Service) []serviceKey) []Key {
	seen, queue := map[Key]struct{}{from: {}}, []Key{from}
	for at := 0; at < len(queue); at++ {
		for _, key := range i.of[queue[at]] {
			s := i.all[key]
			for _, other := range next(&s) {
				one := i.all[other]
				to := one.target()
				if _, known := seen[to]; known {
					continue
				}
				if len(queue) > maxStack {
					return queue[1:]
				}
				seen[to] = struct{}{}
				queue = append(queue, to)
			}
		}
	}
	return queue[1:]
}

// routeTo returns a route to a workload, nil if there is none. The caller holds mu.
func (s Stacks) routeTo(key Key) *Route {
	t := s.Table
	for _, of := range t.services.of[key] {
		service := t.services.all[of]
		for _, p := range service.Routes.Ports {
			if r := t.routes[keyOf(service, p)]; r != nil {
				return r
			}
		}
	}
	return nil
}
