// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// eventStream is the type that a browser's EventSource asks for, and no client that wants an answer that ends.
const eventStream = "text/event-stream"

// opensTab says that the request opens what a tab keeps open and opens again when it is cut.
func (c *call) opensTab() bool {
	return string(c.asked.method()) == http.MethodGet && (c.asked.hasUpgrade() || c.asked.value("accept") == eventStream)
}

// tab names what the request opens.
func (c *call) tab() route.Tab {
	path, _, _ := bytes.Cut(c.asked.target(), []byte("?")) // behind it are tokens and times, which are new each time
	kind := "events"
	if c.asked.hasUpgrade() {
		kind = "upgrade"
	}
	return route.Tab{Client: c.clientHash(), Place: hash(path, []byte(kind))}
}

// clientHash distinguishes the clients of a route: by the visitor's address and the User-Agent. A browser's cookies may
// change while a tab is open.
func (c *call) clientHash() uint64 { return hash([]byte(c.visitor()), c.asked.agent()) }

// hash is FNV-1a of the parts. It has no seed, since all interceptors have to agree.
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

// reconnects says that the request comes from a tab that was left open: it opens again what the app has cut by going to
// sleep, and its client has asked for nothing else since. Any other request of that client shows that its user is there.
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

// hears says that the answer is a stream of events, for a client that has asked for one.
func (c *call) hears(status int, contentType string) bool {
	return c.kind != ignored && status == http.StatusOK && c.opensTab() && strings.HasPrefix(strings.ToLower(contentType), eventStream)
}

// hear begins to count an answer that is a stream of events by its bytes, as an upgraded connection is, and no longer as a
// pending request.
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

// heard remembers a stream of events that the app has ended.
func (c *call) heard(t *talk) { c.server.route.LeaveTab(c.tab(), t.silence()) }
