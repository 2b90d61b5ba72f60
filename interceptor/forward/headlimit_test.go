// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// headOf returns a head of that many bytes that begins with first. It has one long field, or many fields.
func headOf(first string, size int, many bool) string {
	b := strings.Builder{}
	b.WriteString(first)
	for many && size-b.Len() > 200 {
		b.WriteString("A: " + strings.Repeat("a", 45) + "\r\n")
	}
	b.WriteString("A: " + strings.Repeat("a", size-b.Len()-len("A: \r\n\r\n")) + "\r\n\r\n")
	return b.String()
}

// sizes returns sizes around a limit.
func sizes(limit int) []int { return []int{limit - 1, limit, limit + 1, 2 * limit} }

// A request's head within the limit passes, and a longer one is refused, however it arrives.
func TestMaxHeaderBytes(t *testing.T) {
	const limit = 8 << 10
	r := newRig(t, Options{Tick: tick, Limits: Limits{MaxHeaderBytes: limit}}, newPod(t, answersAll))
	for before, prefix := range map[string]string{"": "", ", behind empty lines": "\r\n\r\n", ", behind another": get} {
		for _, size := range sizes(limit) {
			for _, many := range []bool{false, true} {
				for _, piece := range []int{1 << 20, 1000, 1} {
					t.Run(fmt.Sprintf("%d bytes in pieces of %d%s, many fields %v", size, piece, before, many), func(t *testing.T) {
						c := r.dial()
						head := headOf("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n", size, many)
						go writePieces(c, prefix+head+smuggledGet, piece)
						if prefix == get {
							c.reads(okay)
						}
						line, err := c.r.ReadString('\n')
						want := "HTTP/1.1 200 "
						if size > limit {
							want = "HTTP/1.1 431 "
						}
						if err != nil || !strings.HasPrefix(line, want) {
							t.Errorf("got %q, %v; want %s", line, err, want)
						}
					})
				}
			}
		}
	}
}

const smuggledGet = "GET /behind HTTP/1.1\r\nHost: h\r\n\r\n"

// The default limit holds although buffers are larger.
func TestDefaultMaxHeaderBytes(t *testing.T) {
	r := newRig(t, Options{Tick: tick}, newPod(t, answersAll))
	for _, size := range append(sizes(64<<10), 120<<10) {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			c := r.dial()
			go writePieces(c, headOf("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n", size, true), 1<<20)
			line, err := c.r.ReadString('\n')
			if err != nil || strings.HasPrefix(line, "HTTP/1.1 200 ") != (size <= 64<<10) ||
				size > 64<<10 && !strings.HasPrefix(line, "HTTP/1.1 431 ") {
				t.Errorf("got %q, %v", line, err)
			}
		})
	}
}

// The same is true for an answer's head, which has its own limit.
func TestMaxAnswerHead(t *testing.T) {
	for name, tc := range map[string]struct{ configured, limit int }{
		"own": {1 << 10, maxAnswerHead}, "as a request's": {2 * maxAnswerHead, 2 * maxAnswerHead},
	} {
		for _, size := range sizes(tc.limit) {
			for _, piece := range []int{8 << 20, 5000} {
				t.Run(fmt.Sprintf("%s, %d in pieces of %d", name, size, piece), func(t *testing.T) {
					o := Options{Tick: tick, Limits: Limits{MaxHeaderBytes: tc.configured}}
					c := newRig(t, o, newPod(t, func(c *net.TCPConn, b *bufio.Reader) {
						if _, err := http.ReadRequest(b); err == nil {
							writePieces(c, headOf("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", size, false), piece)
						}
					})).dial()
					// This request is not sent again.
					c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
					line, err := c.r.ReadString('\n')
					want := "HTTP/1.1 200 "
					if size > tc.limit {
						want = "HTTP/1.1 502 "
					}
					if err != nil || !strings.HasPrefix(line, want) {
						t.Errorf("got %q, %v; want %s", line, err, want)
					}
				})
			}
		}
	}
}

