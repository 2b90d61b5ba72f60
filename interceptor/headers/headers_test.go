// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package headers

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// lines joins the lines of a head, as they are on the wire.
func lines(l ...string) string { return strings.Join(l, "\r\n") + "\r\n\r\n" }

func parseRequest(t *testing.T, head string) *http1.Request {
	t.Helper()
	r := &http1.Request{}
	if n, err := r.Parse([]byte(head)); err != nil || n != len(head) {
		t.Fatalf("parsing %q: %d, %v", head, n, err)
	}
	return r
}

func parseResponse(t *testing.T, head string) *http1.Response {
	t.Helper()
	r := &http1.Response{}
	if n, err := r.Parse([]byte(head)); err != nil || n != len(head) {
		t.Fatalf("parsing %q: %d, %v", head, n, err)
	}
	return r
}

func TestAppendRequest(t *testing.T) {
	added := func(l ...string) []string {
		return append(l, "X-Forwarded-For: 10.0.0.1", "X-Forwarded-Host: h", "X-Forwarded-Proto: http")
	}
	for name, tc := range map[string]struct {
		trusted  int
		in, want []string
	}{
		"least": {0, []string{"GET / HTTP/1.1", "Host: h"}, added("GET / HTTP/1.1", "Host: h")},
		"bytes as they are": {
			AllHops,
			[]string{"gEt //a%2f?b;c HTTP/1.1", "hOsT:  h", "A:b", "a: \tc ", "B:", "X_Y: \xff", "Cookie: a", "Cookie: b", "Via: 1.1 x"},
			added("gEt //a%2f?b;c HTTP/1.1", "hOsT:  h", "A:b", "a: \tc ", "B:", "X_Y: \xff", "Cookie: a", "Cookie: b", "Via: 1.1 x"),
		},
		"absolute target": {0, []string{"GET http://x/ HTTP/1.1", "Host: h"}, added("GET http://x/ HTTP/1.1", "Host: h")},
		"1.0 with host":   {0, []string{"GET / HTTP/1.0", "Host: h"}, added("GET / HTTP/1.1", "Host: h")},
		"1.0 without host": {
			0,
			[]string{"GET / HTTP/1.0", "A: b"},
			[]string{"GET / HTTP/1.1", "A: b", "Host: web.shop", "X-Forwarded-For: 10.0.0.1", "X-Forwarded-Proto: http"},
		},
		"1.0 without fields": {
			0,
			[]string{"GET / HTTP/1.0"},
			[]string{"GET / HTTP/1.1", "Host: web.shop", "X-Forwarded-For: 10.0.0.1", "X-Forwarded-Proto: http"},
		},
		"fields of one connection": {
			0,
			[]string{
				"POST / HTTP/1.1", "Connection: close, X-Own", "Host: h", "Keep-Alive: 5", "x-own: 1", "Content-Length: 3",
				"Proxy-Connection: close", "Proxy-Authorization: x", "TE: gzip", "Upgrade: a", "X-Owned: 2", "HTTP2-Settings: b",
			},
			added("POST / HTTP/1.1", "Host: h", "Content-Length: 3", "X-Owned: 2"),
		},
		"nominated in several lines": {
			0,
			[]string{"GET / HTTP/1.1", "Connection: a", "A: 1", "Host: h", "B: 2", "b: 3", "Connection: ,b,c,"},
			added("GET / HTTP/1.1", "Host: h"),
		},
		// Anybody who could remove these fields could change where the request ends, who gets it or where it comes from.
		"nominated but needed": {
			AllHops,
			[]string{
				"POST / HTTP/1.1", "Connection: host, content-length, x-forwarded-for, x-forwarded-host, x-forwarded-proto",
				"Host: h", "Content-Length: 3", "X-Forwarded-For: 1.1.1.1", "X-Forwarded-Host: a", "X-Forwarded-Proto: https",
			},
			[]string{
				"POST / HTTP/1.1", "Host: h", "Content-Length: 3", "X-Forwarded-Host: a", "X-Forwarded-Proto: https",
				"X-Forwarded-For: 1.1.1.1, 10.0.0.1",
			},
		},
		"coding nominated": {
			0,
			[]string{"POST / HTTP/1.1", "Host: h", "Connection: Transfer-Encoding", "Transfer-Encoding: chunked"},
			added("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked"),
		},
		"Trailer and Expect": {
			0,
			[]string{"POST / HTTP/1.1", "Host: h", "Trailer: a", "Expect: 100-continue"},
			added("POST / HTTP/1.1", "Host: h", "Trailer: a", "Expect: 100-continue"),
		},
		"Trailer and Expect, nominated": {
			0,
			[]string{"POST / HTTP/1.1", "Host: h", "Trailer: a", "Connection: trailer, expect", "Expect: 100-continue"},
			added("POST / HTTP/1.1", "Host: h"),
		},
		"TE: trailers": {
			0,
			[]string{"GET / HTTP/1.1", "TE: gzip, Trailers", "Host: h", "Connection: TE"},
			append(added("GET / HTTP/1.1", "Host: h"), "TE: trailers"),
		},
		"upgrade": {
			0,
			[]string{"GET / HTTP/1.1", "Upgrade: WebSocket, b/2", "Host: h", "Connection: keep-alive, Upgrade"},
			append(added("GET / HTTP/1.1", "Host: h"), "Connection: Upgrade", "Upgrade: WebSocket, b/2"),
		},
		"upgrade by 1.0": {
			0,
			[]string{"GET / HTTP/1.0", "Upgrade: websocket", "Host: h", "Connection: upgrade"},
			added("GET / HTTP/1.1", "Host: h"),
		},
		"upgrade not nominated": {
			0, []string{"GET / HTTP/1.1", "Upgrade: websocket", "Host: h"}, added("GET / HTTP/1.1", "Host: h"),
		},
		"upgrade to HTTP/2": {
			0,
			[]string{"GET / HTTP/1.1", "Upgrade: H2C", "Upgrade: h2c", "Host: h", "Connection: upgrade, http2-settings", "HTTP2-Settings: a"},
			added("GET / HTTP/1.1", "Host: h"),
		},
		"upgrade in several fields": {
			0,
			[]string{"GET / HTTP/1.1", "Upgrade: a/1,b", "Host: h", "Upgrade:", "Connection: upgrade", "upgrade: WebSocket"},
			append(added("GET / HTTP/1.1", "Host: h"), "Connection: Upgrade", "Upgrade: a/1, b, WebSocket"),
		},
		"upgrade beside HTTP/2": {
			0,
			[]string{"GET / HTTP/1.1", "Upgrade: a, H2C, b", "Host: h", "Connection: upgrade"},
			append(added("GET / HTTP/1.1", "Host: h"), "Connection: Upgrade", "Upgrade: a, b"),
		},
		"upgrade to nothing": {
			0, []string{"GET / HTTP/1.1", "Upgrade: ,", "Host: h", "Connection: upgrade"}, added("GET / HTTP/1.1", "Host: h"),
		},
		"second upgrade to HTTP/2": {
			0,
			[]string{"GET / HTTP/1.1", "Upgrade: websocket", "Upgrade: h2c", "Host: h", "Connection: upgrade"},
			append(added("GET / HTTP/1.1", "Host: h"), "Connection: Upgrade", "Upgrade: websocket"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			head := lines(tc.in...)
			r := parseRequest(t, head)
			got := AppendRequest([]byte("before|"), r, []byte(head), Way{"10.0.0.1", tc.trusted}, "web.shop")
			if diff := cmp.Diff("before|"+lines(tc.want...), string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The result parses like the input: with the same length, the same host, and one of each.
func TestAppendedRequestParses(t *testing.T) {
	for _, fields := range []string{
		"Host: h\r\nContent-Length: 3\r\nConnection: close, host, content-length\r\n",
		"Host: h\r\nTransfer-Encoding: chunked\r\nConnection: transfer-encoding\r\nTE: trailers\r\n",
		"Host:\r\nX-Forwarded-Host: \r\nX-Forwarded-For:\r\nX-Forwarded-For: ,\r\nConnection: ,\r\n",
		"Upgrade:\r\nConnection: upgrade\r\nHost: h\r\n",
	} {
		for _, trusted := range []int{AllHops, 0, 1, 2} {
			head := "POST /a HTTP/1.1\r\n" + fields + "\r\n"
			in := parseRequest(t, head)
			out := string(AppendRequest(nil, in, []byte(head), Way{"10.0.0.1", trusted}, "web.shop"))
			got := parseRequest(t, out)
			if got.Length != in.Length || got.Chunked != in.Chunked || got.Close || got.Minor != 1 ||
				string(got.Value([]byte(out), http1.Host)) != string(in.Value([]byte(head), http1.Host)) {
				t.Errorf("%q with %d hops became %q", head, trusted, out)
			}
		}
	}
}

func TestForwardedFor(t *testing.T) {
	for name, tc := range map[string]struct {
		came []string
		want map[int]string // by number of trusted hops
	}{
		"none":        {nil, map[int]string{AllHops: "", 0: "", 1: "", 2: ""}},
		"empty":       {[]string{""}, map[int]string{AllHops: "", 0: "", 1: ""}},
		"one":         {[]string{"a"}, map[int]string{AllHops: "a, ", 0: "", 1: "a, ", 2: "a, "}},
		"two":         {[]string{"a, b"}, map[int]string{AllHops: "a, b, ", 0: "", 1: "b, ", 2: "a, b, ", 3: "a, b, "}},
		"no space":    {[]string{"a,b,c"}, map[int]string{AllHops: "a,b,c, ", 1: "c, ", 2: "b,c, ", 3: "a,b,c, "}},
		"two lines":   {[]string{"a", "b, c"}, map[int]string{AllHops: "a, b, c, ", 0: "", 1: "c, ", 2: "b, c, ", 3: "a, b, c, "}},
		"empty lines": {[]string{"", "a", "", "b"}, map[int]string{AllHops: "a, b, ", 1: "b, "}},
		"ports":       {[]string{"a:1, [::1]:2"}, map[int]string{1: "[::1]:2, ", 2: "a:1, [::1]:2, "}},
	} {
		for trusted, want := range tc.want {
			t.Run(fmt.Sprint(name, trusted), func(t *testing.T) {
				head := "GET / HTTP/1.1\r\nHost: h\r\n"
				for _, v := range tc.came {
					head += "X-Forwarded-For: " + v + "\r\nX-Other: x\r\n"
				}
				head += "\r\n"
				out := string(AppendRequest(nil, parseRequest(t, head), []byte(head), Way{"10.0.0.1", trusted}, ""))
				if got := parseRequest(t, out).Value([]byte(out), http1.XForwardedFor); string(got) != want+"10.0.0.1" {
					t.Errorf("got %q, want %q", got, want+"10.0.0.1")
				}
				if n := strings.Count(out, "X-Forwarded-For:"); n != 1 {
					t.Errorf("%d such fields", n)
				}
			})
		}
	}
}

func TestForwardedHostAndProto(t *testing.T) {
	const came = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Host: a\r\nX-Forwarded-Proto: https\r\n\r\n"
	for trusted, want := range map[int][2]string{AllHops: {"a", "https"}, 0: {"h", "http"}, 1: {"a", "https"}, 5: {"a", "https"}} {
		out := string(AppendRequest(nil, parseRequest(t, came), []byte(came), Way{"10.0.0.1", trusted}, ""))
		r := parseRequest(t, out)
		got := [2]string{string(r.Value([]byte(out), http1.XForwardedHost)), string(r.Value([]byte(out), http1.XForwardedProto))}
		if got != want || strings.Count(out, "X-Forwarded-") != 3 {
			t.Errorf("with %d hops: got %q in %q", trusted, got, out)
		}
	}
}

func TestLastEntries(t *testing.T) {
	for name, tc := range map[string]struct {
		list string
		n    int
		want string
	}{
		"none of none":   {"", 1, ""},
		"none":           {"a, b, ", 0, ""},
		"one of one":     {"a, ", 1, "a, "},
		"one of three":   {"a, b, c, ", 1, "c, "},
		"two of three":   {"a, b, c, ", 2, "b, c, "},
		"three of three": {"a, b, c, ", 3, "a, b, c, "},
		"more":           {"a, b, ", 9, "a, b, "},
		"without spaces": {"a,b,c, ", 2, "b,c, "},
		"many spaces":    {"a,   b, ", 1, "b, "},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(lastEntries([]byte(tc.list), tc.n)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// The visitor is the same in both HTTP versions, whatever the lines and spaces of the field.
func TestVisitor(t *testing.T) {
	const peer = "10.0.0.1"
	for name, tc := range map[string]struct {
		came    []string
		trusted int
		want    string
	}{
		"directly":              {nil, AllHops, peer},
		"by an ingress":         {[]string{"a"}, 1, "a"},
		"forged before that":    {[]string{"6.6.6.6, a"}, 1, "a"},
		"two lines":             {[]string{"10.0.0.2", "10.0.0.3"}, AllHops, "10.0.0.3"},
		"two lines, one trust":  {[]string{"10.0.0.2", "10.0.0.3"}, 1, "10.0.0.3"},
		"no space":              {[]string{"b,a"}, AllHops, "a"},
		"much space":            {[]string{"b \t, \ta"}, AllHops, "a"},
		"the last line empty":   {[]string{"a", ""}, AllHops, "a"},
		"commas alone":          {[]string{"a, ,"}, AllHops, "a"},
		"nobody is trusted":     {[]string{"a"}, 0, peer},
		"empty":                 {[]string{" , "}, AllHops, peer},
		"three lines, two hops": {[]string{"a", "b", "c"}, 2, "c"},
		"behind an empty one":   {[]string{"a, ,"}, 1, peer},
		"a comma alone":         {[]string{"a", ","}, 2, peer},
		"and one hop more":      {[]string{"a", ","}, 3, "a"},
	} {
		t.Run(name, func(t *testing.T) {
			lines := ""
			in := http.Header{}
			for _, value := range tc.came {
				lines += "X-Forwarded-For: " + value + "\r\n"
				in.Add("X-Forwarded-For", strings.TrimSpace(value))
			}
			head := "GET / HTTP/1.1\r\nHost: h\r\n" + lines + "\r\n"
			r, w := parseRequest(t, head), Way{peer, tc.trusted}
			if got := w.Visitor(w.Named(r, []byte(head))); got != tc.want {
				t.Errorf("by HTTP/1.1 it is %q, want %q", got, tc.want)
			}
			if got := w.Visitor(w.NamedHTTP2(in)); got != tc.want {
				t.Errorf("by HTTP/2 it is %q, want %q", got, tc.want)
			}
		})
	}
}

func TestNamedAllocatesNothing(t *testing.T) {
	head := "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: a, b\r\nX-Forwarded-For: ,\r\n\r\n"
	r, w := parseRequest(t, head), Way{"10.0.0.1", AllHops}
	if n := testing.AllocsPerRun(100, func() { w.Named(r, []byte(head)) }); n > 1 { // one for the copy of head
		t.Errorf("%v allocations", n)
	}
}

func TestRequestOfHTTP2(t *testing.T) {
	in := http.Header{
		"X-Forwarded-For": {"1, 2"}, "X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"https"}, "Te": {"gzip", "trailers"},
		"Proxy-Authorization": {"x"}, "Keep-Alive": {"5"}, "Cookie": {"a", "b"},
	}
	for trusted, want := range map[int]http.Header{
		AllHops: {
			"X-Forwarded-For": {"1, 2, 10.0.0.1"}, "X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"https"}, "Te": {"trailers"},
			"Cookie": {"a", "b"},
		},
		1: {
			"X-Forwarded-For": {"2, 10.0.0.1"}, "X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"https"}, "Te": {"trailers"}, "Cookie": {"a", "b"},
		},
		0: {
			"X-Forwarded-For": {"10.0.0.1"}, "X-Forwarded-Host": {"h"}, "X-Forwarded-Proto": {"http"}, "Te": {"trailers"}, "Cookie": {"a", "b"},
		},
	} {
		if diff := cmp.Diff(want, Request(in, "h", Way{"10.0.0.1", trusted})); diff != "" {
			t.Errorf("with %d hops: %s", trusted, diff)
		}
	}
	if len(in["X-Forwarded-For"]) != 1 || in.Get("X-Forwarded-For") != "1, 2" {
		t.Error("what came was changed")
	}
	want := http.Header{"X-Forwarded-For": {"10.0.0.1"}, "X-Forwarded-Host": {""}, "X-Forwarded-Proto": {"http"}}
	if diff := cmp.Diff(want, Request(nil, "", Way{Remote: "10.0.0.1"})); diff != "" {
		t.Errorf("without an authority: %s", diff)
	}
}

func TestAnswerOfHTTP2(t *testing.T) {
	out := http.Header{"Date": {"d"}}
	CopyAnswer(out, http.Header{"Proxy-Authenticate": {"Basic"}, "Set-Cookie": {"a", "b"}, "Content-Length": {"3"}, "Upgrade": {"x"}})
	want := http.Header{"Date": {"d"}, "Set-Cookie": {"a", "b"}, "Content-Length": {"3"}}
	if diff := cmp.Diff(want, out); diff != "" {
		t.Error(diff)
	}
}
