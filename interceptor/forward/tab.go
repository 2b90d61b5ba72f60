// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// eventStream is the type that a browser's EventSource asks for. No client that wants a finite answer asks for it.
const eventStream = "text/event-stream"

// opensTab reports whether the request opens something that a tab keeps open, and opens again when it is cut.
func (c *call) opensTab() bool {
	return string(c.asked.method()) == http.MethodGet && (c.asked.hasUpgrade() || c.asked.value("accept") == eventStream)
}

// tab identifies what the request opens.
func (c *call) tab() route.Tab {
	path, _, _ := bytes.Cut(c.asked.target(), []byte("?")) // the query has tokens and times, which are new each time
	kind := "events"
	if c.asked.hasUpgrade() {
		kind = "upgrade"
	}
	return route.Tab{Client: c.clientHash(), Place: hash(path, []byte(kind))}
}

// clientHash distinguishes the clients of a route by the visitor's address and the User-Agent. It leaves out cookies, because they
// may change while a tab is open.
func (c *call) clientHash() uint64 { return hash([]byte(c.visitor()), c.asked.agent()) }

// hash is FNV-1a over the parts. It has no seed, because all interceptors have to agree.
func hash(parts ...[]byte) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for _, part := range parts {
		for _, b := range part {
			h = (h ^ uint64(b)) * prime
		}
		h = (h ^ uint64(len(part))) * prime
	}
	return h
}

// reconnects reports whether the request comes from a tab that was left open: it reopens what the app has cut by going to sleep, and
// its client has asked for nothing else since. Any other request of the client shows that its user is there.
func (c *call) reconnects() bool {
	r := c.server.route
	if !r.HasTabs() {
		return false
	}
	client := c.clientHash()
	if !r.HasTabsOf(client) {
		return false
	}
	if c.opensTab() && r.Returns(c.tab()) {
		return true
	}
	r.ForgetTabs(client)
	return false
}

// hears reports whether the answer is an event stream that the client has asked for.
func (c *call) hears(status int, contentType string) bool {
	return c.kind != ignored && status == http.StatusOK && c.opensTab() && strings.HasPrefix(strings.ToLower(contentType), eventStream)
}

// hear starts to count an event stream by its bytes, like an upgraded connection, and ends its count as a pending request.
func (c *call) hear() *talk {
	target := c.server.route.Target()
	if c.kind != reconnect {
		c.listened = true
		target.Listen()
	}
	talk := newTalk(c.server.engine, target, c.kind != reconnect)
	talk.seen.Store(&c.seen)
	return talk
}

// heard remembers an event stream that the app has ended.
func (c *call) heard(t *talk) { c.server.route.LeaveTab(c.tab(), t.silence()) }
