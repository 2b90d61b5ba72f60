// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// If a route asks for it, each connection to a pod begins with a PROXY protocol header, version 2, which carries the client's
// address. Such a connection belongs to one client. With TCP it is used for as long as it lasts. With HTTP it carries only one
// request, because a kept connection could not say that the next request comes from another client.

// ends are the two addresses of a client's connection to us. The zero value stands for a connection that we open for ourselves.
type ends struct{ client, local netip.AddrPort }

// endsOf returns the ends of a connection from client to local, which belongs to a port of r. As the local port it has the Service's
// port, because clients do not know the one on which we listen.
func endsOf(r *route.Route, client netip.AddrPort, local net.Addr) ends {
	e := ends{client: client}
	if addr, ok := local.(*net.TCPAddr); ok {
		e.local = netip.AddrPortFrom(addr.AddrPort().Addr(), uint16(r.Port.Port)) //nolint:gosec // it is a port
	}
	return e
}

// announce sends the header on a new connection. It is short enough for the kernel to take it at once.
func announce(c net.Conn, e ends) error {
	_, err := c.Write(wire.AppendProxyHeader(make([]byte, 0, 64), e.client, e.local))
	return err
}

// connectFor is connect for a connection that has to begin with the header.
func connectFor(ctx context.Context, pod *route.Endpoint, e ends) (*podConn, error) {
	up, err := connect(ctx, pod, 0)
	if err != nil {
		return nil, err
	}
	if err := announce(up, e); err != nil {
		pod.Fail()
		_ = up.Close()
		return nil, err
	}
	up.single = true
	return up, nil
}

// announcing returns an HTTP/2 transport for one request. Its connection begins with the header.
func (s *stream) announcing() *http.Transport {
	local, _ := s.in.Context().Value(http.LocalAddrContextKey).(net.Addr)
	e := endsOf(s.server.route, addrOf(s.in), local)
	shared := s.server.engine.http2.transport
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := shared.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			if err := announce(conn, e); err != nil {
				_ = conn.Close()
				return nil, &dialError{err}
			}
			return conn, nil
		},
		DisableCompression: true,
		IdleConnTimeout:    time.Second, // the transport is not used again
		Protocols:          shared.Protocols,
		HTTP2:              shared.HTTP2,
	}
}
