// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// echo returns a script that answers with the request. It knows HEAD.
func echo() func(*wireConn) {
	return answering(func(m *message) string {
		method, _, _ := strings.Cut(m.start, " ")
		answer := ok(method + " " + m.path() + " " + m.body)
		if method == "HEAD" {
			answer, _, _ = strings.Cut(answer, "\r\n\r\n")
			answer += "\r\n\r\n"
		}
		return answer
	})
}

// Requests that may be sent again share a connection to the pod, whichever clients they come from.
func TestKeepAliveOnBothSides(t *testing.T) {
	p, listen := before(t, echo())
	for range 3 {
		c := connect(t, listen)
		for i := range 10 {
			c.send(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i))
			if m := c.want(200, fmt.Sprintf("GET /%d ", i)); strings.EqualFold(m.value("Connection"), "close") {
				t.Error("the client is told to close")
			}
		}
		_ = c.Close()
	}
	if got := len(p.accepted()); got != 1 {
		t.Errorf("the pod accepted %d connections", got)
	}
}

// A client's connection is kept whatever the client requests, and whatever the pod does with its own connection.
func TestKeepAliveOfTheClient(t *testing.T) {
	for name, end := range map[string]string{
		"pod keeps":       "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
		"pod closes":      "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine",
		"pod of HTTP/1.0": "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfine",
		"pod keeps, 1.0":  "HTTP/1.0 200 OK\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\nfine",
		"chunked":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
		"chunked, closes": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			keeps := !strings.Contains(end, "close") && !strings.HasPrefix(end, "HTTP/1.0") || strings.Contains(end, "keep-alive")
			_, listen := before(t, func(c *wireConn) {
				for {
					if _, err := c.request(); err != nil {
						return
					}
					if c.send(end); !keeps {
						return
					}
				}
			})
			c := connect(t, listen)
			for _, request := range []string{
				"GET / HTTP/1.1\r\nHost: h\r\n\r\n", post("Content-Length: 5\r\n", "hello"), "DELETE / HTTP/1.1\r\nHost: h\r\n\r\n",
				post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
			} {
				c.send(request)
				if m := c.want(200, "fine"); !strings.HasPrefix(m.start, "HTTP/1.1 ") {
					t.Errorf("answered %q", m.start)
				}
			}
		})
	}
}

// Pipelined requests get their answers in order, however the bytes are cut.
func TestPipelining(t *testing.T) {
	var all strings.Builder
	var want []string
	for i := range 40 {
		switch i % 4 {
		case 0:
			fmt.Fprintf(&all, "GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i)
			want = append(want, fmt.Sprintf("GET /%d ", i))
		case 1:
			fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", i)
			want = append(want, fmt.Sprintf("POST /%d hello", i))
		case 2:
			fmt.Fprintf(&all, "HEAD /%d HTTP/1.1\r\nHost: h\r\n\r\n", i)
			want = append(want, "")
		case 3:
			fmt.Fprintf(&all, "PUT /%d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", i)
			want = append(want, fmt.Sprintf("PUT /%d hello", i))
		}
	}
	for name, size := range map[string]int{"in one packet": all.Len(), "byte by byte": 1, "in pieces of 7": 7, "in pieces of 97": 97} {
		t.Run(name, func(t *testing.T) {
			p := newWirePod(t, echo())
			n, listen := serving(t, api.ProtocolAuto, p.addr)
			c := connect(t, listen)
			go func() {
				for piece := range slices.Chunk([]byte(all.String()), size) {
					_, _ = c.Write(piece)
				}
			}()
			for i, body := range want {
				m := c.head()
				if i%4 != 2 {
					if err := readBody(c.r, m, false); err != nil {
						t.Fatal(err)
					}
				} else if m.value("Content-Length") != fmt.Sprint(len(fmt.Sprintf("HEAD /%d ", i))) {
					t.Errorf("HEAD was answered with %q", m.lines)
				}
				if m.status() != 200 || m.body != body {
					t.Fatalf("answer %d is %q with %q, want %q", i, m.start, m.body, body)
				}
			}
			if got := len(p.requests()); got != len(want) {
				t.Errorf("the pod received %d requests", got)
			}
			n.idle()
		})
	}
}

// Chunks arrive complete in both directions, however their bytes are cut.
func TestChunksCutAnywhere(t *testing.T) {
	const chunks = "1\r\nh\r\n00a;x=\"1;2\"\r\nello, worl\r\n1;y\r\nd\r\n000\r\nSum: 1\r\nOther: 2\r\n\r\n"
	p, listen := before(t, func(c *wireConn) {
		for {
			m, err := c.request()
			if err != nil {
				return
			}
			for _, b := range []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Sum, Other\r\nX: " + m.body + "\r\n\r\n" + chunks) {
				c.send(string(b))
			}
		}
	})
	c := connect(t, listen)
	for range 3 {
		for _, b := range []byte("POST / HTTP/1.1\r\nHost: h\r\nTrailer: Sum, Other\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks) {
			c.send(string(b))
		}
		m := c.want(200, "hello, world")
		arrived := p.requests()[len(p.requests())-1]
		if arrived.body != "hello, world" || m.value("X") != "hello, world" {
			t.Errorf("arrived as %q", arrived.body)
		}
		for at, trailers := range map[string][]string{"pod": arrived.trailers, "client": m.trailers} {
			if got := fmt.Sprint(folded(trailers)); got != "[other: 2 sum: 1]" {
				t.Errorf("trailers at the %s: %s", at, got)
			}
		}
	}
}

