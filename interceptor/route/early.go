// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"iter"
	"maps"
	"slices"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// Unready is what there is to ask of a workload's pods while Kubernetes calls none of them ready.
type Unready struct {
	// Readiness is how they are asked; nil if they are not to be.
	Readiness *api.Readiness
	// IPs are the addresses of those that are not ready and that have not lost their trust. It is empty if a pod is ready by
	// Kubernetes' word.
	IPs []string
}

// Unready returns what there is to ask of the target's pods.
func (t *Table) Unready(target *Target) Unready {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out Unready
	ips := map[string]struct{}{}
	for _, key := range t.services.of[target.Key] {
		s := t.services.all[key]
		for _, addrs := range s.Endpoints {
			if len(addrs) > 0 {
				return Unready{}
			}
		}
		if s.Routes.Readiness == nil || s.Routes.Retiring {
			continue
		}
		out.Readiness = s.Routes.Readiness
		for ip := range s.unready() {
			if takes, known := target.early[ip]; takes || !known {
				ips[ip] = struct{}{}
			}
		}
	}
	out.IPs = slices.Sorted(maps.Keys(ips))
	return out
}

// Word is what a Prober says of a pod.
type Word int

// The words.
const (
	WordNone   Word = iota // that it does not know
	WordReady              // that it takes requests, although Kubernetes does not call it ready yet
	WordBroken             // that Kubernetes has not agreed in time, so it is not to be asked any more
)

// Vouch says whether the target's pod at ip takes requests until Kubernetes does.
func (t *Table) Vouch(target *Target, ip string, word Word) {
	t.mu.Lock()
	defer t.unlock()
	if t.closed {
		return
	}
	if target.early == nil {
		target.early = map[string]bool{}
	}
	if target.early[ip] = word == WordReady; word == WordNone {
		delete(target.early, ip)
	}
	for _, key := range t.services.of[target.Key] {
		t.apply(t.services.all[key])
	}
}

// forgetEarly forgets the pods that are gone, and all that are not ready once one is: from then on Kubernetes decides. A pod is
// ready for all its Services as soon as it is for one, since their slices are written one after the other. The caller holds mu.
func (t *Table) forgetEarly(target *Target) {
	if len(target.early) == 0 {
		return
	}
	ready, unready := map[string]struct{}{}, map[string]struct{}{}
	for _, key := range t.services.of[target.Key] {
		s := t.services.all[key]
		for _, addrs := range s.Endpoints {
			for _, addr := range addrs {
				ready[hostOf(addr)] = struct{}{}
			}
		}
		for ip := range s.unready() {
			unready[ip] = struct{}{}
		}
	}
	maps.DeleteFunc(target.early, func(ip string, _ bool) bool {
		_, waits := unready[ip]
		_, is := ready[ip]
		return !waits || len(ready) > 0 && !is
	})
}

// addrs are the pods that take requests on a port: those that are ready, and those that are early, if the Service has pods asked.
func (s *Service) addrs(portName string, early map[string]bool) []string {
	addrs := s.Endpoints[portName]
	if s.Routes.Readiness == nil || len(early) == 0 {
		return addrs
	}
	addrs = slices.Clone(addrs)
	for _, addr := range s.Unready[portName] {
		if early[hostOf(addr)] {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// early is the number of pods that take requests before they are ready, over all ports.
func (s *Service) early(vouched map[string]bool) int {
	n := 0
	if s.Routes.Readiness != nil && len(vouched) > 0 {
		for ip := range s.unready() {
			if vouched[ip] {
				n++
			}
		}
	}
	return n
}

// unready are the IP addresses of pods that are not ready, some of them several times.
func (s *Service) unready() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, addrs := range s.Unready {
			for _, addr := range addrs {
				if !yield(hostOf(addr)) {
					return
				}
			}
		}
	}
}
