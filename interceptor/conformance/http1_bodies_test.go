// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// expecting is the head of a request that asks before it sends its body.
const expecting = "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"

// The app decides whether the body is sent: its 100 is passed on exactly once, and so is an answer without a 100.
func TestExpectContinue(t *testing.T) {
	const fine, refused = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"
	for name, tc := range map[string]struct {
		first  string // what the app answers to the head
		status int
		body   bool // whether the app then reads the body and answers that it is fine
	}{
		"app says 100":            {"HTTP/1.1 100 Continue\r\n\r\n", 100, true},
		"app says 100 with words": {"HTTP/1.1 100 Go On\r\nX: 1\r\n\r\n", 100, true},
		"app answers":             {fine, 200, false},
		"app answers and closes":  {strings.Replace(fine, "\r\n", "\r\nConnection: close\r\n", 1), 200, false},
		"app refuses":             {refused, 417, false},
		"app wants a login":       {"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno", 401, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newWirePod(t, func(c *wireConn) {
				m, err := readHead(c.r)
				if err != nil {
					return
				}
				if m.value("Expect") != "100-continue" {
					t.Errorf("the app is not asked: %q", m.lines)
				}
				if c.send(tc.first); tc.body && readBody(c.r, m, false) == nil {
					c.send(ok("got " + m.body))
				}
				if !strings.Contains(tc.first, "close") {
					c.drain()
				}
			})
			n, listen := serving(t, api.ProtocolAuto, p.addr)
			c := connect(t, listen)
			c.send(expecting)
			m := c.answer()
			if m.status() != tc.status {
				t.Fatalf("got %q first, want %d", m.start, tc.status)
			}
			if tc.body {
				c.send("hello")
				c.want(200, "got hello")
			}
			_ = c.Close()
			n.idle()
			if _, body, _ := strings.Cut(p.received(), "\r\n\r\n"); !tc.body && body != "" {
				t.Errorf("the pod received %q that nobody sent", body)
			}
		})
	}
}

// If a client does not wait, or no longer waits, its body is sent on.
func TestExpectContinueWithoutWaiting(t *testing.T) {
	for name, tc := range map[string]struct{ first, between string }{
		"app says nothing": {"", ""},
		"app says 100":     {"HTTP/1.1 100 Continue\r\n\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, listen := before(t, func(c *wireConn) {
				m, err := readHead(c.r)
				if err != nil {
					return
				}
				c.send(tc.first)
				if readBody(c.r, m, false) == nil {
					c.send(ok("got " + m.body))
					c.drain()
				}
			})
			c := connect(t, listen)
			c.send(expecting + "hello")
			m := c.answer()
			if m.status() == 100 {
				m = c.answer()
			}
			if m.status() != 200 || m.body != "got hello" {
				t.Errorf("got %q with %q", m.start, m.body)
			}
		})
	}
}

// An app may answer before the body has arrived. If it keeps reading, the connection serves the next request.
func TestAnswerBeforeTheBodyWhileTheAppReadsOn(t *testing.T) {
	for name, tc := range map[string]struct{ fields, first, rest string }{
		"length":  {"Content-Length: 10\r\n", "hello", "world"},
		"chunked": {"Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n", "5\r\nworld\r\n0\r\n\r\n"},
		"at once": {"Content-Length: 10\r\n", "", "helloworld"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newWirePod(t, func(c *wireConn) {
				for {
					m, err := readHead(c.r)
					if err != nil {
						return
					}
					c.send(ok("early"))
					if readBody(c.r, m, false) != nil {
						return
					}
					c.pod.mu.Lock()
					c.pod.whole = append(c.pod.whole, m)
					c.pod.mu.Unlock()
				}
			})
			n, listen := serving(t, api.ProtocolAuto, p.addr)
			c := connect(t, listen)
			_ = c.SetDeadline(time.Now().Add(soon))
			for i := range 2 {
				c.send(post(tc.fields, tc.first))
				c.want(200, "early")
				c.send(tc.rest)
				eventually(t, "arrived whole", func() bool { return len(p.requests()) == i+1 })
				if got := p.requests()[i].body; got != "helloworld" {
					t.Errorf("the pod received %q", got)
				}
			}
			n.idle()
		})
	}
}

