// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"errors"
	"net/http"
	"strings"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// eventStream is the type that a browser's EventSource asks for, and nobody else who wants an answer that ends.
const eventStream = "text/event-stream"

// opensTab says that the request opens what a tab keeps open and opens again when it is cut.
func (c *conn) opensTab() bool {
	return string(c.req.Method(c.in.bytes())) == http.MethodGet && (c.req.HasUpgrade || c.value("accept") == eventStream)
}

// tab names what the request opens.
func (c *conn) tab() route.Tab {
	b := c.in.bytes()
	path := c.req.Target(b)
	for i, ch := range path {
		if ch == '?' { // behind it are tokens and times, which are new each time
			path = path[:i]
			break
		}
	}
	kind := "events"
	if c.req.HasUpgrade {
		kind = "upgrade"
	}
	return route.Tab{Client: c.clientHash(), Place: hash(path, []byte(kind))}
}

// clientHash tells the clients of a route apart: by the visitor's address and the User-Agent. A browser's cookies may
// change while a tab is open.
func (c *conn) clientHash() uint64 {
	return hash([]byte(c.visitor()), c.req.Value(c.in.bytes(), http1.UserAgent))
}

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

// returns says that the request comes from a tab that was left open: it opens again what the app has cut by going to
// sleep, and its client has asked for nothing else since. Any other request of that client shows that somebody is there.
func (c *conn) returns() bool {
	if !c.route.HasTabs() {
		return false
	}
	client := c.clientHash()
	if !c.route.HasTabsOf(client) {
		return false
	}
	if c.opensTab() && c.route.Returns(c.tab()) {
		return true
	}
	c.route.ForgetTabs(client)
	return false
}

// tunnelTab carries an upgraded connection, and remembers it if the app has cut it by going to sleep.
func (c *conn) tunnelTab() error {
	target := c.route.Target()
	if c.ignored {
		target = nil
	}
	talk := newTalk(c.engine, target, !c.quiet)
	talk.clientSpoke = func() { c.route.ForgetTabs(c.opened.Client) } // typed into, say
	talk.podEnded = func() {
		if !c.ignored && c.group.base.Err() == nil {
			c.route.LeaveTab(c.opened, talk.silence())
		}
	}
	seen := c.seen.Again()
	defer seen.End()
	talk.seen.Store(&seen)
	return c.engine.tunnel(c.group.base, c.client, c.upstream.Load().sock, c.in.bytes(), talk)
}

// copyEvents passes on the rest of an answer that is a stream of events. They count by their bytes, as those of an
// upgraded connection do, and no longer as a pending request.
func (c *conn) copyEvents(rest *body) error {
	if !c.quiet {
		c.listened = true
		c.route.Target().Listen()
	}
	talk := newTalk(c.engine, c.route.Target(), !c.quiet)
	talk.seen.Store(&c.seen)
	c.flow.waits = both{c, talk.of(false)}
	defer func() { c.flow.waits = c }()
	err := c.flow.copy(rest)
	if _, gone := errors.AsType[writeError](err); !gone && !c.gone.Load() && c.group.base.Err() == nil {
		c.route.LeaveTab(c.tab(), talk.silence())
	}
	return err
}

// listens says that the answer whose head is in b is a stream of events, for who has asked for one.
func (c *conn) listens(b []byte) bool {
	if c.ignored || c.answer.Status != http.StatusOK || !c.opensTab() {
		return false
	}
	for _, f := range c.answer.Fields {
		if http1.EqualFold(b[f.Start:f.NameEnd], "content-type") {
			return strings.HasPrefix(strings.ToLower(string(b[f.ValueStart:f.ValueEnd])), eventStream)
		}
	}
	return false
}

// both tells two what a flow waits for.
type both struct{ a, b waits }

func (w both) reading() {
	w.a.reading()
	w.b.reading()
}

func (w both) writing() {
	w.a.writing()
	w.b.writing()
}
