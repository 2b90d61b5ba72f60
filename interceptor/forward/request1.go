// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/scale-to-zero/scale-to-zero/interceptor/answers"
	"github.com/scale-to-zero/scale-to-zero/interceptor/headers"
	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// request1 is an HTTP/1.1 request that its connection is serving. A new one has only its conn and the first fields of its call.
type request1 struct {
	call
	*conn

	headLength int       // length of the head in conn.in
	used       int       // how much of conn.in belongs to the request
	body       wire.Body // the part of its body that has not arrived yet
	streams    bool      // there is such a part
	last       bool      // the client said that this is its last request
	isHead     bool      // its method is HEAD
	sent       int       // how many bytes of conn.out are sent to the pod
	uploading  *upload
	rest       *wire.Buffer // what the upload read after the body

	pod          *route.Endpoint // the pod that the request, or the upgraded connection, uses
	answerLength int             // length of the answer's head
	undelivered  bool            // the app got nothing of the request on the connection that broke off
	opened       route.Tab       // what an upgrade has opened
	outcome      outcome
}

// attend implements exchange.
func (x *request1) attend() {
	err := x.prepare()
	if err == nil {
		err = x.attempt(x, !x.replayable())
	}
	if err != nil {
		x.outcome = x.fail(err)
	}
}

// try implements attempter.
func (x *request1) try(pod *route.Endpoint) (failure, error) {
	x.pod = pod
	up, err := x.connect(pod)
	if err != nil {
		x.leave()
		return failure{unsent: true, aborted: x.conn.server.base.Err() != nil}, err
	}
	x.outcome, err = x.carry(up)
	if err == nil && x.outcome == upgraded {
		return failure{}, nil
	}
	x.leave()
	if err == nil {
		return failure{}, nil
	}
	return failure{
		aborted:  x.watch.gone.Load() || x.watch.exhausted.Load() || x.conn.server.base.Err() != nil,
		answered: x.watch.begun.Load(), incomplete: x.streams,
		unsent: errors.Is(err, wire.ErrStale), undelivered: x.undelivered, ended: errors.Is(err, io.EOF), brokenOff: wire.BrokenOff(err),
		idempotent: x.replayable(), reused: up.reused,
	}, err
}

// leave ends the use of the pod.
func (x *request1) leave() {
	if pod := x.pod; pod != nil {
		x.pod = nil
		pod.Done()
	}
}

// prepare finds out where the request ends, and writes the head as it is sent to the pod.
func (x *request1) prepare() error {
	r := &x.req
	x.last = r.Close || r.Minor == 0 && !r.KeepAlive
	x.watch.request(x.last, r.Minor == 1)
	x.stick()
	x.body = wire.Body{Left: max(r.Length, 0), Chunked: r.Chunked}
	if r.Length > 0 && r.Length <= maxSmallBody {
		x.readSmallBody()
	}
	b := x.in.Bytes()
	first, n, err := x.body.Consume(b[x.headLength:], false)
	if err != nil {
		return err
	}
	x.out = headers.AppendRequest(x.out[:0], r, b, x.way(), x.conn.server.host)
	x.out = append(x.out, first...)
	x.streams = !x.body.Ended()
	x.used = x.headLength + n
	x.sent = len(x.out)
	return nil
}

// readSmallBody reads what has already arrived of a body that is small enough to be sent with its head. Clients often send the body
// right after the head.
func (x *request1) readSmallBody() {
	missing := x.headLength + int(x.req.Length) - x.in.Len()
	for missing > len(x.in.Free()) {
		if x.grow() != nil {
			return // it need not be here as a whole
		}
	}
	if missing > 0 {
		x.client.TryRead(x.in)
	}
}

// connect returns a connection to pod for the request.
func (x *request1) connect(pod *route.Endpoint) (*podConn, error) {
	s := x.conn.server
	if s.route.ProxyProtocol() {
		return s.paying(connectFor(s.base, pod, endsOf(s.route, x.peer, x.client.LocalAddr())))
	}
	maxIdle := hotFor
	switch {
	case x.streams, x.broken > 0:
		maxIdle = 0
	case x.replayable():
		maxIdle = s.engine.options.PodIdleTimeout
	}
	return s.paying(connect(s.base, pod, maxIdle))
}

// replayable reports whether the request may be carried out twice and all of it is still here.
func (x *request1) replayable() bool {
	return !x.streams && !x.req.HasUpgrade && idempotent(x.req.Method(x.in.Bytes()))
}

// carry sends the request to a pod and passes the answer on. An error means that nothing of an answer was passed on.
func (x *request1) carry(up *podConn) (outcome, error) {
	x.watch.up.Store(up)
	if x.watch.gone.Load() || x.conn.server.base.Err() != nil {
		_ = up.Close() // the cut came before this connection was known
	}
	var in *wire.Buffer
	var err error
	if x.streams {
		in, err = x.sendStreaming(up)
	} else {
		x.watch.enter(phaseAnswer)
		in, err = up.Send(x.out, !up.reused)
	}
	if err == nil {
		var result outcome
		if result, err = x.relay(up, in); err == nil {
			return result, nil
		}
	}
	x.watch.unwatch()
	x.watch.up.Store(nil)
	x.undelivered = up.reused && !up.deliverable()
	_ = up.Close()
	return finished, x.stopUpload(err)
}

// fail answers a request that the app did not answer.
func (x *request1) fail(err error) outcome {
	switch base := x.conn.server.base; {
	case x.watch.gone.Load():
		err = fmt.Errorf("answering: %w", context.Canceled)
	case base.Err() != nil:
		err = context.Cause(base)
	case x.watch.exhausted.Load():
		err = x.conn.server.exhausted()
	}
	if _, bad := errors.AsType[http1.MalformedError](err); bad {
		x.respond(x.answerTo(err), false)
		return rejected
	}
	return x.conclude(x.answerTo(err))
}

// conclude ends a request with an answer of our own.
func (x *request1) conclude(a answers.Answer) outcome {
	keep := !x.last && !x.streams && !x.conn.server.draining.Load()
	x.respond(a, keep)
	switch {
	case x.status == answers.ClientGone:
		return finished
	case !keep:
		return lingering
	}
	x.in.Skip(x.used)
	return reusable
}

// answerTo returns our answer to err.
func (x *request1) answerTo(err error) answers.Answer {
	s := x.conn.server
	return s.engine.answers.For(s.route, &x.visit, err, x.asked.value)
}

// respond sends an answer of our own.
func (x *request1) respond(a answers.Answer, keep bool) {
	x.answered(a.Status)
	if a.Status == answers.ClientGone {
		return
	}
	x.out = answers.Append(x.out[:0], a, !keep, x.isHead)
	x.watch.enter(phaseWrite)
	_, _ = x.client.Write(x.out) // it fails only if the client has gone
}

// poll implements exchange.
func (x *request1) poll() {
	if err := x.prepare(); err != nil {
		x.outcome = x.fail(err)
		return
	}
	a, err := x.follow(x)
	switch {
	case err == nil:
		x.outcome = x.conclude(a)
	case x.conn.server.base.Err() == nil:
		x.outcome = x.fail(err)
	default:
		x.outcome = x.conclude(answers.Draining(err))
	}
}
