// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

// Which ports have a server that speaks first is remembered, so that later connections reach it without delay. A memory
// that is wrong does no harm: a client that speaks first is still heard first.

// ServerFirst says whether the app's server has been seen to speak before its client.
func (r *Route) ServerFirst() bool { return r.serverFirst.Load() }

// LearnServerFirst remembers that the app's server has spoken first, here and at the peers.
func (r *Route) LearnServerFirst() {
	if r.serverFirst.Load() {
		return
	}
	r.memory.mu.Lock()
	r.memory.setServerFirst(r.Port.Listen)
	r.memory.mu.Unlock()
	r.memory.hub.Flush()
}
