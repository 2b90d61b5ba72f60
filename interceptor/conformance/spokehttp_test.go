// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// Once an app has answered a request, its port speaks HTTP: nobody gets past the rules for requests by sending something else first.
func TestPortThatSpokeHTTP(t *testing.T) {
	t.Parallel()
	app := newWirePod(t, always(ok("fine")))
	n, listen := serving(t, api.ProtocolAuto, app.addr)
	ask := func() {
		t.Helper()
		c := connect(t, listen)
		c.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
		c.want(200, "fine")
	}
	ask()
	eventually(t, "learning it", func() bool { return slices.Contains(n.news().GetHttpPorts(), listen) })
	before := len(app.requests())
	for name, bytes := range map[string]string{
		"a lower-case method": "get / \r\n\r\n", "a line protocol": "PING\r\n", "a binary one": "\x00\x01\x02\r\n\r\n",
		"JSON": "{\"id\":1}\n", "a fifth empty line": "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
	} {
		c := connect(t, listen)
		c.send(bytes)
		if status := c.head().status(); status != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400", name, status)
		}
	}
	if came := len(app.requests()); came != before {
		t.Errorf("%d of them reached the app", came-before)
	}
	ask()
	n.idle()
}

// Some servers of other protocols tell a client that speaks HTTP so. Their ports stay as they were.
func TestPortThatOnlyComplained(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"as MongoDB does":                  "HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfine",
		"as servers behind nginx's TLS do": "HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\nfine",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := rawPod(t, func(c net.Conn) {
				b := make([]byte, 4)
				if _, err := io.ReadFull(c, b); err != nil {
					return
				}
				if string(b) == "GET " {
					_, _ = io.WriteString(c, answer)
					return
				}
				_, _ = c.Write(b)
				_, _ = io.Copy(c, c)
			})
			n, listen := serving(t, api.ProtocolAuto, pod)
			c := connect(t, listen)
			c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			c.head()
			raw := dial(t, listen)
			_, _ = io.WriteString(raw, "\x00\x01\x02\x03more")
			reads(t, raw, "\x00\x01\x02\x03more")
			if slices.Contains(n.news().GetHttpPorts(), listen) {
				t.Error("it counts as a port of HTTP")
			}
		})
	}
}

// A client that says nothing wakes nobody on a port of HTTP.
func TestSilenceWakesNobody(t *testing.T) {
	t.Parallel()
	n := start(t, "a", nil, func(o *interceptor.Options) { o.Limits.ReadHeaderTimeout = 2500 * time.Millisecond })
	listen := freePort(t)
	n.set(unpublished(service(listen, api.ProtocolHTTP)))
	n.synced()
	n.waitReady()
	c := dial(t, listen)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("it got an answer")
	}
	if wakes := n.events(); len(wakes) != 0 {
		t.Errorf("woken by %+v", wakes)
	}
}
