// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// quietFor is how long a connection to a pod counts as pending while its client has not said anything. It bridges the
// moment between the greeting of a server that speaks first and the client's answer.
const quietFor = time.Second

// errSpoke ends the opening of a connection whose client has spoken, so that its protocol can be decided by that.
var errSpoke = errors.New("the client has spoken")

// opening is a connection that has no pod yet, or one on which nobody has spoken yet.
type opening struct {
	engine *Engine
	client *sock
	route  *route.Route
	// early is what was read of the client already.
	early []byte
	// sniffs says that the protocol is still to be decided by who speaks first, and by what a client says that does.
	sniffs bool
	// watch sees that a client which has begun a line does not turn to HTTP; nil if it need not.
	watch *sniffer
}

// ServeTCP carries tcp to a pod of r, byte by byte, and returns when both sides have ended or ctx has. It closes tcp.
// Peeked is what was read of it already. The app may be the first to speak.
//
// A connection whose client has spoken is a pending request until it has a pod; then only bytes count, since a pool of
// idle connections must not keep an app up for ever. One whose client never speaks leaves no trace: it is a check.
func (e *Engine) ServeTCP(ctx context.Context, tcp *net.TCPConn, peeked []byte, r *route.Route) error {
	_, _, err := e.open(ctx, tcp, &opening{route: r, early: peeked})
	return err
}

// ServeAuto is ServeTCP for a connection of which Peek has read peeked, which leaves open what it speaks. A silent client
// is connected to a pod, and whoever speaks first decides. If that is the client and it speaks HTTP, ServeAuto returns
// KindHTTP and what it has read, and leaves the connection open.
//
// A client that pauses within its first line has its bytes passed on. If they turn out to be HTTP then, the connection is
// closed: the request would go past all rules.
func (e *Engine) ServeAuto(ctx context.Context, tcp *net.TCPConn, peeked []byte, r *route.Route) (Kind, []byte, error) {
	return e.open(ctx, tcp, &opening{route: r, early: peeked, sniffs: len(peeked) == 0, watch: watchFrom(peeked)})
}

// open serves a connection, as ServeAuto says.
func (e *Engine) open(ctx context.Context, tcp *net.TCPConn, o *opening) (Kind, []byte, error) {
	client, err := e.newSock(tcp, true)
	if err != nil {
		_ = tcp.Close()
		return KindTCP, nil, err
	}
	o.engine, o.client = e, client
	err = o.serve(ctx)
	if errors.Is(err, errSpoke) {
		kind, peeked, failed := Peek(tcp, SniffTimeout)
		switch {
		case failed == nil && kind == KindHTTP:
			return KindHTTP, peeked, nil
		case failed == nil && kind == KindTCP:
			return e.open(ctx, tcp, &opening{route: o.route, early: peeked})
		case failed == nil:
			return e.open(ctx, tcp, &opening{route: o.route, early: peeked, watch: watchFrom(peeked)})
		}
		err = failed
	}
	_ = tcp.Close()
	return KindTCP, nil, err
}

