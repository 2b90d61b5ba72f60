// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import "sync/atomic"

// learned is what a route has learned about the connections to its port, and shares with its peers.
type learned struct {
	memory *Memory
	listen int32 // the port
	// serverFirst is set once the app's server has been seen to speak before its client.
	serverFirst atomic.Bool
	// tabbed are the clients with remembered connections; nil if there are none.
	tabbed atomic.Pointer[map[uint64]struct{}]
}

// Later connections to a server that speaks first reach it without delay. A wrong memory does no harm: if the client speaks first
// after all, its bytes are still read first.

// ServerFirst reports whether the app's server has been seen to speak before its client.
func (l *learned) ServerFirst() bool { return l.serverFirst.Load() }

// LearnServerFirst remembers that the app's server has spoken first, here and at the peers.
func (l *learned) LearnServerFirst() {
	if l.serverFirst.Load() {
		return
	}
	l.memory.mu.Lock()
	l.memory.setServerFirst(l.listen)
	l.memory.mu.Unlock()
	l.memory.hub.Flush()
}