// An app that has read enough answers and closes. The client gets the whole answer, even if it is still sending.
func TestAnswerBeforeTheBodyAndClose(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		leave  func(*wireConn)
	}{
		"reads the rest":     {strings.Repeat("too large ", 20000), func(c *wireConn) { _ = c.CloseWrite(); c.drain() }},
		"reads nothing more": {strings.Repeat("too large ", 20000), func(c *wireConn) { _ = c.CloseWrite(); c.await(c.pod.over) }},
		// Because of unread bytes, closing resets the connection. The reset may overtake bytes that have not left the app's machine yet, so
		// only a short answer is certain to arrive.
		"closes": {strings.Repeat("too large ", 200), func(*wireConn) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newWirePod(t, func(c *wireConn) {
				if _, err := readHead(c.r); err != nil {
					return
				}
				b := make([]byte, 1000)
				_, _ = io.ReadFull(c.r, b)
				c.send(fmt.Sprintf("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(tc.answer), tc.answer))
				tc.leave(c)
			})
			n, listen := serving(t, api.ProtocolAuto, p.addr)
			c := connect(t, listen)
			_ = c.SetDeadline(time.Now().Add(soon))
			c.send(post("Content-Length: 1000000000\r\n", ""))
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				piece := bytes.Repeat([]byte("x"), 32<<10)
				for err := error(nil); err == nil; {
					_, err = c.Write(piece)
				}
			}()
			c.want(413, tc.answer)
			_ = c.Close()
			<-sent
			n.idle()
		})
	}
}

// A request's body and its answer may be sent side by side for any time: each piece is passed on at once.
func TestBothDirectionsAtOnce(t *testing.T) {
	_, listen := before(t, func(c *wireConn) {
		if _, err := readHead(c.r); err != nil {
			return
		}
		c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for {
			line, err := readLine(c.r)
			if err != nil {
				return
			}
			var size int
			if _, err := fmt.Sscanf(line, "%x", &size); err != nil {
				return
			}
			b := make([]byte, size+2)
			if _, err := io.ReadFull(c.r, b); err != nil {
				return
			}
			c.send(fmt.Sprintf("%x\r\n%s", size, b))
			if size == 0 {
				return
			}
		}
	})
	c := connect(t, listen)
	_ = c.SetDeadline(time.Now().Add(soon))
	c.send(post("Transfer-Encoding: chunked\r\n", ""))
	if m := c.head(); m.status() != 200 || !slicesEqualFold(m.values("Transfer-Encoding"), "chunked") {
		t.Fatalf("got %q, %q", m.start, m.lines)
	}
	for range 100 {
		c.send("5\r\nhello\r\n")
		c.reads("5\r\nhello\r\n")
	}
	c.send("0\r\n\r\n")
	c.reads("0\r\n\r\n")
}

func slicesEqualFold(got []string, want string) bool {
	return len(got) == 1 && strings.EqualFold(got[0], want)
}

// Each piece of a body reaches the pod before the next one is sent.
func TestUploadsAreFlushed(t *testing.T) {
	for name, tc := range map[string]struct{ fields, format, end string }{
		"length":  {"Content-Length: 60\r\n", "%s", ""},
		"chunked": {"Transfer-Encoding: chunked\r\n", "6\r\n%s\r\n", "0\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			p, listen := before(t, always(ok("fine")))
			c := connect(t, listen)
			c.send(post(tc.fields, ""))
			for i := range 10 {
				piece := fmt.Sprintf("piece%d", i)
				c.send(fmt.Sprintf(tc.format, piece))
				eventually(t, piece, func() bool { return strings.Contains(p.received(), piece) })
			}
			c.send(tc.end)
			c.want(200, "fine")
			if got := p.requests()[0].body; len(got) != 60 {
				t.Errorf("got %q", got)
			}
		})
	}
}

