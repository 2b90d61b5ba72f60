// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net"
	"testing"
	"time"
)

// within is how long tests wait for what should happen soon. It is long because the machine may be busy.
const within = 20 * time.Second

func listen(tb testing.TB) *net.TCPListener {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	return l.(*net.TCPListener)
}

func dial(tb testing.TB, addr string) *net.TCPConn {
	tb.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(within))
	return conn.(*net.TCPConn)
}

// pair returns the two ends of a connection: the side that opened it, and the side that accepted it.
func pair(tb testing.TB) (client, server *net.TCPConn) {
	tb.Helper()
	l := listen(tb)
	client = dial(tb, l.Addr().String())
	server, err := l.AcceptTCP()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = server.Close() })
	return client, server
}

// newSockPair returns the two ends of a connection: ours, which accepted it, and the other side's.
func newSockPair(tb testing.TB, b *Buffers, large bool) (*Sock, *net.TCPConn) {
	tb.Helper()
	theirs, ours := pair(tb)
	return newSock(tb, ours, b, large), theirs
}

// newDialed is newSockPair for a connection that we opened.
func newDialed(tb testing.TB) (*Sock, *net.TCPConn) {
	tb.Helper()
	ours, theirs := pair(tb)
	_ = ours.SetDeadline(time.Time{})
	_ = theirs.SetDeadline(time.Now().Add(within))
	return newSock(tb, ours, NewBuffers(), true), theirs
}

func newSock(tb testing.TB, conn *net.TCPConn, b *Buffers, large bool) *Sock {
	tb.Helper()
	s, err := NewSock(conn, b, large)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); time.Now().Before(end); <-tick.C {
		if ok() {
			return
		}
	}
	tb.Fatalf("not %s within %s", what, within)
}