// A client of HTTP/1.0 gets nothing that HTTP/1.0 does not know.
func TestHTTP10Clients(t *testing.T) {
	for name, tc := range map[string]struct {
		fields, answer string
		keeps          bool
	}{
		"length":                 {"Host: h\r\n", ok("fine"), false},
		"length, kept":           {"Host: h\r\nConnection: keep-alive\r\n", ok("fine"), true},
		"length, kept, in upper": {"Host: h\r\nConnection: Keep-Alive\r\n", ok("fine"), true},
		"no Host":                {"", ok("fine"), false},
		"chunked": {
			"Host: h\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfi\r\n2;x\r\nne\r\n0\r\nSum: 1\r\n\r\n", false,
		},
		"chunked, kept": {
			"Host: h\r\nConnection: keep-alive\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n", false,
		},
		"until close": {"Host: h\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfine", false},
		"hints":       {"Host: h\r\n", "HTTP/1.1 103 Early Hints\r\n\r\n" + ok("fine"), false},
		"100":         {"Host: h\r\nExpect: 100-continue\r\n", "HTTP/1.1 100 Continue\r\n\r\n" + ok("fine"), false},
	} {
		t.Run(name, func(t *testing.T) {
			p, listen := before(t, func(c *wireConn) {
				for {
					if _, err := c.request(); err != nil {
						return
					}
					c.send(tc.answer)
					if strings.Contains(tc.answer, "close") {
						return
					}
				}
			})
			c := connect(t, listen)
			for range 2 {
				c.send("GET / HTTP/1.0\r\n" + tc.fields + "\r\n")
				m := c.want(200, "fine")
				if m.chunked || len(m.values("Transfer-Encoding"))+len(m.values("Trailer")) > 0 {
					t.Errorf("answered with %q", m.lines)
				}
				if keeps := strings.EqualFold(m.value("Connection"), "keep-alive"); keeps != tc.keeps {
					t.Errorf("Connection: %q", m.value("Connection"))
				}
				for _, arrived := range p.requests() {
					if !strings.HasSuffix(arrived.start, "HTTP/1.0") && len(arrived.values("Host")) != 1 {
						t.Errorf("arrived as %q, %q", arrived.start, arrived.lines)
					}
				}
				if !tc.keeps {
					c.ends()
					return
				}
			}
		})
	}
}

// If a client or an app asks to close the connection, it is closed after the answer.
func TestConnectionClose(t *testing.T) {
	p, listen := before(t, echo())
	for name, request := range map[string]string{
		"GET":             "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
		"in a list":       "GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n",
		"and more behind": "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + smuggled,
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, listen)
			c.send(request)
			if m := c.want(200, "GET / "); !strings.EqualFold(m.value("Connection"), "close") {
				t.Errorf("Connection: %q", m.value("Connection"))
			}
			c.ends()
			if strings.Contains(p.received(), "smuggled") {
				t.Error("what came behind the last request was forwarded")
			}
		})
	}
}

