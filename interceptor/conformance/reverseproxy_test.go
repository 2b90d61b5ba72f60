// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ours returns the header lines that the interceptor adds or replaces.
func ours() []string {
	return []string{"Connection", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}
}

// folded returns header lines with names in lower case, sorted, for tests that are about neither.
func folded(lines []string) []string {
	out := []string{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		out = append(out, strings.ToLower(name)+":"+value)
	}
	slices.Sort(out)
	return out
}

// ask sends one request on a connection of its own. It returns the request as the pod got it, and the answer.
func ask(t *testing.T, p *wirePod, listen int32, request string) (arrived, answer *message) {
	t.Helper()
	seen := len(p.requests())
	c := connect(t, listen)
	defer c.Close()
	c.send(request)
	answer = c.answer()
	got := p.requests()[seen:]
	if len(got) != 1 {
		t.Fatalf("the pod received %d requests, and the answer is %q", len(got), answer.start)
	}
	return got[0], answer
}

// Header lines keep their case, order and number in both directions, and so does the reason phrase. A client or an app that depends
// on them is wrong, but we must not break it.
func TestHeadersAsTheyWereSent(t *testing.T) {
	answer := []string{
		"date: Mon, 02 Jan 2006 15:04:05 GMT", "x-zulu: 1", "Set-Cookie: a=1; Path=/", "X-ALPHA: two  spaces", "set-cookie: b=2",
		"ETag: W/\"x\"", "Set-Cookie: a=3", "content-LENGTH: 2", "X-Empty:", "Server: me", "x-high: \xe4",
	}
	p, listen := before(t, always("HTTP/1.1 200 Fine By Me\r\n"+strings.Join(answer, "\r\n")+"\r\n\r\nok"))
	request := []string{
		"x-zulu: 1", "HOST: Shop.Example:80", "Cookie: a=1", "X-ALPHA: two  spaces", "cookie: b=2", "accept: */*", "Accept: text/html",
		"X-Empty:", "x_under: 1", "content-LENGTH: 2", "x-high: \xe4",
	}
	arrived, got := ask(t, p, listen, "POST /a HTTP/1.1\r\n"+strings.Join(request, "\r\n")+"\r\n\r\nhi")
	if diff := cmp.Diff(request, arrived.without(ours()...)); diff != "" {
		t.Errorf("the request's headers (-sent +arrived):\n%s", diff)
	}
	if diff := cmp.Diff(answer, got.without("Connection")); diff != "" {
		t.Errorf("the answer's headers (-sent +arrived):\n%s", diff)
	}
	if got.start != "HTTP/1.1 200 Fine By Me" {
		t.Errorf("got %q", got.start)
	}
}

// Fields about the connection between a client and us are not passed on, and no other field is lost that way.
func TestHopByHopHeadersOfRequests(t *testing.T) {
	p, listen := before(t, always(ok("fine")))
	for name, tc := range map[string]struct {
		fields string
		want   []string
	}{
		"keep-alive":           {"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nX: 1\r\n", []string{"x: 1"}},
		"proxy-connection":     {"Proxy-Connection: keep-alive\r\nX: 1\r\n", []string{"x: 1"}},
		"nominated":            {"Connection: X-Hop\r\nX-Hop: 1\r\nx-hop: 2\r\nX-Stays: 3\r\n", []string{"x-stays: 3"}},
		"nominated in a list":  {"X-A: 1\r\nConnection: x-a , ,X-b,\tclose\r\nX-B: 2\r\nX: 3\r\n", []string{"x: 3"}},
		"nominated in lines":   {"Connection: X-A\r\nConnection: X-B\r\nX-A: 1\r\nX-B: 2\r\nX: 3\r\n", []string{"x: 3"}},
		"nominated, odd names": {"Connection: close, X Y, \"X\", \xe4\r\nX: 3\r\n", []string{"x: 3"}},
		"empty connection":     {"Connection:\r\nX: 1\r\n", []string{"x: 1"}},
		"TE":                   {"TE: gzip\r\nConnection: TE\r\nX: 1\r\n", []string{"x: 1"}},
		"TE: trailers":         {"TE: trailers\r\nConnection: TE\r\nX: 1\r\n", []string{"te: trailers", "x: 1"}},
		"TE: trailers, others": {"TE: gzip;q=0.5, trailers\r\nX: 1\r\n", []string{"te: trailers", "x: 1"}},
		"upgrade alone":        {"Upgrade: websocket\r\nX: 1\r\n", []string{"x: 1"}},
		"connection: upgrade":  {"Connection: Upgrade\r\nX: 1\r\n", []string{"x: 1"}},
		"upgrade to h2c": {
			"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nX: 1\r\n", []string{"x: 1"},
		},
		"for the end": {"Authorization: a\r\nForwarded: for=x\r\nVia: 1.1 v\r\n", []string{"authorization: a", "forwarded: for=x", "via: 1.1 v"}},
	} {
		t.Run(name, func(t *testing.T) {
			arrived, answer := ask(t, p, listen, "GET / HTTP/1.1\r\nHost: h\r\n"+tc.fields+"\r\n")
			if answer.status() != 200 || answer.body != "fine" {
				t.Errorf("got %q with %q", answer.start, answer.body)
			}
			if diff := cmp.Diff(tc.want, folded(arrived.without(append(ours(), "Host")...))); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
			for _, v := range arrived.values("Connection") {
				if v != "close" && v != "keep-alive" {
					t.Errorf("Connection: %s", v)
				}
			}
		})
	}
}

