// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// maxBroken is how many pods may break off before they answer for the request still to go to another one. The request
// may be what killed them, so it must not be carried through all of them.
const maxBroken = 1

// maxSmallBody is the longest body that is sent together with the head, if all of it has come.
const maxSmallBody = 16 << 10

// outcome is what becomes of a connection after a request.
type outcome uint8

const (
	finished  outcome = iota // it ends
	reusable                 // it takes another request
	upgraded                 // it carries bytes from now on
	lingering                // it ends once the client, which still sends, has had time to read the answer
	rejected                 // likewise, but little of what it sends is read
)

// exchange has one request answered, and counts it if it counts.
func (c *conn) exchange() outcome {
	polls := c.polls()
	c.seen = route.Seen{}
	if c.ignored = !polls && c.ignores(); c.ignored {
		c.route.Metrics.Ignored()
		return c.attend()
	}
	if c.quiet = !polls && c.returns(); c.quiet {
		c.route.Metrics.Ignored()
		return c.attend()
	}
	c.listened = false
	release := c.route.Target().Begin()
	defer func() {
		if !c.listened {
			release()
		}
	}()
	if polls {
		return c.poll()
	}
	c.seen = c.see()
	defer c.seen.End()
	return c.attend()
}

// attend has one request answered.
func (c *conn) attend() outcome {
	if err := c.begin(); err != nil {
		return c.fail(err)
	}
	if err := c.awaitSettled(); err != nil {
		return c.fail(err)
	}
	for broken := 0; ; {
		pod, err := c.pick()
		if err != nil {
			return c.fail(err)
		}
		c.pod = pod
		up, err := c.connect(pod)
		if err != nil {
			c.leave()
			if c.group.base.Err() != nil {
				return c.fail(context.Cause(c.group.base))
			}
			continue
		}
		result, err := c.carry(up)
		if err == nil && result == upgraded {
			return upgraded
		}
		c.leave()
		switch {
		case err == nil:
			return result
		case !c.again(pod, up, err, &broken):
			return c.fail(err)
		}
	}
}

func (c *conn) begin() error {
	c.status, c.broken = 0, false
	c.begun.Store(false)
	c.stick()
	return c.prepare()
}

// prepare finds out where the request ends and writes its head as it goes out.
func (c *conn) prepare() error {
	c.last = c.req.Close || c.req.Minor == 0 && !c.req.KeepAlive
	c.body = body{left: max(c.req.Length, 0), chunked: c.req.Chunked}
	if c.req.Length > 0 && c.req.Length <= maxSmallBody {
		c.readSmallBody()
	}
	b := c.in.bytes()
	first, n, err := c.body.take(b[c.headLength:], false)
	if err != nil {
		return err
	}
	h := hop{remote: c.remote, trusted: c.engine.options.TrustedHops}
	c.out = appendRequest(c.out[:0], &c.req, b, h, c.host)
	c.out = append(c.out, first...)
	c.streams = !c.body.ended()
	c.used = c.headLength + n
	c.sent = len(c.out)
	return nil
}

// readSmallBody reads what has come already of a body that is small enough to be sent with its head. Clients often send
// the two one right after the other.
func (c *conn) readSmallBody() {
	missing := c.headLength + int(c.req.Length) - c.in.len()
	for missing > len(c.in.free()) {
		c.in = c.engine.buffers.grow(c.in)
	}
	if missing > 0 {
		c.client.tryRead(c.in)
	}
}

// connect returns a connection to pod for the request.
func (c *conn) connect(pod *route.Endpoint) (*podConn, error) {
	if c.route.ProxyProtocol() {
		return takeFor(c.group.base, pod, endsOf(c.route, c.peer, c.client.LocalAddr()))
	}
	maxIdle := hotFor
	switch {
	case c.streams, c.broken:
		maxIdle = 0
	case c.replayable():
		maxIdle = c.engine.options.PodIdleTimeout
	}
	return take(c.group.base, pod, maxIdle)
}

// replayable says that the request may be carried out twice, and that all of it is still here.
func (c *conn) replayable() bool {
	return !c.streams && !c.req.HasUpgrade && idempotent(c.req.Method(c.in.bytes()))
}

// idempotent says that carrying out a request with that method twice does no more than carrying it out once (RFC 9110,
// 9.2.2).
func idempotent[M ~string | ~[]byte](method M) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// carry sends the request to a pod and passes the answer on. An error means that none of the answer was passed on.
func (c *conn) carry(up *podConn) (outcome, error) {
	c.upstream.Store(up)
	if c.gone.Load() || c.group.base.Err() != nil {
		_ = up.Close() // whoever said so did not see this connection yet
	}
	var in *buffer
	var err error
	if c.streams {
		in, err = c.sendStreaming(up)
	} else {
		c.enter(phaseAnswer)
		in, err = up.send(c.out, !up.reused)
	}
	if err == nil {
		var result outcome
		if result, err = c.relay(up, in); err == nil {
			return result, nil
		}
	}
	c.unwatch()
	c.upstream.Store(nil)
	c.undelivered = up.reused && !up.deliverable()
	_ = up.Close()
	return finished, c.stopUpload(err)
}

// again decides whether the request may be sent once more, after err. Broken counts the times that it may have reached
// the app before.
func (c *conn) again(pod *route.Endpoint, up *podConn, err error, broken *int) bool {
	switch {
	case c.gone.Load(), c.streams, c.begun.Load(), c.group.base.Err() != nil:
		return false
	case errors.Is(err, errStale):
		return true
	case c.undelivered && errors.Is(err, io.EOF):
		return true // the end would have acknowledged what had arrived before it, which a reset does not
	case *broken == maxBroken, !c.undelivered && (!brokenOff(err) || !c.replayable()):
		return false
	}
	*broken++
	c.broken = true
	if !up.reused {
		pod.Fail()
	}
	return true
}

// brokenOff says that the pod closed or reset the connection, as opposed to having sent something that is no HTTP.
func brokenOff(err error) bool {
	var op *net.OpError
	var errno syscall.Errno
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) || errors.As(err, &errno)
}

// fail answers for an app that did not.
func (c *conn) fail(err error) outcome {
	switch {
	case c.gone.Load():
		err = fmt.Errorf("answering: %w", context.Canceled)
	case c.group.base.Err() != nil:
		err = context.Cause(c.group.base)
	}
	if _, bad := errors.AsType[http1.Malformed](err); bad {
		c.respond(c.answerTo(err), false)
		return rejected
	}
	return c.conclude(c.answerTo(err))
}

// conclude ends a request with an answer of ours.
func (c *conn) conclude(a answer) outcome {
	keep := !c.last && !c.streams && !c.group.draining.Load()
	c.respond(a, keep)
	switch {
	case c.status == StatusClientGone:
		return finished
	case !keep:
		return lingering
	}
	c.in.start += c.used
	return reusable
}
