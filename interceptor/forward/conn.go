// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/page"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// manyFields is how many fields a connection keeps room for while it is idle.
const manyFields = 64

// fieldSize is the memory that a header field takes besides its bytes: an http1.Field.
const fieldSize = 24

// lingerTime is how long a client that still sends may take to read the last answer.
const lingerTime = 3 * time.Second

// maxRefused is how much is taken of a client that has sent what is no request, so that it can read that.
const maxRefused = 4 << 20

// conn is a client's connection. One goroutine serves it, request by request; others only look at state and close.
type conn struct {
	engine *Engine
	group  *Group
	route  *route.Route
	client *sock
	peer   netip.AddrPort
	remote string // peer's address, for X-Forwarded-For

	state    atomic.Uint64 // a state
	upstream atomic.Pointer[podConn]
	gone     atomic.Bool // the client went away while it was watched

	begun atomic.Bool // some of the answer, or an informational one, has been written

	mu                   sync.Mutex // protects both below
	watchStop, watchDone chan struct{}

	// in is what was read of the client and is not used yet; nil is nothing.
	in *buffer

	// Of the request that is served:
	req        http1.Request
	headLength int    // of req in in
	used       int    // how much of in is the request
	body       body   // what is still to come of its body
	streams    bool   // something is
	last       bool   // the client said that it sends no other request
	isHead     bool   // its method is HEAD
	out        []byte // the head as it goes out, with what there is of the body
	sent       int    // the length of that
	uploading  *upload
	rest       *buffer // what the upload read behind the body

	visit        route.Visit
	seen         route.Seen
	ignored      bool // it neither wakes nor counts
	quiet        bool // it comes from a tab that was left open: it waits, but neither wakes nor counts
	listened     bool // its count has ended, since it only listens
	opened       route.Tab
	answer       http1.Response
	answerLength int  // of answer's head
	status       int  // the answer's, 0 before there is one
	broken       bool // a connection that had been used before broke off
	undelivered  bool // nothing of the request has reached the app on the connection that broke off

	pod    *route.Endpoint // which the request, or the upgraded connection, has
	flow   flow            // to the client
	other  Kind            // what the connection turned out to speak instead
	served bool            // it has sent a request before
	host   string          // the Service's name, for a request without one
}

// Serve serves the requests of a connection, whose first bytes may have been read already, and closes it. If it turns out
// not to speak HTTP/1.1, but KindHTTP2, or KindTCP because it is TLS, it is not closed, and what has been read of it is
// returned. Known is called when that will not happen any more.
func (g *Group) Serve(tcp *net.TCPConn, peeked []byte, r *route.Route, known func()) (Kind, []byte, error) {
	s, err := g.engine.newSock(tcp, false)
	if err != nil {
		_ = tcp.Close()
		return KindHTTP, nil, err
	}
	c := &conn{engine: g.engine, group: g, route: r, client: s, host: r.Service + "." + r.Namespace}
	c.peer = remoteAddr(tcp)
	c.remote = c.peer.Addr().String()
	if len(peeked) > 0 {
		c.in = g.engine.buffers.get(false)
		c.in.end = copy(c.in.b, peeked) // Peek reads far less than a buffer holds
	}
	c.flow = flow{dst: s, waits: c}
	s.progress = c.writing
	c.enter(phaseNew)
	g.engine.add(c)
	defer g.engine.remove(c)
	defer c.dropIn()
	defer c.rescue()
	switch c.serve(known) {
	case upgraded:
		return KindHTTP, nil, c.tunnel()
	default:
	}
	if c.other != KindUndecided {
		return c.other, bytes.Clone(c.in.bytes()), nil
	}
	_ = tcp.Close()
	return KindHTTP, nil, nil
}

// serve serves requests until the connection ends or is upgraded.
func (c *conn) serve(known func()) outcome {
	for c.next() {
		if !c.served {
			c.served = true
			known()
		}
		switch o := c.exchange(); o { // behind which the request does not count any more
		case reusable:
		case lingering:
			c.linger(untilEnd)
			return finished
		case rejected:
			c.linger(maxRefused)
			return finished
		default:
			return o
		}
		c.skipBlank()
		if c.in != nil && c.in.len() > 0 {
			c.enter(phaseHead)
			continue
		}
		if cap(c.out) > smallBuffer || cap(c.req.Fields) > manyFields || cap(c.answer.Fields) > manyFields {
			c.out, c.req.Fields, c.answer.Fields = nil, nil, nil
		}
		c.enter(phaseIdle)
	}
	return finished
}

