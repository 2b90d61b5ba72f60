// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/answers"
	"github.com/scale-to-zero/scale-to-zero/interceptor/budget"
	"github.com/scale-to-zero/scale-to-zero/interceptor/headers"
	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// stream is an HTTP/2 request.
type stream struct {
	call
	w     *statusWriter
	in    *http.Request
	began time.Time
	early informational

	out   *http.Request // as it is sent to a pod
	body  *clientBody   // nil if there is none
	twice bool          // carrying the request out twice does no harm
	resp  *http.Response
	talk  *talk // of an answer that is an event stream
	pod   *route.Endpoint
	draw  budget.Draw
}

// serveStream serves an HTTP/2 request.
func (s *Server) serveStream(w http.ResponseWriter, in *http.Request) {
	s.streams.Add(1)
	defer s.streams.Add(-1)
	x := newStream(s, w, in)
	defer x.early.end()
	// The last status counts. None counts if the answer broke off before it had one.
	defer func() { x.answered(x.w.code) }()
	if conn := connOf(in); conn != nil {
		conn.begin()
		defer conn.end()
		if in.Body != nil && in.Body != http.NoBody {
			in.Body = &countedRead{in.Body, conn}
		}
	}
	x.draw.Account = &s.route.Memory
	if !x.draw.Set(streamCost + headCost(in)) {
		x.refuse()
		return
	}
	defer x.draw.Set(0)
	x.serve(x)
}

func newStream(s *Server, w http.ResponseWriter, in *http.Request) *stream {
	peer := addrOf(in).Addr()
	x := &stream{
		call: call{server: s, remote: peer.String(), visit: route.Visit{Client: peer}},
		w:    &statusWriter{ResponseWriter: w}, in: in, began: time.Now(),
	}
	x.asked = newAsked2(x)
	return x
}

// attend implements exchange.
func (s *stream) attend() {
	if s.in.Method == http.MethodConnect {
		s.respond(http1.ErrConnectMethod)
		return
	}
	s.early.to = s.w
	s.out = s.outgoing(&s.early)
	s.stick()
	s.twice = idempotent(s.in.Method)
	s.body = newClientBody(s.out.Body, s.twice)
	err := s.attempt(s, !s.twice || s.body != nil)
	s.early.end()
	if err != nil {
		s.respond(s.expired(err))
		return
	}
	s.passOn()
}

// respond sends an answer of our own.
func (s *stream) respond(err error) {
	a := s.server.engine.answers.For(s.server.route, &s.visit, err, s.asked.value)
	answers.WriteTo(s.w, s.in, a, err)
}

// refuse answers a request that the route has no memory for. The answer has no body, because its client might never take it.
func (s *stream) refuse() {
	err := s.server.exhausted()
	a := s.server.engine.answers.For(s.server.route, &s.visit, err, s.asked.value)
	a.Text = ""
	answers.WriteTo(s.w, s.in, a, err)
}

// poll implements exchange.
func (s *stream) poll() {
	a, err := s.follow(s)
	if err != nil {
		a = answers.Draining(err)
	}
	answers.Write(s.w, a)
}

// hold implements holder. The request's context ends when its client goes and when everything is cut.
func (s *stream) hold(wait func(context.Context) error) error { return wait(s.in.Context()) }

// passOn passes on the pod's answer.
func (s *stream) passOn() {
	resp := s.resp
	defer resp.Body.Close()
	if !s.draw.Add(waitingAnswer(resp)) {
		s.refuse()
		return
	}
	header := s.w.Header()
	headers.CopyAnswer(header, resp.Header)
	if held := s.server.engine.answers.HeldFor(&s.visit); held != "" {
		header.Set(answers.HeldField, held)
	}
	s.addSticky(header)
	for name := range resp.Trailer {
		header.Add("Trailer", name)
	}
	s.w.WriteHeader(resp.StatusCode)
	s.server.heardAnswer(1, resp.StatusCode) // no server answers HTTP/2 by mistake
	events := s.hears(resp.StatusCode, resp.Header.Get("Content-Type"))
	if events {
		s.talk = s.hear()
	}
	err := s.copyBody()
	if _, read := errors.AsType[wire.ReadError](err); events && (err == nil || read) && s.in.Context().Err() == nil {
		s.heard(s.talk)
	}
	if err != nil {
		s.breakOff(err)
		return
	}
	for name, values := range resp.Trailer {
		if !slices.Contains(header["Trailer"], name) {
			name = http.TrailerPrefix + name
		}
		header[name] = values
	}
}

