// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func deliveredAll(t *testing.T, s *Sock, want int64) {
	t.Helper()
	eventually(t, "delivered", func() bool {
		n, known := s.Delivered()
		if !known || n > want {
			t.Fatalf("%d delivered, known %v, want %d", n, known, want)
		}
		return n == want
	})
}

// The count starts from 0 on a connection that we opened, whatever arrived on it. (On a connection that we accepted it is one less:
// nobody acknowledged a SYN of ours.)
func TestDeliveredCountsWhatHasArrived(t *testing.T) {
	s, theirs := newDialed(t)
	deliveredAll(t, s, 0)
	total := int64(0)
	for _, n := range []int{1, 10, 1000, 50000} {
		if _, err := s.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if _, err := theirs.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		total += int64(n)
		if _, err := io.CopyN(io.Discard, theirs, int64(n)); err != nil {
			t.Fatal(err)
		}
		deliveredAll(t, s, total)
		if _, err := io.CopyN(io.Discard, s, int64(n)); err != nil {
			t.Fatal(err)
		}
	}
}

// The end of our direction may count as a byte, which only makes us more careful.
func TestDeliveredAfterTheEnd(t *testing.T) {
	s, theirs := newDialed(t)
	if _, err := s.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	_ = s.CloseWrite()
	if b, err := io.ReadAll(theirs); string(b) != "abc" || err != nil {
		t.Fatalf("got %q, %v", b, err)
	}
	if n, known := s.Delivered(); !known || n < 3 || n > 4 {
		t.Errorf("%d delivered, known %v", n, known)
	}
	_ = s.Close()
	if _, known := s.Delivered(); known {
		t.Error("it is known of a connection that is closed")
	}
}

// Bytes for which the other side's kernel has no room are not delivered.
func TestDeliveredToAFullBuffer(t *testing.T) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10) })
		if err != nil {
			return err
		}
		return failed
	}}
	l, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s, err := NewSock(dial(t, l.Addr().String()), NewBuffers(), true)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = theirs.Close() }()
	_ = theirs.SetDeadline(time.Now().Add(within))

	_ = s.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	written, _ := s.Write(make([]byte, 1<<20))
	n, known := s.Delivered()
	if !known || n >= int64(written) || n == 0 {
		t.Fatalf("%d of %d delivered, known %v", n, written, known)
	}
	if _, err := io.CopyN(io.Discard, theirs, int64(written)); err != nil {
		t.Fatal(err)
	}
	deliveredAll(t, s, int64(written))
}

// pipesOpen returns how many ends of pipes this process has open.
func pipesOpen(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}

// A pipe that is not empty is closed, and an empty one is lent again.
func TestPipesAfterErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		fail   func(src, dst *Sock, from *net.TCPConn)
		closed bool
	}{
		"destination closed": {func(_, dst *Sock, from *net.TCPConn) {
			_, _ = from.Write([]byte("abc"))
			_ = dst.Close()
		}, true},
		"source ended":  {func(_, _ *Sock, from *net.TCPConn) { _ = from.Close() }, false},
		"source closed": {func(src, _ *Sock, _ *net.TCPConn) { _ = src.Close() }, false},
		"source silent": {func(src, _ *Sock, _ *net.TCPConn) { _ = src.SetReadDeadline(time.Unix(1, 0)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			before := pipesOpen(t)
			e := NewBuffers()
			src, from := newSockPair(t, e, true)
			dst, _ := newSockPair(t, e, true)
			one, err := e.pipes.get()
			if err != nil {
				t.Fatal(err)
			}
			e.pipes.put(one)
			tc.fail(src, dst, from)
			f := Flow{Src: src, Dst: dst, Waits: NoWaits{}, bulk: true}
			if err := f.moveBulk(&Body{Left: 10}); err == nil {
				t.Fatal("it went well")
			}
			if got := pipesOpen(t) - before; tc.closed && got > 2 || !tc.closed && got == 0 {
				t.Errorf("%d ends more than before", got)
			}
			// The race detector makes a sync.Pool forget things, so this may be a new pipe. What matters is that it is empty.
			again, err := e.pipes.get()
			if err != nil {
				t.Fatal(err)
			}
			if tc.closed && again == one {
				t.Error("a pipe with something in it is lent again")
			}
			if n, err := unix.Read(again.r, make([]byte, 1)); n > 0 || err != syscall.EAGAIN { //nolint:errorlint // an errno itself
				t.Errorf("read %d from it, %v", n, err)
			}
			again.close()
		})
	}
}