// A body without a length ends with the pod's connection. The client gets that end in a form that it can trust.
func TestAnswersUntilClose(t *testing.T) {
	for name, answer := range map[string]string{
		"1.1":               "HTTP/1.1 200 OK\r\n\r\n",
		"1.1, said":         "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
		"1.0":               "HTTP/1.0 200 OK\r\n\r\n",
		"error":             "HTTP/1.1 500 Oh\r\n\r\n",
		"no reason, no CRs": "HTTP/1.1 200\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, listen := before(t, func(c *wireConn) {
				if _, err := c.request(); err == nil {
					c.send(answer + strings.Repeat("much ", 50000))
				}
			})
			for range 2 {
				c := connect(t, listen)
				c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
				m := c.answer()
				if m.body != strings.Repeat("much ", 50000) {
					t.Errorf("%q: %d bytes", m.start, len(m.body))
				}
				if !m.chunked && !strings.EqualFold(m.value("Connection"), "close") {
					t.Errorf("%q, %q: nothing says where the body ends", m.start, m.lines)
				}
			}
		})
	}
}

// This tests the other forms of a target.
func TestTargetForms(t *testing.T) {
	p := newWirePod(t, always(ok("fine")))
	_, listen := serving(t, api.ProtocolAuto, p.addr)
	for name, tc := range map[string]struct{ request, start, host string }{
		"absolute":                {"GET http://other:81/a?b HTTP/1.1\r\nHost: h\r\n\r\n", "GET http://other:81/a?b HTTP/1.1", "h"},
		"absolute, no path":       {"GET http://other HTTP/1.1\r\nHost: h\r\n\r\n", "GET http://other HTTP/1.1", "h"},
		"absolute, upper case":    {"GET HTTP://other/a HTTP/1.1\r\nHost: other\r\n\r\n", "GET HTTP://other/a HTTP/1.1", "other"},
		"absolute, raw":           {"GET http://other//a/../%2F?;x HTTP/1.1\r\nHost: h\r\n\r\n", "GET http://other//a/../%2F?;x HTTP/1.1", "h"},
		"asterisk":                {"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS * HTTP/1.1", "h"},
		"OPTIONS of a path":       {"OPTIONS /a HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS /a HTTP/1.1", "h"},
		"path that looks like it": {"GET /http://other/ HTTP/1.1\r\nHost: h\r\n\r\n", "GET /http://other/ HTTP/1.1", "h"},
	} {
		t.Run(name, func(t *testing.T) {
			arrived, answer := ask(t, p, listen, tc.request)
			if arrived.start != tc.start || arrived.value("Host") != tc.host || answer.status() != 200 {
				t.Errorf("arrived as %q for %q", arrived.start, arrived.value("Host"))
			}
		})
	}
}

// Some clients send an empty line too many after a body. RFC 9112 wants us to skip an empty line before a request line.
func TestEmptyLineBeforeARequest(t *testing.T) {
	p := newWirePod(t, echo())
	_, listen := serving(t, api.ProtocolHTTP, p.addr) // the first bytes do not look like HTTP
	c := connect(t, listen)
	c.send("\r\nGET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
	c.want(200, "GET /1 ")
	c.send("POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi\r\nGET /3 HTTP/1.1\r\nHost: h\r\n\r\n")
	c.want(200, "POST /2 hi")
	c.want(200, "GET /3 ")
	c.send("\r")
	c.send("\nGET /4 HTTP/1.1\r\nHost: h\r\n\r\n")
	c.want(200, "GET /4 ")
}

// If a pod closes idle connections, the request uses a new one.
func TestPodClosesIdleConnections(t *testing.T) {
	p, listen := before(t, func(c *wireConn) {
		if _, err := c.request(); err == nil {
			c.send(ok("fine"))
		}
	})
	c := connect(t, listen)
	for i := range 20 {
		c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		c.want(200, "fine")
		c.send(post("Content-Length: 5\r\n", "hello"))
		c.want(200, "fine")
		if got := len(p.requests()); got != 2*(i+1) {
			t.Errorf("the pod received %d requests, want %d", got, 2*(i+1))
		}
	}
}
