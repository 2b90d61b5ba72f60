// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

const (
	// probeGrace is how long a connection to a sleeping workload has to stay open before it counts: a probe closes it at once. Load
	// balancers probe so, and so does the injector before it publishes a route.
	probeGrace = 100 * time.Millisecond
	// quietFor is how long a connection to a pod counts as pending while its client has not said anything. It covers the time between
	// the greeting of a server that speaks first and the client's answer.
	quietFor = time.Second
)

// errSpoke ends the opening of a connection because its client has spoken, and its bytes can decide the protocol.
var errSpoke = errors.New("the client has spoken")

// opening is a connection of bytes that has no pod yet, or on which neither side has spoken yet.
type opening struct {
	call
	client *wire.Sock
	// early was already read from the client.
	early []byte
	// sniffs is set if the protocol is undecided. It depends on who speaks first and, if that is the client, on what it says.
	sniffs bool
	// watch notices when a client that has begun a line turns out to speak HTTP; nil if there is no need.
	watch *wire.Sniffer

	pod *route.Endpoint
	up  *podConn
}

// serveBytes carries tcp to a pod, byte by byte. It returns when both sides have ended or everything is cut, and closes tcp. early
// was already read from tcp. The app may speak first.
//
// A connection whose client has spoken is a pending request until it has a pod. After that only its bytes count, because a pool of
// idle connections must not keep an app awake for ever. A connection whose client never speaks does not count: it is a check.
func (s *Server) serveBytes(tcp *net.TCPConn, early []byte) error {
	_, _, err := s.open(tcp, &opening{early: early, watch: wire.Watch(early)})
	return err
}

// serveUndecided is serveBytes for a connection whose first bytes, early, do not show what it speaks. It connects a silent client to
// a pod, and the side that speaks first decides. If that is the client and it speaks HTTP, serveUndecided leaves the connection open,
// and returns wire.KindHTTP and the bytes read.
//
// If a client pauses within its first line, its bytes are passed on. If they turn out to be HTTP after all, the connection is closed,
// because the request would bypass all rules.
func (s *Server) serveUndecided(tcp *net.TCPConn, early []byte) (wire.Kind, []byte, error) {
	return s.open(tcp, &opening{early: early, sniffs: len(early) == 0, watch: wire.Watch(early)})
}

// open serves a connection in the way of serveUndecided.
func (s *Server) open(tcp *net.TCPConn, o *opening) (wire.Kind, []byte, error) {
	client, err := wire.NewSock(tcp, s.engine.buffers, true)
	if err != nil {
		_ = tcp.Close()
		return wire.KindTCP, nil, err
	}
	peer := wire.RemoteAddr(client)
	client.Memory = &s.route.Memory
	o.client = client
	o.call = call{server: s, remote: peer.Addr().String(), visit: route.Visit{Remote: peer.String(), Client: peer.Addr()}}
	err = o.carry()
	if errors.Is(err, errSpoke) {
		kind, early, failed := wire.Peek(tcp, wire.SniffTimeout)
		switch {
		case failed == nil && kind == wire.KindHTTP:
			return wire.KindHTTP, early, nil
		case failed == nil:
			return s.open(tcp, &opening{early: early, watch: wire.Watch(early)})
		}
		err = failed
	}
	_ = tcp.Close()
	return wire.KindTCP, nil, err
}

