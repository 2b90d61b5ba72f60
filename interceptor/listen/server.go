// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/forward"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// server has the port of one route, and bounds its connections.
type server struct {
	manager *Manager
	route   *route.Route
	// stop is closed when a port that could not be opened need not be opened any more; nil if it is open.
	stop chan struct{}
	// listener is nil until the port is open. It is protected by Manager.mu until then.
	listener *net.TCPListener
	open     atomic.Int64 // connections
	refusing atomic.Bool  // the limit is reached

	accepting sync.WaitGroup // the goroutine that accepts, if there is one

	mu     sync.Mutex      // protects all below, and the beginning of accepting
	server *forward.Server // nil until there was a connection
	closed bool
}

func newServer(m *Manager, r *route.Route) *server {
	return &server{manager: m, route: r}
}

// log is made anew each time: most routes never log anything, and a logger with values takes memory.
func (s *server) log() logr.Logger {
	r := s.route
	return s.manager.options.Log.WithValues("namespace", r.Namespace, "service", r.Service, "port", r.Port.Port, "listen", r.Port.Listen)
}

// listen opens the route's port, and has its connections accepted.
func (s *server) listen() error {
	o := &s.manager.options
	addr := net.JoinHostPort(o.Host, strconv.Itoa(int(s.route.Port.Listen)))
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	s.listener = listener.(*net.TCPListener)
	if !s.manager.watcher.add(s) {
		s.wake()
	}
	return nil
}

// wake begins to accept connections. There must be no goroutine that does so already.
func (s *server) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.accepting.Go(s.accept)
	}
}

// accept serves each new connection until the port is closed, or until none has come for a while and the watcher waits for the next.
func (s *server) accept() {
	doze := s.manager.options.Doze
	for {
		if s.manager.watcher != nil {
			_ = s.listener.SetDeadline(time.Now().Add(doze)) // it fails only on a closed port
		}
		conn, err := s.listener.AcceptTCP()
		switch {
		case err == nil:
			s.manager.accepted.Add(1)
			s.admit(conn)
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			if s.manager.watcher.rearm(s) {
				return
			}
			doze = min(2*doze, time.Hour) // it cannot be watched any more
		default:
			// Too many files are open, or a connection ended before it was accepted. The port stays open.
			if log := s.log().V(1); log.Enabled() {
				log.Info("Accepting a connection failed", "error", err.Error())
			}
			<-time.After(5 * time.Millisecond)
		}
	}
}

// close closes the port, lets everything that runs end, and cuts the rest after the drain timeout, or when everything is cut.
func (s *server) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.manager.watcher.remove(s)
	_ = s.listener.Close() // it was open; there is nothing to do about an error
	s.accepting.Wait()
	s.drain(s.manager.cut)
	if log := s.log().V(1); log.Enabled() {
		log.Info("Closed route")
	}
}

func (s *server) drain(cut <-chan struct{}) {
	if s.server == nil { // nobody makes one any more
		return
	}
	timeout := time.NewTimer(s.manager.options.DrainTimeout)
	defer timeout.Stop()
	drained := make(chan struct{})
	var cutting sync.WaitGroup
	cutting.Go(func() {
		select {
		case <-cut:
		case <-timeout.C:
		case <-drained:
			return
		}
		s.server.Cut()
	})
	s.server.Drain()
	close(drained)
	cutting.Wait()
}

// admit serves conn unless the limit is reached, so that one abused route leaves memory to the others.
func (s *server) admit(conn *net.TCPConn) {
	if limit := s.manager.options.MaxConnections; s.open.Add(1) > limit {
		s.open.Add(-1)
		if s.refusing.CompareAndSwap(false, true) {
			s.log().Info("Refusing connections: as many as allowed are open", "max", limit)
		}
		_ = conn.Close()
		return
	}
	if !s.route.Memory.Take(forward.ConnectionCost) {
		s.open.Add(-1)
		s.route.Refused()
		_ = conn.Close()
		return
	}
	s.forward().Serve(conn, s.left)
}

func (s *server) forward() *forward.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		s.server = s.manager.options.Engine.NewServer(s.route)
	}
	return s.server
}

// left notes that a connection is no longer open.
func (s *server) left() {
	s.route.Memory.Give(forward.ConnectionCost)
	if s.open.Add(-1) < s.manager.options.MaxConnections*9/10 {
		s.refusing.Store(false)
	}
}
