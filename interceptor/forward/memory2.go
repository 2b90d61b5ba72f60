// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/scale-to-zero/scale-to-zero/interceptor/budget"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

const (
	// dataStep is in which steps an HTTP/2 connection draws memory for the bodies that have arrived and that nobody has read.
	dataStep = 64 << 10
	// answerBuffer is how much of an answer may wait for a slow client: a pod may send that many bytes of each stream unasked.
	answerBuffer = 64 << 10
	// frameHeader is the length of a frame's header (RFC 9113, 4.1), and frameData the type of a frame with a part of a body.
	frameHeader, frameData = 9, 0
)

// openConn is a client's HTTP/2 connection. net/http reads from it whatever the client may send, also bodies for which there is no
// reader yet. So openConn counts the bytes of bodies that arrive. What the handlers take is subtracted. What they leave behind, net/http
// drops; that is known only once no stream is open.
type openConn struct {
	*wire.PeekedConn
	server *Server
	closed func()

	frames frameReader // of the goroutine that reads

	mu      sync.Mutex // protects all below
	streams int
	unread  int64
	draw    budget.Draw
}

// newOpenConn returns a connection that calls closed when it is closed. If there is no memory for it, the error is
// budget.ErrExhausted.
func (s *Server) newOpenConn(conn *wire.PeekedConn, closed func()) (*openConn, error) {
	c := &openConn{PeekedConn: conn, server: s, draw: budget.Draw{Account: &s.route.Memory}}
	if !c.draw.Set(http2Cost) {
		return nil, s.exhausted()
	}
	c.closed = sync.OnceFunc(func() {
		c.mu.Lock()
		c.draw.Set(0)
		c.draw.Account = &budget.Account{} // a stream may end later
		c.mu.Unlock()
		closed()
	})
	return c, nil
}

// Close implements net.Conn.
func (c *openConn) Close() error {
	c.closed()
	return c.PeekedConn.Close()
}

// Read implements net.Conn. If the client sends more than there is memory for, it fails, and the connection ends.
func (c *openConn) Read(p []byte) (int, error) {
	n, err := c.PeekedConn.Read(p)
	if data := c.frames.read(p[:n]); data > 0 && !c.add(int64(data)) {
		return 0, c.server.exhausted()
	}
	return n, err
}

// WriteTo must not bypass Read.
func (c *openConn) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{c}) }

// add notes that n bytes of bodies have arrived or, if n is negative, have been read.
func (c *openConn) add(n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unread = max(0, c.unread+n)
	want := http2Cost + (c.unread+dataStep-1)/dataStep*dataStep
	if n < 0 && want > http2Cost && c.draw.Size() <= want+dataStep {
		return true // another step is soon needed
	}
	return c.draw.Set(want)
}

// begin notes that a stream has begun.
func (c *openConn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams++
}

// end notes that a stream has ended.
func (c *openConn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams--; c.streams == 0 {
		c.unread = 0
		c.draw.Set(min(c.draw.Size(), http2Cost))
	}
}

// frameReader counts the bytes in DATA frames. It does not check anything: net/http does.
type frameReader struct {
	preface int // how much of the client's preface has passed
	header  [frameHeader]byte
	have    int // bytes of header that are here
	left    int // bytes of the present frame that are still to come
	data    bool
}

// read takes the next bytes of a connection, and returns how many of them belong to bodies.
func (f *frameReader) read(b []byte) (data int) {
	if f.preface < len(clientPreface) {
		n := min(len(b), len(clientPreface)-f.preface)
		f.preface += n
		b = b[n:]
	}
	for len(b) > 0 {
		if f.left > 0 {
			n := min(len(b), f.left)
			if f.data {
				data += n
			}
			f.left -= n
			b = b[n:]
			continue
		}
		n := copy(f.header[f.have:], b)
		f.have += n
		b = b[n:]
		if f.have == frameHeader {
			f.have = 0
			f.left = int(binary.BigEndian.Uint32(f.header[:4]) >> 8)
			f.data = f.header[3] == frameData
		}
	}
	return data
}

// clientPreface begins each HTTP/2 connection (RFC 9113, 3.4).
const clientPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// openConnKey is the key of the openConn in a request's context.
type openConnKey struct{}

// withConn is an http.Server's ConnContext.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, openConnKey{}, c)
}

// connOf returns the connection of a request; nil for a request that came another way, as tests have it.
func connOf(r *http.Request) *openConn {
	c, _ := r.Context().Value(openConnKey{}).(*openConn)
	return c
}

// countedRead tells the connection what is read of a request's body.
type countedRead struct {
	io.ReadCloser
	conn *openConn
}

// Read implements io.Reader.
func (c *countedRead) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if n > 0 {
		c.conn.add(-int64(n))
	}
	return n, err
}

// waitingAnswer is how much memory an answer takes whose client reads nothing of it: what is copied, and what has arrived.
func waitingAnswer(resp *http.Response) int64 {
	switch n := resp.ContentLength; {
	case n == 0:
		return 0
	case n < 0 || n > answerBuffer:
		return wire.LargeBuffer + answerBuffer
	default:
		return wire.LargeBuffer + n
	}
}

// headCost is the memory that the fields of a request take.
func headCost(in *http.Request) int64 {
	n := int64(len(in.RequestURI))
	for name, values := range in.Header {
		n += 64
		for _, value := range values {
			n += int64(len(name) + len(value))
		}
	}
	return n
}
