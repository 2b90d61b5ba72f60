// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// manyFields is how many fields a connection keeps room for while it is idle.
const manyFields = 64

// fieldSize is the memory that a header field takes besides its bytes: an http1.Field.
const fieldSize = 24

// lingerTime is how long a client that still sends may take to read the last answer.
const lingerTime = 3 * time.Second

// maxRefused is how much is taken of a client that has sent what is no request, so that it can read that.
const maxRefused = 4 << 20

// conn is a client's connection of HTTP/1.1. One goroutine serves it, request by request; others only look at watch and close.
type conn struct {
	server *Server
	client *wire.Sock
	watch  watch
	peer   netip.AddrPort
	remote string // peer's address, for X-Forwarded-For

	// in is what was read of the client and is not used yet; nil is nothing.
	in     *wire.Buffer
	flow   wire.Flow // to the client
	served bool      // it has sent a request before
	other  wire.Kind // what the connection turned out to speak instead

	// Memory that the requests use one after the other:
	req    http1.Request
	answer http1.Response
	out    []byte // a request's head as it goes out, with what there is of the body, or an answer's head

	now request1 // the request that is served
}

// newConn returns the connection tcp, of which early was read already.
func (s *Server) newConn(tcp *net.TCPConn, early []byte) (*conn, error) {
	client, err := wire.NewSock(tcp, s.engine.buffers, false)
	if err != nil {
		return nil, err
	}
	c := &conn{server: s, client: client, peer: wire.RemoteAddr(tcp)}
	c.remote = c.peer.Addr().String()
	c.watch = watch{client: client, clock: &s.engine.clock, options: &s.engine.options, draining: &s.draining, log: s.log}
	if len(early) > 0 {
		c.in = s.engine.buffers.Get(false)
		c.in.Extend(copy(c.in.Free(), early)) // Peek reads far less than a buffer holds
	}
	c.flow = wire.Flow{Dst: client, Waits: c}
	client.Progress = c.Writing
	c.watch.enter(phaseNew)
	return c, nil
}

// run serves the connection and closes it, unless it turns out not to speak HTTP/1.1: then it returns the kind and what has been
// read. Known is called when that will not happen any more.
func (c *conn) run(known func()) (wire.Kind, []byte, error) {
	c.server.add(c)
	defer c.server.remove(c)
	defer c.dropIn()
	defer c.rescue()
	if c.serve(known) == upgraded {
		return wire.KindUndecided, nil, c.tunnel()
	}
	if c.other != wire.KindUndecided {
		return c.other, bytes.Clone(c.in.Bytes()), nil
	}
	_ = c.client.Close()
	return wire.KindUndecided, nil, nil
}

// serve serves requests until the connection ends or is upgraded.
func (c *conn) serve(known func()) outcome {
	for c.next() {
		if !c.served {
			c.served = true
			known()
		}
		c.now.call.serve(&c.now) // behind which the request does not count any more
		switch c.now.outcome {
		case reusable:
		case lingering:
			c.linger(wire.UntilEnd)
			return finished
		case rejected:
			c.linger(maxRefused)
			return finished
		default:
			return c.now.outcome
		}
		c.skipBlank()
		if c.in != nil && c.in.Len() > 0 {
			c.watch.enter(phaseHead)
			continue
		}
		if cap(c.out) > wire.SmallBuffer || cap(c.req.Fields) > manyFields || cap(c.answer.Fields) > manyFields {
			c.out, c.req.Fields, c.answer.Fields = nil, nil, nil
		}
		c.watch.enter(phaseIdle)
	}
	return finished
}

// skipBlank takes away an empty line behind a request, which is not the beginning of another one, and reports whether there
// was one and nothing else.
func (c *conn) skipBlank() bool {
	if c.in == nil || c.in.Len() == 0 || http1.BlankLine(c.in.Bytes()) != c.in.Len() {
		return false
	}
	c.in.Skip(c.in.Len())
	return true
}

// Reading implements wire.Waits for what goes to the client.
func (c *conn) Reading() {
	if u := c.now.uploading; u != nil && u.running.Load() {
		c.watch.enter(phaseUpload)
		if u.running.Load() {
			return
		}
		// It has ended in between, and could not say so.
	}
	c.watch.enter(phaseAnswer)
}

// Writing implements wire.Waits.
func (c *conn) Writing() { c.watch.enter(phaseWrite) }

// rescue is the function rescue for a connection, in whatever state a panic has left it.
func (c *conn) rescue() {
	p := recover()
	if p == nil {
		return
	}
	logPanic(c.server.log, p)
	c.in = nil                // it may still be in use
	_ = c.client.SetLinger(0) // an end in order would be the end of an answer without a length
	_ = c.client.Close()
	c.watch.closeUp()
	c.now.leave()
}

