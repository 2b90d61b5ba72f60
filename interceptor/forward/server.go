// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/answers"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// Server serves the connections of one route, whatever they speak. Drain ends it.
type Server struct {
	engine *Engine
	route  *route.Route
	host   string // the Service's name, for a request without a host

	// base is done once everything that still runs has to be cut. cancel cuts it.
	base   context.Context
	cancel context.CancelCauseFunc
	// draining is set once no connection may be used for another request.
	draining atomic.Bool

	// http2 serves the HTTP/2 connections. It is made for the first of them, because most routes never have one.
	http2   atomic.Pointer[http2Server]
	streams atomic.Int64 // HTTP/2 requests that are under way

	running sync.WaitGroup // connections that do not speak HTTP/2
	unknown sync.WaitGroup // connections that may still turn out to speak HTTP/2

	mu    sync.Mutex // protects conns, and the making of http2
	conns map[*conn]struct{}
}

// http2Server is net/http's server. Connections reach it through handover.
type http2Server struct {
	*http.Server
	handover *handover
	serving  sync.WaitGroup // its goroutine
}

// NewServer returns a Server for r.
func (e *Engine) NewServer(r *route.Route) *Server {
	s := &Server{engine: e, route: r, host: r.Service + "." + r.Namespace}
	s.base, s.cancel = context.WithCancelCause(context.Background())
	e.mu.Lock()
	defer e.mu.Unlock()
	e.servers[s] = struct{}{}
	return s
}

// log is made anew each time: most routes never log anything, and a logger with values takes memory.
func (s *Server) log() logr.Logger {
	r := s.route
	return s.engine.options.Log.WithValues("namespace", r.Namespace, "service", r.Service, "port", r.Port.Port)
}

// serverOfHTTP2 returns the server of HTTP/2 connections, which runs.
func (s *Server) serverOfHTTP2() *http2Server {
	if h := s.http2.Load(); h != nil {
		return h
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.http2.Load(); h != nil {
		return h
	}
	h := &http2Server{
		Server:   s.engine.http2.server(s.base, http.HandlerFunc(s.serveStream)),
		handover: newHandover(&net.TCPAddr{Port: int(s.route.Port.Listen)}),
	}
	h.serving.Go(func() {
		err := h.Serve(h.handover)
		if err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.log().Error(err, "Serving HTTP/2 has ended")
		}
	})
	s.http2.Store(h)
	return h
}

// drainHTTP2 lets the requests of HTTP/2 connections end.
func (s *Server) drainHTTP2() {
	h := s.http2.Load()
	if h == nil {
		return
	}
	if err := h.Shutdown(s.base); err != nil {
		s.log().Info("Cutting connections that did not end in time")
		_ = h.Close()
	}
	s.waitStreams()
	h.serving.Wait()
}

// Serve starts to serve a connection, and returns. When the connection is closed, it calls closed.
func (s *Server) Serve(tcp *net.TCPConn, closed func()) {
	s.unknown.Add(1)
	s.running.Go(func() {
		known := sync.OnceFunc(s.unknown.Done)
		defer known()
		goesOn := false
		defer func() {
			if !goesOn {
				closed()
			}
		}()
		defer rescue(s.log, func() { _ = tcp.Close() })
		goesOn = s.dispatch(tcp, known, closed)
	})
}

// dispatch finds out what a connection speaks, and carries it. It calls known once the connection turns out not to speak HTTP/2. It
// returns true if the connection speaks HTTP/2 and net/http goes on with it; net/http then calls closed.
func (s *Server) dispatch(tcp *net.TCPConn, known, closed func()) (goesOn bool) {
	kind, early, err := s.sniff(tcp, known)
	if kind == wire.KindHTTP {
		kind, early, err = s.serveHTTP(tcp, early, known)
	}
	switch kind {
	case wire.KindHTTP2:
		var c *openConn
		if c, err = s.newOpenConn(wire.NewPeekedConn(tcp, early), closed); err == nil {
			s.serverOfHTTP2().handover.give(c)
			return true
		}
		_ = tcp.Close()
	case wire.KindTCP:
		known()
		err = s.serveBytes(tcp, early)
	default: // the connection has ended
	}
	if err != nil {
		if log := s.engine.options.Log.V(1); log.Enabled() {
			s.log().V(1).Info("A connection has ended", "error", err.Error())
		}
	}
	return false
}

