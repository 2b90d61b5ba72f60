// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const (
	upgrade  = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
	switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n"
)

// upgraded returns the script of a pod that switches protocols and then runs script.
func upgraded(script func(*wireConn)) func(*wireConn) {
	return func(c *wireConn) {
		if _, err := c.request(); err != nil {
			return
		}
		c.send(switched)
		script(c)
	}
}

// switches sends the request for an upgrade and reads the 101.
func switches(t *testing.T, listen int32) *wireClient {
	t.Helper()
	c := connect(t, listen)
	c.send(upgrade)
	if m := c.head(); m.status() != 101 {
		t.Fatalf("got %q", m.start)
	}
	return c
}

// An upgrade is requested and granted end to end, for any protocol.
func TestUpgrade(t *testing.T) {
	for name, tc := range map[string]struct{ method, connection, protocol, granted string }{
		"websocket":              {"GET", "Upgrade", "websocket", "websocket"},
		"websocket, other case":  {"GET", "keep-alive, upgrade", "WebSocket", "websocket"},
		"own protocol":           {"GET", "Upgrade", "acme/2", "acme/2"},
		"own protocol, own case": {"GET", "UPGRADE", "Acme", "Acme"},
		"docker's attach":        {"POST", "Upgrade", "tcp", "tcp"},
	} {
		t.Run(name, func(t *testing.T) {
			p, listen := before(t, func(c *wireConn) {
				if _, err := c.request(); err != nil {
					return
				}
				c.send("HTTP/1.1 101 Switching Protocols\r\nX: 1\r\nUpgrade: " + tc.granted + "\r\nConnection: Upgrade\r\n\r\n")
				_, _ = io.Copy(c, c.r)
			})
			c := connect(t, listen)
			c.send(tc.method + " /ws HTTP/1.1\r\nHost: h\r\nUpgrade: " + tc.protocol + "\r\nConnection: " + tc.connection + "\r\nX: 1\r\n\r\n")
			m := c.head()
			if m.status() != 101 {
				t.Fatalf("got %q", m.start)
			}
			if diff := cmp.Diff([]string{"connection: upgrade", "upgrade: " + strings.ToLower(tc.granted), "x: 1"},
				folded(lower(m.without("Date")))); diff != "" {
				t.Errorf("the answer's headers (-want +got):\n%s", diff)
			}
			arrived := p.requests()[0]
			if arrived.value("Upgrade") != tc.protocol || !strings.EqualFold(arrived.value("Connection"), "Upgrade") {
				t.Errorf("the request arrived with %q", arrived.lines)
			}
			for _, text := range []string{"hello", "\x00\xff\r\n\r\nGET / HTTP/1.1\r\n\r\n", strings.Repeat("long", 50000)} {
				go func() { _, _ = io.WriteString(c, text) }()
				c.reads(text)
			}
			_ = c.CloseWrite()
			c.ends()
		})
	}
}

func lower(lines []string) []string {
	out := []string{}
	for _, line := range lines {
		out = append(out, strings.ToLower(line))
	}
	return out
}

// Bytes in the same packet as the 101, or as the request for it, belong to the new protocol and are not lost.
func TestUpgradeWithBytesRightBehind(t *testing.T) {
	_, listen := before(t, func(c *wireConn) {
		if _, err := c.request(); err != nil {
			return
		}
		c.send(switched + "from the pod")
		b := make([]byte, len("from the client"))
		if _, err := io.ReadFull(c.r, b); err != nil {
			return
		}
		c.send(", which got " + string(b))
		c.drain()
	})
	c := connect(t, listen)
	c.send(upgrade + "from the client")
	if m := c.head(); m.status() != 101 {
		t.Fatalf("got %q", m.start)
	}
	c.reads("from the pod, which got from the client")
}

// Either side of an upgraded connection may close while the other one continues.
func TestUpgradeHalfClose(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		_, listen := before(t, upgraded(func(c *wireConn) {
			b, _ := io.ReadAll(c.r)
			c.send("got " + string(b))
		}))
		c := switches(t, listen)
		c.send("hello")
		_ = c.CloseWrite()
		c.reads("got hello")
		c.ends()
	})
	t.Run("pod", func(t *testing.T) {
		got := make(chan string, 1)
		_, listen := before(t, upgraded(func(c *wireConn) {
			c.send("bye")
			_ = c.CloseWrite()
			b, err := io.ReadAll(c.r)
			got <- fmt.Sprint(string(b), err)
		}))
		c := switches(t, listen)
		c.reads("bye")
		c.ends()
		c.send("still here")
		_ = c.CloseWrite()
		if g := <-got; g != "still here<nil>" {
			t.Errorf("the pod got %s", g)
		}
	})
}

