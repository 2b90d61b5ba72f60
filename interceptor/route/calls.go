// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"iter"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// callKept is how long a call is remembered: longer than news takes to reach every peer and the injector.
const callKept = 5 * time.Minute

// CallNews says that a pod of a workload that had just woken has called another workload of its namespace.
type CallNews struct {
	Caller Key
	Callee string // as in Key.Workload
	// Age is the time since the call.
	Age time.Duration
	// Asleep is set if the callee slept, or was waking.
	Asleep bool
}

// edge is from a caller to a callee.
type edge struct {
	caller Key
	callee string
}

// newcomers are the workloads that have woken a moment ago, and their pods. Requests find them without a lock, and while there are
// none, that costs nearly nothing.
type newcomers struct {
	some atomic.Bool
	// owner has the only newcomer that has a pod, by podKey. Of pods in their nodes' network, several may have one address.
	owner sync.Map

	mu   sync.Mutex // protects all below, and the writing of owner
	pods map[podKey]map[*Target]struct{}
	of   map[*Target][]podKey
	// prune drops those that are no newcomers any more; nil if there are none.
	prune *time.Timer
}

// podKey is where a pod is, according to its namespace.
type podKey struct {
	namespace string
	ip        netip.Addr
}

func newNewcomers() *newcomers {
	return &newcomers{pods: map[podKey]map[*Target]struct{}{}, of: map[*Target][]podKey{}}
}

// find returns the newcomer that has a pod; nil if none or several have it.
func (n *newcomers) find(pod podKey) *Target {
	if !n.some.Load() {
		return nil
	}
	if t, ok := n.owner.Load(pod); ok {
		return t.(*Target)
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
	if t.newcomer() {
		n.of[t] = nil
		for ip := range pods {
			pod := podKey{t.Key.Namespace, ip}
			if n.pods[pod] == nil {
				n.pods[pod] = map[*Target]struct{}{}
			}
			n.pods[pod][t] = struct{}{}
			n.of[t] = append(n.of[t], pod)
			n.own(pod)
		}
	}
	n.settle()
}

// remove says that a workload is gone.
func (n *newcomers) remove(t *Target) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop(t)
	n.settle()
}

// drop forgets a target. The caller holds mu.
func (n *newcomers) drop(t *Target) {
	for _, pod := range n.of[t] {
		if delete(n.pods[pod], t); len(n.pods[pod]) == 0 {
			delete(n.pods, pod)
		}
		n.own(pod)
	}
	delete(n.of, t)
}

// own says whose a pod is. The caller holds mu.
func (n *newcomers) own(pod podKey) {
	if len(n.pods[pod]) != 1 {
		n.owner.Delete(pod)
		return
	}
	for t := range n.pods[pod] {
		n.owner.Store(pod, t)
	}
}

// settle says whether there are newcomers, and makes sure that they do not stay. The caller holds mu.
func (n *newcomers) settle() {
	n.some.Store(len(n.of) > 0)
	if len(n.of) > 0 && n.prune == nil {
		n.prune = time.AfterFunc(api.CallsFor, n.pruneNow)
	}
}

// pruneNow drops those that are no newcomers any more, and repeats that until none is left.
func (n *newcomers) pruneNow() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.prune == nil {
		return // closed
	}
	n.prune = nil
	for t := range n.of {
		if !t.newcomer() {
			n.drop(t)
		}
	}
	n.settle()
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

// newcomer reports whether the workload has pods, and is starting or has had a ready pod for less than api.CallsFor.
func (t *Target) newcomer() bool {
	at := t.readyAt.Load()
	return t.HasPods() && (at == 0 && t.Starting() || at != 0 && t.starting.clock.now()-at < int64(api.CallsFor))
}

// NoteCall notes that a client has begun a request or a connection that counts, in case the client is a pod that has just woken.
func (r *Route) NoteCall(client netip.Addr) {
	if caller := r.memory.newcomers.find(podKey{r.Namespace, client}); caller != nil {
		r.memory.noteCall(caller, r.Target())
	}
}

func (m *Memory) noteCall(caller, callee *Target) {
	if callee.noLearning.Load() || callee == caller || !caller.newcomer() {
		return
	}
	m.mu.Lock()
	e := edge{caller.Key, callee.Key.Workload}
	now := m.clock.now()
	if old, known := m.calls.all[e]; known && now-old.at <= int64(caller.Up()) {
		m.mu.Unlock()
		return // not the first call of this wake
	}
	m.calls.set(m, e, now, callee.readyAt.Load() == 0)
	m.mu.Unlock()
	m.hub.Flush()
}
