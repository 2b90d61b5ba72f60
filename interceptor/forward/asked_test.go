// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/headers"
)

// askedBy returns a request as the core asks about it, for each HTTP version.
func askedBy(t *testing.T, head string) map[string]*call {
	t.Helper()
	e := newEngine(t, Options{Tick: still().Tick, TrustedHops: headers.AllHops})
	s := newServer(t, e, stickyRoute(t, "sid", "10.0.0.1:80"))
	c := &conn{server: s, remote: "192.0.2.1", in: e.buffers.Get(true)}
	c.in.Extend(copy(c.in.Free(), head))
	if n, err := c.req.Parse(c.in.Bytes()); err != nil || n != len(head) {
		t.Fatalf("parsing %q: %d, %v", head, n, err)
	}
	c.now = request1{conn: c, call: call{server: s, asked: asked1{c}, remote: c.remote}}
	in, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		t.Fatal(err)
	}
	in.RemoteAddr = "192.0.2.1:5"
	return map[string]*call{"HTTP/1.1": &c.now.call, "HTTP/2": &newStream(s, nil, in).call}
}

// Both HTTP versions answer each question of the core alike.
func TestAskedAlike(t *testing.T) {
	const post = "POST /a%2Fb?c=d HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: agent/1\r\nX-Forwarded-For: 10.0.0.9, 10.0.0.8\r\n" +
		"X-Forwarded-Proto: https\r\nCookie: sid=abc\r\nContent-Length: 3\r\n\r\n"
	const poll = "GET / HTTP/1.1\r\nHost: h\r\nScale-To-Zero-Wait: x,1\r\n\r\n"
	const events = "GET /events?t=1 HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n"
	for head, want := range map[string]struct {
		method, target, agent, host, visitor, proto string
		body, waits, tab                            bool
	}{
		post:   {"POST", "/a%2Fb?c=d", "agent/1", "shop.example.com", "10.0.0.8", "https", true, false, false},
		poll:   {"GET", "/", "", "h", "192.0.2.1", "", false, true, false},
		events: {"GET", "/events?t=1", "", "h", "192.0.2.1", "", false, false, true},
	} {
		calls := askedBy(t, head)
		for version, c := range calls {
			a := c.asked
			if string(a.method()) != want.method || string(a.target()) != want.target || string(a.agent()) != want.agent || a.host() != want.host {
				t.Errorf("%s: %s %s of %s by %q", version, a.method(), a.target(), a.host(), a.agent())
			}
			if c.visitor() != want.visitor || a.value("x-forwarded-proto") != want.proto || a.hasBody() != want.body || a.waits() != want.waits {
				t.Errorf("%s: from %s, by %q, body %v, waits %v", version, c.visitor(), a.value("x-forwarded-proto"), a.hasBody(), a.waits())
			}
			if a.hasUpgrade() || c.opensTab() != want.tab {
				t.Errorf("%s: upgrade %v, opens a tab %v", version, a.hasUpgrade(), c.opensTab())
			}
			c.stick()
			c.describe()
			if (c.visit.Session != 0) != (head == post) || c.visit.Remote != want.visitor || strings.Contains(c.visit.Path, "?") ||
				version == "HTTP/1.1" && a.size() <= 0 && head != poll {
				t.Errorf("%s: %+v of %d bytes", version, c.visit, a.size())
			}
		}
		if one, two := calls["HTTP/1.1"], calls["HTTP/2"]; one.tab() != two.tab() || one.visit.Session != two.visit.Session ||
			one.classify() != two.classify() {
			t.Errorf("%q is not the same by both", head)
		}
	}
}

// This tests how requests count.
func TestClassify(t *testing.T) {
	for head, want := range map[string]kind{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n":                                          visits,
		"GET / HTTP/1.1\r\nHost: h\r\nUser-Agent: kube-probe/1.30\r\n\r\n":           ignored,
		"POST / HTTP/1.1\r\nHost: h\r\nScale-To-Zero-Wait: x\r\n\r\n":                visits,
		"GET / HTTP/1.1\r\nHost: h\r\nScale-To-Zero-Wait: x\r\n\r\n":                 visits, // without pages
		"GET /events HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n":       visits,
		"POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: h\r\n\r\n":              visits,
		"GET /events HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream, x/y\r\n\r\n":  visits,
		"HEAD / HTTP/1.1\r\nHost: h\r\nUser-Agent: Prometheus/3.0 (x; y/1)\r\n\r\n":  ignored,
		"DELETE / HTTP/1.1\r\nHost: h\r\nUser-Agent: kube-probe/1.30, again\r\n\r\n": visits,
	} {
		for version, c := range askedBy(t, head) {
			if got := c.classify(); got != want {
				t.Errorf("%s: %q is %v, want %v", version, head, got, want)
			}
		}
	}
}
