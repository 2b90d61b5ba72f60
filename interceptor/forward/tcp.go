package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// probeGrace is how long a connection to a workload that sleeps may take to prove that it is no probe, by not being
// closed at once. The injector connects to every route before it publishes it, and so do load balancers.
const probeGrace = 100 * time.Millisecond

// ServeTCP carries tcp to a pod of r, byte by byte, and returns when both sides have ended or ctx has. It closes tcp.
// Peeked is what was read of it already. The app may be the first to speak.
//
// A connection is a pending request until it has a pod. From then on only bytes count, since a pool of idle connections
// must not keep an app up for ever.
func (e *Engine) ServeTCP(ctx context.Context, tcp *net.TCPConn, peeked []byte, r *route.Route) error {
	defer tcp.Close()
	client, err := e.newSock(tcp, true)
	if err != nil {
		return err
	}
	if !r.HasEndpoint() && len(peeked) == 0 && client.closedWithin(probeGrace) {
		return ErrNoBytes
	}
	pod, up, err := e.connect(ctx, client, len(peeked) > 0, r)
	if err != nil {
		return err
	}
	defer pod.Done()
	return e.tunnel(ctx, client, up, peeked, r.Target())
}

// connect counts, waits for a pod and dials it.
func (e *Engine) connect(ctx context.Context, client *sock, spoke bool, r *route.Route) (*route.Endpoint, *sock, error) {
	release := r.Target().Begin()
	defer release()
	peer := remoteAddr(client)
	visit := route.Visit{Remote: peer.String(), Client: peer.Addr()}
	if err := r.Settle(ctx); err != nil {
		return nil, nil, err
	}
	for {
		pod := r.TryPick(&visit)
		if pod == nil {
			var err error
			if pod, err = e.hold(ctx, client, spoke, r, &visit); err != nil {
				return nil, nil, err
			}
		}
		up, err := dialPod(ctx, pod)
		if err == nil {
			return pod, up, nil
		}
		if ctx.Err() != nil {
			return nil, nil, fmt.Errorf("dialing a pod: %w", err)
		}
	}
}

// dialPod returns a connection to pod. Without one the pod's use has ended.
func dialPod(ctx context.Context, pod *route.Endpoint) (up *sock, err error) {
	defer func() {
		if up == nil {
			pod.Done()
		}
	}()
	c, err := take(ctx, pod, 0)
	if err != nil {
		return nil, err
	}
	return c.sock, nil
}

// hold waits for a pod for as long as the client does. One that has spoken and then ended its direction waits for its
// answer.
func (e *Engine) hold(ctx context.Context, client *sock, spoke bool, r *route.Route, visit *route.Visit) (*route.Endpoint, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		defer Rescue(e.options.Log, cancel)
		err := client.awaitGone(spoke)
		if err == nil && !spoke && client.hasSpoken() {
			err = client.awaitGone(true)
		}
		if err == nil {
			cancel()
		}
	}()
	pod, err := r.Pick(ctx, visit)
	_ = client.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection, whose reads end by themselves
	<-watched
	_ = client.SetReadDeadline(time.Time{})
	return pod, err
}

// tunnel carries the bytes of both directions until both have ended, or ctx has, and closes both connections. Early is
// what the client has sent already. The end of one direction is passed on while the other goes on. The bytes count for
// target, or for nothing if it is nil.
func (e *Engine) tunnel(ctx context.Context, client, up *sock, early []byte, target *route.Target) error {
	shut := func() {
		_ = client.Close()
		_ = up.Close()
	}
	defer shut()
	stop := context.AfterFunc(ctx, shut)
	defer stop()
	client.large, up.large = true, true
	counting := func() waits { return &touches{engine: e, target: target} }
	if target == nil {
		counting = func() waits { return noWaits{} }
	}
	half := func(dst, src *sock, early []byte) error {
		_, err := dst.Write(early)
		if err == nil {
			f := flow{src: src, dst: dst, waits: counting()}
			err = f.copy(&body{left: untilEnd})
		}
		if err != nil {
			shut()
			return err
		}
		return dst.CloseWrite()
	}
	sent := make(chan error, 1)
	go func() {
		err := errRescued
		defer func() { sent <- err }()
		defer Rescue(e.options.Log, shut)
		err = half(up, client, early)
	}()
	return errors.Join(half(client, up, nil), <-sent)
}

// touches tells the target that bytes come, no more than once a tick.
type touches struct {
	engine *Engine
	target *route.Target
	last   time.Duration
}

func (t *touches) reading() {}

func (t *touches) writing() {
	if now := t.engine.now(); now != t.last {
		t.last = now
		t.target.Touch()
	}
}

// remoteAddr is the address that a connection comes from.
func remoteAddr(c net.Conn) netip.AddrPort {
	if addr, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return netip.AddrPortFrom(addr.AddrPort().Addr().Unmap(), addr.AddrPort().Port())
	}
	return netip.AddrPort{}
}

// closedWithin reports whether the client closes the connection within d without having sent anything.
func (s *sock) closedWithin(d time.Duration) bool {
	if s.SetReadDeadline(time.Now().Add(d)) != nil {
		return true
	}
	n, err := s.peekOne()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return s.SetReadDeadline(time.Time{}) != nil
	}
	return n == 0 || s.SetReadDeadline(time.Time{}) != nil
}
