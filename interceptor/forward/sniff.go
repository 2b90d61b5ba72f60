package forward

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// SniffTimeout is how long a connection of protocol auto may stay silent until it is taken for one on which the server
// speaks first.
const SniffTimeout = 2 * time.Second

// maxMethod is longer than any registered HTTP method.
const maxMethod = 32

// Kind is what the first bytes of a connection say.
type Kind int

// The kinds of connections.
const (
	KindUndecided Kind = iota // more bytes are needed
	KindHTTP
	KindTCP
	KindHTTP2 // never Sniff's: it is left to whoever reads HTTP
)

// Sniff tells HTTP, version 1 or 2 without TLS, from anything else by the first bytes of a connection. What it says of
// some bytes it says of any that begin with them, unless that is KindUndecided.
//
// HTTP/1 begins with a method, a space and a target. Other line protocols do too, nearly (memcached's "get key", NATS's
// "CONNECT {"), so methods have to be upper case, as all are that anybody uses, and the target has to look like one: a
// path, "*" or an http URL. HTTP/2's preface, "PRI * HTTP/2.0", fits that as well. CONNECT names an authority and is
// left to the app, byte by byte.
func Sniff(b []byte) Kind {
	for i, c := range b {
		switch {
		case c == ' ' && i > 0:
			return sniffTarget(b[i+1:])
		case i >= maxMethod, (c < 'A' || c > 'Z') && c != '-' && c != '_':
			return KindTCP
		}
	}
	return KindUndecided
}

func sniffTarget(b []byte) Kind {
	const url = "http"
	for i, c := range b {
		switch {
		case i == 0 && (c == '/' || c == '*'):
			return KindHTTP
		case c|0x20 != url[i]:
			return KindTCP
		case i == len(url)-1:
			return KindHTTP
		}
	}
	return KindUndecided
}

// speaksOther tells what a connection speaks whose first bytes are no request: HTTP/2 by its preface, TLS by the type of
// its first record, or KindUndecided.
func speaksOther(b []byte) Kind {
	switch {
	case bytes.HasPrefix(b, []byte("PRI * HTTP/2.0\r\n")):
		return KindHTTP2
	case len(b) > 0 && b[0] == 0x16:
		return KindTCP
	default:
		return KindUndecided
	}
}

// ErrNoBytes is returned by Peek for a connection that was closed before anything came: a probe, and no visitor.
var ErrNoBytes = errors.New("the connection was closed before its first byte")

// Peek reads from conn until the bytes tell what it is or the time is over, which makes it KindTCP. The bytes have to
// be given to whoever reads on.
func Peek(conn net.Conn, timeout time.Duration) (Kind, []byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return KindTCP, nil, err
	}
	buf := make([]byte, 0, 64)
	for {
		n, err := conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		kind := Sniff(buf)
		switch {
		case kind != KindUndecided:
			return kind, buf, conn.SetReadDeadline(time.Time{})
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, io.EOF) && len(buf) > 0:
			return KindTCP, buf, conn.SetReadDeadline(time.Time{})
		case errors.Is(err, io.EOF):
			return KindTCP, nil, ErrNoBytes
		case err != nil:
			return KindTCP, nil, err
		}
	}
}

// PeekedConn is a connection whose first bytes were read already.
type PeekedConn struct {
	*net.TCPConn
	peeked []byte
}

// NewPeekedConn returns conn with peeked before what is still to come.
func NewPeekedConn(conn *net.TCPConn, peeked []byte) *PeekedConn {
	return &PeekedConn{TCPConn: conn, peeked: peeked}
}

// Read implements net.Conn.
func (c *PeekedConn) Read(p []byte) (int, error) {
	if len(c.peeked) == 0 {
		return c.TCPConn.Read(p)
	}
	n := copy(p, c.peeked)
	if c.peeked = c.peeked[n:]; len(c.peeked) == 0 {
		c.peeked = nil
	}
	return n, nil
}

// WriteTo implements io.WriterTo, which the embedded connection would do without the peeked bytes.
func (c *PeekedConn) WriteTo(w io.Writer) (int64, error) {
	var n int64
	if len(c.peeked) > 0 {
		m, err := w.Write(c.peeked)
		n, c.peeked = int64(m), nil
		if err != nil {
			return n, err
		}
	}
	m, err := c.TCPConn.WriteTo(w)
	return n + m, err
}
