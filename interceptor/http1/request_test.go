// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// seen is the whole content of a head, as text.
type seen struct {
	First  string // "GET / 1.1" or "200 1.1"
	Skip   int
	Host   string
	Length int64
	// Flags are the bools, each as one letter: Chunked, cLose, Keep-alive, Upgrade allowed, Nominated, Has upgrade.
	Flags  string
	Fields []string
}

// look collects the content of h, which was parsed from b.
func look(h *Head, b []byte, first string) seen {
	s := seen{First: first + " 1." + string(rune('0'+h.Minor)), Host: "none", Length: h.Length}
	if h.Has(Host) {
		s.Host = string(h.Value(b, Host))
	}
	for i, set := range []bool{h.Chunked, h.Close, h.KeepAlive, h.UpgradeAllowed, h.Nominated, h.HasUpgrade} {
		if set {
			s.Flags += string("CLKUNH"[i])
		}
	}
	for _, f := range h.Fields {
		s.Fields = append(s.Fields, string(b[f.Start:f.NameEnd])+"="+string(b[f.ValueStart:f.ValueEnd]))
	}
	return s
}

func lookAtRequest(r *Request, b []byte) seen {
	b = b[r.Skip:]
	s := look(&r.Head, b, string(r.Method(b))+" "+string(r.Target(b)))
	s.Skip = r.Skip
	return s
}

// checkPositions checks that the lines of a head follow each other without a gap.
func checkPositions(t *testing.T, h *Head, b []byte, length int) {
	t.Helper()
	at := h.FirstLine
	for _, f := range h.Fields {
		if int(f.Start) != at || f.NameEnd <= f.Start || b[f.NameEnd] != ':' || f.ValueStart <= f.NameEnd ||
			f.ValueEnd < f.ValueStart || f.End < f.ValueEnd+2 || string(b[f.End-2:f.End]) != "\r\n" {
			t.Fatalf("field %+v begins at %d of %q", f, at, b[:length])
		}
		at = int(f.End)
	}
	if string(b[h.FirstLine-2:h.FirstLine]) != "\r\n" || string(b[at:length]) != "\r\n" {
		t.Fatalf("the first line ends at %d, the fields at %d, the head at %d of %q", h.FirstLine, at, length, b[:length])
	}
}

