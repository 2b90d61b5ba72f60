// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// An unreadable answer is not passed on: the client gets 502, and the pod's connection is not used again.
func TestMalformedAnswers(t *testing.T) {
	for name, answer := range map[string]string{
		"no HTTP":                 "hello\r\n\r\n",
		"empty line":              "\r\n\r\n",
		"another protocol":        "SSH-2.0-x\r\n\r\n",
		"no status":               "HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
		"status of words":         "HTTP/1.1 OK 200\r\nContent-Length: 0\r\n\r\n",
		"status of two digits":    "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
		"status of four digits":   "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
		"status negative":         "HTTP/1.1 -20 OK\r\nContent-Length: 0\r\n\r\n",
		"status below 100":        "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
		"version 2":               "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		"line without colon":      "HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n",
		"empty name":              "HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 0\r\n\r\n",
		"space in a name":         "HTTP/1.1 200 OK\r\nX Y: z\r\nContent-Length: 0\r\n\r\n",
		"NUL in a value":          "HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
		"CR in a value":           "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
		"two different lengths":   "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nfine",
		"list of lengths":         "HTTP/1.1 200 OK\r\nContent-Length: 4, 5\r\n\r\nfine",
		"length negative":         "HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nfine",
		"length of words":         "HTTP/1.1 200 OK\r\nContent-Length: four\r\n\r\nfine",
		"length beyond 63 bits":   "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nfine",
		"unknown coding":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\nfine",
		"chunked twice":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
		"coding under NUL":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n",
		"endless header":          "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 16<<20) + "\r\n\r\n",
		"endless headers":         "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: 0123456789\r\n", 16<<20/15) + "\r\n",
		"end in the head":         "HTTP/1.1 200 OK\r\nX: 1\r\n",
		"end in the status":       "HTTP/1.1 20",
		"end behind 103":          "HTTP/1.1 103 Early Hints\r\n\r\n",
		"a head again, not ended": "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nX",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newWirePod(t, func(c *wireConn) {
				if _, err := c.request(); err == nil {
					c.send(answer)
				}
			})
			n, listen := serving(t, api.ProtocolAuto, p.addr)
			c := connect(t, listen)
			c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")
			m := c.answer()
			if m.status() == 103 {
				m = c.answer()
			}
			if m.status() != 502 {
				t.Errorf("got %q with %.60q", m.start, m.body)
			}
			for _, conn := range p.accepted() {
				conn.wantEnd(t)
			}
			if got := len(p.requests()); got != 1 {
				t.Errorf("the POST was sent %d times", got)
			}
			n.idle()
		})
	}
}

// A server that sends a greeting instead of an answer, and then waits, is not waited for.
func TestGreetingInsteadOfAnAnswer(t *testing.T) {
	n, listen := serving(t, api.ProtocolHTTP, rawPod(t, func(c net.Conn) {
		defer c.Close()
		_, _ = io.WriteString(c, "220 hello\r\n")
		_, _ = io.Copy(io.Discard, c)
	}))
	c := connect(t, listen)
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if m := c.answer(); m.status() != 502 {
		t.Errorf("got %q", m.start)
	}
	n.idle()
}

// A space before a colon may be removed, as RFC 9112 demands of a proxy, or refused, but never passed on.
func TestSpaceBeforeColonInAnswers(t *testing.T) {
	_, listen := before(t, always("HTTP/1.1 200 OK\r\nX : y\r\nContent-Length : 4\r\n\r\nfine"))
	c := connect(t, listen)
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	m := c.answer()
	if whole := m.status() == 200 && m.body == "fine" && m.value("X") == "y"; !whole && m.status() != 502 {
		t.Errorf("got %q, %q with %q", m.start, m.lines, m.body)
	}
}

