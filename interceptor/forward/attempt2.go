// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// dialError means that the pod could not be reached, so nothing of the request was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// try implements attempter.
func (s *stream) try(pod *route.Endpoint) (failure, error) {
	s.pod = pod
	defer func() {
		if s.resp == nil {
			pod.Done()
		}
	}()
	ctx := s.in.Context()
	transport := s.server.engine.http2.transport
	if s.server.route.ProxyProtocol() {
		transport = s.announcing()
	}
	a := &attempt2{pod: pod, body: s.body}
	resp, err := a.send(ctx, transport, s.out) //nolint:bodyclose // passOn closes it
	if err == nil {
		s.resp = resp
		return failure{}, nil
	}
	unsent := a.neverSent(err)
	if unsent && ctx.Err() == nil {
		pod.Unreachable(err)
	}
	return failure{
		aborted: ctx.Err() != nil, answered: a.answered.Load(), incomplete: !s.body.complete(), unsent: unsent,
		brokenOff: hasBroken(err), idempotent: s.twice, reused: a.reused.Load(),
	}, err
}

// goAwayText begins net/http's error for a connection that the pod has closed after a GOAWAY. The error has no type of its own.
const goAwayText = "http2: server sent GOAWAY and closed the connection"

// hasBroken is wire.BrokenOff for an HTTP/2 connection.
func hasBroken(err error) bool {
	return wire.BrokenOff(err) || strings.HasPrefix(err.Error(), goAwayText)
}

// maxWritten is how often net/http may send a request by itself when a pod says that it has not processed it. Without this limit,
// net/http goes on for minutes.
const maxWritten = 2

// errRefused is the error for a request that a pod refused each time.
var errRefused = errors.New("the pod refuses the request's stream")

// attempt2 is one attempt to send an HTTP/2 request to one pod.
type attempt2 struct {
	pod  *route.Endpoint
	body *clientBody // nil if there is none
	// The transport sets these from its own goroutines.
	connected, reused, answered atomic.Bool
	written                     atomic.Int32 // how often the request's header was written
	cancel                      context.CancelCauseFunc
}

// send returns the pod's answer. The caller must close its body, which ends the use of the pod.
func (a *attempt2) send(ctx context.Context, transport *http.Transport, req *http.Request) (*http.Response, error) {
	ctx, a.cancel = context.WithCancelCause(ctx)
	resp, err := transport.RoundTrip(a.request(ctx, req))
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errRefused) {
			err = cause
		}
		a.cancel(nil)
		return nil, err
	}
	resp.Body = &countedBody{ReadCloser: resp.Body, pod: a.pod, cancel: a.cancel}
	return resp, nil
}

// request returns req as it is sent to the pod.
func (a *attempt2) request(ctx context.Context, req *http.Request) *http.Request {
	trace := &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if a.written.Load() >= maxWritten {
				a.cancel(errRefused)
			}
			a.connected.Store(true)
			a.reused.Store(info.Reused)
			a.pod.Succeed()
		},
		WroteHeaders:         func() { a.written.Add(1) },
		GotFirstResponseByte: func() { a.answered.Store(true) },
	}
	out := req.WithContext(httptrace.WithClientTrace(ctx, trace))
	u := *req.URL
	u.Host = a.pod.Addr
	out.URL = &u
	if a.body != nil {
		out.Body, out.GetBody = a.body.next(), a.body.again
	}
	return out
}

// neverSent reports whether nothing of the request was sent, so that any request may go to another pod.
func (a *attempt2) neverSent(err error) bool {
	var dial *dialError
	return errors.As(err, &dial) && !a.connected.Load() && a.body.complete()
}

// countedBody ends the use of the pod when the answer has been read.
type countedBody struct {
	io.ReadCloser
	pod    *route.Endpoint
	cancel context.CancelCauseFunc
	done   atomic.Bool
}

func (b *countedBody) Close() error {
	if b.done.CompareAndSwap(false, true) {
		b.pod.Done()
	}
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}