// goodRequests are heads with their content.
func goodRequests() map[string]struct {
	head string
	want seen
} {
	const host = "Host: h\r\n"
	with := func(fields string) string { return "GET / HTTP/1.1\r\n" + host + fields + "\r\n" }
	saying := func(flags string, fields ...string) seen {
		return seen{First: "GET / 1.1", Host: "h", Length: -1, Flags: flags, Fields: append([]string{"Host=h"}, fields...)}
	}
	said := func(s seen, change func(*seen)) seen {
		change(&s)
		return s
	}
	line := func(first string, s seen) seen { return said(s, func(s *seen) { s.First = first }) }
	length := func(n int64, s seen) seen { return said(s, func(s *seen) { s.Length = n }) }
	skip := func(n int, s seen) seen { return said(s, func(s *seen) { s.Skip = n }) }
	bare := saying("")
	return map[string]struct {
		head string
		want seen
	}{
		"least of 1.1": {with(""), bare},
		"least of 1.0": {"GET / HTTP/1.0\r\n\r\n", seen{First: "GET / 1.0", Host: "none", Length: -1}},
		"1.0, keep-alive": {
			"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
			seen{First: "GET / 1.0", Host: "none", Length: -1, Flags: "K", Fields: []string{"Connection=Keep-Alive"}},
		},
		"1.0 with length": {
			"POST / HTTP/1.0\r\nContent-Length: 7\r\n\r\n",
			seen{First: "POST / 1.0", Host: "none", Length: 7, Fields: []string{"Content-Length=7"}},
		},
		"odd method":              {"M-!#$%&'*+.^_`|~9 / HTTP/1.1\r\n" + host + "\r\n", line("M-!#$%&'*+.^_`|~9 / 1.1", bare)},
		"lower-case method":       {"get / HTTP/1.1\r\n" + host + "\r\n", line("get / 1.1", bare)},
		"target with query":       {"GET /a;b?c=d&e=%20#f HTTP/1.1\r\n" + host + "\r\n", line("GET /a;b?c=d&e=%20#f 1.1", bare)},
		"target with odd bytes":   {"GET /\"<>\\^`{|}\xff\x80 HTTP/1.1\r\n" + host + "\r\n", line("GET /\"<>\\^`{|}\xff\x80 1.1", bare)},
		"two slashes":             {"GET //a HTTP/1.1\r\n" + host + "\r\n", line("GET //a 1.1", bare)},
		"asterisk":                {"OPTIONS * HTTP/1.1\r\n" + host + "\r\n", line("OPTIONS * 1.1", bare)},
		"absolute":                {"GET http://a/b HTTP/1.1\r\n" + host + "\r\n", line("GET http://a/b 1.1", bare)},
		"absolute https":          {"GET HTTPS://a HTTP/1.1\r\n" + host + "\r\n", line("GET HTTPS://a 1.1", bare)},
		"one empty line before":   {"\r\n" + with(""), skip(2, bare)},
		"four empty lines before": {"\r\n\r\n\r\n\r\n" + with(""), skip(8, bare)},
		"empty host":              {"GET / HTTP/1.1\r\nHost:\r\n\r\n", seen{First: "GET / 1.1", Length: -1, Fields: []string{"Host="}}},
		"host of spaces":          {"GET / HTTP/1.1\r\nHost: \t \r\n\r\n", seen{First: "GET / 1.1", Length: -1, Fields: []string{"Host="}}},
		"host by any case": {
			"GET / HTTP/1.1\r\nhOST:[::1]:80\r\n\r\n",
			seen{First: "GET / 1.1", Host: "[::1]:80", Length: -1, Fields: []string{"hOST=[::1]:80"}},
		},
		"values without the space around": {
			with("A: b\r\nB:c\r\nC: \t d e \t \r\nD:\r\nE: \t\r\nF: \"x\ty\xff\x80\"\r\n"),
			saying("", "A=b", "B=c", "C=d e", "D=", "E=", "F=\"x\ty\xff\x80\""),
		},
		"colons in a value": {with("A: :b:c\r\nB::\r\n"), saying("", "A=:b:c", "B=:")},
		"same field twice":  {with("A: b\r\nA: c\r\n"), saying("", "A=b", "A=c")},
		"length":            {with("Content-Length: 123\r\n"), length(123, saying("", "Content-Length=123"))},
		"length zero":       {with("content-length: 0\r\n"), length(0, saying("", "content-length=0"))},
		"length with zeros": {with("Content-Length:007\r\n"), length(7, saying("", "Content-Length=007"))},
		"largest length": {
			with("Content-Length: 999999999999999999\r\n"), length(999999999999999999, saying("", "Content-Length=999999999999999999")),
		},
		"length with spaces": {with("Content-Length: \t5\t \r\n"), length(5, saying("", "Content-Length=5"))},
		"chunked":            {with("Transfer-Encoding: chunked\r\n"), saying("C", "Transfer-Encoding=chunked")},
		"chunked, any case":  {with("TRANSFER-ENCODING: \tCHunked \r\n"), saying("C", "TRANSFER-ENCODING=CHunked")},
		"close":              {with("Connection: close\r\n"), saying("L", "Connection=close")},
		"all of Connection":  {with("Connection: CLOSE,, Keep-Alive ,Upgrade,x\r\n"), saying("LKUN", "Connection=CLOSE,, Keep-Alive ,Upgrade,x")},
		"several Connections": {
			with("Connection: close\r\nConnection: upgrade\r\nUpgrade: a/1\r\n"),
			saying("LUH", "Connection=close", "Connection=upgrade", "Upgrade=a/1"),
		},
		"empty Connection":  {with("Connection: \r\nConnection: ,\r\n"), saying("", "Connection=", "Connection=,")},
		"nominating":        {with("Connection: closed\r\n"), saying("N", "Connection=closed")},
		"Upgrade by itself": {with("Upgrade: h2c\r\n"), saying("H", "Upgrade=h2c")},
		"Proxy-Connection":  {with("Proxy-Connection: close\r\n"), saying("", "Proxy-Connection=close")},
		"names nearly known": {
			with("Content-Length-: x\r\nTransfer_Encoding: y\r\nHost2: z\r\n"), saying("", "Content-Length-=x", "Transfer_Encoding=y", "Host2=z"),
		},
	}
}