// sniff finds out whether a connection speaks HTTP, from the route's settings or from its first bytes, which it returns. A client
// that is silent for a while is connected to a pod, and so is, at once, a client of a port whose server is known to speak first. The
// side that speaks first then decides. The kind is wire.KindUndecided for a connection that has ended.
func (s *Server) sniff(tcp *net.TCPConn, known func()) (kind wire.Kind, early []byte, err error) {
	switch s.route.Protocol() {
	case api.ProtocolHTTP:
		return wire.KindHTTP, nil, nil
	case api.ProtocolTCP:
		return wire.KindTCP, nil, nil
	}
	if s.route.SpokeHTTP() && !s.route.ServerFirst() {
		return wire.KindHTTP, nil, nil
	}
	if !s.route.ServerFirst() {
		kind, early, err = wire.Peek(tcp, wire.SniffTimeout)
	}
	if err != nil || len(early) == 0 && s.draining.Load() {
		_ = tcp.Close()
		return wire.KindUndecided, nil, nil //nolint:nilerr // a probe, or a client that has left
	}
	if kind != wire.KindUndecided {
		return kind, early, nil
	}
	known() // while the port closes, nobody waits for a silent client to speak HTTP/2
	kind, early, err = s.serveUndecided(tcp, early)
	if kind != wire.KindHTTP {
		kind = wire.KindUndecided
	}
	return kind, early, err
}

// heardAnswer learns that an app speaks HTTP, from its answer. There are servers of other protocols, such as MongoDB's and TLS's, that
// tell a client which speaks HTTP so by an answer of HTTP/1.0, or by status 400.
func (s *Server) heardAnswer(minor, status int) {
	if !s.route.SpokeHTTP() && minor > 0 && status != http.StatusBadRequest && s.route.Protocol() == api.ProtocolAuto {
		s.route.LearnHTTP()
	}
}

// serveHTTP serves an HTTP/1.1 connection. If the connection speaks something else, serveHTTP returns its kind and the bytes read.
func (s *Server) serveHTTP(tcp *net.TCPConn, early []byte, known func()) (wire.Kind, []byte, error) {
	c, err := s.newConn(tcp, early)
	if err != nil {
		_ = tcp.Close()
		return wire.KindUndecided, nil, err
	}
	return c.run(known)
}

// Drain lets everything that runs end, and returns when it has ended. Serve must not be called meanwhile.
//
//  1. Idle keep-alive connections are closed, and all further answers say "Connection: close". Requests finish. A connection that has
//     just been opened gets some time for its first request.
//  2. TCP connections and upgraded connections get the same time to end.
//  3. Cut cuts everything that is left: requests that wait for a pod get an error, and connections to pods are closed.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.each((*watch).closeIdle)
	s.unknown.Wait() // first: a server that shuts down takes no further connection
	s.drainHTTP2()
	s.running.Wait()
	s.cancel(answers.ErrDraining)
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	delete(s.engine.servers, s)
}

// Cut ends everything that is still under way, so that Drain returns soon.
func (s *Server) Cut() {
	s.cancel(answers.ErrDraining)
	s.each((*watch).cut)
}

// waitStreams waits for the handlers of requests whose connections have been closed. Their contexts are done.
func (s *Server) waitStreams() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.streams.Load() > 0 {
		<-tick.C
	}
}

func (s *Server) add(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = map[*conn]struct{}{}
	}
	s.conns[c] = struct{}{}
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *Server) each(do func(*watch)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		do(&c.watch)
	}
}
