// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Bytes that the app has written reach the client before the app writes more, however the answer is framed.
func TestAnswersAreFlushed(t *testing.T) {
	for name, tc := range map[string]struct {
		fields  string
		chunked bool
		length  int
	}{
		"server-sent events":    {"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", true, 0},
		"events until close":    {"Content-Type: text/event-stream\r\nCache-Control: no-cache\r\n", false, 0},
		"chunked":               {"Transfer-Encoding: chunked\r\n", true, 0},
		"until close":           {"Connection: close\r\n", false, 0},
		"of a length":           {"Content-Type: text/plain\r\nContent-Length: 24\r\n", false, 24},
		"compressed by the app": {"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			next := make(chan struct{})
			_, listen := before(t, func(c *wireConn) {
				if _, err := c.request(); err != nil {
					return
				}
				c.send("HTTP/1.1 200 OK\r\n" + tc.fields + "\r\n")
				for i := range 3 {
					c.await(next)
					piece := fmt.Sprintf("data: %d\n", i)
					if tc.chunked {
						piece = fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece)
					}
					c.send(piece)
				}
				c.await(next)
				if tc.chunked {
					c.send("0\r\n\r\n")
				}
			})
			defer close(next)
			c := connect(t, listen)
			c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			head := c.head() // before any of the body is written
			if head.status() != 200 {
				t.Fatalf("got %q", head.start)
			}
			head.chunked = len(head.values("Transfer-Encoding")) > 0
			for i := range 3 {
				next <- struct{}{}
				piece := fmt.Sprintf("data: %d\n", i)
				if head.chunked {
					piece = fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece)
				}
				c.reads(piece)
			}
		})
	}
}