func TestRequest(t *testing.T) {
	for name, tc := range goodRequests() {
		t.Run(name, func(t *testing.T) {
			const rest = "rest: \r\n\r\n\x00"
			r := usedRequest(t)
			b := []byte(tc.head + rest)
			n, err := r.Parse(b)
			if err != nil || n != len(tc.head)-tc.want.Skip {
				t.Fatalf("got %d, %v; want %d", n, err, len(tc.head)-tc.want.Skip)
			}
			if diff := cmp.Diff(tc.want, lookAtRequest(r, b)); diff != "" {
				t.Error(diff)
			}
			checkPositions(t, &r.Head, b[r.Skip:], n)
		})
	}
}

// usedRequest returns a Request that has parsed a request in which everything is set, so that anything left over would show.
func usedRequest(t *testing.T) *Request {
	t.Helper()
	const all = "\r\nPOST /a/long/target HTTP/1.1\r\nHost: other\r\nTransfer-Encoding: chunked\r\n" +
		"Connection: close, keep-alive, upgrade, x\r\nUpgrade: y\r\n\r\n"
	r := &Request{}
	if n, err := r.Parse([]byte(all)); err != nil || n != len(all)-2 {
		t.Fatalf("got %d, %v", n, err)
	}
	return r
}

func TestNames(t *testing.T) {
	all := map[string]Name{
		"connection": Connection, "content-length": ContentLength, "expect": Expect, "host": Host,
		"http2-settings": HTTP2Settings, "keep-alive": KeepAlive, "proxy-authenticate": ProxyAuthenticate,
		"proxy-authorization": ProxyAuthorization, "proxy-connection": ProxyConnection, "te": TE, "trailer": Trailer,
		"transfer-encoding": TransferEncoding, "upgrade": Upgrade, "user-agent": UserAgent, "x-forwarded-for": XForwardedFor,
		"x-forwarded-host": XForwardedHost, "x-forwarded-proto": XForwardedProto,
		"x": Other, "hosts": Other, "proxy-authorization2": Other, strings.Repeat("x", 1000): Other,
	}
	if longest := len("proxy-authorization"); longestName != longest {
		t.Errorf("the longest name has %d bytes, want %d", longestName, longest)
	}
	for name, want := range all {
		for _, written := range []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:]} {
			f, err := parseField([]byte(written+": 1\r\n"), 0, false)
			if err != nil || f.Name != want || int(f.NameEnd) != len(name) {
				t.Errorf("%.40s: got %+v, %v; want %d", written, f, err, want)
			}
		}
	}
}

func TestNominated(t *testing.T) {
	const head = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, X-A\r\nConnection: ,x_b ,\r\n" +
		"X-A: 1\r\nx-a: 2\r\nX-B: 3\r\nX_B: 4\r\nClose: 5\r\nX-AA: 6\r\n\r\n"
	var r Request
	b := []byte(head)
	if n, err := r.Parse(b); err != nil || n != len(head) {
		t.Fatalf("got %d, %v", n, err)
	}
	if !r.Nominated {
		t.Error("nothing is nominated")
	}
	got := ""
	for _, f := range r.Fields {
		if r.IsNominated(b, f) {
			got += string(b[f.ValueStart:f.ValueEnd])
		}
	}
	// "close" is an ordinary name when fields are nominated.
	if want := "1245"; got != want {
		t.Errorf("nominated are %s, want %s", got, want)
	}
}

func TestValueOfWhatIsMissing(t *testing.T) {
	r := usedRequest(t)
	if r.Has(ContentLength) || r.Value(nil, ContentLength) != nil {
		t.Error("there is a Content-Length")
	}
}
