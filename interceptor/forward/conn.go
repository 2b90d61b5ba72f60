// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/budget"
	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// manyFields is for how many fields an idle connection keeps memory.
const manyFields = 64

// fieldSize is the memory that a header field takes in addition to its bytes: an http1.Field.
const fieldSize = 24

// lingerTime is how long a client that still sends may take to read the last answer.
const lingerTime = 3 * time.Second

// maxRefused is how much is read from a client whose request was not valid, so that the client can read our answer.
const maxRefused = 4 << 20

// conn is a client's HTTP/1.1 connection. One goroutine serves it, request by request. Other goroutines only use watch and close.
type conn struct {
	server *Server
	client *wire.Sock
	watch  watch
	peer   netip.AddrPort
	remote string // peer's address, for X-Forwarded-For

	// in holds bytes that were read from the client and are not used yet; nil if there are none.
	in     *wire.Buffer
	flow   wire.Flow // to the client
	served bool      // it has carried a request before
	draw   budget.Draw
	other  wire.Kind // what the connection turned out to speak instead of HTTP/1.1

	// Memory that each request uses again:
	req    http1.Request
	answer http1.Response
	out    []byte // the head of a request as it is sent, with the part of the body that is here, or the head of an answer

	now request1 // the request that is being served
}

// newConn returns the connection tcp. early was already read from it.
func (s *Server) newConn(tcp *net.TCPConn, early []byte) (*conn, error) {
	client, err := wire.NewSock(tcp, s.engine.buffers, false)
	if err != nil {
		return nil, err
	}
	client.Memory = &s.route.Memory
	c := &conn{server: s, client: client, peer: wire.RemoteAddr(tcp), draw: budget.Draw{Account: &s.route.Memory}}
	c.remote = c.peer.Addr().String()
	c.watch = watch{
		client: client, clock: &s.engine.clock, options: &s.engine.options, draining: &s.draining, log: s.log,
		memory: &s.route.Memory,
	}
	if len(early) > 0 {
		c.in = s.engine.buffers.Get(false)
		c.in.Extend(copy(c.in.Free(), early)) // it fits: Peek reads far less than a buffer holds
	}
	c.flow = wire.Flow{Dst: client, Waits: c}
	client.Progress = c.Writing
	c.watch.enter(phaseNew)
	return c, nil
}

// run serves the connection and closes it. If the connection turns out not to speak HTTP/1.1, run leaves it open and returns what it
// speaks and the bytes read. It calls known once that cannot happen any more.
func (c *conn) run(known func()) (wire.Kind, []byte, error) {
	c.server.add(c)
	defer c.server.remove(c)
	defer c.draw.Set(0)
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
		c.now.call.serve(&c.now) // the request does not count any more after this call
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
		c.draw.Set(0)
		c.watch.enter(phaseIdle)
	}
	return finished
}

// skipBlank drops an empty line after a request, which does not begin another request. It reports whether there was such a line and
// nothing else.
func (c *conn) skipBlank() bool {
	if c.in == nil || c.in.Len() == 0 || http1.BlankLine(c.in.Bytes()) != c.in.Len() {
		return false
	}
	c.in.Skip(c.in.Len())
	return true
}

// Reading implements wire.Waits for bytes on their way to the client.
func (c *conn) Reading() {
	if u := c.now.uploading; u != nil && u.running.Load() {
		c.watch.enter(phaseUpload)
		if u.running.Load() {
			return
		}
		// The upload has ended in between, and could not change the phase.
	}
	c.watch.enter(phaseAnswer)
}

// Writing implements wire.Waits.
func (c *conn) Writing() { c.watch.enter(phaseWrite) }

// rescue is the function rescue for a connection, whatever state a panic has left it in.
func (c *conn) rescue() {
	p := recover()
	if p == nil {
		return
	}
	logPanic(c.server.log(), p)
	c.in = nil                // another goroutine may still use it
	_ = c.client.SetLinger(0) // reset the connection: a regular close would complete an answer without a length
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

// next reads the head of the next request, and reports whether there is one.
func (c *conn) next() bool {
	if c.in != nil && c.in.Len() == 0 {
		c.dropIn()
	}
	c.now = request1{
		conn: c,
		call: call{server: c.server, asked: asked1{c}, remote: c.remote, visit: route.Visit{Client: c.peer.Addr()}},
	}
	parsed, seen := 0, 0 // how much of in was there at the last parse, and at the last look
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
		if err := c.read(); errors.Is(err, budget.ErrExhausted) {
			return c.refuse(err)
		} else if err != nil {
			return false
		}
		if c.served && c.skipBlank() {
			parsed, seen = 0, 0
			c.dropIn()
			c.watch.enter(phaseIdle)
		}
	}
}

// mayBeComplete reports whether a head is worth parsing again. At the last parse, the head had parsed bytes, and at the last look,
// seen bytes. It is worth parsing after an empty line, or else once it has doubled in length: a head that arrives line by line must
// not be parsed for every line.
func mayBeComplete(b []byte, parsed, seen int) bool {
	if len(b) >= 2*parsed {
		return true
	}
	came := b[max(0, seen-len("\n\r")):]
	return bytes.Contains(came, []byte("\n\r\n")) || bytes.Contains(came, []byte("\n\n"))
}

// read reads more bytes from the client.
func (c *conn) read() error {
	if c.in == nil {
		// Here the phase is set before draining is read. Drain sets draining before it reads the phase. So at least one of the two sees the
		// other.
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
		if err := c.grow(); err != nil {
			return err
		}
	}
	n, err := c.client.Read(c.in.Free())
	c.in.Extend(n)
	if n > 0 {
		return nil
	}
	return err
}

// refuse answers something that is not a valid request. Nobody knows where it ends, so the connection ends too.
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

// linger lets the client read the answer before the connection ends. If we closed the connection while bytes from the client arrive,
// the kernel would reset it, and the answer would be lost. linger reads at most limit bytes, or any number with wire.UntilEnd.
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
	c.out = nil
	b := c.lingerBuffer(limit == wire.UntilEnd)
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

// tunnel carries the bytes of an upgraded connection. From now on the bytes count instead of the request, unless the request is
// ignored. The connection is remembered as a tab if the app cuts it by going to sleep.
func (c *conn) tunnel() error {
	x := &c.now
	defer x.leave()
	c.client.Progress = nil // phaseWrite would never be left again in a tunnel
	c.watch.enter(phaseTunnel)
	target := c.server.route.Target()
	if x.kind == ignored {
		target = nil
	}
	talk := newTalk(c.server.engine, target, x.kind != reconnect)
	talk.clientSpoke = func() { c.server.route.ForgetTabs(x.opened.Client) } // the user may have typed something, for example
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
