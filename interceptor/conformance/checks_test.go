// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"io"
	"math"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const greeting = "220 welcome\r\n"

// greets is a server that speaks first, and then echoes each byte.
func greets(c net.Conn) { echoBehind(c, greeting) }

// idleFor returns the time since the last visitor; math.MaxInt64 if there was none.
func (n *node) idleFor() time.Duration {
	return n.seen().Target(deployment).Idle()
}

// remembers makes the interceptor know that the server of a port speaks first.
func (n *node) remembers(listen int32) {
	n.t.Helper()
	n.mu.Lock()
	s := n.last
	n.mu.Unlock()
	s.Routes.Ports = slices.Clone(s.Routes.Ports)
	for i := range s.Routes.Ports {
		if s.Routes.Ports[i].Listen == listen {
			s.Routes.Ports[i].ServerFirst = true
		}
	}
	n.set(s)
	n.applied()
}

// reads reads as many bytes as want has, and compares them.
func reads(t *testing.T, c io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v; want %q", b[:n], err, want)
	}
}

// A check does not count, whatever the port speaks: it connects and closes, perhaps after the server's greeting. A client that says
// something counts.
func TestChecksDoNotCount(t *testing.T) {
	for name, tc := range map[string]struct {
		protocol string
		known    bool // whether the interceptor knows that the server speaks first
		greeted  bool // whether the check waits for the greeting
		reset    bool // whether the check then resets the connection
		says     string
		hears    string
	}{
		"tcp":                   {api.ProtocolTCP, false, false, false, "x", greeting + "x"},
		"tcp, reset":            {api.ProtocolTCP, false, false, true, "x", greeting + "x"},
		"tcp, greeted":          {api.ProtocolTCP, false, true, false, "x", greeting + "x"},
		"tcp, greeted, reset":   {api.ProtocolTCP, false, true, true, "x", greeting + "x"},
		"server first":          {api.ProtocolAuto, true, false, false, "x", greeting + "x"},
		"server first, greeted": {api.ProtocolAuto, true, true, false, "x", greeting + "x"},
		"auto":                  {api.ProtocolAuto, false, false, false, "\x00", greeting + "\x00"},
		"http":                  {api.ProtocolHTTP, false, false, true, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 502"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, listen := serving(t, tc.protocol, rawPod(t, greets))
			if tc.known {
				n.remembers(listen)
			}
			for range 5 {
				c := dial(t, listen)
				if tc.greeted {
					reads(t, c, greeting)
				}
				if tc.reset {
					_ = c.SetLinger(0)
				}
				_ = c.Close()
			}
			n.idle()
			if got := n.idleFor(); got != math.MaxInt64 || len(n.events()) > 0 {
				t.Errorf("after checks alone it has been idle for %s, and was woken by %v", got, n.events())
			}
			c := dial(t, listen)
			_, _ = io.WriteString(c, tc.says)
			reads(t, c, tc.hears)
			eventually(t, "counting a client that speaks", func() bool { return n.idleFor() < math.MaxInt64 })
		})
	}
}
