package forward

import (
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
	if !s.ignored && !replayable(req) {
		if err := s.route.Settle(ctx); err != nil {
			return nil, err
		}
	}
	for resets := 0; ; {
		pod, err := s.choose(req, visit)
		if err != nil {
			return nil, err
		}
		attempt := &attempt{pod: pod}
		transport := s.transport
		if s.route.ProxyProtocol() {
			transport = s.announcing(req)
		}
		resp, err := attempt.send(transport, req)
		if err == nil {
			return resp, nil
		}
		switch {
		case ctx.Err() != nil:
			return nil, err
		case attempt.neverSent(err):
			pod.Unreachable(err)
		case replayable(req) && !attempt.answered.Load() && resets < maxResets && brokenOff(err):
			resets++
			pod.Fail()
		default:
			return nil, err
		}
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

// visitOf describes req as it goes out, for the event about a wake.
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

// attempt is one try to send a request to one pod.
type attempt struct {
	pod *route.Endpoint
	// The transport sets these from its own goroutines.
	connected, answered, bodyRead atomic.Bool
}

// send returns the pod's answer, whose body has to be closed. Without one the pod's use has ended.
func (a *attempt) send(transport *http.Transport, req *http.Request) (resp *http.Response, err error) {
	defer func() {
		if resp == nil {
			a.pod.Done()
		}
	}()
	resp, err = transport.RoundTrip(a.request(req))
	if err != nil {
		return nil, err
	}
	resp.Body = &countedBody{ReadCloser: resp.Body, pod: a.pod}
	return resp, nil
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

// countedBody ends the pod's use when the answer has been read.
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
