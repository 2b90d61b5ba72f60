// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

// rawExchange sends the same request again and again on one connection through an engine. Its client and its pod allocate nothing.
type rawExchange struct {
	tb     testing.TB
	conn   *net.TCPConn
	ask    []byte
	answer int // length of the answer
	b      []byte
}

// newRawExchange starts a pod that answers whenever end arrives.
func newRawExchange(tb testing.TB, ask, end, answer string) *rawExchange {
	tb.Helper()
	l := listen(tb)
	done := make(chan struct{})
	tb.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	r := newRig(tb, still(), l.Addr().String())
	go func() {
		defer close(done)
		conn, err := l.AcceptTCP()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		out, until, b := []byte(answer), []byte(end), make([]byte, 64<<10)
		for at := 0; ; {
			n, err := conn.Read(b[at:])
			if err != nil {
				return
			}
			if at += n; !bytes.HasSuffix(b[:at], until) {
				continue
			}
			at = 0
			if _, err := conn.Write(out); err != nil {
				return
			}
		}
	}()
	x := &rawExchange{tb: tb, conn: dial(tb, r.listener.Addr().String()), ask: []byte(ask), b: make([]byte, 64<<10)}
	x.answer = x.first()
	return x
}

// first sends a request and returns the length of its answer.
func (x *rawExchange) first() int {
	if _, err := x.conn.Write(x.ask); err != nil {
		x.tb.Fatal(err)
	}
	var all bytes.Buffer
	r := bufio.NewReader(io.TeeReader(x.conn, &all))
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		x.tb.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		x.tb.Fatal(err)
	}
	return all.Len() - r.Buffered()
}

// once sends a request and reads its answer.
func (x *rawExchange) once() {
	if _, err := x.conn.Write(x.ask); err != nil {
		x.tb.Fatal(err)
	}
	if _, err := io.ReadFull(x.conn, x.b[:x.answer]); err != nil {
		x.tb.Fatal(err)
	}
}

// exchanges are requests with their last bytes and their answers.
func exchanges() map[string][3]string {
	body := strings.Repeat("b", 1000)
	fields := "Host: shop.example.com\r\nUser-Agent: a\r\nAccept: */*\r\nX-Forwarded-For: 192.0.2.1\r\n"
	return map[string][3]string{
		"GET": {
			"GET /a?b HTTP/1.1\r\n" + fields + "\r\n", "\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n" + body,
		},
		"small POST": {
			"POST /a HTTP/1.1\r\n" + fields + "Content-Length: 1001\r\n\r\n" + body + "!", "!",
			"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
		},
		"chunked answer": {
			"GET /a?b HTTP/1.1\r\n" + fields + "\r\n", "\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + body + "\r\n0\r\n\r\n",
		},
		"fields to remove": {
			"GET / HTTP/1.1\r\nConnection: keep-alive, x-own\r\nX-Own: 1\r\nTE: trailers\r\n" + fields + "\r\n", "\r\n\r\n",
			"HTTP/1.1 304 Not Modified\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nEtag: a\r\n\r\n",
		},
	}
}

// A warm request on a warm connection allocates nothing. The test allows a little for the rest of this process.
func TestWarmRequestAllocatesNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes a sync.Pool allocate")
	}
	const requests = 2000
	for name, e := range exchanges() {
		t.Run(name, func(t *testing.T) {
			x := newRawExchange(t, e[0], e[1], e[2])
			for range 100 {
				x.once()
			}
			defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties every sync.Pool
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range requests {
				x.once()
			}
			runtime.ReadMemStats(&after)
			if got := float64(after.Mallocs-before.Mallocs) / requests; got > 0.05 {
				t.Errorf("%.2f allocations for each request", got)
			}
		})
	}
}

func BenchmarkWarm(b *testing.B) {
	for name, e := range exchanges() {
		b.Run(name, func(b *testing.B) {
			x := newRawExchange(b, e[0], e[1], e[2])
			b.ReportAllocs()
			for b.Loop() {
				x.once()
			}
		})
	}
}
