// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"iter"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// callsFor is how long after the first pod has become ready the workload's calls still belong to its wake.
	callsFor = 30 * time.Second
	// callKept is how long a call is remembered: longer than news takes to reach every peer and the injector.
	callKept = 5 * time.Minute
)

// CallNews says that a pod of a workload that had just woken has called another workload of its namespace.
type CallNews struct {
	Caller Key
	Callee string // as in Key.Workload
	// Age is the time since the call.
	Age time.Duration
	// Asleep is set if the callee had no ready pod.
	Asleep bool
}

// edge is from a caller to a callee.
type edge struct {
	caller Key
	callee string
}

// newcomers are the workloads that have woken a moment ago, and their pods. While there are none, find costs nearly nothing.
type newcomers struct {
	some atomic.Bool

	mu   sync.RWMutex // protects all below
	pods map[netip.Addr]map[*Target]struct{}
	of   map[*Target][]netip.Addr
	// prune drops those that are no newcomers any more; nil if there are none.
	prune *time.Timer
}

func newNewcomers() *newcomers {
	return &newcomers{pods: map[netip.Addr]map[*Target]struct{}{}, of: map[*Target][]netip.Addr{}}
}

// find returns the newcomer that has a pod at an address. Pods in their nodes' network have one address: it then belongs to nobody.
func (n *newcomers) find(pod netip.Addr) *Target {
	if !n.some.Load() {
		return nil
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if len(n.pods[pod]) == 1 {
		for t := range n.pods[pod] {
			return t
		}
	}
	return nil
}

// set says where the pods of a newcomer are. woke is set if it has woken just now; another workload is no newcomer.
func (n *newcomers) set(t *Target, woke bool, pods iter.Seq[netip.Addr]) {
	if !woke && !n.some.Load() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.of[t]; !known && !woke {
		return
	}
	n.drop(t)
	if !t.newcomer() {
		n.some.Store(len(n.of) > 0)
		return
	}
	n.of[t] = slices.Collect(pods)
	for _, pod := range n.of[t] {
		if n.pods[pod] == nil {
			n.pods[pod] = map[*Target]struct{}{}
		}
		n.pods[pod][t] = struct{}{}
	}
	n.some.Store(true)
	if n.prune == nil {
		n.prune = time.AfterFunc(callsFor, n.pruneNow)
	}
}

// remove says that a workload is gone.
func (n *newcomers) remove(t *Target) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop(t)
	n.some.Store(len(n.of) > 0)
}

// drop forgets a target. The caller holds mu.
func (n *newcomers) drop(t *Target) {
	for _, pod := range n.of[t] {
		if delete(n.pods[pod], t); len(n.pods[pod]) == 0 {
			delete(n.pods, pod)
		}
	}
	delete(n.of, t)
}

// pruneNow drops those that are no newcomers any more, now and again until none is left.
func (n *newcomers) pruneNow() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for t := range n.of {
		if !t.newcomer() {
			n.drop(t)
		}
	}
	n.some.Store(len(n.of) > 0)
	switch {
	case n.prune == nil: // closed
	case len(n.of) > 0:
		n.prune.Reset(callsFor)
	default:
		n.prune = nil
	}
}

// close ends the pruning.
func (n *newcomers) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.prune != nil {
		n.prune.Stop()
		n.prune = nil
	}
}

// newcomer reports whether the workload has pods, of which none has been ready for callsFor.
func (t *Target) newcomer() bool {
	at := t.readyAt.Load()
	return t.HasPods() && (at == 0 || t.starting.clock.now()-at < int64(callsFor))
}

// NoteCall notes that a client has begun a request or a connection that counts, in case the client is a pod that has just woken.
func (r *Route) NoteCall(client netip.Addr) {
	if caller := r.memory.newcomers.find(client); caller != nil {
		r.noteCall(caller)
	}
}

func (r *Route) noteCall(caller *Target) {
	s, m := r.snap.Load(), r.memory
	callee := s.target
	if s.noLearning || callee == caller || callee.Key.Namespace != caller.Key.Namespace || !caller.newcomer() {
		return
	}
	m.mu.Lock()
	e := edge{caller.Key, callee.Key.Workload}
	now := m.clock.now()
	if old, known := m.calls.all[e]; known && now-old.at <= int64(caller.Up()) {
		m.mu.Unlock()
		return // not the first call of this wake
	}
	m.calls.set(m, e, now, !callee.Ready())
	m.mu.Unlock()
	m.hub.Flush()
}
