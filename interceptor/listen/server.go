// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/forward"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// server serves one route.
type server struct {
	options Options
	route   *route.Route
	log     logr.Logger

	listener net.Listener
	accepted *atomic.Int64 // of all servers
	http1    *forward.Group
	http2    *http.Server
	// handover takes the connections that turned out to speak HTTP/2.
	handover *handover
	// ctx is the base of all requests and connections; cancel cuts them.
	ctx      context.Context
	cancel   context.CancelCauseFunc
	draining atomic.Bool
	conns    sync.WaitGroup // connections that are not HTTP/2's
	unknown  sync.WaitGroup // those of which it is not known yet whether they are
	open     atomic.Int64   // their number
	streams  atomic.Int64   // requests of HTTP/2 that are under way
	refusing atomic.Bool    // there are as many as may be
}

// newServer opens the route's port. Accepted counts its connections.
func newServer(o Options, r *route.Route, accepted *atomic.Int64, log logr.Logger) (*server, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	addr := net.JoinHostPort(o.Host, strconv.Itoa(int(r.Port.Listen)))
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		cancel(err)
		return nil, fmt.Errorf("listening: %w", err)
	}
	s := &server{
		options: o, route: r, log: log, listener: listener, accepted: accepted, handover: newHandover(listener.Addr()),
		http1: o.Engine.NewGroup(ctx), ctx: ctx, cancel: cancel,
	}
	s.http2 = o.Engine.HTTP2Server(ctx, &counted{o.Engine, r, &s.streams, o.Engine.HTTP2Handler(r, false), o.Engine.HTTP2Handler(r, true)})
	return s, nil
}

// run serves until stop is closed and everything has ended, or cut is closed too and everything has been cut.
func (s *server) run(stop, cut <-chan struct{}) {
	defer s.cancel(forward.ErrDraining)
	var serving sync.WaitGroup
	serving.Go(s.serveHTTP2)
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		s.accept()
	}()
	<-stop
	s.draining.Store(true)
	_ = s.listener.Close() // it was open, and there is nothing to do about it otherwise
	<-accepting
	s.drain(cut)
	serving.Wait()
}

// drain lets all that runs end, and cuts it when the drain timeout is over:
//
//  1. The port is closed already. Connections that have just been accepted may still send a request.
//  2. Idle keep-alive connections are closed; answers from now on say "Connection: close". Requests finish.
//  3. TCP connections and upgraded ones are waited for just as long.
//  4. What is left then is cut: what waits for a pod is told so, and the connections to pods are closed.
func (s *server) drain(cut <-chan struct{}) {
	timeout, cancel := context.WithTimeout(context.Background(), s.options.DrainTimeout)
	var cutting sync.WaitGroup
	cutting.Go(func() {
		select {
		case <-cut:
			cancel()
		case <-timeout.Done():
		}
		s.cancel(forward.ErrDraining)
		s.http1.Cut()
	})
	s.http1.Drain()
	s.unknown.Wait() // a server that shuts down takes no connection any more
	if err := s.http2.Shutdown(timeout); err != nil {
		s.log.Info("cutting connections that did not end in time", "timeout", s.options.DrainTimeout)
		_ = s.http2.Close()
	}
	s.waitStreams()
	s.conns.Wait()
	cancel()
	cutting.Wait()
}

// waitStreams waits for the handlers of requests whose connections have been closed. Their contexts are done.
func (s *server) waitStreams() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.streams.Load() > 0 {
		<-tick.C
	}
}

func (s *server) serveHTTP2() {
	err := s.http2.Serve(s.handover)
	if err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		s.log.Error(err, "serving HTTP/2")
	}
}

// accept serves each new connection until the port is closed.
func (s *server) accept() {
	for {
		conn, err := s.listener.Accept()
		switch {
		case err == nil:
			s.accepted.Add(1)
			s.admit(conn.(*net.TCPConn))
		case errors.Is(err, net.ErrClosed):
			return
		default:
			// Too many open files, or a connection that was gone before it was accepted. The port stays open.
			s.log.V(1).Info("accepting a connection failed", "error", err.Error())
			<-time.After(5 * time.Millisecond)
		}
	}
}

