// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"sync"

	"github.com/scale-to-zero/scale-to-zero/interceptor/headers"
	"github.com/scale-to-zero/scale-to-zero/interceptor/page"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// asked is what the core asks about a request, whatever its HTTP version. Returned bytes are valid until the request goes on to a
// pod.
type asked interface {
	method() []byte
	target() []byte // as received
	agent() []byte
	host() string
	// value returns the first field with that name. The name must be in lower case.
	value(name string) string
	// named returns the visitor's address according to the proxies before us.
	named() []byte
	hasBody() bool
	hasUpgrade() bool
	// waits reports whether the request has the field of a poll.
	waits() bool
	// stick reads the request's cookies.
	stick(s *route.Sticky, v *route.Visit)
	// size returns the memory that the request takes while it is held.
	size() int64
}

// kind says how a request counts.
type kind uint8

const (
	visits    kind = iota // wakes, and counts
	ignored               // neither wakes, nor counts, nor is held
	reconnect             // from a tab that was left open: held, but neither wakes nor counts
	polls                 // from the waiting page: answered here, and counts
)

// call is a request, or a connection of bytes, on its way: how it counts, how it waits, and which pod it goes to. It is the same for
// all protocols.
type call struct {
	server *Server
	asked  asked // nil for a connection of bytes
	remote string
	visit  route.Visit
	seen   route.Seen
	kind   kind
	// listened is set once the count has ended because the client only listens.
	listened bool
	// broken is how many pods have broken off.
	broken int
	status int // of the answer; 0 before there is one
}

// exchange gets a request answered in one protocol.
type exchange interface {
	attempter
	// attend sends the request to a pod and passes the answer on, or answers itself.
	attend()
	// poll answers a poll.
	poll()
}

// serve gets the request answered by x, and counts it if it counts. All counts begin and end here and in countBytes.
func (c *call) serve(x exchange) {
	r := c.server.route
	c.kind = c.classify()
	switch c.kind {
	case ignored, reconnect:
		r.Metrics.Ignored()
		x.attend()
		return
	default:
	}
	if c.kind == polls {
		defer r.Target().BeginAgain()()
		x.poll()
		return
	}
	release := r.Target().Begin()
	defer func() {
		if !c.listened {
			release()
		}
	}()
	r.NoteCall(c.visit.Client)
	c.seen = r.See(&route.Sighting{
		Method: c.asked.method(), Target: c.asked.target(), Agent: c.asked.agent(), Remote: c.asked.named(), Client: c.visit.Client,
	})
	defer c.seen.End()
	x.attend()
}

// countBytes counts a connection of bytes. The returned function ends the count, once. A connection with a silent client does not
// renew the idle time.
func (c *call) countBytes(silent bool) (release func()) {
	c.server.route.NoteCall(c.visit.Client)
	if silent {
		return c.server.route.Target().BeginQuiet()
	}
	return sync.OnceFunc(c.server.route.Target().Begin())
}

func (c *call) classify() kind {
	switch method := c.asked.method(); {
	case c.asked.waits() && c.server.engine.options.Pages != nil && string(method) == http.MethodGet:
		return polls
	case string(method) == http.MethodConnect: // it will be refused
		return ignored
	case c.server.route.Ignores(method, c.asked.target(), c.asked.agent()):
		return ignored
	case c.reconnects():
		return reconnect
	default:
		return visits
	}
}

// answered counts the request by the status of its answer.
func (c *call) answered(status int) {
	c.status = status
	if c.kind == visits || c.kind == polls {
		c.server.route.Metrics.Answered(status)
	}
}

// stick reads the request's cookies.
func (c *call) stick() {
	if s := c.server.route.Sticky(); s != nil {
		c.asked.stick(s, &c.visit)
	}
}

// setCookie returns the value of the Set-Cookie field that keeps the client at pod, or nothing. If the app has set its session
// cookie, issued is true and session holds the cookie's attributes.
func (c *call) setCookie(s *route.Sticky, pod *route.Endpoint, session []byte, issued bool) string {
	https := c.server.engine.options.TrustedHops != 0 && strings.EqualFold(c.asked.value("x-forwarded-proto"), "https")
	return setCookie(s, &c.visit, pod, session, issued, https)
}

// way returns how the request reached us.
func (c *call) way() headers.Way {
	return headers.Way{Remote: c.remote, Trusted: c.server.engine.options.TrustedHops}
}

// visitor returns the address of the client at the far end of the proxies.
func (c *call) visitor() string { return c.way().Visitor(c.asked.named()) }

// describe fills in the visit, for the hold and for the event about a wake.
func (c *call) describe() {
	path, _, _ := bytes.Cut(c.asked.target(), []byte("?"))
	v := &c.visit
	v.Method, v.Path, v.Agent = string(c.asked.method()), string(path), string(c.asked.agent())
	v.Remote, v.Bytes, v.Quiet = c.visitor(), c.asked.size(), c.kind == reconnect
}

// setPatience decides how long the request is held before its client sees the waiting page; 0 means until the app answers.
func (c *call) setPatience() {
	c.visit.Limit = c.server.engine.options.patience(c.server.route, page.Request{
		Method: c.visit.Method, Target: string(c.asked.target()), Host: c.asked.host(),
		HasBody: c.asked.hasBody(), HasUpgrade: c.asked.hasUpgrade(), Value: c.asked.value,
	})
}

// pick chooses a pod, and holds the request until there is one.
func (c *call) pick(h holder) (*route.Endpoint, error) {
	r := c.server.route
	if pod := r.TryPick(&c.visit); pod != nil {
		return pod, nil
	}
	var pod *route.Endpoint
	if c.kind != ignored && c.asked != nil && c.visit.Method == "" {
		c.describe()
		c.setPatience()
	}
	err := h.hold(func(ctx context.Context) (err error) {
		if c.kind == ignored {
			pod, err = r.PickReady(ctx, &c.visit)
		} else {
			pod, err = r.Pick(ctx, &c.visit)
		}
		return err
	})
	return pod, err
}