// An HTTP/2 request's header is counted as in RFC 9113 (6.5.2), including pseudo header fields, and the client is told the limit.
func TestMaxHeaderBytesOfHTTP2(t *testing.T) {
	for _, limit := range []int{1 << 10, 8 << 10, 64 << 10} {
		s := newEngine(t, Options{Tick: tick, Limits: Limits{MaxHeaderBytes: limit}}).http2.server(t.Context(),
			http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		l := listen(t)
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = s.Serve(l)
		}()
		t.Cleanup(func() { _ = s.Close(); <-served })
		for _, size := range sizes(limit) {
			for _, many := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d of %d, many fields %v", size, limit, many), func(t *testing.T) {
					status, announced := askHTTP2(t, l.Addr().String(), size, many)
					if announced != limit {
						t.Errorf("the limit is said to be %d", announced)
					}
					switch {
					case size <= limit && status != "200":
						t.Errorf("got %s", status)
					case size == limit+1 && status != "431", size > limit && status != "431" && status != "broken off":
						t.Errorf("too large, and got %s", status)
					}
				})
			}
		}
	}
}

// The same is true for an HTTP/2 answer.
func TestMaxAnswerHeadOfHTTP2(t *testing.T) {
	e := newEngine(t, Options{Tick: tick})
	for size, fits := range map[int]bool{maxAnswerHead - 1: true, maxAnswerHead: true, maxAnswerHead + 1: false, 2 * maxAnswerHead: false} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Date"] = nil
			left := size - int(hpack.HeaderField{Name: ":status", Value: "204"}.Size())
			for i := 0; left > 0; i++ { // none of these fields is too long by itself
				name := fmt.Sprintf("a%03d", i)
				n := min(left, 16<<10)
				if rest := left - n; rest > 0 && rest < 100 {
					n -= 100
				}
				w.Header().Set(name, strings.Repeat("~", n-int(hpack.HeaderField{Name: name}.Size())))
				left -= n
			}
			w.WriteHeader(http.StatusNoContent)
		}))
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
		t.Cleanup(s.Close)
		t.Cleanup(e.http2.transport.CloseIdleConnections)
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		resp, err := e.http2.transport.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		if (err == nil) != fits {
			t.Errorf("%d bytes: got %v", size, err)
		}
	}
}

// askHTTP2 sends a request whose header has the given size by RFC 9113. It returns the status of the answer and the limit that the
// server has announced.
func askHTTP2(t *testing.T, addr string, size int, many bool) (status string, limit int) {
	t.Helper()
	c := dial(t, addr)
	_, _ = io.WriteString(c, xhttp2.ClientPreface)
	framer := xhttp2.NewFramer(c, c)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = framer.WriteSettings()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	write := func(f hpack.HeaderField) {
		_ = encoder.WriteField(f)
		size -= int(f.Size())
	}
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "h"}, {Name: ":path", Value: "/"},
	} {
		write(f)
	}
	field := hpack.HeaderField{Name: "a", Sensitive: true} // so that it is sent in full each time
	for many && size > 300 {
		field.Value = strings.Repeat("~", 45)
		write(field)
	}
	if size > 0 {
		field.Value = strings.Repeat("~", size-int(hpack.HeaderField{Name: "a"}.Size()))
		write(field)
	}
	rest := block.Bytes()
	first := rest[:min(len(rest), 16<<10)]
	rest = rest[len(first):]
	_ = framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: true, EndHeaders: len(rest) == 0})
	for len(rest) > 0 {
		next := rest[:min(len(rest), 16<<10)]
		rest = rest[len(next):]
		_ = framer.WriteContinuation(1, len(rest) == 0, next)
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return "broken off", limit
		}
		switch f := frame.(type) {
		case *xhttp2.SettingsFrame:
			if v, ok := f.Value(xhttp2.SettingMaxHeaderListSize); ok {
				limit = int(v)
			}
		case *xhttp2.MetaHeadersFrame:
			return f.PseudoValue("status"), limit
		case *xhttp2.GoAwayFrame, *xhttp2.RSTStreamFrame:
			return "broken off", limit
		}
	}
}