// Trailers arrive, whether or not they were announced.
func TestTrailersOfAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		announce, body string
		want           []string
	}{
		"announced":   {"Trailer: Sum\r\n", "5\r\nhello\r\n0\r\nSum: 1\r\n\r\n", []string{"sum: 1"}},
		"unannounced": {"", "5\r\nhello\r\n0\r\nSum: 1\r\n\r\n", []string{"sum: 1"}},
		"both":        {"Trailer: Sum\r\n", "5\r\nhello\r\n0\r\nSum: 1\r\nOther: 2\r\n\r\n", []string{"other: 2", "sum: 1"}},
		"twice":       {"Trailer: Sum\r\n", "5\r\nhello\r\n0\r\nSum: 1\r\nSum: 2\r\n\r\n", []string{"sum: 1", "sum: 2"}},
		"never came":  {"Trailer: Sum\r\n", "5\r\nhello\r\n0\r\n\r\n", []string{}},
		"none":        {"", "5\r\nhello\r\n0\r\n\r\n", []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			_, listen := before(t, always("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"+tc.announce+"\r\n"+tc.body))
			c := connect(t, listen)
			for range 2 {
				c.send("GET / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
				got := c.want(200, "hello")
				if diff := cmp.Diff(tc.want, folded(got.trailers)); diff != "" {
					t.Errorf("trailers (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestTrailersOfRequests(t *testing.T) {
	p, listen := before(t, always(ok("fine")))
	for name, announce := range map[string]string{"announced": "Trailer: Sum, Other\r\n", "unannounced": ""} {
		t.Run(name, func(t *testing.T) {
			arrived, _ := ask(t, p, listen, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"+announce+
				"\r\n5\r\nhello\r\n0\r\nSum: 1\r\nOther: 2\r\n\r\n")
			if diff := cmp.Diff([]string{"other: 2", "sum: 1"}, folded(arrived.trailers)); diff != "" || arrived.body != "hello" {
				t.Errorf("body %q, trailers (-want +got):\n%s", arrived.body, diff)
			}
		})
	}
}

// Informational answers are passed on at once and in order, and only to clients that understand them.
func TestInformationalAnswers(t *testing.T) {
	next := make(chan struct{})
	_, listen := before(t, func(c *wireConn) {
		for {
			m, err := c.request()
			if err != nil {
				return
			}
			if m.path() == "/waits" {
				c.send("HTTP/1.1 103 Early Hints\r\nLink: </first>\r\n\r\n")
				c.await(next)
				c.send("HTTP/1.1 102 Processing\r\n\r\n")
				c.await(next)
			} else {
				c.send("HTTP/1.1 103 Early Hints\r\nLink: </first>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
			}
			c.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\nX: 1\r\n\r\n" +
				"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 4\r\nLink: </c>\r\n\r\nfine")
		}
	})
	c := connect(t, listen)
	for _, path := range []string{"/waits", "/"} {
		c.send("GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n")
		for i, want := range []struct {
			status int
			lines  []string
		}{
			{103, []string{"link: </first>"}},
			{102, []string{}},
			{103, []string{"link: </a>", "link: </b>", "x: 1"}},
			{200, []string{"content-length: 4", "link: </c>"}},
		} {
			m := c.answer()
			if lines := folded(m.without("Date")); m.status() != want.status || !slices.Equal(lines, want.lines) {
				t.Errorf("answer %d to %s: got %q, %q; want %d, %q", i, path, m.start, lines, want.status, want.lines)
			}
			if i < 2 && path == "/waits" {
				next <- struct{}{}
			}
		}
	}
	old := connect(t, listen)
	old.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n")
	old.want(200, "fine")
}

// An answer that must not have a body has none, whatever its head says, and its head stays unchanged.
func TestAnswersWithoutABody(t *testing.T) {
	for name, tc := range map[string]struct {
		method, answer string
		keeps          []string
	}{
		"HEAD with a length":   {"HEAD", "200 OK\r\nContent-Length: 5\r\n", []string{"content-length: 5"}},
		"HEAD, large":          {"HEAD", "200 OK\r\nContent-Length: 123456789012\r\n", []string{"content-length: 123456789012"}},
		"HEAD, chunked":        {"HEAD", "200 OK\r\nTransfer-Encoding: chunked\r\n", nil},
		"HEAD, nothing":        {"HEAD", "200 OK\r\nX: 1\r\n", []string{"x: 1"}},
		"HEAD of what is gone": {"HEAD", "404 Not Found\r\nContent-Length: 9\r\n", []string{"content-length: 9"}},
		"HEAD, encoded": {
			"HEAD", "200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n", []string{"content-encoding: gzip", "content-length: 5"},
		},
		"204":               {"GET", "204 No Content\r\nX: 1\r\n", []string{"x: 1"}},
		"204 to DELETE":     {"DELETE", "204 No Content\r\nX: 1\r\n", []string{"x: 1"}},
		"304":               {"GET", "304 Not Modified\r\nETag: \"x\"\r\n", []string{"etag: \"x\""}},
		"304 with a length": {"GET", "304 Not Modified\r\nContent-Length: 1234\r\n", []string{"content-length: 1234"}},
		"304 with a type":   {"GET", "304 Not Modified\r\nContent-Type: text/css\r\n", []string{"content-type: text/css"}},
		"length 0":          {"GET", "200 OK\r\nContent-Length: 0\r\n", []string{"content-length: 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, listen := before(t, answering(func(m *message) string {
				if m.path() == "/next" {
					return ok("next")
				}
				return "HTTP/1.1 " + tc.answer + "Date: d\r\n\r\n"
			}))
			c := connect(t, listen)
			c.send(tc.method + " / HTTP/1.1\r\nHost: h\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n")
			m := c.head()
			got := folded(m.without("Date", "Connection", "Transfer-Encoding"))
			if !slices.Equal(got, tc.keeps) && len(got)+len(tc.keeps) > 0 || !strings.HasPrefix(tc.answer, fmt.Sprint(m.status())) {
				t.Errorf("got %q, %q; want %q", m.start, got, tc.keeps)
			}
			c.want(200, "next") // no bytes of a body come in between
		})
	}
}

// Surplus bytes of an app do not reach the next client.
func TestAppsThatSayTooMuch(t *testing.T) {
	const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
	for name, tc := range map[string]struct{ method, answer, body string }{
		"behind the length":         {"GET", ok("fine") + poison, "fine"},
		"behind the last chunk":     {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n" + poison, "fine"},
		"a body to HEAD":            {"HEAD", ok("fine") + poison, ""},
		"a body behind 204":         {"GET", "HTTP/1.1 204 No Content\r\n\r\n" + poison, ""},
		"a body behind 304":         {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 45\r\n\r\n" + poison, ""},
		"behind a length of 0":      {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + poison, ""},
		"two answers at once, POST": {"POST", ok("fine") + ok("poison"), "fine"},
	} {
		t.Run(name, func(t *testing.T) {
			_, listen := before(t, answering(func(m *message) string {
				if m.path() == "/next" {
					return ok("next")
				}
				return tc.answer
			}))
			for range 5 { // the surplus may or may not be seen before the connection is kept
				c := connect(t, listen)
				c.send(tc.method + " / HTTP/1.1\r\nHost: h\r\n\r\n")
				m := c.head()
				if tc.method != "HEAD" && m.status() == 200 {
					if err := readBody(c.r, m, true); err != nil || m.body != tc.body {
						t.Errorf("got %q, %v", m.body, err)
					}
				}
				c.send("GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
				c.want(200, "next")
				if rest, _ := io.ReadAll(c.r); len(rest) > 0 {
					t.Errorf("then %q", rest)
				}
			}
		})
	}
}