// Bodies of any size pass completely, and are not kept in memory.
func TestHugeBodies(t *testing.T) {
	const size = 192 << 20
	piece := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	whole := sha256.New()
	for range size / len(piece) {
		whole.Write(piece)
	}
	want := fmt.Sprintf("%x", whole.Sum(nil))
	chunk := fmt.Appendf(nil, "%x\r\n%s\r\n", len(piece), piece)
	stream := func(w io.Writer, chunked bool) {
		b := piece
		if chunked {
			b = chunk
		}
		for range size / len(piece) {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
		if chunked {
			_, _ = io.WriteString(w, "0\r\n\r\n")
		}
	}
	sum := func(r io.Reader, chunked bool) string {
		h := sha256.New()
		if !chunked {
			_, _ = io.CopyN(h, r, size)
			return fmt.Sprintf("%x", h.Sum(nil))
		}
		dechunk(h, r)
		return fmt.Sprintf("%x", h.Sum(nil))
	}
	for name, fields := range map[string]string{
		"length": fmt.Sprintf("Content-Length: %d\r\n", size), "chunked": "Transfer-Encoding: chunked\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			chunked := name == "chunked"
			_, listen := before(t, func(c *wireConn) {
				for { // c.request would keep everything that it reads
					m, err := readHead(c.r)
					if err != nil {
						return
					}
					if m.path() == "/up" {
						c.send(ok(sum(io.MultiReader(bytes.NewReader(peeked(c)), c.TCPConn), chunked)))
						return
					}
					c.send("HTTP/1.1 200 OK\r\n" + fields + "\r\n")
					stream(c, chunked)
				}
			})
			peak := heapPeak(t)
			c := connect(t, listen)
			_ = c.SetDeadline(time.Now().Add(2 * within))
			c.send("POST /up HTTP/1.1\r\nHost: h\r\n" + fields + "\r\n")
			go stream(c, chunked)
			c.want(200, want)
			c.send("GET /down HTTP/1.1\r\nHost: h\r\n\r\n")
			m := c.head()
			if got := sum(c.r, len(m.values("Transfer-Encoding")) > 0); got != want {
				t.Error("the answer's body did not arrive as it was sent")
			}
			if grown := peak(); grown > 128<<20 {
				t.Errorf("%d MB of memory were used", grown>>20)
			}
		})
	}
}

// peeked returns what c's reader has buffered, so that the rest can be read without keeping it.
func peeked(c *wireConn) []byte {
	b := make([]byte, c.r.Buffered())
	_, _ = io.ReadFull(c.r, b)
	return b
}

// dechunk copies the data of chunks.
func dechunk(w io.Writer, r io.Reader) {
	var line []byte
	one := make([]byte, 1)
	for {
		for line = line[:0]; !bytes.HasSuffix(line, []byte("\r\n")); line = append(line, one[0]) {
			if _, err := io.ReadFull(r, one); err != nil {
				return
			}
		}
		var size int64
		if _, err := fmt.Sscanf(string(line), "%x", &size); err != nil {
			return
		}
		if _, err := io.CopyN(w, r, size); err != nil {
			return
		}
		if _, err := io.ReadFull(r, make([]byte, 2)); err != nil || size == 0 {
			return
		}
	}
}

// heapPeak watches the heap until the returned function is called, which returns how much the heap grew.
func heapPeak(t *testing.T) func() uint64 {
	t.Helper()
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	base := m.HeapAlloc
	var most atomic.Uint64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		var m runtime.MemStats
		for {
			runtime.ReadMemStats(&m)
			most.Store(max(most.Load(), m.HeapAlloc))
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	}()
	return func() uint64 {
		close(done)
		<-ended
		return max(most.Load(), base) - base
	}
}
