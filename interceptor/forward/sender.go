package forward

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// maxResets is how many pods may break off before they answer until the client is told. Each such request may have been
// what killed the pod, so that it must not be carried through all of them.
const maxResets = 2

// sender is the RoundTripper of one route: it picks a pod, sends, and goes to another one where that is safe.
type sender struct {
	proxy *Proxy
	pick  Picker
}

// RoundTrip implements http.RoundTripper.
func (s *sender) RoundTrip(req *http.Request) (*http.Response, error) {
	visit := visitOf(req)
	ctx := req.Context()
	for resets := 0; ; {
		pod, err := s.pick.Pick(ctx, &visit)
		if err != nil {
			return nil, err
		}
		attempt := &attempt{pod: pod}
		resp, err := s.transport(req).RoundTrip(attempt.request(req))
		if err == nil {
			resp.Body = countBody(resp.Body, pod)
			return resp, nil
		}
		pod.Done()
		switch {
		case ctx.Err() != nil:
			return nil, err
		case attempt.neverSent(err):
			pod.Fail()
		case replayable(req) && !attempt.answered.Load() && resets < maxResets && brokenOff(err):
			resets++
			pod.Fail()
		default:
			return nil, err
		}
	}
}

// transport chooses how req is sent. What came by HTTP/2 without TLS goes on so, since that client knew that the app
// speaks it; gRPC is nearly all of it.
func (s *sender) transport(req *http.Request) *http.Transport {
	switch {
	case req.ProtoMajor == 2:
		return s.proxy.h2c
	case replayable(req):
		return s.proxy.reuse
	default:
		return s.proxy.fresh
	}
}

// replayable says that sending req twice does no more than sending it once, and that it can be sent twice.
func replayable(req *http.Request) bool {
	if req.Body != nil && req.Body != http.NoBody {
		return false
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// brokenOff says that the pod closed or reset the connection, as opposed to having sent something that is no HTTP.
func brokenOff(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) ||
		strings.Contains(err.Error(), "server closed idle connection")
}

// visitOf describes req for the event about a wake.
func visitOf(req *http.Request) route.Visit {
	remote := req.RemoteAddr
	if came := req.Header["X-Forwarded-For"]; len(came) > 0 {
		// rewrite has appended the peer; the proxy before us appended the one before it, most often the visitor.
		if hops := strings.Split(came[0], ", "); len(hops) > 1 {
			remote = hops[len(hops)-2]
		}
	}
	path := req.URL.Path
	if req.URL.Opaque != "" {
		path = req.URL.Opaque
	}
	return route.Visit{Method: req.Method, Path: path, Remote: remote, Agent: req.Header.Get("User-Agent")}
}

// attempt is one try to send a request to one pod.
type attempt struct {
	pod *route.Endpoint
	// The transport sets these from its own goroutines.
	connected, answered, bodyRead atomic.Bool
}

// request returns req as it goes to the pod.
func (a *attempt) request(req *http.Request) *http.Request {
	trace := &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			a.connected.Store(true)
			a.pod.Succeed()
		},
		GotFirstResponseByte: func() { a.answered.Store(true) },
	}
	out := req.WithContext(httptrace.WithClientTrace(req.Context(), trace))
	u := *req.URL
	u.Host = a.pod.Addr
	out.URL = &u
	if out.Body != nil {
		out.Body = &attemptBody{ReadCloser: req.Body, read: &a.bodyRead}
	}
	return out
}

// neverSent says that nothing of the request has left, so that it may go to another pod whatever it is.
func (a *attempt) neverSent(err error) bool {
	var dial *dialError
	return errors.As(err, &dial) && !a.connected.Load() && !a.bodyRead.Load()
}

// attemptBody keeps a transport that failed to connect from closing the client's body, which the next attempt needs.
// net/http closes it when the handler returns.
type attemptBody struct {
	io.ReadCloser
	read *atomic.Bool
}

func (b *attemptBody) Read(p []byte) (int, error) {
	b.read.Store(true)
	return b.ReadCloser.Read(p)
}

func (b *attemptBody) Close() error { return nil }

// countBody ends the pod's use when the answer has been read. The body of a 101 is the connection itself and stays
// writable.
func countBody(body io.ReadCloser, pod *route.Endpoint) io.ReadCloser {
	counted := &countedBody{ReadCloser: body, pod: pod}
	if conn, ok := body.(io.ReadWriteCloser); ok {
		return &countedConn{countedBody: counted, Writer: conn}
	}
	return counted
}

type countedBody struct {
	io.ReadCloser
	pod  *route.Endpoint
	done atomic.Bool
}

func (b *countedBody) Close() error {
	if b.done.CompareAndSwap(false, true) {
		b.pod.Done()
	}
	return b.ReadCloser.Close()
}

type countedConn struct {
	*countedBody
	io.Writer
}

// CloseWrite passes one side's end on to the pod while the other side still talks.
func (c *countedConn) CloseWrite() error {
	if half, ok := c.ReadCloser.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
