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

// asked is what the core asks of a request, whichever version of HTTP it came by. Bytes that it returns hold until the request
// goes on to a pod.
type asked interface {
	method() []byte
	target() []byte // as it came
	agent() []byte
	host() string
	// value returns the first field of that name, which is in lower case.
	value(name string) string
	// named is the visitor as the proxies before us name it.
	named() []byte
	hasBody() bool
	hasUpgrade() bool
	// waits says that it has the field of a poll.
	waits() bool
	// stick reads its cookies.
	stick(s *route.Sticky, v *route.Visit)
	// size is the memory that it takes while it is held.
	size() int64
}

// kind is what a request counts for.
type kind uint8

const (
	visits    kind = iota // wakes, and counts
	ignored               // neither wakes, nor counts, nor is held
	reconnect             // of a tab that was left open: it is held, but neither wakes nor counts
	polls                 // of the waiting page: answered here, and counts
)

// call is a request on its way, or a connection of bytes: what it counts for, how it waits, and which pod it goes to. It is the
// same for all protocols.
type call struct {
	server *Server
	asked  asked // nil for a connection of bytes
	remote string
	visit  route.Visit
	seen   route.Seen
	kind   kind
	// listened says that the count has ended, since the client only listens.
	listened bool
	// broken is how many pods have broken off.
	broken int
	status int // the answer's, 0 before there is one
}

// exchange is how one protocol has a request answered.
type exchange interface {
	attempter
	// attend sends the request to a pod and passes the answer on, or answers in the app's place.
	attend()
	// poll answers a poll.
	poll()
}

// serve has x answer the request, and counts it if it counts. Here and in countBytes counts begin and end.
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
	release := r.Target().Begin()
	defer func() {
		if !c.listened {
			release()
		}
	}()
	if c.kind == polls {
		x.poll()
		return
	}
	c.seen = r.See(&route.Sighting{
		Method: c.asked.method(), Target: c.asked.target(), Agent: c.asked.agent(), Remote: c.asked.named(), Client: c.visit.Client,
	})
	defer c.seen.End()
	x.attend()
}

// countBytes counts a connection of bytes. The function that it returns ends the count, once. The connection of a client that is
// silent leaves no trace.
func (c *call) countBytes(silent bool) (release func()) {
	if silent {
		return c.server.route.Target().BeginQuiet()
	}
	return sync.OnceFunc(c.server.route.Target().Begin())
}

func (c *call) classify() kind {
	switch method := c.asked.method(); {
	case c.asked.waits() && c.server.engine.options.Pages != nil && string(method) == http.MethodGet:
		return polls
	case string(method) == http.MethodConnect: // it is refused
		return ignored
	case c.server.route.Ignores(method, c.asked.target(), c.asked.agent()):
		return ignored
	case c.reconnects():
		return reconnect
	default:
		return visits
	}
}

// answered counts the request by its answer.
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

// setCookie returns the value of the Set-Cookie field with which pod's answer keeps the client at it, or nothing. Session holds
// the attributes of the session cookie if the app has set it.
func (c *call) setCookie(s *route.Sticky, pod *route.Endpoint, session []byte, issued bool) string {
	https := c.server.engine.options.TrustedHops != 0 && strings.EqualFold(c.asked.value("x-forwarded-proto"), "https")
	return setCookie(s, &c.visit, pod, session, issued, https)
}

// way is how the request came to us.
func (c *call) way() headers.Way {
	return headers.Way{Remote: c.remote, Trusted: c.server.engine.options.TrustedHops}
}

// visitor is the address of the client behind the proxies that the request came through.
func (c *call) visitor() string { return c.way().Visitor(c.asked.named()) }

// describe fills the visit in, for the time that it is held and for the event about a wake.
func (c *call) describe() {
	path, _, _ := bytes.Cut(c.asked.target(), []byte("?"))
	v := &c.visit
	v.Method, v.Path, v.Agent = string(c.asked.method()), string(path), string(c.asked.agent())
	v.Remote, v.Bytes, v.Quiet = c.visitor(), c.asked.size(), c.kind == reconnect
}

// setPatience decides how long the request is held before its client is shown the waiting page; 0 is until the app answers.
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