// serve carries the connection. It does not close it. The error is errSpoke if the client has spoken where that decides.
func (o *opening) serve(ctx context.Context) error {
	if o.sniffs && o.client.hasSaid() {
		return errSpoke
	}
	silent := len(o.early) == 0
	// Load balancers connect and close, and so does the injector before it publishes a route. Where that would do harm, a
	// silent client gets a moment to prove that it is none of them.
	if silent && (!o.route.HasEndpoint() || o.route.Drowsy()) && o.client.closedWithin(probeGrace) {
		return ErrNoBytes
	}
	begin := o.route.Target().Begin
	if silent {
		begin = o.route.Target().BeginQuiet
	}
	release := sync.OnceFunc(begin())
	defer release()
	pod, up, err := o.connect(ctx)
	if err != nil {
		return err
	}
	defer pod.Done()
	defer up.Close()
	if silent {
		quiet := time.AfterFunc(quietFor, release)
		defer quiet.Stop()
	} else {
		release()
	}
	connected := time.Now()
	if o.sniffs {
		if o.clientSpeaksFirst(ctx, up) {
			return errSpoke
		}
		if time.Since(connected) < greetingFor && up.hasSaid() {
			o.route.LearnServerFirst()
		}
	}
	talk := newTalk(o.engine, o.route.Target(), !silent)
	talk.watch = o.watch
	see := func() {
		seen := o.route.See(&route.Sighting{Client: remoteAddr(o.client).Addr()})
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
	return o.engine.tunnel(ctx, o.client, up, o.early, talk)
}

// connect waits for a pod and dials it.
func (o *opening) connect(ctx context.Context) (*route.Endpoint, *sock, error) {
	peer := remoteAddr(o.client)
	visit := route.Visit{Remote: peer.String(), Client: peer.Addr()}
	if !o.route.Settled() {
		if err := o.whileThere(ctx, o.route.Settle); err != nil {
			return nil, nil, err
		}
	}
	for {
		pod := o.route.TryPick(&visit)
		if pod == nil {
			err := o.whileThere(ctx, func(ctx context.Context) (err error) {
				pod, err = o.route.Pick(ctx, &visit)
				return err
			})
			if err != nil {
				return nil, nil, err
			}
		}
		up, err := dialPod(ctx, pod, o.route, o.client)
		if err == nil {
			return pod, up, nil
		}
		if ctx.Err() != nil {
			return nil, nil, fmt.Errorf("dialing a pod: %w", err)
		}
	}
}

// whileThere calls wait with a context that ends with the client, and with errSpoke as its cause if the client speaks
// where that decides.
func (o *opening) whileThere(ctx context.Context, wait func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		defer Rescue(o.engine.options.Log, func() { cancel(errRescued) })
		if cause := o.ends(); cause != nil {
			cancel(cause)
		}
	}()
	err := wait(ctx)
	o.client.interrupt()
	<-watched
	o.client.goOn()
	return err
}

// ends waits until the client has gone, or has spoken where that decides, and returns why the opening is to end; nil
// where it was interrupted. A client that has spoken and then ended its direction waits for its answer.
func (o *opening) ends() error {
	if o.sniffs {
		n, err := o.client.peekOne()
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
	err := o.client.awaitGone(spoke)
	if err == nil && !spoke && o.client.hasSpoken() {
		err = o.client.awaitGone(true)
	}
	if err == nil {
		return context.Canceled
	}
	return nil
}

// clientSpeaksFirst waits until either side has spoken or ended, and reports whether the client has. Both may have: then
// what the client says decides, since it has not waited for the server.
func (o *opening) clientSpeaksFirst(ctx context.Context, up *sock) bool {
	stop := context.AfterFunc(ctx, func() {
		_ = o.client.Close()
		_ = up.Close()
	})
	defer stop()
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		defer Rescue(o.engine.options.Log, o.client.interrupt)
		if _, err := up.peekOne(); !errors.Is(err, os.ErrDeadlineExceeded) {
			o.client.interrupt()
		}
	}()
	_, err := o.client.peekOne()
	up.interrupt()
	<-heard
	up.goOn()
	o.client.goOn()
	return !errors.Is(err, os.ErrDeadlineExceeded) || o.client.hasSaid()
}

// interrupt ends the reads that are under way, and those to come until goOn. Both fail only on a closed connection, whose
// reads end by themselves.
func (s *sock) interrupt() { _ = s.SetReadDeadline(time.Unix(1, 0)) }

func (s *sock) goOn() { _ = s.SetReadDeadline(time.Time{}) }

// hasSaid says whether there is something to read now, other than the end.
func (s *sock) hasSaid() (said bool) {
	_ = s.raw.Control(func(fd uintptr) { // fails only on a closed connection
		n, _, err := unix.Recvfrom(int(fd), s.peek[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		said = err == nil && n > 0
	})
	return said
}