// carry carries the connection. It does not close it. The error is errSpoke if the client has spoken and its bytes decide the
// protocol.
func (o *opening) carry() error {
	if o.sniffs && o.client.HasSpokenNow() {
		return errSpoke
	}
	silent := len(o.early) == 0
	// Load balancers connect and close, and so does the injector before it publishes a route. If the connection could wake the app or
	// keep it awake, a silent client first has to prove, for a moment, that it is not such a check.
	if silent && (!o.server.route.HasEndpoint() || o.server.route.Drowsy()) && o.client.ClosedWithin(probeGrace) {
		return wire.ErrNoBytes
	}
	memory := &o.server.route.Memory
	if !memory.Take(tunnelCost) {
		return o.server.exhausted()
	}
	defer memory.Give(tunnelCost)
	release := o.countBytes(silent)
	defer release()
	if err := o.attempt(o, true); err != nil {
		return err
	}
	up := o.up
	defer o.pod.Done()
	defer up.Close()
	if silent {
		quiet := time.AfterFunc(quietFor, release)
		defer quiet.Stop()
	} else {
		release()
	}
	connected := time.Now()
	if o.sniffs {
		if o.clientSpeaksFirst(up) {
			return errSpoke
		}
		if time.Since(connected) < greetingFor && up.HasSpokenNow() {
			o.server.route.LearnServerFirst()
		}
	}
	talk := newTalk(o.server.engine, o.server.route.Target(), !silent)
	talk.watch = o.watch
	see := func() {
		seen := o.server.route.See(&route.Sighting{Client: o.visit.Client})
		talk.seen.Store(&seen)
	}
	if silent {
		talk.clientSpoke = sync.OnceFunc(func() { // a check that says nothing neither arrives nor is listed as a source
			o.server.route.Target().Arrived()
			see()
		})
	} else {
		see()
	}
	defer func() {
		if seen := talk.seen.Load(); seen != nil {
			seen.End()
		}
	}()
	return o.server.tunnel(o.client, up.Sock, o.early, talk)
}

// try implements attempter.
func (o *opening) try(pod *route.Endpoint) (_ failure, err error) {
	connected := false
	defer func() {
		if !connected {
			pod.Done()
		}
	}()
	s := o.server
	if s.route.ProxyProtocol() {
		o.up, err = s.paying(connectFor(s.base, pod, endsOf(s.route, wire.RemoteAddr(o.client), o.client.LocalAddr())))
	} else {
		o.up, err = s.paying(connect(s.base, pod, 0))
	}
	if err != nil {
		return failure{unsent: true, aborted: s.base.Err() != nil}, err
	}
	connected = true
	o.pod = pod
	return failure{}, nil
}

// hold implements holder. The context ends when the client goes. If the client's bytes decide the protocol, it also ends when the
// client speaks, with errSpoke as its cause.
func (o *opening) hold(wait func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(o.server.base)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		defer rescue(o.server.log, func() { cancel(errRescued) })
		if cause := o.ends(); cause != nil {
			cancel(cause)
		}
	}()
	err := wait(ctx)
	o.client.InterruptUntil(watched)
	return err
}

// ends waits until the client has gone, or has spoken if its bytes decide the protocol. It returns why the opening must end; nil if
// the wait was interrupted. A client that has spoken and then closed its direction still waits for its answer.
func (o *opening) ends() error {
	if o.sniffs {
		n, err := o.client.PeekOne()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case n > 0:
			return errSpoke
		default:
			return context.Canceled
		}
	}
	spoke := len(o.early) > 0
	err := o.client.AwaitGone(spoke)
	if err == nil && !spoke && o.client.HasSpoken() {
		err = o.client.AwaitGone(true)
	}
	if err == nil {
		return context.Canceled
	}
	return nil
}

// clientSpeaksFirst waits until either side has spoken or ended, and reports whether the client has. If both have, the client's bytes
// decide, since the client has not waited for the server.
func (o *opening) clientSpeaksFirst(up *podConn) bool {
	stop := context.AfterFunc(o.server.base, func() {
		_ = o.client.Close()
		_ = up.Close()
	})
	defer stop()
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		defer rescue(o.server.log, o.client.Interrupt)
		if _, err := up.PeekOne(); !errors.Is(err, os.ErrDeadlineExceeded) {
			o.client.Interrupt()
		}
	}()
	_, err := o.client.PeekOne()
	up.InterruptUntil(heard)
	o.client.Resume()
	return !errors.Is(err, os.ErrDeadlineExceeded) || o.client.HasSpokenNow()
}
