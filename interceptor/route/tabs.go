// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import "time"

// A tab that was left open reconnects whenever its connection breaks, even if the app ended the connection by going to sleep. It
// would wake the app again and again. So a connection is remembered, by its client and place, if the app ended it after a silence as
// long as the app's permitted idle time. While the client does nothing else, its reconnects do not count.

// HasTabs reports whether any connection is remembered. It costs nearly nothing.
func (l *learned) HasTabs() bool { return l.tabbed.Load() != nil }

// HasTabsOf reports whether any connection of this client is remembered.
func (l *learned) HasTabsOf(client uint64) bool {
	clients := l.tabbed.Load()
	if clients == nil {
		return false
	}
	_, ok := (*clients)[client]
	return ok
}

// LeaveTab remembers a connection that the app has ended after a silence, if the silence was long enough for the app to fall asleep.
func (r *Route) LeaveTab(tab Tab, silence time.Duration) {
	drowsy := r.Target().drowsy.Load()
	if drowsy == 0 || silence < time.Duration(drowsy) || r.Target().surelyAwake() {
		return
	}
	m := r.memory
	m.mu.Lock()
	m.set(r.Port.Listen, tab, m.clock.now(), false)
	m.mu.Unlock()
	m.hub.Flush()
}

// Returns reports whether a request reopens a remembered connection.
func (r *Route) Returns(tab Tab) bool {
	if !r.HasTabsOf(tab.Client) {
		return false
	}
	m := r.memory
	m.mu.Lock()
	s := m.tabs[r.Port.Listen][tab]
	now := m.clock.now()
	if s == nil || s.forgotten || now-s.at > int64(tabFor) {
		m.mu.Unlock()
		return false
	}
	renewed := now-s.at > int64(renewTab)
	if renewed {
		m.set(r.Port.Listen, tab, now, false)
	}
	m.mu.Unlock()
	if renewed {
		m.hub.Flush()
	}
	// The request may arrive just when the pods are about to terminate.
	r.Target().beginSettling(r.clock.now())
	return true
}

// ForgetTabs forgets the connections of a client that has made another request: its user is there.
func (l *learned) ForgetTabs(client uint64) {
	if !l.HasTabsOf(client) {
		return
	}
	m := l.memory
	m.mu.Lock()
	for tab, s := range m.tabs[l.listen] {
		if tab.Client == client && !s.forgotten {
			m.set(l.listen, tab, m.clock.now(), true)
		}
	}
	m.mu.Unlock()
	m.hub.Flush()
}
