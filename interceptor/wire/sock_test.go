// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// arrived waits until the bytes from the other side, or its end, can be read.
func arrived(t *testing.T, s *Sock, want int) {
	t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(within))
	if n, err := s.PeekOne(); n != want || err != nil {
		t.Fatalf("peeked %d, %v; want %d", n, err, want)
	}
	_ = s.SetReadDeadline(time.Time{})
}

// nothingSent closes s and checks that the other side has got no bytes.
func nothingSent(t *testing.T, s *Sock, theirs *net.TCPConn) {
	t.Helper()
	_ = s.Close()
	if b, _ := io.ReadAll(theirs); len(b) > 0 {
		t.Errorf("the other side got %q", b)
	}
}

func TestSendAndReceive(t *testing.T) {
	for _, fresh := range []bool{true, false} {
		s, theirs := newSockPair(t, NewBuffers(), true)
		go func() {
			b := make([]byte, 3)
			_, _ = io.ReadFull(theirs, b)
			_, _ = theirs.Write(bytes.ToUpper(b))
		}()
		in, err := s.Send([]byte("abc"), fresh)
		if err != nil || string(in.Bytes()) != "ABC" || in.start != headroom || s.out != nil {
			t.Errorf("fresh %v: got %v", fresh, err)
		}
	}
}

func TestStale(t *testing.T) {
	for name, before := range map[string]func(t *testing.T, s *Sock, theirs *net.TCPConn){
		"ended": func(t *testing.T, s *Sock, theirs *net.TCPConn) {
			t.Helper()
			_ = theirs.CloseWrite()
			arrived(t, s, 0)
		},
		"spoke": func(t *testing.T, s *Sock, theirs *net.TCPConn) {
			t.Helper()
			_, _ = theirs.Write([]byte("HTTP/1.1 408 Request Timeout\r\n\r\n"))
			arrived(t, s, 1)
		},
		"spoke and ended": func(t *testing.T, s *Sock, theirs *net.TCPConn) {
			t.Helper()
			_, _ = theirs.Write([]byte("x"))
			_ = theirs.CloseWrite()
			arrived(t, s, 1)
		},
		"closed by us": func(_ *testing.T, s *Sock, _ *net.TCPConn) { _ = s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s, theirs := newSockPair(t, NewBuffers(), true)
			before(t, s, theirs)
			if in, err := s.Send([]byte("GET / HTTP/1.1\r\n\r\n"), false); !errors.Is(err, ErrStale) || in != nil {
				t.Errorf("got %v, %v", in, err)
			}
			nothingSent(t, s, theirs)
		})
	}
	t.Run("reset", func(t *testing.T) {
		s, theirs := newSockPair(t, NewBuffers(), true)
		_ = theirs.SetLinger(0)
		_ = theirs.Close()
		_ = s.AwaitGone(true)
		if _, err := s.Send([]byte("x"), false); !errors.Is(err, ErrStale) {
			t.Errorf("got %v", err)
		}
	})
}

// An end after the request has been sent is not staleness: the request may have been carried out.
func TestEndAfterSending(t *testing.T) {
	for name, end := range map[string]func(*Sock, *net.TCPConn){
		"ended":        func(_ *Sock, theirs *net.TCPConn) { _ = theirs.CloseWrite() },
		"reset":        func(_ *Sock, theirs *net.TCPConn) { _, _ = theirs.SetLinger(0), theirs.Close() },
		"closed by us": func(s *Sock, _ *net.TCPConn) { _ = s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s, theirs := newSockPair(t, NewBuffers(), true)
			go func() {
				_, _ = theirs.Read(make([]byte, 1))
				end(s, theirs)
			}()
			if in, err := s.Send([]byte("x"), false); err == nil || errors.Is(err, ErrStale) || in != nil {
				t.Errorf("got %v, %v", in, err)
			}
		})
	}
}

// More bytes than the kernel takes at once are sent too.
func TestSendBlocks(t *testing.T) {
	s, theirs := newSockPair(t, NewBuffers(), true)
	_ = s.SetWriteBuffer(32 << 10)
	sent := bytes.Repeat([]byte("0123456789"), 100000)
	got := make(chan []byte)
	go func() {
		b := make([]byte, len(sent))
		_, _ = io.ReadFull(theirs, b)
		_, _ = theirs.Write([]byte("ok"))
		got <- b
	}()
	in, err := s.Send(sent, false)
	if err != nil || string(in.Bytes()) != "ok" || !bytes.Equal(<-got, sent) {
		t.Errorf("got %v", err)
	}
}

func TestWriteFails(t *testing.T) {
	s, theirs := newSockPair(t, NewBuffers(), true)
	if n, err := s.Write(nil); n != 0 || err != nil {
		t.Errorf("writing nothing: %d, %v", n, err)
	}
	_ = theirs.SetLinger(0)
	_ = theirs.Close()
	_ = s.AwaitGone(true)
	if n, err := s.Write([]byte("x")); n != 0 || err == nil || !BrokenOff(err) {
		t.Errorf("got %d, %v", n, err)
	}
	_ = s.Close()
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("it can be written after it was closed")
	}
}

