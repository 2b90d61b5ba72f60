// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import "sync/atomic"

// manner is something that is learned about what is spoken on a port, from what its app does.
type manner uint8

const (
	// serverFirst: the server speaks before its client. Later connections reach it without delay. A wrong memory does no harm: if the
	// client speaks first after all, its bytes are still read first.
	serverFirst manner = iota
	// http: the app has answered requests. Later connections are requests, or TLS, whatever their clients try.
	http
)

// spoken is what is known about a port.
type spoken struct {
	listen int32
	what   manner
}

// learned is what a route has learned about the connections to its port, and shares with its peers.
type learned struct {
	memory *Memory
	listen int32 // the port
	// serverFirst and http are set once the app has been seen to behave so.
	serverFirst, http atomic.Bool
	// tabbed are the clients with remembered connections; nil if there are none.
	tabbed atomic.Pointer[map[uint64]struct{}]
}

func (l *learned) flag(what manner) *atomic.Bool {
	if what == http {
		return &l.http
	}
	return &l.serverFirst
}

// ServerFirst reports whether the app's server has been seen to speak before its client.
func (l *learned) ServerFirst() bool { return l.serverFirst.Load() }

// LearnServerFirst remembers that the app's server has spoken first, here and at the peers.
func (l *learned) LearnServerFirst() { l.learn(serverFirst) }

// SpokeHTTP reports whether the app has answered requests.
func (l *learned) SpokeHTTP() bool { return l.http.Load() }

// LearnHTTP remembers that the app has answered a request, here and at the peers.
func (l *learned) LearnHTTP() { l.learn(http) }

func (l *learned) learn(what manner) {
	if l.flag(what).Load() {
		return
	}
	l.memory.mu.Lock()
	l.memory.setSpoken(l.listen, what)
	l.memory.mu.Unlock()
	l.memory.hub.Flush()
}