// skipBlank takes away an empty line behind a request, which is not the beginning of another one, and reports whether there
// was one and nothing else.
func (c *conn) skipBlank() bool {
	if c.in == nil || c.in.len() == 0 || http1.BlankLine(c.in.bytes()) != c.in.len() {
		return false
	}
	c.in.start = c.in.end
	return true
}

// tunnel carries the bytes of an upgraded connection. It counts by them and no longer as a request, or does not.
func (c *conn) tunnel() error {
	defer c.leave()
	c.client.progress = nil // in a tunnel nobody would leave phaseWrite again
	c.enter(phaseTunnel)
	return c.tunnelTab()
}

// leave gives back the pod.
func (c *conn) leave() {
	pod := c.pod
	c.pod = nil
	pod.Done()
}

// rescue is Rescue for a connection, in whatever state a panic has left it.
func (c *conn) rescue() {
	p := recover()
	if p == nil {
		return
	}
	logPanic(c.engine.options.Log.WithValues("namespace", c.route.Namespace, "service", c.route.Service), p)
	c.in = nil                // it may still be in use
	_ = c.client.SetLinger(0) // an end in order would be the end of an answer without a length
	_ = c.client.Close()
	if up := c.upstream.Load(); up != nil {
		_ = up.Close()
	}
	if c.pod != nil {
		c.leave()
	}
}

func (c *conn) dropIn() {
	if c.in != nil {
		c.engine.buffers.put(c.in)
		c.in = nil
	}
}

// next reads until there is the head of a request, and reports whether there is.
func (c *conn) next() bool {
	if c.in != nil && c.in.len() == 0 {
		c.dropIn()
	}
	c.visit, c.ignored, c.quiet, c.isHead = route.Visit{Client: c.peer.Addr()}, false, false, false
	parsed, seen := 0, 0 // how much of in there was when it was parsed last, and when it was last looked at
	for {
		if c.in != nil && mayBeComplete(c.in.bytes(), parsed, seen) {
			parsed = c.in.len()
			n, err := c.req.Parse(c.in.bytes())
			switch {
			case err != nil:
				return c.refuse(err)
			case n > c.engine.options.Limits.MaxHeaderBytes:
				return c.refuse(http1.HeadTooLarge)
			case n > 0:
				c.in.start += c.req.Skip
				c.headLength = n
				c.isHead = string(c.req.Method(c.in.bytes())) == "HEAD"
				return c.enter(phaseHeld)
			}
		}
		if c.in != nil && c.in.len()-c.req.Skip > c.engine.options.Limits.MaxHeaderBytes {
			return c.refuse(http1.HeadTooLarge)
		}
		if c.in != nil {
			seen = c.in.len()
		}
		if err := c.read(); err != nil {
			return false
		}
		if c.served && c.skipBlank() {
			parsed, seen = 0, 0
			c.dropIn()
			c.enter(phaseIdle)
		}
	}
}

// mayBeComplete says whether a head is worth parsing, of which the first bytes were parsed and more were seen: whenever an
// empty line has come, and else when there is twice as much, so that one that comes line by line is not parsed as often.
func mayBeComplete(b []byte, parsed, seen int) bool {
	if len(b) >= 2*parsed {
		return true
	}
	came := b[max(0, seen-len("\n\r")):]
	return bytes.Contains(came, []byte("\n\r\n")) || bytes.Contains(came, []byte("\n\n"))
}

// read reads more of the client.
func (c *conn) read() error {
	if c.in == nil {
		// Looked at after the phase was entered, while Drain looks at the phase after it has said so: one of the two
		// sees the other.
		if c.group.draining.Load() && state(c.state.Load()).phase() == phaseIdle {
			return io.EOF
		}
		in, err := c.client.await()
		if err != nil {
			return err
		}
		c.in = in
		if !c.enter(phaseHead) {
			return net.ErrClosed
		}
		return nil
	}
	if len(c.in.free()) == 0 {
		c.in = c.engine.buffers.grow(c.in)
	}
	n, err := c.client.Read(c.in.free())
	c.in.end += n
	if n > 0 {
		return nil
	}
	return err
}

