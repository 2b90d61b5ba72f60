// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// SniffTimeout is how long a connection of protocol auto may stay silent before we assume that the server speaks first.
const SniffTimeout = 2 * time.Second

// maxPeek is how much Peek reads of a connection that is still undecided.
const maxPeek = 16 << 10

// Kind is what a connection speaks, according to its first bytes.
type Kind int

// The kinds.
const (
	KindUndecided Kind = iota // more bytes are needed
	KindHTTP
	KindTCP
	KindHTTP2 // a Sniffer never returns it: the reader of HTTP finds it
)

// Sniffer tells HTTP, version 1 or 2 without TLS, from anything else by the first line of a connection, which may come in
// pieces. An answer other than KindUndecided holds for whatever follows, with one exception (see strange).
//
// A line is HTTP, whatever else is wrong with it, if an app may take it for a request: that must not go past us as bytes.
//
//   - Its first word is in upper case, and the second one begins a path or an http URL: decided at once, as nearly always. So
//     "GET /" is HTTP even without a version, as it was in HTTP/0.9.
//   - Its third word begins with a version ("HTTP/" and a digit), or its last word is one.
//
// Empty lines before it do not count. Other line protocols have no such lines: memcached's "get key", Redis's "PING", NATS's
// "CONNECT {", an access log, whose versions stand before the end.
type Sniffer struct {
	kind Kind
	part sniffPart
	odd  bool // the method is not in upper case
	// strange says that the first word has a byte that no method has, as binary protocols and JSON do. Such a line is passed on
	// without waiting for its end. It is HTTP all the same if its last word is a version, since there are apps that take any
	// word for a method.
	strange bool
	taken   int // bytes of a strange line

	words   int  // that have begun
	matched int  // how much of the last word is as httpVersion has it, or -1
	version bool // the last word is a version so far
	urls    int  // how much of the second word is as an http URL has it, or -1
}

// sniffPart is the part of the first line to which the next byte belongs.
type sniffPart uint8

const (
	sniffBlank  sniffPart = iota // before the line
	sniffMethod                  // in its first word
	sniffSpace                   // behind a word
	sniffWord                    // in any other word
)

const httpVersion, httpURL = "HTTP/", "http://"

// maxStrange is how much of a strange line is looked at: more than the apps that we know take for a line.
const maxStrange = 64 << 10

// Feed reads the bytes b.
func (s *Sniffer) Feed(b []byte) Kind {
	for _, c := range b {
		if s.kind != KindUndecided {
			break
		}
		s.next(c)
	}
	if s.kind == KindUndecided && s.strange {
		return KindTCP
	}
	return s.kind
}

// Ended says what a connection is that has ended within its first line.
func (s *Sniffer) Ended() Kind {
	if s.kind == KindUndecided {
		s.endLine()
	}
	return s.kind
}

func (s *Sniffer) next(c byte) {
	if s.strange {
		if s.taken++; s.taken > maxStrange {
			s.kind = KindTCP
			return
		}
	}
	space := c == ' ' || c == '\t' || c == '\r'
	switch {
	case s.part == sniffBlank && (space || c == '\n'):
	case c == '\n':
		s.endLine()
	case s.part == sniffBlank, s.part == sniffMethod && !space:
		s.inMethod(c)
	case space, s.strange && splits(c):
		s.part = sniffSpace
	default:
		s.inWord(c)
	}
}

// endLine decides about a line that is still undecided at its end.
func (s *Sniffer) endLine() {
	s.kind = KindTCP
	if s.version {
		s.kind = KindHTTP
	}
}

// inMethod reads a byte of the first word.
func (s *Sniffer) inMethod(c byte) {
	s.part, s.words = sniffMethod, 1
	s.odd = s.odd || (c < 'A' || c > 'Z') && c != '-' && c != '_'
	s.strange = s.strange || !http1.IsToken(c)
	if splits(c) {
		s.part = sniffSpace
	}
}

// splits says whether there are apps, such as those of Python's http.server, that split a line at c, besides at blanks.
func splits(c byte) bool {
	return c == '\v' || c == '\f' || c >= 0x1c && c <= 0x1f || c == 0x85 || c == 0xa0
}

