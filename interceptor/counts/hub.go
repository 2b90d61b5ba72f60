// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package counts connects the code that counts the requests of workloads with the followers of these counts: the peers' streams,
// which follow all workloads, and KEDA's streams, which follow one each.
//
// It does not know the counts themselves. It only says which ones have changed, so that a follower of ten thousand workloads looks
// only at the few that are in use. It imports nothing of this project.
package counts

import (
	"maps"
	"slices"
	"sync"
)

// Key identifies a workload in the cluster.
type Key struct {
	Namespace string
	Workload  string // Kind/name, such as Deployment/web
}

func (k Key) String() string { return k.Namespace + "/" + k.Workload }

// Hub notifies the followers of changed counts.
type Hub struct {
	mu   sync.Mutex // protects all below, and the followers' keys
	all  map[*Follower]struct{}
	each map[Key]map[*Follower]struct{}
}

// NewHub returns a Hub without followers.
func NewHub() *Hub {
	return &Hub{all: map[*Follower]struct{}{}, each: map[Key]map[*Follower]struct{}{}}
}

// Changed notes that a workload's counts have changed. Followers of all workloads see that when they next look.
func (h *Hub) Changed(key Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changed(key)
}

func (h *Hub) changed(key Key) {
	for f := range h.all {
		if len(f.keys) == 0 {
			signal(f.some)
		}
		f.keys[key] = struct{}{}
	}
}

// Flush makes the followers of all workloads look now.
func (h *Hub) Flush() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flush()
}

func (h *Hub) flush() {
	for f := range h.all {
		signal(f.now)
	}
}

// Poke makes the followers of one workload look now, and reports whether there are any.
func (h *Hub) Poke(key Key) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for f := range h.each[key] {
		signal(f.now)
	}
	return len(h.each[key]) > 0
}

// Followed reports whether this workload has a follower of its own.
func (h *Hub) Followed(key Key) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.each[key]) > 0
}

// Follow follows one workload until Close. At both moments, the followers of all workloads look at once.
func (h *Hub) Follow(key Key) *Follower {
	f := &Follower{hub: h, now: make(chan struct{}, 1), key: key}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.each[key] == nil {
		h.each[key] = map[*Follower]struct{}{}
	}
	h.each[key][f] = struct{}{}
	h.changed(key)
	h.flush()
	return f
}

// FollowAll follows all workloads until Close. The follower has to read the initial counts by itself.
func (h *Hub) FollowAll() *Follower {
	f := &Follower{hub: h, now: make(chan struct{}, 1), some: make(chan struct{}, 1), keys: map[Key]struct{}{}}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all[f] = struct{}{}
	return f
}

// Follower follows one workload, or all of them.
type Follower struct {
	hub       *Hub
	now, some chan struct{}
	key       Key
	// keys are the workloads whose counts have changed; nil for a follower of one workload. The hub's mu protects it.
	keys map[Key]struct{}
}

// Now has an element when the follower has to look.
func (f *Follower) Now() <-chan struct{} { return f.now }

// Some has an element when Take may return something. The follower may wait a little for more. The channel of a follower of one
// workload never has one.
func (f *Follower) Some() <-chan struct{} { return f.some }

// Take returns the workloads that have changed since the last call, in no order.
func (f *Follower) Take() []Key {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	if len(f.keys) == 0 {
		return nil
	}
	keys := slices.Collect(maps.Keys(f.keys))
	clear(f.keys)
	return keys
}

// Close stops following.
func (f *Follower) Close() {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if f.keys != nil {
		delete(h.all, f)
		return
	}
	delete(h.each[f.key], f)
	if len(h.each[f.key]) == 0 {
		delete(h.each, f.key)
	}
	h.changed(f.key)
	h.flush()
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // the follower is about to look
	}
}
