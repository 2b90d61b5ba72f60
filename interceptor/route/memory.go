// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"sync"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
)

const (
	// tabsPerRoute is how many connections are remembered for a route at most. The one that was seen longest ago is dropped first.
	tabsPerRoute = 256
	// tabFor is how long a connection is remembered after its client was last seen. A client that comes later is a visitor.
	tabFor = 15 * time.Minute
	// renewTab is how much later a client must be seen again before the peers are told.
	renewTab = time.Minute
	// hops is longer than news takes to reach a peer. A report counts as newer only if it is newer by more than this.
	hops = 5 * time.Second
)

// Tab identifies, by hashes, a long-lived connection of a client, such as the WebSocket of a browser's tab.
type Tab struct {
	// Client identifies the client, and Place what the connection was opened for.
	Client, Place uint64
}

// TabNews is the state of a Tab, for the peers.
type TabNews struct {
	Listen int32 // the route's port
	Tab
	// Age is the time since Forgotten last changed or, if later, since the client was last seen.
	Age time.Duration
	// Forgotten says that the client has made another request since.
	Forgotten bool
}

// News is what the peers do not know yet.
type News struct {
	// ServerFirst are the ports of routes whose servers are known to speak first.
	ServerFirst []int32
	// HTTP are the ports of routes whose apps have answered requests.
	HTTP  []int32
	Tabs  []TabNews
	Calls []CallNews
	Early []EarlyNews
}

// Memory is what the routes of an interceptor have learned about connections, and share with its peers. Losing it does no harm.
type Memory struct {
	clock     clock
	hub       *counts.Hub // makes the peers' streams look when there is news
	newcomers *newcomers

	mu sync.Mutex // protects all below
	// version counts the changes. Each entry has the version of its last change.
	version uint64
	spoken  map[spoken]uint64 // version
	tabs    map[int32]map[Tab]*tabState
	routes  map[int32]*Route
	calls   facts[edge, bool]    // the first call since the caller woke, and whether the callee was asleep
	early   facts[Key, struct{}] // when a workload began to take requests before Kubernetes called a pod ready
}

type tabState struct {
	at        int64 // by clock; TabNews.Age is the time since
	forgotten bool
	version   uint64
}

// NewMemory returns an empty Memory. It makes the hub's followers look as soon as there is news.
func NewMemory(hub *counts.Hub) *Memory {
	return &Memory{
		clock: newClock(), hub: hub, newcomers: newNewcomers(),
		spoken: map[spoken]uint64{}, tabs: map[int32]map[Tab]*tabState{}, routes: map[int32]*Route{},
		calls: newFacts[edge, bool](callKept), early: newFacts[Key, struct{}](earlyKept),
	}
}

// add gives a route what is already known about its port: a peer may have learned it before this interceptor saw the route.
func (m *Memory) add(r *Route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.routes[r.Port.Listen] = r
	for _, what := range [...]manner{serverFirst, http} {
		if _, ok := m.spoken[spoken{r.Port.Listen, what}]; ok {
			r.flag(what).Store(true)
		}
	}
	m.index(r.Port.Listen)
}

// remove forgets a route. Another route may get its port.
func (m *Memory) remove(r *Route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.routes, r.Port.Listen)
	delete(m.spoken, spoken{r.Port.Listen, serverFirst})
	delete(m.spoken, spoken{r.Port.Listen, http})
	delete(m.tabs, r.Port.Listen)
}

// News returns what is new since a version, and the present version.
func (m *Memory) News(since uint64) (News, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var n News
	if m.version == since {
		return n, since
	}
	for s, version := range m.spoken {
		switch {
		case version <= since:
		case s.what == http:
			n.HTTP = append(n.HTTP, s.listen)
		default:
			n.ServerFirst = append(n.ServerFirst, s.listen)
		}
	}
	now := m.clock.now()
	for listen, tabs := range m.tabs {
		for tab, s := range tabs {
			if s.version > since {
				n.Tabs = append(n.Tabs, TabNews{Listen: listen, Tab: tab, Age: time.Duration(now - s.at), Forgotten: s.forgotten})
			}
		}
	}
	for e, call := range m.calls.since(m, since) {
		n.Calls = append(n.Calls, CallNews{Caller: e.caller, Callee: e.callee, Age: call.age, Asleep: call.value})
	}
	for key, early := range m.early.since(m, since) {
		n.Early = append(n.Early, EarlyNews{Key: key, Age: early.age})
	}
	return n, m.version
}

// Learn takes in a peer's news, unless this Memory has newer information, and passes on what is news here: not every follower follows
// every interceptor.
func (m *Memory) Learn(n News) {
	if m.learn(n) {
		m.hub.Flush()
	}
}

// learn reports whether anything was news.
func (m *Memory) learn(n News) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.version
	for _, listen := range n.ServerFirst {
		m.setSpoken(listen, serverFirst)
	}
	for _, listen := range n.HTTP {
		m.setSpoken(listen, http)
	}
	for _, c := range n.Calls {
		m.calls.learn(m, edge{c.Caller, c.Callee}, c.Age, c.Asleep)
	}
	for _, e := range n.Early {
		m.early.learn(m, e.Key, e.Age, struct{}{})
	}
	now := m.clock.now()
	for _, t := range n.Tabs {
		at := now - int64(t.Age)
		old := m.tabs[t.Listen][t.Tab]
		if old != nil && (at <= old.at || old.forgotten == t.Forgotten && at-old.at < int64(hops)) {
			continue
		}
		m.set(t.Listen, t.Tab, at, t.Forgotten)
	}
	return m.version > before
}

// setSpoken remembers what is spoken on a port. The caller holds mu.
func (m *Memory) setSpoken(listen int32, what manner) {
	if r := m.routes[listen]; r != nil {
		r.flag(what).Store(true)
	}
	if _, known := m.spoken[spoken{listen, what}]; known {
		return
	}
	m.version++
	m.spoken[spoken{listen, what}] = m.version
}

// set remembers a tab. The caller holds mu.
func (m *Memory) set(listen int32, tab Tab, at int64, forgotten bool) {
	tabs := m.tabs[listen]
	if tabs == nil {
		tabs = map[Tab]*tabState{}
		m.tabs[listen] = tabs
	}
	m.version++
	tabs[tab] = &tabState{at: at, forgotten: forgotten, version: m.version}
	m.trim(tabs)
	m.index(listen)
}

// trim drops tabs that are too old, and then those that were seen longest ago if there are too many. The caller holds mu.
func (m *Memory) trim(tabs map[Tab]*tabState) {
	now := m.clock.now()
	for tab, s := range tabs {
		if now-s.at > int64(tabFor) {
			delete(tabs, tab)
		}
	}
	for len(tabs) > tabsPerRoute {
		var oldest Tab
		at := now + 1
		for tab, s := range tabs {
			if s.at < at {
				oldest, at = tab, s.at
			}
		}
		delete(tabs, oldest)
	}
}

// index updates the index that the requests of a route read without a lock. The caller holds mu.
func (m *Memory) index(listen int32) {
	r := m.routes[listen]
	if r == nil {
		return
	}
	if len(m.tabs[listen]) == 0 {
		r.tabbed.Store(nil)
		return
	}
	clients := map[uint64]struct{}{}
	for tab, s := range m.tabs[listen] {
		if !s.forgotten {
			clients[tab.Client] = struct{}{}
		}
	}
	if len(clients) == 0 {
		r.tabbed.Store(nil)
		return
	}
	r.tabbed.Store(&clients)
}
