// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import "sync/atomic"

// learned is what a route has learned about the connections to its port, and shares with the peers.
type learned struct {
	memory *Memory
	listen int32 // the port
	// serverFirst says that the app's server has been seen to speak before its client.
	serverFirst atomic.Bool
	// tabbed are the clients of which connections are remembered; nil is none.
	tabbed atomic.Pointer[map[uint64]struct{}]
}

// Which ports have a server that speaks first is remembered, so that later connections reach it without delay. A memory
// that is wrong does no harm: a client that speaks first is still heard first.

// ServerFirst says whether the app's server has been seen to speak before its client.
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
