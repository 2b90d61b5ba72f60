// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// heldFor checks that value is a time of some milliseconds, and at least least.
func heldFor(t *testing.T, value string, least time.Duration) {
	t.Helper()
	d, err := time.ParseDuration(value)
	if err != nil || !regexp.MustCompile(`^\d+\.\d{3}s$`).MatchString(value) || d < least || d > within {
		t.Errorf("held for %q, want at least %s", value, least)
	}
}

// The answer to a held request says how long it was held. The next answer on the same connection does not.
func TestHeldHeader(t *testing.T) {
	for name, tc := range map[string]struct {
		request, answer string
		status          int
	}{
		"plain":    {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", ok("fine"), 200},
		"HTTP/1.0": {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", ok("fine"), 200},
		"no body":  {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", 204},
		"chunks": {
			"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n", 200,
		},
		"hop by hop": {
			"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 4\r\n\r\nfine", 200,
		},
		"an informational": {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok("fine"), 103},
		"a long head": {
			"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 40000) + "\r\nContent-Length: 4\r\n\r\nfine", 200,
		},
		"a body":         {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", ok("fine"), 200},
		"no HTTP at all": {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "nonsense\r\n\r\n", 502},
	} {
		t.Run(name, func(t *testing.T) {
			n, listen := serving(t, api.ProtocolAuto)
			c := connect(t, listen)
			c.send(tc.request)
			n.holds(1)
			time.AfterFunc(50*time.Millisecond, func() {
				n.set(unpublished(service(listen, api.ProtocolAuto, newWirePod(t, always(tc.answer)).addr)))
			})
			m := c.answer()
			if m.status() != tc.status {
				t.Fatalf("got %q", m.start)
			}
			if tc.status < 200 {
				if m.value("Scale-To-Zero-Held") != "" {
					t.Errorf("got %q", m.lines)
				}
				m = c.answer()
			}
			heldFor(t, m.value("Scale-To-Zero-Held"), 50*time.Millisecond)
			if m.value("Scale-To-Zero") != "" {
				t.Errorf("got %q", m.lines)
			}
			c.send(tc.request)
			m = c.answer()
			if tc.status < 200 {
				m = c.answer()
			}
			if held := m.values("Scale-To-Zero-Held"); len(held) > 0 {
				t.Errorf("the next request was held for %s", held)
			}
			// A request that is refused before it could be held does not say it either.
			c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")
			if m = c.answer(); m.status() != 400 || len(m.values("Scale-To-Zero-Held")) > 0 {
				t.Errorf("got %q with %q", m.start, m.lines)
			}
		})
	}
}

func TestHeldHeaderOfAnUpgrade(t *testing.T) {
	n, listen := serving(t, api.ProtocolAuto)
	c := connect(t, listen)
	c.send(upgrade)
	n.holds(1)
	n.set(unpublished(service(listen, api.ProtocolAuto, newWirePod(t, always(switched)).addr)))
	m := c.head()
	if m.status() != 101 {
		t.Fatalf("got %q", m.start)
	}
	heldFor(t, m.value("Scale-To-Zero-Held"), 0)
}

// Our own answers say it too, and all waits of a request are added up.
func TestHeldHeaderOfOwnAnswers(t *testing.T) {
	n, listen := serving(t, api.ProtocolAuto)
	s := unpublished(service(listen, api.ProtocolAuto))
	s.Routes.HoldTimeout = api.Duration(200 * time.Millisecond)
	for name, tc := range map[string]struct {
		addrs []string
		least time.Duration
	}{
		"asleep":  {nil, 200 * time.Millisecond},
		"refuses": {[]string{closedPort(t)}, 100 * time.Millisecond}, // it is held repeatedly, and dials in between
	} {
		s.Endpoints = map[string][]string{"http": tc.addrs}
		n.set(s)
		n.applied()
		c := connect(t, listen)
		c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		m := c.answer()
		if m.status() != 504 {
			t.Fatalf("%s: got %q", name, m.start)
		}
		heldFor(t, m.value("Scale-To-Zero-Held"), tc.least)
	}
}

func TestHeldHeaderByHTTP2(t *testing.T) {
	n, listen := serving(t, api.ProtocolAuto)
	conn := grpcConn(t, listen)
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	go func() {
		n.holds(1)
		n.set(unpublished(service(listen, api.ProtocolAuto, grpcPod(t, openGate()))))
	}()
	for i := range 2 {
		var head metadata.MD
		if err := conn.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("hello"), new(wrapperspb.StringValue), grpc.Header(&head)); err != nil {
			t.Fatal(err)
		}
		held := head.Get("scale-to-zero-held")
		if i == 0 && len(held) == 1 {
			heldFor(t, held[0], 0)
		} else if i == 0 || len(held) > 0 {
			t.Errorf("call %d was held for %q", i, held)
		}
	}

	s := unpublished(service(listen, api.ProtocolAuto))
	s.Routes.HoldTimeout = api.Duration(100 * time.Millisecond)
	n.set(s)
	n.applied()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: within}).Get(url(listen, "/"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("got %d", resp.StatusCode)
	}
	heldFor(t, resp.Header.Get("Scale-To-Zero-Held"), 100*time.Millisecond)
}

func TestHeldHeaderCanBeOff(t *testing.T) {
	n := start(t, "a", nil, func(o *interceptor.Options) { o.HideHeld = true })
	listen := freePort(t)
	n.set(unpublished(service(listen, api.ProtocolAuto)))
	n.synced()
	n.waitReady()
	c := connect(t, listen)
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	n.holds(1)
	n.set(unpublished(service(listen, api.ProtocolAuto, newWirePod(t, always(ok("fine"))).addr)))
	if m := c.want(200, "fine"); len(m.values("Scale-To-Zero-Held")) > 0 {
		t.Errorf("got %q", m.lines)
	}
	// The time is still measured.
	n.measures(fmt.Sprintf(`scale_to_zero_held_seconds_count{namespace="shop",service="web"} %d`, 1))
}
