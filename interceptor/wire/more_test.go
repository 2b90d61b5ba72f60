// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

func TestSpeaksOther(t *testing.T) {
	for b, want := range map[string]Kind{
		"PRI * HTTP/2.0\r\n\r\nSM": KindHTTP2, "PRI * HTTP/2.0\r\n": KindHTTP2, "PRI * HTTP/2.0": KindUndecided,
		"\x16\x03\x01": KindTCP, "": KindUndecided, "GET / HTTP/1.1\r\n": KindUndecided,
	} {
		if got := SpeaksOther([]byte(b)); got != want {
			t.Errorf("%q is %v, want %v", b, got, want)
		}
	}
}

func TestSetHead(t *testing.T) {
	for name, tc := range map[string]struct {
		head string
		room bool
	}{
		"shorter": {"a", true}, "as long": {"abc", true}, "longer": {strings.Repeat("a", headroom), true},
		"as long as there is room": {strings.Repeat("a", headroom+3), true}, "too long": {strings.Repeat("a", headroom+4), false},
	} {
		b := NewBuffers().Get(true)
		b.Extend(copy(b.Free(), "oldrest"))
		if got := b.SetHead(3, []byte(tc.head)); got != tc.room {
			t.Errorf("%s: %v", name, got)
		}
		want := tc.head + "rest"
		if !tc.room {
			want = "oldrest"
		}
		if string(b.Bytes()) != want || b.Size() != LargeBuffer {
			t.Errorf("%s: it holds %.200q", name, b.Bytes())
		}
	}
}

// The client's bytes are passed on until it is certain that they are not HTTP. If they are HTTP, they are not passed on.
func TestPass(t *testing.T) {
	if Watch(nil) != nil {
		t.Error("who has said nothing is watched")
	}
	for name, tc := range map[string]struct {
		early  string
		pieces []string
		passed string
		err    error
		spoke  bool // the other side has spoken before
	}{
		"it is no HTTP":           {"GET ", []string{"key\r\n"}, "key\r\n", nil, false},
		"it is HTTP after all":    {"GET ", []string{"/ HTTP/1.1\r\n"}, "", ErrLateHTTP, false},
		"it becomes HTTP":         {"get ", []string{"/", " HTTP/1.1"}, "/", ErrLateHTTP, true},
		"it ends":                 {"GET ", nil, "", nil, false},
		"it was decided already":  {"PING\r\n", []string{"left alone"}, "", nil, false},
		"it is decided by a line": {"SSH", []string{"-2.0", "\r\nGET / HTTP/1.1\r\n"}, "-2.0\r\nGET / HTTP/1.1\r\n", nil, false},
		"a strange request":       {"\"GET\" ", []string{"/", " HTTP/1.1\r\n"}, "/", ErrLateHTTP, false},
		"within another protocol": {"\x05\x01\x00", []string{"GET / HTTP/1.1\r\n"}, "GET / HTTP/1.1\r\n", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBuffers()
			src, from := newSockPair(t, b, true)
			dst, to := newSockPair(t, b, true)
			passed := make(chan error)
			go func() {
				var err error
				if s := Watch([]byte(tc.early)); s != nil {
					err = s.Pass(dst, src, NoWaits{}, func() bool { return tc.spoke })
				}
				passed <- err
			}()
			for _, p := range tc.pieces {
				if _, err := io.WriteString(from, p); err != nil {
					t.Fatal(err)
				}
				if len(tc.pieces) > 1 && strings.HasPrefix(tc.passed, p) { // so that the next piece arrives by itself
					if _, err := io.CopyN(io.Discard, to, int64(len(p))); err != nil {
						t.Fatal(err)
					}
					tc.passed = strings.TrimPrefix(tc.passed, p)
				}
			}
			_ = from.CloseWrite()
			err := <-passed
			if !errors.Is(err, tc.err) {
				t.Errorf("got %v, want %v", err, tc.err)
			}
			_ = dst.CloseWrite()
			if got, _ := io.ReadAll(to); string(got) != tc.passed {
				t.Errorf("%q has passed, want %q", got, tc.passed)
			}
		})
	}
	t.Run("errors", func(t *testing.T) {
		b := NewBuffers()
		src, from := newSockPair(t, b, true)
		dst, _ := newSockPair(t, b, true)
		_ = dst.Close()
		_, _ = io.WriteString(from, "x")
		if _, ok := errors.AsType[WriteError](Watch([]byte("GET ")).Pass(dst, src, NoWaits{}, nil)); !ok {
			t.Error("writing to what is closed is no error")
		}
		_ = src.Close()
		if _, ok := errors.AsType[ReadError](Watch([]byte("GET ")).Pass(dst, src, NoWaits{}, nil)); !ok {
			t.Error("reading from what is closed is no error")
		}
	})
}

// An interrupted reader can be waited for, and reading continues afterwards.
func TestInterruptUntil(t *testing.T) {
	s, theirs := newSockPair(t, NewBuffers(), false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = s.PeekOne()
	}()
	s.InterruptUntil(done)
	if s.HasSpokenNow() {
		t.Error("it has spoken before it did")
	}
	_, _ = io.WriteString(theirs, "next")
	if !s.HasSpoken() || !s.HasSpokenNow() {
		t.Error("it has spoken")
	}
	if in, err := s.Await(); err != nil || string(in.Bytes()) != "next" {
		t.Errorf("reading on: %v", err)
	}
	_ = theirs.CloseWrite()
	if s.HasSpoken() || s.HasSpokenNow() {
		t.Error("an end is not spoken")
	}
}

func TestRemoteAddr(t *testing.T) {
	client, server := pair(t)
	if got := RemoteAddr(server).String(); got != client.LocalAddr().String() {
		t.Errorf("got %s", got)
	}
	one, _ := net.Pipe()
	if got := RemoteAddr(one); got.IsValid() {
		t.Errorf("a pipe comes from %s", got)
	}
}

func TestBoth(t *testing.T) {
	a, b := &phases{}, &phases{}
	w := Both{a, b}
	w.Reading()
	w.Writing()
	w.Writing()
	if *a != (phases{1, 2}) || *a != *b {
		t.Errorf("got %v and %v", a, b)
	}
}

func TestBrokenOff(t *testing.T) {
	for _, err := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, &net.OpError{Op: "read", Err: syscall.EPIPE}} {
		if !BrokenOff(fmt.Errorf("reading: %w", ReadError{err})) {
			t.Errorf("%v is not broken off", err)
		}
	}
	if BrokenOff(http1.ErrBadChunkEnd) || WriteError.Error(WriteError{io.EOF}) != "EOF" || ReadError.Error(ReadError{io.EOF}) != "EOF" {
		t.Error("what is no HTTP is broken off, or errors say something else")
	}
}