// If an app dies in the middle of an answer, the client can see that its answer is incomplete.
func TestAppDiesInABody(t *testing.T) {
	const chunked, closing = "Transfer-Encoding: chunked\r\n", "Connection: close\r\n"
	for name, tc := range map[string]struct {
		fields, body string
		reset        bool
		version      string
	}{
		"of a length":               {"Content-Length: 100\r\n", "hello", false, "1.1"},
		"of a length, reset":        {"Content-Length: 100\r\n", "hello", true, "1.1"},
		"of a length, nothing":      {"Content-Length: 100\r\n", "", false, "1.1"},
		"of a length, to 1.0":       {"Content-Length: 100\r\n", "hello", false, "1.0"},
		"chunked, in a chunk":       {chunked, "a\r\nhello", false, "1.1"},
		"chunked, between chunks":   {chunked, "5\r\nhello\r\n", false, "1.1"},
		"chunked, in a size":        {chunked, "5\r\nhello\r\n5", false, "1.1"},
		"chunked, in the end":       {chunked, "5\r\nhello\r\n0\r\n", false, "1.1"},
		"chunked, in trailers":      {chunked, "5\r\nhello\r\n0\r\nSum: 1\r\n", false, "1.1"},
		"chunked, reset":            {chunked, "5\r\nhello\r\n", true, "1.1"},
		"chunked, malformed":        {chunked, "5\r\nhello\r\nx\r\n", false, "1.1"},
		"chunked, malformed data":   {chunked, "5\r\nhello!\r\n0\r\n\r\n", false, "1.1"},
		"chunked, to 1.0":           {chunked, "5\r\nhello\r\n", false, "1.0"},
		"chunked, reset, to 1.0":    {chunked, "5\r\nhello\r\n", true, "1.0"},
		"until close, reset":        {closing, "hello", true, "1.1"},
		"until close, reset to 1.0": {closing, "hello", true, "1.0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			die := make(chan struct{})
			p := newWirePod(t, func(c *wireConn) {
				if _, err := c.request(); err != nil {
					return
				}
				c.send("HTTP/1.1 200 OK\r\n" + tc.fields + "\r\n" + tc.body)
				if c.await(die); tc.reset {
					_ = c.SetLinger(0)
				}
			})
			n, listen := serving(t, api.ProtocolAuto, p.addr)
			c := connect(t, listen)
			c.send("GET / HTTP/" + tc.version + "\r\nHost: h\r\n\r\n")
			m := c.head()
			close(die)
			if m.status() == 502 {
				n.idle()
				return // the error came together with the head, and nothing was passed on
			}
			err := readBody(c.r, m, true)
			if err == nil {
				t.Errorf("%q was followed by a body that looks whole: %q", m.start, m.body)
			}
			if isTimeout(err) {
				t.Error("the client was not told")
			}
			if !strings.HasPrefix("hello", strings.TrimSuffix(m.body, "!")) {
				t.Errorf("got %q", m.body)
			}
			if rest, err := io.ReadAll(c.r); len(rest) > 0 && !m.chunked || err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("then %q, %v", rest, err)
			}
			n.idle()
		})
	}
}

// When a client goes, its connection to the pod ends too, whatever it was doing, so that the app does not work for nobody.
func TestClientGoes(t *testing.T) {
	const length = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
	const chunked = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
	get := "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	for name, tc := range map[string]struct {
		request string
		answer  string // what the pod answers to the head
		endless bool   // whether the pod then sends without end
	}{
		"waiting":                   {get, "", false},
		"waiting, POST":             {post("Content-Length: 5\r\n", "hello"), "", false},
		"waiting, empty POST":       {post("Content-Length: 0\r\n", ""), "", false},
		"waiting, chunked POST":     {post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), "", false},
		"upload":                    {post("Content-Length: 100000000\r\n", "hello"), "", false},
		"chunked upload":            {post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"), "", false},
		"upload with 100 expected":  {post("Content-Length: 100\r\nExpect: 100-continue\r\n", ""), "", false},
		"download, silent":          {get, length + "hello", false},
		"download":                  {get, length, true},
		"events, silent":            {get, chunked, false},
		"events after the first":    {get, chunked + "5\r\nhello\r\n", false},
		"until close, silent":       {get, "HTTP/1.1 200 OK\r\n\r\nhello", false},
		"answer while upload":       {post("Content-Length: 100000000\r\n", "hello"), length + "hello", false},
		"hints":                     {get, "HTTP/1.1 103 Early Hints\r\n\r\n", false},
		"waiting, another is piped": {get + get, "", false},
	} {
		for how, leave := range map[string]func(*wireClient){
			"closes": func(c *wireClient) { _ = c.Close() },
			"resets": func(c *wireClient) { _, _ = c.SetLinger(0), c.Close() },
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				p := newWirePod(t, func(c *wireConn) {
					if _, err := readHead(c.r); err != nil {
						return
					}
					c.send(tc.answer)
					if tc.endless {
						go func() { _, _ = io.Copy(io.Discard, c.r) }()
						piece := []byte(strings.Repeat("x", 1000))
						for err := error(nil); err == nil; {
							_, err = c.Write(piece)
						}
						return
					}
					c.drain()
				})
				n, listen := serving(t, api.ProtocolAuto, p.addr)
				c := connect(t, listen)
				c.send(tc.request)
				eventually(t, "arrived", func() bool { return strings.Contains(p.received(), "\r\n\r\n") })
				if strings.HasSuffix(tc.request, "hello") {
					eventually(t, "arrived whole", func() bool { return strings.Contains(p.received(), "hello") })
				}
				if tc.answer != "" {
					c.reads("HTTP/1.1 ")
				}
				began := time.Now()
				leave(c)
				p.accepted()[0].wantEnd(t)
				n.idle()
				if took := time.Since(began); took > soon {
					t.Errorf("took %s", took)
				}
			})
		}
	}
}

// When one of several clients goes, the others lose nothing.
func TestClientGoesAloneAtAPod(t *testing.T) {
	release := make(chan struct{})
	p := newWirePod(t, func(c *wireConn) {
		for {
			m, err := c.request()
			if err != nil {
				return
			}
			if m.path() == "/stays" {
				c.await(release)
			}
			c.send(ok("fine"))
		}
	})
	n, listen := serving(t, api.ProtocolAuto, p.addr)
	stays, goes := connect(t, listen), connect(t, listen)
	stays.send("GET /stays HTTP/1.1\r\nHost: h\r\n\r\n")
	goes.send("GET /goes HTTP/1.1\r\nHost: h\r\n\r\n")
	goes.want(200, "fine")
	_ = goes.Close()
	close(release)
	stays.want(200, "fine")
	n.idle()
}
