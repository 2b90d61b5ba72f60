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
	// probeGrace is how long a connection to a workload that sleeps may take to prove that it is no probe, by not being
	// closed at once. The injector connects to every route before it publishes it, and so do load balancers.
	probeGrace = 100 * time.Millisecond
	// quietFor is how long a connection to a pod counts as pending while its client has not said anything. It bridges the
	// moment between the greeting of a server that speaks first and the client's answer.
	quietFor = time.Second
)

// errSpoke ends the opening of a connection whose client has spoken, so that its protocol can be decided by that.
var errSpoke = errors.New("the client has spoken")

// opening is a connection of bytes that has no pod yet, or one on which neither side has spoken yet.
type opening struct {
	call
	client *wire.Sock
	// early is what was read of the client already.
	early []byte
	// sniffs says that the protocol is still to be decided by who speaks first, and by what a client says that does.
	sniffs bool
	// watch sees that a client that has begun a line does not turn to HTTP; nil if it need not.
	watch *wire.Sniffer

	pod *route.Endpoint
	up  *podConn
}

// serveBytes carries tcp to a pod, byte by byte, and returns when both sides have ended or everything is cut. It closes tcp.
// Early is what was read of it already. The app may be the first to speak.
//
// A connection whose client has spoken is a pending request until it has a pod; then only bytes count, since a pool of
// idle connections must not keep an app up for ever. One whose client never speaks leaves no trace: it is a check.
func (s *Server) serveBytes(tcp *net.TCPConn, early []byte) error {
	_, _, err := s.open(tcp, &opening{early: early, watch: wire.Watch(early)})
	return err
}

// serveUndecided is serveBytes for a connection of which early was read, which leaves open what it speaks. A silent client
// is connected to a pod, and the side that speaks first decides. If that is the client and it speaks HTTP, serveUndecided returns
// wire.KindHTTP and what it has read, and leaves the connection open.
//
// A client that pauses within its first line has its bytes passed on. If they turn out to be HTTP then, the connection is
// closed: the request would go past all rules.
func (s *Server) serveUndecided(tcp *net.TCPConn, early []byte) (wire.Kind, []byte, error) {
	return s.open(tcp, &opening{early: early, sniffs: len(early) == 0, watch: wire.Watch(early)})
}

// open serves a connection, as serveUndecided says.
func (s *Server) open(tcp *net.TCPConn, o *opening) (wire.Kind, []byte, error) {
	client, err := wire.NewSock(tcp, s.engine.buffers, true)
	if err != nil {
		_ = tcp.Close()
		return wire.KindTCP, nil, err
	}
	peer := wire.RemoteAddr(client)
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

// carry carries the connection. It does not close it. The error is errSpoke if the client has spoken where that decides.
func (o *opening) carry() error {
	if o.sniffs && o.client.HasSpokenNow() {
		return errSpoke
	}
	silent := len(o.early) == 0
	// Load balancers connect and close, and so does the injector before it publishes a route. Where that would do harm, a
	// silent client gets a moment to prove that it is none of them.
	if silent && (!o.server.route.HasEndpoint() || o.server.route.Drowsy()) && o.client.ClosedWithin(probeGrace) {
		return wire.ErrNoBytes
	}
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
		talk.clientSpoke = sync.OnceFunc(see) // a check that says nothing is no source
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
		o.up, err = connectFor(s.base, pod, endsOf(s.route, wire.RemoteAddr(o.client), o.client.LocalAddr()))
	} else {
		o.up, err = connect(s.base, pod, 0)
	}
	if err != nil {
		return failure{unsent: true, aborted: s.base.Err() != nil}, err
	}
	connected = true
	o.pod = pod
	return failure{}, nil
}

// hold implements holder. The context ends with the client, and with errSpoke as its cause if the client speaks
// where that decides.
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

// ends waits until the client has gone, or has spoken where that decides, and returns why the opening is to end; nil
// where it was interrupted. A client that has spoken and then ended its direction waits for its answer.
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

// clientSpeaksFirst waits until either side has spoken or ended, and reports whether the client has. Both may have: then
// what the client says decides, since it has not waited for the server.
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