// admit serves conn unless there are too many already, so that one abused route leaves the others their memory.
func (s *server) admit(conn *net.TCPConn) {
	if s.open.Add(1) > s.options.MaxConnections {
		s.open.Add(-1)
		if s.refusing.CompareAndSwap(false, true) {
			s.log.Info("refusing connections: as many as allowed are open", "max", s.options.MaxConnections)
		}
		_ = conn.Close()
		return
	}
	s.unknown.Add(1)
	s.conns.Go(func() {
		known := sync.OnceFunc(s.unknown.Done)
		defer known()
		goesOn := false
		defer func() {
			if !goesOn {
				s.left()
			}
		}()
		defer forward.Rescue(s.log, func() { _ = conn.Close() })
		goesOn = s.serve(conn, known)
	})
}

// left counts a connection that is no longer open.
func (s *server) left() {
	if s.open.Add(-1) < s.options.MaxConnections*9/10 {
		s.refusing.Store(false)
	}
}

// serve finds out what a connection speaks and carries it. It calls known when that is not HTTP/2, and else reports that the
// connection goes on with net/http.
func (s *server) serve(conn *net.TCPConn, known func()) (goesOn bool) {
	switch s.route.Protocol() {
	case api.ProtocolHTTP:
		return s.serveHTTP(conn, nil, known)
	case api.ProtocolTCP:
		known()
		s.serveTCP(conn, nil)
	default:
		return s.serveAuto(conn, known)
	}
	return false
}

// serveAuto serves a connection whose first bytes say what it speaks. A client that is silent for a while, or on a port
// whose server is known to speak first, is connected to a pod meanwhile: whoever speaks first decides.
func (s *server) serveAuto(conn *net.TCPConn, known func()) (goesOn bool) {
	kind, peeked, err := forward.KindUndecided, []byte(nil), error(nil)
	if !s.route.ServerFirst() {
		kind, peeked, err = forward.Peek(conn, forward.SniffTimeout)
	}
	if err != nil || len(peeked) == 0 && s.draining.Load() {
		_ = conn.Close()
		return false
	}
	if kind == forward.KindUndecided {
		known() // while the port closes, nobody waits for a silent client to speak HTTP/2
		kind, peeked, err = s.options.Engine.ServeAuto(s.ctx, conn, peeked, s.route)
		if kind != forward.KindHTTP {
			s.logEnd(err)
			return false
		}
	}
	if kind == forward.KindHTTP {
		return s.serveHTTP(conn, peeked, known)
	}
	known()
	s.serveTCP(conn, peeked)
	return false
}

func (s *server) serveHTTP(conn *net.TCPConn, peeked []byte, known func()) (goesOn bool) {
	kind, read, err := s.http1.Serve(conn, peeked, s.route, known)
	switch kind {
	case forward.KindHTTP2:
		s.handover.give(&openConn{PeekedConn: forward.NewPeekedConn(conn, read), left: sync.OnceFunc(s.left)})
		return true
	case forward.KindTCP:
		known()
		s.serveTCP(conn, read)
	default:
		s.logEnd(err)
	}
	return false
}

// openConn tells when it is closed.
type openConn struct {
	*forward.PeekedConn
	left func()
}

// Close implements net.Conn.
func (c *openConn) Close() error {
	c.left()
	return c.PeekedConn.Close()
}

func (s *server) serveTCP(conn *net.TCPConn, peeked []byte) {
	s.logEnd(s.options.Engine.ServeTCP(s.ctx, conn, peeked, s.route))
}

func (s *server) logEnd(err error) {
	if err != nil {
		s.log.V(1).Info("connection ended", "error", err.Error())
	}
}

// counted counts the requests of HTTP/2, but for those that neither wake nor count.
type counted struct {
	engine           *forward.Engine
	route            *route.Route
	streams          *atomic.Int64
	handler, ignored http.Handler
}

// ServeHTTP implements http.Handler.
func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.streams.Add(1)
	defer c.streams.Add(-1)
	status := statusWriter{ResponseWriter: w}
	if forward.HTTP2Ignores(c.route, r) {
		c.route.Metrics.Ignored()
		c.ignored.ServeHTTP(&status, r)
		return
	}
	release := c.route.Target().Begin()
	defer release()
	seen := c.engine.HTTP2See(c.route, r)
	defer seen.End()
	defer func() { c.route.Metrics.Answered(status.code) }()
	c.handler.ServeHTTP(&status, r)
}

// statusWriter remembers the status of an answer, and keeps net/http from guessing a content type that the app has not
// named.
type statusWriter struct {
	http.ResponseWriter
	code int
}

// WriteHeader implements http.ResponseWriter. An informational status is followed by another one.
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
