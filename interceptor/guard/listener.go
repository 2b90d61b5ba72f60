// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"net"
	"net/netip"
	"sync"
)

// How many connections may be open in all, and from one address. KEDA, each interceptor and each controller have one or two.
const (
	maxConnections = 1_000
	maxOfSource    = 100
)

// Listen returns a listener that closes connections beyond the bounds at once. Whoever opens connections without end, which needs no
// certificate, so uses up the share of its own address.
func Listen(l net.Listener) net.Listener {
	return &listener{Listener: l, most: maxConnections, ofSource: maxOfSource, sources: map[netip.Addr]int{}}
}

type listener struct {
	net.Listener

	most, ofSource int

	mu      sync.Mutex // protects all below
	all     int
	sources map[netip.Addr]int
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source := sourceOf(conn.RemoteAddr())
		if l.take(source) {
			return &bounded{Conn: conn, release: sync.OnceFunc(func() { l.give(source) })}, nil
		}
		_ = conn.Close()
	}
}

func (l *listener) take(source netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.most || l.sources[source] >= l.ofSource {
		return false
	}
	l.all++
	l.sources[source]++
	return true
}

func (l *listener) give(source netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.sources[source]--; l.sources[source] == 0 {
		delete(l.sources, source)
	}
}

// bounded is a connection that counts until it is closed.
type bounded struct {
	net.Conn

	release func()
}

// Close implements net.Conn.
func (b *bounded) Close() error {
	b.release()
	return b.Conn.Close()
}

// sourceOf returns the address of a client. An IPv6 client has a whole network of them.
func sourceOf(addr net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Addr{}
	}
	ip := ap.Addr().Unmap().WithZone("")
	if !ip.Is6() {
		return ip
	}
	network, err := ip.Prefix(64)
	if err != nil {
		return ip
	}
	return network.Addr()
}