// A header that says where the request goes, how long it is or where it came from cannot be removed by naming it in Connection.
func TestConnectionNominatesWhatMustStay(t *testing.T) {
	p, listen := before(t, always(ok("fine")))
	for name, fields := range map[string]string{
		"host":       "Connection: Host\r\nContent-Length: 5\r\n\r\nhello",
		"length":     "Connection: close, Content-Length\r\nContent-Length: 5\r\n\r\nhello",
		"coding":     "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"forwarded":  "Connection: X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto\r\nContent-Length: 5\r\n\r\nhello",
		"connection": "Connection: Connection, Keep-Alive, TE\r\nContent-Length: 5\r\n\r\nhello",
	} {
		t.Run(name, func(t *testing.T) {
			arrived, answer := ask(t, p, listen, "POST / HTTP/1.1\r\nHost: h\r\n"+fields)
			got := fmt.Sprint(answer.status(), arrived.value("Host"), arrived.body, arrived.value("X-Forwarded-For"),
				arrived.value("X-Forwarded-Host"), arrived.value("X-Forwarded-Proto"))
			if want := "200hhello127.0.0.1hhttp"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestHopByHopHeadersOfAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		fields string
		want   []string
	}{
		"keep-alive":       {"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nX: 1\r\n", []string{"x: 1"}},
		"proxy-connection": {"Proxy-Connection: keep-alive\r\nX: 1\r\n", []string{"x: 1"}},
		"nominated":        {"Connection: X-Hop, x-other\r\nX-Hop: 1\r\nX-Other: 2\r\nX: 3\r\n", []string{"x: 3"}},
		"nominated lines":  {"Connection: X-Hop\r\nConnection: X-Other\r\nX-Hop: 1\r\nX-Other: 2\r\nX: 3\r\n", []string{"x: 3"}},
		"length nominated": {"Connection: Content-Length\r\nX: 1\r\n", []string{"x: 1"}},
		"upgrade offered":  {"Connection: Upgrade\r\nUpgrade: h2c\r\nX: 1\r\n", []string{"x: 1"}},
		"for the end":      {"Server: s\r\nVia: 1.1 v\r\nAge: 1\r\n", []string{"age: 1", "server: s", "via: 1.1 v"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, listen := before(t, always("HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 4\r\n"+tc.fields+"\r\nfine"))
			c := connect(t, listen)
			for range 2 { // the connection to the client stays usable, whatever the app says about its own
				c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
				got := c.want(200, "fine")
				if diff := cmp.Diff(tc.want, folded(got.without("Date", "Content-Length"))); diff != "" {
					t.Errorf("headers (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestForwardedHeaders(t *testing.T) {
	p, listen := before(t, always(ok("fine")))
	for name, tc := range map[string]struct{ fields, by, host, proto string }{
		"none":          {"", "127.0.0.1", "h:8080", "http"},
		"prior":         {"X-Forwarded-For: prior\r\n", "prior, 127.0.0.1", "h:8080", "http"},
		"several":       {"X-Forwarded-For: a, b\r\nX-Forwarded-For: c\r\n", "a, b, c, 127.0.0.1", "h:8080", "http"},
		"in lower case": {"x-forwarded-for: a\r\nx-forwarded-host: b\r\nx-forwarded-proto: c\r\n", "a, 127.0.0.1", "b", "c"},
		"https outside": {"X-Forwarded-Proto: https\r\n", "127.0.0.1", "h:8080", "https"},
		"host outside":  {"X-Forwarded-Host: shop.example\r\n", "127.0.0.1", "shop.example", "http"},
	} {
		t.Run(name, func(t *testing.T) {
			arrived, _ := ask(t, p, listen, "GET / HTTP/1.1\r\nHost: h:8080\r\n"+tc.fields+"\r\n")
			by := strings.Join(arrived.values("X-Forwarded-For"), ", ")
			if host, proto := arrived.value("X-Forwarded-Host"), arrived.value("X-Forwarded-Proto"); by != tc.by || host != tc.host ||
				proto != tc.proto {
				t.Errorf("got %q, %q, %q", by, host, proto)
			}
		})
	}
}

// Nothing is added that the client has not said, because the app's answer may depend on it.
func TestNothingIsInvented(t *testing.T) {
	p, listen := before(t, always(ok("fine")))
	for name, tc := range map[string]struct {
		request string
		want    []string
	}{
		"bare":             {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", []string{"host: h"}},
		"empty user agent": {"GET / HTTP/1.1\r\nHost: h\r\nUser-Agent:\r\n\r\n", []string{"host: h", "user-agent:"}},
		"POST, no length":  {"POST / HTTP/1.1\r\nHost: h\r\n\r\n", []string{"host: h"}},
		"POST, length 0":   {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", []string{"content-length: 0", "host: h"}},
		"GET, length 0":    {"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", []string{"content-length: 0", "host: h"}},
		"DELETE, a body":   {"DELETE / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx", []string{"content-length: 1", "host: h"}},
	} {
		t.Run(name, func(t *testing.T) {
			arrived, _ := ask(t, p, listen, tc.request)
			// A POST without a length may get a length of 0, which means the same.
			got := slices.DeleteFunc(folded(arrived.without(ours()...)), func(line string) bool {
				return line == "content-length: 0" && !slices.Contains(tc.want, line)
			})
			for i, line := range got {
				got[i] = strings.TrimRight(line, " ")
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
		})
	}
}

// The app has to interpret the target, so it is passed on byte by byte.
func TestTargetsAsTheyWereSent(t *testing.T) {
	p, listen := before(t, always(ok("fine")))
	for _, target := range []string{
		"/", "/?", "/??", "/a?b;c", "/?a=1;b=2&c", "/?a=%zz", "/?%", "/?a=%", "/?q=a+b&q=%20&q=a%2Bb", "/?a=b&a=b&", "/?&&=", "/?[]{}|^`\\\"<>",
		"//", "//a//b/", "/./a/../b", "/%2e%2E/", "/a%2Fb", "/%zz", "/%", "/a;b=c/d", "/'()*!~$,:@", "/%C3%A4%ff", "/*", "/a:b", "/http://x/",
		"/" + strings.Repeat("long/", 1500) + "?" + strings.Repeat("query", 1500),
	} {
		t.Run(fmt.Sprintf("%.30q", target), func(t *testing.T) {
			c := connect(t, listen)
			c.send("GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n")
			c.want(200, "fine")
			if all := p.requests(); len(all) > 0 && all[len(all)-1].path() != target {
				t.Errorf("arrived as %.100q", all[len(all)-1].path())
			}
		})
	}
}

// Heads of up to 64 KiB, the limit, arrive completely in both directions.
func TestLargeHeads(t *testing.T) {
	for name, lines := range map[string][]string{
		"many headers":     slices.Repeat([]string{"X-Header: " + strings.Repeat("v", 88)}, 640),
		"very many":        slices.Repeat([]string{"X: y"}, 63<<10/6),
		"one large header": {"X: " + strings.Repeat("v", 63<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			head := strings.Join(lines, "\r\n") + "\r\n"
			p, listen := before(t, always("HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 4\r\n"+head+"\r\nfine"))
			arrived, answer := ask(t, p, listen, "GET / HTTP/1.1\r\nHost: h\r\n"+head+"\r\n")
			if got := arrived.without(append(ours(), "Host")...); !slices.Equal(got, lines) {
				t.Errorf("%d lines arrived at the pod, want %d", len(got), len(lines))
			}
			if got := answer.without("Date", "Content-Length"); !slices.Equal(got, lines) || answer.body != "fine" {
				t.Errorf("%q: %d lines arrived at the client, want %d", answer.start, len(got), len(lines))
			}
		})
	}
}
