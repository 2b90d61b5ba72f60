// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
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
	options  Options
	log      logr.Logger
	listener net.Listener
	accepted *atomic.Int64 // of all servers
	forward  *forward.Server
	open     atomic.Int64 // connections
	refusing atomic.Bool  // the limit is reached
}

// newServer opens the route's port. accepted counts its connections.
func newServer(o Options, r *route.Route, accepted *atomic.Int64, log logr.Logger) (*server, error) {
	addr := net.JoinHostPort(o.Host, strconv.Itoa(int(r.Port.Listen)))
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	return &server{options: o, log: log, listener: listener, accepted: accepted, forward: o.Engine.NewServer(r)}, nil
}

// run serves until stop is closed and everything has ended. If cut is closed too, everything is cut.
func (s *server) run(stop, cut <-chan struct{}) {
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		s.accept()
	}()
	<-stop
	_ = s.listener.Close() // it was open; there is nothing to do about an error
	<-accepting
	s.drain(cut)
}

// drain lets everything that runs end, and cuts the rest after the drain timeout. The port is already closed.
func (s *server) drain(cut <-chan struct{}) {
	timeout := time.NewTimer(s.options.DrainTimeout)
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
		s.forward.Cut()
	})
	s.forward.Drain()
	close(drained)
	cutting.Wait()
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
			// Too many files are open, or a connection ended before it was accepted. The port stays open.
			s.log.V(1).Info("Accepting a connection failed", "error", err.Error())
			<-time.After(5 * time.Millisecond)
		}
	}
}

// admit serves conn unless the limit is reached, so that one abused route leaves memory to the others.
func (s *server) admit(conn *net.TCPConn) {
	if s.open.Add(1) > s.options.MaxConnections {
		s.open.Add(-1)
		if s.refusing.CompareAndSwap(false, true) {
			s.log.Info("Refusing connections: as many as allowed are open", "max", s.options.MaxConnections)
		}
		_ = conn.Close()
		return
	}
	s.forward.Serve(conn, s.left)
}

// left notes that a connection is no longer open.
func (s *server) left() {
	if s.open.Add(-1) < s.options.MaxConnections*9/10 {
		s.refusing.Store(false)
	}
}