// A write that ends early returns how much was written.
func TestWriteDeadline(t *testing.T) {
	s, theirs := newSockPair(t, NewBuffers(), true)
	_ = s.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	n, err := s.Write(make([]byte, 64<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	_ = s.Close()
	if got, err := io.Copy(io.Discard, theirs); got != int64(n) || err != nil {
		t.Errorf("it says %d, and %d came, %v", n, got, err)
	}
}

func TestTryRead(t *testing.T) {
	s, theirs := newSockPair(t, NewBuffers(), false)
	b := s.buffers.Get(false)
	b.end = copy(b.b, "ab")
	if n := s.TryRead(b); n != 0 || string(b.Bytes()) != "ab" {
		t.Errorf("%d of nothing", n)
	}
	_, _ = theirs.Write([]byte("cd"))
	arrived(t, s, 1)
	if n := s.TryRead(b); n != 2 || string(b.Bytes()) != "abcd" {
		t.Errorf("%d, %q", n, b.Bytes())
	}
	_ = theirs.Close()
	arrived(t, s, 0)
	if n := s.TryRead(b); n != 0 || string(b.Bytes()) != "abcd" {
		t.Errorf("%d at the end", n)
	}
}

func TestAwaitGone(t *testing.T) {
	wait := 30 * time.Millisecond
	for name, tc := range map[string]struct {
		half bool
		do   func(theirs *net.TCPConn)
		gone bool
	}{
		"silent":                   {false, func(*net.TCPConn) {}, false},
		"speaks":                   {false, func(c *net.TCPConn) { _, _ = c.Write([]byte("next")) }, false},
		"ends":                     {false, func(c *net.TCPConn) { _ = c.CloseWrite() }, true},
		"speaks and ends":          {false, func(c *net.TCPConn) { _, _ = c.Write([]byte("next")); _ = c.CloseWrite() }, true},
		"resets":                   {false, func(c *net.TCPConn) { _, _ = c.SetLinger(0), c.Close() }, true},
		"ends its half":            {true, func(c *net.TCPConn) { _ = c.CloseWrite() }, false},
		"speaks and ends its half": {true, func(c *net.TCPConn) { _, _ = c.Write([]byte("next")); _ = c.CloseWrite() }, false},
		"resets, by halves":        {true, func(c *net.TCPConn) { _, _ = c.SetLinger(0), c.Close() }, true},
		"speaks and resets":        {true, func(c *net.TCPConn) { _, _ = c.Write([]byte("next")); _, _ = c.SetLinger(0), c.Close() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, theirs := newSockPair(t, NewBuffers(), false)
			if tc.gone {
				_ = s.SetReadDeadline(time.Now().Add(within))
			} else {
				_ = s.SetReadDeadline(time.Now().Add(wait))
			}
			go tc.do(theirs)
			if err := s.AwaitGone(tc.half); (err == nil) != tc.gone {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestClosedWithin(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(theirs *net.TCPConn)
		wait time.Duration
		want bool
	}{
		"silent": {func(*net.TCPConn) {}, 20 * time.Millisecond, false},
		"speaks": {func(c *net.TCPConn) { _, _ = c.Write([]byte("next")) }, within, false},
		"closes": {func(c *net.TCPConn) { _ = c.Close() }, within, true},
		"resets": {func(c *net.TCPConn) { _, _ = c.SetLinger(0), c.Close() }, within, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, theirs := newSockPair(t, NewBuffers(), false)
			go tc.do(theirs)
			if got := s.ClosedWithin(tc.wait); got != tc.want {
				t.Fatalf("got %v", got)
			}
			if tc.want {
				return
			}
			// No bytes are consumed, and the next wait has no deadline.
			if name == "silent" {
				_, _ = theirs.Write([]byte("next"))
			}
			if in, err := s.Await(); err != nil || string(in.Bytes()) != "next" {
				t.Errorf("reading on: %v", err)
			}
		})
	}
	t.Run("closed by us", func(t *testing.T) {
		s, _ := newSockPair(t, NewBuffers(), false)
		_ = s.Close()
		if !s.ClosedWithin(time.Hour) {
			t.Error("it is not closed")
		}
	})
}

// On a fresh connection, the other side's first bytes are the answer, even if they arrived before the request was sent.
func TestFreshConnectionThatSpoke(t *testing.T) {
	s, theirs := newSockPair(t, NewBuffers(), true)
	_, _ = theirs.Write([]byte("early"))
	arrived(t, s, 1)
	_ = s.SetReadDeadline(time.Now().Add(time.Second))
	if in, err := s.Send([]byte("x"), true); err != nil || string(in.Bytes()) != "early" {
		t.Errorf("got %v", err)
	}
}