// When one side breaks, the other one learns of it, and nothing stays counted.
func TestUpgradeBreaks(t *testing.T) {
	for name, tc := range map[string]struct {
		pod, client func(*wireConn, *wireClient)
	}{
		"client closes":      {nil, func(_ *wireConn, c *wireClient) { _ = c.Close() }},
		"client resets":      {nil, func(_ *wireConn, c *wireClient) { _, _ = c.SetLinger(0), c.Close() }},
		"pod closes":         {func(c *wireConn, _ *wireClient) { _ = c.Close() }, nil},
		"pod resets":         {func(c *wireConn, _ *wireClient) { _, _ = c.SetLinger(0), c.Close() }, nil},
		"pod resets, midway": {func(c *wireConn, _ *wireClient) { c.send("some"); _, _ = c.SetLinger(0), c.Close() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := newWirePod(t, upgraded(func(c *wireConn) { c.drain() }))
			n, listen := serving(t, api.ProtocolAuto, p.addr)
			c := switches(t, listen)
			conn := p.accepted()[0]
			if tc.pod != nil {
				tc.pod(conn, c)
				_ = c.SetReadDeadline(time.Now().Add(soon))
				if _, err := io.Copy(io.Discard, c.r); isTimeout(err) {
					t.Error("the client was not told")
				}
				_ = c.Close()
			} else {
				tc.client(conn, c)
				conn.wantEnd(t)
			}
			n.idle()
		})
	}
}

// An app that does not switch answers like any other, and the connection serves the next request.
func TestUpgradeRefused(t *testing.T) {
	for name, answer := range map[string]string{
		"200": ok("plain"),
		"400": "HTTP/1.1 400 Bad Request\r\nContent-Length: 5\r\n\r\nplain",
		"426": "HTTP/1.1 426 Upgrade Required\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nplain\r\n0\r\n\r\n",
		"103": "HTTP/1.1 103 Early Hints\r\n\r\n" + ok("plain"),
	} {
		t.Run(name, func(t *testing.T) {
			p := newWirePod(t, answering(func(m *message) string {
				if m.path() == "/next" {
					return ok("next")
				}
				return answer
			}))
			n, listen := serving(t, api.ProtocolAuto, p.addr)
			c := connect(t, listen)
			for range 2 {
				c.send(upgrade)
				m := c.answer()
				for m.status() < 200 {
					m = c.answer()
				}
				if m.body != "plain" {
					t.Errorf("got %q with %q", m.start, m.body)
				}
				c.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
				c.want(200, "next")
			}
			n.idle()
		})
	}
}

// An app that was not asked to switch may not switch.
func TestUpgradeThatNobodyAskedFor(t *testing.T) {
	for name, tc := range map[string]struct{ request, answer string }{
		"not asked":        {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", switched},
		"only offered":     {"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n", switched},
		"another protocol": {upgrade, strings.Replace(switched, "websocket", "acme", 1)},
		"no protocol":      {upgrade, "HTTP/1.1 101 Switching Protocols\r\n\r\n"},
		"h2c": {
			"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
			strings.Replace(switched, "websocket", "h2c", 1),
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newWirePod(t, func(c *wireConn) {
				if _, err := c.request(); err == nil {
					c.send(tc.answer + "poison")
					c.drain()
				}
			})
			n, listen := serving(t, api.ProtocolAuto, p.addr)
			c := connect(t, listen)
			c.send(tc.request)
			if m := c.answer(); m.status() != 502 || strings.Contains(m.body, "poison") {
				t.Errorf("got %q with %q", m.start, m.body)
			}
			n.idle()
		})
	}
}

// An upgraded connection carries much data in both directions at once.
func TestUpgradeCarriesMuch(t *testing.T) {
	_, listen := before(t, upgraded(func(c *wireConn) {
		_, _ = io.Copy(c, c.r)
	}))
	c := switches(t, listen)
	const size = 32 << 20
	piece := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	want := sha256.New()
	sent := make(chan error, 1)
	go func() {
		for range size / len(piece) {
			want.Write(piece)
			if _, err := c.Write(piece); err != nil {
				sent <- err
				return
			}
		}
		sent <- c.CloseWrite()
	}()
	got := sha256.New()
	n, err := io.Copy(got, c.r)
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if err != nil || n != size || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("%d bytes came back, %v", n, err)
	}
}