// inWord reads a byte of a word after the method.
func (s *Sniffer) inWord(c byte) {
	first := s.part == sniffSpace
	if first {
		s.words++
		s.part, s.matched, s.version, s.urls = sniffWord, 0, false, 0
	}
	if s.words == 2 && !s.odd && (first && c == '/' || s.inURL(c)) {
		s.kind = KindHTTP
		return
	}
	digit := c >= '0' && c <= '9'
	switch {
	case s.matched < 0:
		s.version = s.version && (digit || c == '.')
	case s.matched == len(httpVersion):
		s.matched, s.version = -1, digit
		if digit && s.words <= 3 && !s.strange {
			s.kind = KindHTTP
		}
	case c == httpVersion[s.matched], c&^0x20 == httpVersion[s.matched]:
		s.matched++
	default:
		s.matched = -1
	}
}

// inURL takes a byte of the second word, and reports whether that begins as an http URL.
func (s *Sniffer) inURL(c byte) bool {
	switch {
	case s.urls < 0:
	case c|0x20 == httpURL[s.urls] || c == httpURL[s.urls]:
		s.urls++
	case s.urls == len("http") && c|0x20 == 's':
	default:
		s.urls = -1
	}
	return s.urls == len(httpURL)
}

// SpeaksOther says what a connection speaks whose first bytes are no request: HTTP/2 by its preface, TLS by the type of
// its first record, or KindUndecided.
func SpeaksOther(b []byte) Kind {
	switch {
	case bytes.HasPrefix(b, []byte("PRI * HTTP/2.0\r\n")):
		return KindHTTP2
	case len(b) > 0 && b[0] == 0x16:
		return KindTCP
	default:
		return KindUndecided
	}
}

// ErrNoBytes is returned by Peek for a connection that was closed before anything arrived: a probe, not a visitor.
var ErrNoBytes = errors.New("the connection was closed before its first byte")

// Peek reads from conn until the bytes show what the connection speaks. It is undecided if the time is up or if there are too many
// bytes. The caller has to give the bytes to the next reader.
func Peek(conn net.Conn, timeout time.Duration) (Kind, []byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return KindTCP, nil, err
	}
	buf := make([]byte, 0, 1<<10)
	var sniffs Sniffer
	for {
		n, err := conn.Read(buf[len(buf):cap(buf)])
		kind := sniffs.Feed(buf[len(buf) : len(buf)+n])
		buf = buf[:len(buf)+n]
		switch {
		case kind != KindUndecided, len(buf) >= maxPeek, errors.Is(err, os.ErrDeadlineExceeded):
			return kind, buf, conn.SetReadDeadline(time.Time{})
		case errors.Is(err, io.EOF) && len(buf) > 0:
			return sniffs.Ended(), buf, conn.SetReadDeadline(time.Time{})
		case errors.Is(err, io.EOF):
			return KindTCP, nil, ErrNoBytes
		case err != nil:
			return KindTCP, nil, err
		}
		buf = slices.Grow(buf, 1)
	}
}

// PeekedConn is a connection whose first bytes have been read already.
type PeekedConn struct {
	*net.TCPConn
	peeked []byte
}

// NewPeekedConn returns conn with peeked before the bytes that are still to come.
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

// WriteTo implements io.WriterTo. The embedded connection's WriteTo would omit the peeked bytes.
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

// ErrLateHTTP ends a connection whose client has begun a line that turns out to be HTTP after it was passed on.
var ErrLateHTTP = errors.New("the client speaks HTTP on a connection that had to be taken for bytes")

// Watch returns a Sniffer for the bytes after early. It returns nil if they cannot turn out to be HTTP.
func Watch(early []byte) *Sniffer {
	if len(early) == 0 {
		return nil
	}
	s := &Sniffer{}
	if s.Feed(early); s.kind != KindUndecided {
		return nil
	}
	return s
}

// Pass carries bytes from src to dst until it is sure that they are not HTTP. answered reports whether dst has spoken. Once it has,
// Pass stops watching a strange line: dst has seen enough of the line to understand it. An HTTP request may follow within another
// protocol, for example SOCKS.
func (s *Sniffer) Pass(dst, src *Sock, w Waits, answered func() bool) error {
	for s.kind == KindUndecided {
		w.Reading()
		in, err := src.Await()
		if s.strange && answered() {
			s.kind = KindTCP
		}
		if errors.Is(err, io.EOF) && s.Ended() == KindHTTP {
			return ReadError{ErrLateHTTP} // there are apps that take the end for the end of the line
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return ReadError{err}
		}
		if s.Feed(in.Bytes()) == KindHTTP {
			src.buffers.Put(in)
			return ReadError{ErrLateHTTP}
		}
		w.Writing()
		_, err = dst.Write(in.Bytes())
		src.buffers.Put(in)
		if err != nil {
			return WriteError{err}
		}
	}
	return nil
}
