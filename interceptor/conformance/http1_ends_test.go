// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"io"
	"strings"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// A request of which at most a part was sent may go to another connection or pod if carrying it out twice equals carrying it out
// once. No other request may.
func TestWhatIsSentAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		request string
		again   bool
	}{
		"GET":              {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", true},
		"HEAD":             {"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", true},
		"OPTIONS":          {"OPTIONS / HTTP/1.1\r\nHost: h\r\n\r\n", true},
		"TRACE":            {"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", true},
		"PUT, no body":     {"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", true},
		"DELETE":           {"DELETE / HTTP/1.1\r\nHost: h\r\n\r\n", true},
		"POST":             {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi", false},
		"POST, no body":    {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", false},
		"PATCH":            {"PATCH / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", false},
		"own method":       {"PURGE / HTTP/1.1\r\nHost: h\r\n\r\n", false},
		"GET in lowercase": {"get / HTTP/1.1\r\nHost: h\r\n\r\n", false},
		"PUT, streamed": {
			"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1000\r\n"+strings.Repeat("x", 0x1000)+"\r\n", 64) +
				"0\r\n\r\n",
			false,
		},
		"PUT, chunked": {"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dies := newWirePod(t, func(c *wireConn) { _, _ = c.request() })
			n, listen := serving(t, api.ProtocolHTTP, dies.addr)
			c := connect(t, listen)
			c.send(tc.request)
			eventually(t, "arrived", func() bool { return len(dies.requests()) == 1 })
			n.set(unpublished(service(listen, api.ProtocolHTTP, newWirePod(t, always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).addr)))
			want := 502
			if tc.again {
				want = 200
			}
			if m := c.head(); m.status() != want {
				t.Errorf("got %q, want %d", m.start, want)
			}
			if got := len(dies.requests()); !tc.again && got > 1 || got > 2 {
				t.Errorf("it was sent %d times", got)
			}
			_ = c.Close()
			n.idle()
		})
	}
}

// A client that has nothing more to say closes its side. With "Connection: close" or HTTP/1.0 it still wants its answer. Otherwise it
// has gone, as browsers and proxies go.
func TestClientEndsItsSide(t *testing.T) {
	for name, tc := range map[string]struct {
		request string
		answer  bool
	}{
		"close":             {"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", true},
		"close, POST":       {"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", true},
		"HTTP/1.0":          {"GET / HTTP/1.0\r\n\r\n", true},
		"HTTP/1.0, POST":    {"POST / HTTP/1.0\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", true},
		"HTTP/1.1":          {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", false},
		"HTTP/1.1, POST":    {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", false},
		"HTTP/1.1, chunked": {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
	} {
		for state, cold := range map[string]bool{"warm": false, "cold": true} {
			t.Run(name+"/"+state, func(t *testing.T) {
				t.Parallel()
				release := make(chan struct{})
				p := newWirePod(t, func(c *wireConn) {
					if _, err := c.request(); err == nil {
						c.await(release)
						c.send(ok("fine"))
					}
				})
				addrs := []string{p.addr}
				if cold {
					addrs = nil
				}
				n, listen := serving(t, api.ProtocolAuto, addrs...)
				c := connect(t, listen)
				c.send(tc.request)
				if !tc.answer {
					if cold {
						n.holds(1)
					} else {
						eventually(t, "arrived", func() bool { return len(p.requests()) == 1 })
					}
					_ = c.CloseWrite()
					n.idle()
					close(release)
					if b, err := io.ReadAll(c.r); isTimeout(err) || strings.Contains(string(b), "fine") {
						t.Errorf("got %q, %v", b, err)
					}
					return
				}
				_ = c.CloseWrite()
				if cold {
					n.holds(1)
					n.set(unpublished(service(listen, api.ProtocolAuto, p.addr)))
				}
				eventually(t, "arrived", func() bool { return len(p.requests()) == 1 })
				close(release)
				c.want(200, "fine")
				c.ends()
				n.idle()
			})
		}
	}
}