// addSticky adds the field that sets our cookie to the answer, if the cookie has to be set.
func (s *stream) addSticky(answer http.Header) {
	sticky := s.server.route.Sticky()
	if sticky == nil || s.kind == ignored {
		return
	}
	var session []byte
	issued := false
	for _, field := range answer["Set-Cookie"] {
		if attributes, ok := issues(sticky, []byte(field)); ok {
			session, issued = attributes, true
		}
	}
	if value := s.setCookie(sticky, s.pod, session, issued); value != "" {
		answer.Add("Set-Cookie", value)
	}
}

// expired returns context.DeadlineExceeded if the time of a gRPC call is over, and otherwise err. An app that gives up a call because
// of its deadline shows that only by a reset.
func (s *stream) expired(err error) error {
	if limit := grpcTimeout(s.in); limit > 0 && time.Since(s.began) >= limit {
		return context.DeadlineExceeded
	}
	return err
}

// breakOff ends an answer that the app has broken off. A gRPC call ends with the status that its client would have seen without us.
// net/http can reset a stream only with the code INTERNAL_ERROR.
func (s *stream) breakOff(err error) {
	_, read := errors.AsType[wire.ReadError](err)
	if !read || s.in.Context().Err() != nil || !answers.EndGRPC(s.w, s.resp.Header, s.expired(err)) {
		panic(http.ErrAbortHandler) // this makes net/http reset the stream
	}
}

// copyBody passes on each piece of the body as it arrives, and the header before the first one. Without a body, the header goes out
// together with the end: a gRPC call that fails at once must do so in a single frame.
func (s *stream) copyBody() error {
	resp, pool := s.resp, &s.server.engine.http2.buffers
	flusher := http.NewResponseController(s.w)
	if resp.ContentLength != 0 {
		if err := flusher.Flush(); err != nil {
			return err
		}
	}
	buf := pool.Get().(*[wire.LargeBuffer]byte)
	defer pool.Put(buf)
	var waits wire.Waits = wire.NoWaits{}
	if s.talk != nil {
		waits = s.talk.of(false)
	}
	for {
		n, err := resp.Body.Read(buf[:])
		if n > 0 {
			waits.Writing()
			if _, err := s.w.Write(buf[:n]); err != nil {
				return err
			}
			if err := flusher.Flush(); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return wire.ReadError{Err: err}
		}
	}
}

// outgoing returns the request as it is sent to the pod. Early gets the informational answers.
func (s *stream) outgoing(early *informational) *http.Request {
	in := s.in
	out := in.WithContext(httptrace.WithClientTrace(in.Context(), &httptrace.ClientTrace{Got1xxResponse: early.pass}))
	out.RequestURI = ""
	if in.ContentLength == 0 {
		out.Body = nil
	}
	// Send the path as received: a URL that is parsed and formatted again may differ. A path that begins with two slashes would be taken
	// for an authority; but formatting does not change it anyway.
	out.URL = new(*in.URL)
	path, _, _ := strings.Cut(in.RequestURI, "?")
	if strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//") && path != in.URL.EscapedPath() {
		out.URL = &url.URL{Opaque: path, RawQuery: in.URL.RawQuery, ForceQuery: in.URL.ForceQuery}
	}
	out.URL.Scheme = "http"

	out.Header = headers.Request(s.in.Header, s.in.Host, s.way())
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // otherwise net/http would add one
	}
	return out
}

// statusWriter remembers the status of an answer. It also keeps net/http from guessing a content type that the app has not set.
type statusWriter struct {
	http.ResponseWriter
	code int
}

// WriteHeader implements http.ResponseWriter. Another status follows an informational one.
func (w *statusWriter) WriteHeader(code int) {
	if w.code < http.StatusOK {
		w.code = code
	}
	if h := w.Header(); code >= http.StatusOK && len(h["Content-Type"]) == 0 {
		h["Content-Type"] = nil
	}
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController flush.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
