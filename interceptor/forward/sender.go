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
)

// sender sends the requests of one route: it picks a pod, and goes to another one where that is safe.
type sender struct {
	options   *Options
	transport *http.Transport
	route     *route.Route
	ignored   bool // they neither wake nor count
}

// dialError says that a pod could not be reached at all, so that nothing of the request was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// send returns the answer to req.
func (s *sender) send(req *http.Request, visit *route.Visit) (*http.Response, error) {
	ctx := req.Context()
	twice := idempotent(req.Method)
	body := newClientBody(req.Body, twice)
	if !s.ignored && (!twice || body != nil) {
		if err := s.route.Settle(ctx); err != nil {
			return nil, err
		}
	}
	for broken := 0; ; {
		pod, err := s.choose(req, visit)
		if err != nil {
			return nil, err
		}
		attempt := &attempt{pod: pod, body: body}
		transport := s.transport
		if s.route.ProxyProtocol() {
			transport = s.announcing(req)
		}
		resp, err := attempt.send(ctx, transport, req)
		if err == nil {
			return resp, nil
		}
		switch {
		case ctx.Err() != nil:
			return nil, err
		case attempt.neverSent(err):
			pod.Unreachable(err)
		case twice && body.complete() && !attempt.answered.Load() && broken < maxBroken && hasBroken(err):
			broken++
			if !attempt.reused.Load() {
				pod.Fail()
			}
		default:
			return nil, err
		}
	}
}

// goAwayText is how net/http begins its error for a connection that the pod has closed after a GOAWAY. It has no type.
const goAwayText = "http2: server sent GOAWAY and closed the connection"

// hasBroken is brokenOff for a connection of HTTP/2.
func hasBroken(err error) bool {
	return brokenOff(err) || strings.HasPrefix(err.Error(), goAwayText)
}

// visitOf describes req as it goes out, for the event about a wake.
func visitOf(req *http.Request) route.Visit {
	remote := lastHop(req.Header.Get("X-Forwarded-For"))
	path := req.URL.Path
	if req.URL.Opaque != "" {
		path = req.URL.Opaque
	}
	v := route.Visit{Client: addrOf(req).Addr(), Method: req.Method, Path: path, Remote: remote, Agent: req.Header.Get("User-Agent")}
	if req.Body != nil {
		v.Bytes = streamBuffer
		if req.ContentLength > 0 {
			v.Bytes = min(v.Bytes, req.ContentLength)
		}
	}
	for name, values := range req.Header {
		for _, value := range values {
			v.Bytes += int64(len(name) + len(value))
		}
	}
	return v
}

// maxWritten is how often net/http may send a request by itself, which it does when a pod says that it has not processed
// it. It would do so for minutes.
const maxWritten = 2

// errRefused is what became of a request that a pod has refused each time.
var errRefused = errors.New("the pod refuses the request's stream")

// attempt is one try to send a request to one pod.
type attempt struct {
	pod  *route.Endpoint
	body *clientBody // nil is none
	// The transport sets these from its own goroutines.
	connected, reused, answered atomic.Bool
	written                     atomic.Int32 // how often the request's header has left
	cancel                      context.CancelCauseFunc
}

// send returns the pod's answer, whose body has to be closed. Without one the pod's use has ended.
func (a *attempt) send(ctx context.Context, transport *http.Transport, req *http.Request) (resp *http.Response, err error) {
	defer func() {
		if resp == nil {
			a.pod.Done()
		}
	}()
	ctx, a.cancel = context.WithCancelCause(ctx)
	resp, err = transport.RoundTrip(a.request(ctx, req))
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

// request returns req as it goes to the pod.
func (a *attempt) request(ctx context.Context, req *http.Request) *http.Request {
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

// neverSent says that nothing of the request has left, so that it may go to another pod whatever it is.
func (a *attempt) neverSent(err error) bool {
	var dial *dialError
	return errors.As(err, &dial) && !a.connected.Load() && a.body.complete()
}

// countedBody ends the pod's use when the answer has been read.
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
