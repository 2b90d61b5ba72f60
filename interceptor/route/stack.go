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
	// named has the entries of serviceIndex.all by the opted-in Service's name, and namedBy those whose Routes name it.
	named, namedBy map[serviceKey]map[serviceKey]struct{}
	// calledBy has the entries whose Calls have a workload.
	calledBy map[Key]map[serviceKey]struct{}
}

func newStacks() stacks {
	return stacks{
		named: map[serviceKey]map[serviceKey]struct{}{}, namedBy: map[serviceKey]map[serviceKey]struct{}{},
		calledBy: map[Key]map[serviceKey]struct{}{},
	}
}

// own is the key by which other Services name s.
func (s *Service) own() serviceKey { return serviceKey{s.Namespace, s.Routes.Service} }

func (s *stacks) add(of *Service) {
	put(s.named, of.own(), of.key())
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
	for key := range t.services.reach(target.Key, func(s *Service) []serviceKey {
		var next []serviceKey
		for _, name := range s.Routes.WakeWith {
			next = slices.AppendSeq(next, maps.Keys(t.services.stacks.named[serviceKey{s.Namespace, name}]))
		}
		for _, callee := range s.calls() {
			if t.services.learns(callee) {
				next = append(next, t.services.of[callee]...)
			}
		}
		return next
	}) {
		if r := s.routeTo(key); r != nil {
			out = append(out, r)
		}
	}
	return out
}

// Leaders are the other workloads that keep the target up while they are in use: they lead it by name.
func (s Stacks) Leaders(target *Target) []*Target { return s.above(target, false) }

// Callers are the other workloads that wake the target when they wake: its Leaders, and those that are known to call it.
func (s Stacks) Callers(target *Target) []*Target { return s.above(target, true) }

func (s Stacks) above(target *Target, learned bool) []*Target {
	t := s.Table
	t.mu.Lock()
	defer t.mu.Unlock()
	stacks := &t.services.stacks
	next := func(s *Service) []serviceKey {
		above := slices.Collect(maps.Keys(stacks.namedBy[s.own()]))
		if callers := stacks.calledBy[s.target()]; learned && len(callers) > 0 && t.services.learns(s.target()) {
			above = slices.AppendSeq(above, maps.Keys(callers))
		}
		return above
	}
	if !slices.ContainsFunc(t.services.of[target.Key], func(of serviceKey) bool {
		s := t.services.all[of]
		return len(next(&s)) > 0
	}) {
		return nil // nearly always
	}
	var out []*Target
	for key := range t.services.reach(target.Key, next) {
		if leader := t.targets[key]; leader != nil {
			out = append(out, leader)
		}
	}
	return out
}

// learns reports whether a workload may wake because another one is known to call it: none of its Services forbids that.
func (i *serviceIndex) learns(key Key) bool {
	return !slices.ContainsFunc(i.of[key], func(of serviceKey) bool {
		s := i.all[of]
		return s.Routes.NoLearning
	})
}

// reach returns the workloads that next leads to from the Services of one, without that one. The caller holds Table.mu.
func (i *serviceIndex) reach(from Key, next func(*Service) []serviceKey) map[Key]struct{} {
	seen := map[Key]struct{}{from: {}}
	for queue := []Key{from}; len(queue) > 0; queue = queue[1:] {
		for _, key := range i.of[queue[0]] {
			s := i.all[key]
			for _, other := range next(&s) {
				to := i.all[other]
				if _, known := seen[to.target()]; !known {
					seen[to.target()] = struct{}{}
					queue = append(queue, to.target())
				}
			}
		}
	}
	delete(seen, from)
	return seen
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
