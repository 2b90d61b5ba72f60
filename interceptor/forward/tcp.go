// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// probeGrace is how long a connection to a workload that sleeps may take to prove that it is no probe, by not being
// closed at once. The injector connects to every route before it publishes it, and so do load balancers.
const probeGrace = 100 * time.Millisecond

// dialPod returns a connection to pod for client. Without one the pod's use has ended.
func dialPod(ctx context.Context, pod *route.Endpoint, r *route.Route, client *sock) (up *sock, err error) {
	defer func() {
		if up == nil {
			pod.Done()
		}
	}()
	var c *podConn
	if r.ProxyProtocol() {
		c, err = takeFor(ctx, pod, endsOf(r, remoteAddr(client), client.LocalAddr()))
	} else {
		c, err = take(ctx, pod, 0)
	}
	if err != nil {
		return nil, err
	}
	return c.sock, nil
}

// tunnel carries the bytes of both directions until both have ended, or ctx has, and closes both connections. Early is
// what the client has sent already. The end of one direction is passed on while the other goes on.
func (e *Engine) tunnel(ctx context.Context, client, up *sock, early []byte, talk *talk) error {
	shut := func() {
		_ = client.Close()
		_ = up.Close()
	}
	defer shut()
	stop := context.AfterFunc(ctx, shut)
	defer stop()
	client.large, up.large = true, true
	half := func(dst, src *sock, early []byte) error {
		counting := talk.of(src == client)
		if len(early) > 0 {
			counting.writing()
		}
		_, err := dst.Write(early)
		if err == nil && src == client && talk.watch != nil {
			err = talk.watch.pass(dst, src, counting)
		}
		if err == nil {
			f := flow{src: src, dst: dst, waits: counting}
			err = f.copy(&body{left: untilEnd})
		}
		talk.end(src == client)
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