func (c *conn) dropIn() {
	if c.in != nil {
		c.server.engine.buffers.Put(c.in)
		c.in = nil
	}
}

// next reads until there is the head of a request, and reports whether there is.
func (c *conn) next() bool {
	if c.in != nil && c.in.Len() == 0 {
		c.dropIn()
	}
	c.now = request1{
		conn: c,
		call: call{server: c.server, asked: asked1{c}, remote: c.remote, visit: route.Visit{Client: c.peer.Addr()}},
	}
	parsed, seen := 0, 0 // how much of in there was when it was parsed last, and when it was last looked at
	for {
		if c.in != nil && mayBeComplete(c.in.Bytes(), parsed, seen) {
			parsed = c.in.Len()
			n, err := c.req.Parse(c.in.Bytes())
			switch {
			case err != nil:
				return c.refuse(err)
			case n > c.server.engine.options.Limits.MaxHeaderBytes:
				return c.refuse(http1.ErrHeadTooLarge)
			case n > 0:
				c.in.Skip(c.req.Skip)
				c.now.headLength = n
				c.now.isHead = string(c.req.Method(c.in.Bytes())) == "HEAD"
				return c.watch.enter(phaseHeld)
			}
		}
		if c.in != nil && c.in.Len()-c.req.Skip > c.server.engine.options.Limits.MaxHeaderBytes {
			return c.refuse(http1.ErrHeadTooLarge)
		}
		if c.in != nil {
			seen = c.in.Len()
		}
		if err := c.read(); err != nil {
			return false
		}
		if c.served && c.skipBlank() {
			parsed, seen = 0, 0
			c.dropIn()
			c.watch.enter(phaseIdle)
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
		if c.server.draining.Load() && c.watch.phase() == phaseIdle {
			return io.EOF
		}
		in, err := c.client.Await()
		if err != nil {
			return err
		}
		c.in = in
		if !c.watch.enter(phaseHead) {
			return net.ErrClosed
		}
		return nil
	}
	if len(c.in.Free()) == 0 {
		c.in = c.server.engine.buffers.Grow(c.in)
	}
	n, err := c.client.Read(c.in.Free())
	c.in.Extend(n)
	if n > 0 {
		return nil
	}
	return err
}

// refuse answers a request that is not one. Where it ends cannot be known, so that the connection does.
func (c *conn) refuse(err error) bool {
	if !c.served {
		if c.other = wire.SpeaksOther(c.in.Bytes()); c.other != wire.KindUndecided {
			return false
		}
	}
	c.watch.enter(phaseWrite)
	c.now.respond(c.now.answerTo(err), false)
	c.linger(maxRefused)
	return false
}

// linger lets the client read the answer before the connection ends: closing it while bytes of the client's come would
// reset it, and the answer with it. No more than limit bytes are taken for that, or any number wire.UntilEnd.
func (c *conn) linger(limit int) {
	c.watch.enter(phaseHead)
	within := lingerTime
	if c.server.base.Err() != nil {
		within = cutGrace
	}
	if c.client.CloseWrite() != nil || c.client.SetReadDeadline(time.Now().Add(within)) != nil {
		return
	}
	c.dropIn()
	b := c.server.engine.buffers.Get(true)
	defer c.server.engine.buffers.Put(b)
	for limit == wire.UntilEnd || limit > 0 {
		n, err := c.client.Read(b.Free())
		if err != nil {
			return
		}
		if limit != wire.UntilEnd {
			limit = max(0, limit-n)
		}
	}
}

// hold implements holder.
func (c *conn) hold(wait func(context.Context) error) error {
	c.watch.enter(phaseHeld)
	ctx, cancel := context.WithCancelCause(c.server.base)
	defer cancel(nil)
	c.watch.watchNow(func() { cancel(context.Canceled) })
	defer c.watch.unwatch()
	return wait(ctx)
}

// tunnel carries the bytes of an upgraded connection. It counts by them and no longer as a request, or does not. It is
// remembered if the app cuts it by going to sleep.
func (c *conn) tunnel() error {
	x := &c.now
	defer x.leave()
	c.client.Progress = nil // in a tunnel phaseWrite would never be left again
	c.watch.enter(phaseTunnel)
	target := c.server.route.Target()
	if x.kind == ignored {
		target = nil
	}
	talk := newTalk(c.server.engine, target, x.kind != reconnect)
	talk.clientSpoke = func() { c.server.route.ForgetTabs(x.opened.Client) } // typed into, say
	talk.podEnded = func() {
		if x.kind != ignored && c.server.base.Err() == nil {
			c.server.route.LeaveTab(x.opened, talk.silence())
		}
	}
	seen := x.seen.Again()
	defer seen.End()
	talk.seen.Store(&seen)
	return c.server.tunnel(c.client, c.watch.up.Load().Sock, c.in.Bytes(), talk)
}
