// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"maps"
	"slices"
)

// stacks has which Services wake together with which, by their own names: an Ingress's traffic has an alias Service of another
// name.
type stacks struct {
	// named has the entries of serviceIndex.all by the opted-in Service's name, and namedBy those whose Routes name it.
	named, namedBy map[serviceKey]map[serviceKey]struct{}
}

func newStacks() stacks {
	return stacks{named: map[serviceKey]map[serviceKey]struct{}{}, namedBy: map[serviceKey]map[serviceKey]struct{}{}}
}

// own is the key by which other Services name s.
func (s *Service) own() serviceKey { return serviceKey{s.Namespace, s.Routes.Service} }

func (s *stacks) add(of *Service) {
	put(s.named, of.own(), of.key())
	for _, name := range of.Routes.WakeWith {
		put(s.namedBy, serviceKey{of.Namespace, name}, of.key())
	}
}

func (s *stacks) remove(of *Service) {
	drop(s.named, of.own(), of.key())
	for _, name := range of.Routes.WakeWith {
		drop(s.namedBy, serviceKey{of.Namespace, name}, of.key())
	}
}

func put(in map[serviceKey]map[serviceKey]struct{}, key, entry serviceKey) {
	if in[key] == nil {
		in[key] = map[serviceKey]struct{}{}
	}
	in[key][entry] = struct{}{}
}

func drop(in map[serviceKey]map[serviceKey]struct{}, key, entry serviceKey) {
	if delete(in[key], entry); len(in[key]) == 0 {
		delete(in, key)
	}
}

// Stacks answers which workloads of a Table wake together.
type Stacks struct{ Table *Table }

// Led are routes of the workloads that wake together with the target, one of each: those that its Services name, and
// those that these name in turn.
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
		return next
	}) {
		if r := s.routeTo(key); r != nil {
			out = append(out, r)
		}
	}
	return out
}

// Leaders are the other workloads that keep the target up while they are in use: they lead it.
func (s Stacks) Leaders(target *Target) []*Target {
	t := s.Table
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.services.stacks.namedBy) == 0 { // nearly always
		return nil
	}
	var out []*Target
	for key := range t.services.reach(target.Key, func(s *Service) []serviceKey {
		return slices.Collect(maps.Keys(t.services.stacks.namedBy[s.own()]))
	}) {
		if leader := t.targets[key]; leader != nil {
			out = append(out, leader)
		}
	}
	return out
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