// refuse answers a request that is not one. What follows it cannot be told from it, so that the connection ends.
func (c *conn) refuse(err error) bool {
	if !c.served {
		if c.other = speaksOther(c.in.bytes()); c.other != KindUndecided {
			return false
		}
	}
	c.enter(phaseWrite)
	c.respond(c.answerTo(err), false)
	c.linger(maxRefused)
	return false
}

// answerTo is what the client is told about err.
func (c *conn) answerTo(err error) answer {
	o := &c.engine.options
	held := o.heldFor(&c.visit)
	a, ok := o.pageFor(c.route, &c.visit, err, c.value)
	if !ok {
		a = answerFor(err)
	}
	a.fields = append(a.fields, ownFields(err, held)...)
	return a
}

// respond answers for an app that does not.
func (c *conn) respond(a answer, keep bool) {
	c.answered(a.status)
	if a.status == StatusClientGone {
		return
	}
	c.out = appendAnswer(c.out[:0], a, !keep, c.isHead)
	c.enter(phaseWrite)
	_, _ = c.client.Write(c.out) // the client may be gone, and there is nobody else to tell
}

// linger lets the client read the answer before the connection ends: closing it while bytes of the client's come would
// reset it, and the answer with it. No more than limit bytes are taken for that, or any number untilEnd.
func (c *conn) linger(limit int) {
	c.enter(phaseHead)
	patience := lingerTime
	if c.group.base.Err() != nil {
		patience = cutGrace
	}
	if c.client.CloseWrite() != nil || c.client.SetReadDeadline(time.Now().Add(patience)) != nil {
		return
	}
	c.dropIn()
	b := c.engine.buffers.get(true)
	defer c.engine.buffers.put(b)
	for limit == untilEnd || limit > 0 {
		n, err := c.client.Read(b.free())
		if err != nil {
			return
		}
		if limit != untilEnd {
			limit = max(0, limit-n)
		}
	}
}

// awaitSettled has a request wait that must not be sent twice, where the app may just be falling asleep.
func (c *conn) awaitSettled() error {
	if c.ignored || c.route.Settled() || c.replayable() {
		return nil
	}
	c.enter(phaseHeld)
	ctx, cancel := context.WithCancelCause(c.group.base)
	defer cancel(nil)
	c.watchNow(func() { cancel(context.Canceled) })
	defer c.unwatch()
	return c.route.Settle(ctx)
}

// pick chooses a pod, and holds the request until there is one.
func (c *conn) pick() (*route.Endpoint, error) {
	if pod := c.route.TryPick(&c.visit); pod != nil {
		return pod, nil
	}
	c.enter(phaseHeld)
	if c.ignored {
		return c.route.PickReady(c.group.base, &c.visit)
	}
	ctx, cancel := context.WithCancelCause(c.group.base)
	defer cancel(nil)
	c.watchNow(func() { cancel(context.Canceled) })
	defer c.unwatch()
	if c.visit.Method == "" {
		c.describe(&c.visit)
		c.visit.Quiet = c.quiet
		c.visit.Patience = c.engine.options.patience(c.route, page.Request{
			Method: c.visit.Method, Target: string(c.req.Target(c.in.bytes())), Host: c.value("host"), HasBody: c.req.Length > 0 || c.req.Chunked, HasUpgrade: c.req.HasUpgrade, Value: c.value,
		})
	}
	return c.route.Pick(ctx, &c.visit)
}

// visitor is the address of the client behind the proxies that the request came through.
func (c *conn) visitor() string {
	hops := appendHops(nil, &c.req, c.in.bytes(), hop{c.remote, c.engine.options.TrustedHops}, c.req.Has(http1.XForwardedFor))
	return lastHop(string(hops))
}

// describe fills visit in, for the time that it is held and for the event about a wake.
func (c *conn) describe(visit *route.Visit) {
	b := c.in.bytes()
	path, _, _ := bytes.Cut(c.req.Target(b), []byte("?"))
	visit.Method, visit.Path = string(c.req.Method(b)), string(path)
	visit.Remote = c.visitor()
	visit.Agent = string(c.req.Value(b, http1.UserAgent))
	visit.Bytes = int64(len(c.in.b)+cap(c.out)) + int64(cap(c.req.Fields))*fieldSize
}
