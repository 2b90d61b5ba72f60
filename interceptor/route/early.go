// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// Unready is what to probe of a workload while Kubernetes calls none of its pods ready.
type Unready struct {
	// Readiness is the probe; nil if the pods must not be probed.
	Readiness *api.Readiness
	// IPs are the addresses of the pods that are not ready, except those that a Prober has called broken. It is empty once Kubernetes
	// calls a pod ready.
	IPs []string
}

// EarlyPods are the pods of a Table that take requests before Kubernetes calls them ready.
type EarlyPods struct{ Table *Table }

// Unready returns what to probe of the target's pods.
func (e EarlyPods) Unready(target *Target) Unready {
	t := e.Table
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

// Word is a Prober's verdict on a pod.
type Word int

// The verdicts.
const (
	WordNone   Word = iota // it does not know
	WordReady              // the pod takes requests, although Kubernetes does not call it ready yet
	WordBroken             // Kubernetes has not agreed in time, so the pod must not be probed any more
)

// EarlyNews says that a workload has begun to take requests before Kubernetes called one of its pods ready.
type EarlyNews struct {
	Key
	Age time.Duration
}

// earlyKept is how long EarlyNews is remembered. The injector needs it for the event about the start.
const earlyKept = 15 * time.Minute

// noteEarly remembers that a workload takes requests early, unless it has done so before in the same start.
func (m *Memory) noteEarly(target *Target) {
	m.mu.Lock()
	now := m.clock.now()
	if old, known := m.early.all[target.Key]; known && now-old.at <= int64(target.Up()) {
		m.mu.Unlock()
		return
	}
	m.early.set(m, target.Key, now, struct{}{})
	m.mu.Unlock()
	m.hub.Flush()
}

// Vouch sets the verdict on the target's pod at ip. It holds until Kubernetes calls the pod ready.
func (e EarlyPods) Vouch(target *Target, ip string, word Word) {
	t := e.Table
	t.mu.Lock()
	defer t.unlock()
	if t.closed {
		return
	}
	if target.early == nil {
		target.early = map[string]bool{}
	}
	if word == WordReady && !target.Ready() {
		t.memory.noteEarly(target)
	}
	if target.early[ip] = word == WordReady; word == WordNone {
		delete(target.early, ip)
	}
	for _, key := range t.services.of[target.Key] {
		t.apply(t.services.all[key])
	}
}

// forgetEarly forgets the verdicts on pods that are gone. Once Kubernetes calls a pod ready, it decides alone, and the verdicts on
// all pods that are not ready are forgotten too. A pod that is ready for one Service counts as ready for all its Services, because
// their slices are written one after the other. The caller holds Table.mu.
func (i *serviceIndex) forgetEarly(target *Target) {
	if len(target.early) == 0 {
		return
	}
	ready, unready := map[string]struct{}{}, map[string]struct{}{}
	for _, key := range i.of[target.Key] {
		s := i.all[key]
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

// addrs returns the pods that take requests on a port: the ready ones and, if the Service's pods are probed, the early ones.
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

// unready yields the IP addresses of pods that are not ready. It may yield an address several times.
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
