// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"strings"
	"testing"
)

// browserRequest is similar to what a browser sends.
const browserRequest = "GET /assets/app.js?v=12 HTTP/1.1\r\nHost: shop.example.com\r\nConnection: keep-alive\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n" +
	"Accept: */*\r\nReferer: https://shop.example.com/\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: en\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"

const appResponse = "HTTP/1.1 200 OK\r\nContent-Type: text/javascript; charset=utf-8\r\nContent-Length: 12345\r\n" +
	"Date: Mon, 01 Jan 2024 00:00:00 GMT\r\nEtag: \"abc\"\r\nVary: Accept-Encoding\r\nConnection: keep-alive\r\n\r\n"

func TestParsingAllocatesNothing(t *testing.T) {
	var request Request
	var response Response
	get, post := []byte(browserRequest), []byte("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
	answer := []byte(appResponse)
	bad := []byte("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
	list := []byte("a, b")
	chunks := []byte(strings.Repeat("5;a=b\r\nhello\r\n", 10) + "0\r\nX-Sum: abc\r\n\r\n")
	for name, do := range map[string]func(){
		"request":       func() { parses(t, &request, get) },
		"chunked":       func() { parses(t, &request, post) },
		"incomplete":    func() { _, _ = request.Parse(get[:len(get)-1]) },
		"bad request":   func() { _, _ = request.Parse(bad) },
		"response":      func() { parses(t, &response, answer) },
		"nominated":     func() { _ = request.IsNominated(get, Field{}) },
		"chunks":        func() { chunksEnd(t, chunks) },
		"one by one":    func() { chunksEndByBytes(t, chunks) },
		"bad chunks":    func() { _, _, _ = (&Chunked{}).Feed(chunks[3:]) },
		"list of words": func() { Tokens(list, func([]byte) bool { return true }) },
	} {
		do() // the list of fields grows first
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func parses(t *testing.T, p parser, b []byte) {
	t.Helper()
	if n, err := p.Parse(b); n != len(b) || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
}

func chunksEnd(t *testing.T, b []byte) {
	t.Helper()
	var c Chunked
	if _, n, err := c.Feed(b); n != len(b) || err != nil || !c.Done() {
		t.Fatalf("got %d, %v", n, err)
	}
}

func chunksEndByBytes(t *testing.T, b []byte) {
	t.Helper()
	var c Chunked
	for i := range b {
		if _, n, err := c.Feed(b[i : i+1]); n != 1 || err != nil {
			t.Fatalf("got %d, %v", n, err)
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	head := []byte(browserRequest)
	b.SetBytes(int64(len(head)))
	b.ReportAllocs()
	var r Request
	for b.Loop() {
		if n, err := r.Parse(head); n != len(head) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkResponse(b *testing.B) {
	head := []byte(appResponse)
	b.SetBytes(int64(len(head)))
	b.ReportAllocs()
	var r Response
	for b.Loop() {
		if n, err := r.Parse(head); n != len(head) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkChunked(b *testing.B) {
	body := []byte(strings.Repeat("400\r\n"+strings.Repeat("x", 1024)+"\r\n", 32) + "0\r\n\r\n")
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var c Chunked
		if _, n, err := c.Feed(body); n != len(body) || err != nil {
			b.Fatal(n, err)
		}
	}
}
