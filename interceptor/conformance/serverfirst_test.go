// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bufio"
	"io"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// knows reports whether the interceptor knows that the server of a port speaks first.
func (n *node) knows(listen int32) bool {
	return slices.Contains(n.news().GetServerFirstPorts(), listen)
}

// The first client of a server that speaks first waits until its silence has a meaning. Later clients do not.
func TestServerFirstIsRemembered(t *testing.T) {
	t.Parallel()
	n, listen := serving(t, api.ProtocolAuto, rawPod(t, greets))
	reads(t, dial(t, listen), greeting)
	if !n.knows(listen) {
		t.Fatal("it has learned nothing")
	}
	// Another port's first client connects earlier, and hears its server later.
	_, other := serving(t, api.ProtocolAuto, rawPod(t, greets))
	first := make(chan string, 2)
	slow := dial(t, other)
	go func() {
		_, _ = slow.Read(make([]byte, 1))
		first <- "unknown"
	}()
	c := dial(t, listen)
	reads(t, c, greeting)
	first <- "known"
	if got := <-first; got != "known" {
		t.Errorf("the %s port's server was heard first", got)
	}
	_, _ = io.WriteString(c, "QUIT\r\n")
	reads(t, c, "QUIT\r\n")
}

// The memory makes connections faster but never wrong: a client that speaks HTTP first is served as HTTP.
func TestServerFirstSpokenToInHTTP(t *testing.T) {
	var dialed atomic.Int64
	app := newWirePod(t, func(c *wireConn) {
		dialed.Add(1)
		always(ok("fine"))(c)
	})
	for name, silent := range map[string]bool{"at once": false, "after a connection to the pod": true} {
		t.Run(name, func(t *testing.T) {
			n, listen := serving(t, api.ProtocolAuto, app.addr)
			n.remembers(listen)
			before := dialed.Load()
			c := connect(t, listen)
			if silent {
				eventually(t, "dialing the pod", func() bool { return dialed.Load() > before })
			}
			for range 2 {
				c.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
				c.want(200, "fine")
			}
			m := app.requests()[0]
			if m.value("X-Forwarded-Host") != "h" {
				t.Errorf("it went through as bytes: %q", m.lines)
			}
			n.idle()
		})
	}
}

// A client that speaks another protocol first keeps the connection that it already has.
func TestServerFirstSpokenToInBytes(t *testing.T) {
	var dialed atomic.Int64
	n, listen := serving(t, api.ProtocolAuto, rawPod(t, func(c net.Conn) {
		dialed.Add(1)
		echoBehind(c, "")
	}))
	n.remembers(listen)
	c := dial(t, listen)
	eventually(t, "dialing the pod", func() bool { return dialed.Load() == 1 })
	_, _ = io.WriteString(c, "\x16\x03\x01hello")
	reads(t, c, "\x16\x03\x01hello")
}

// A silent client wakes an app whose server speaks first. A client that speaks HTTP while it is held is served as HTTP.
func TestServerFirstAsleep(t *testing.T) {
	t.Run("silent", func(t *testing.T) {
		n, listen := serving(t, api.ProtocolAuto)
		n.remembers(listen)
		c := dial(t, listen)
		n.holds(1)
		n.wokenOnce()
		n.set(unpublished(service(listen, api.ProtocolAuto, rawPod(t, greets))))
		reads(t, c, greeting)
		_, _ = io.WriteString(c, "x")
		reads(t, c, "x")
	})
	t.Run("HTTP", func(t *testing.T) {
		app := newWirePod(t, always(ok("fine")))
		n, listen := serving(t, api.ProtocolAuto)
		n.remembers(listen)
		c := connect(t, listen)
		n.holds(1)
		c.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
		n.set(unpublished(service(listen, api.ProtocolAuto, app.addr)))
		c.want(200, "fine")
		if m := app.requests()[0]; m.value("X-Forwarded-Host") != "h" {
			t.Errorf("it went through as bytes: %q", m.lines)
		}
		_ = c.Close()
		n.idle()
	})
	t.Run("gone", func(t *testing.T) {
		n, listen := serving(t, api.ProtocolAuto)
		n.remembers(listen)
		c := dial(t, listen)
		n.holds(1)
		_ = c.Close()
		n.idle()
	})
}

// What one interceptor has learned, the others know too. So does an interceptor that starts later and learns it from one that was
// told itself.
func TestServerFirstIsShared(t *testing.T) {
	book := &addresses{}
	port := freePort(t)
	app := rawPod(t, greets)
	begin := func(name, host string) *node {
		n := start(t, name, book, func(o *interceptor.Options) { o.ListenHost = host })
		n.set(unpublished(service(port, api.ProtocolAuto, app)))
		n.synced()
		n.waitReady()
		return n
	}
	a, b := begin("a", "127.0.0.1"), begin("b", "127.0.0.2")
	a.setPeers("a", "b")
	b.setPeers("a", "b")
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(within))
	reads(t, bufio.NewReader(conn), greeting)
	eventually(t, "b knows", func() bool { return b.knows(port) })
	_ = conn.Close()
	a.shutdown()
	c := begin("c", "127.0.0.3")
	c.setPeers("b", "c")
	eventually(t, "c knows", func() bool { return c.knows(port) })
}
