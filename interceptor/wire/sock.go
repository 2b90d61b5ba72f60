// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"cmp"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrStale is returned for a connection on which the other side has spoken or closed before a request went out on it.
var ErrStale = errors.New("the connection was closed or spoken on while it was idle")

// Sock is a connection that is also read and written by its descriptor, for three things that net.TCPConn cannot do:
// waiting without a buffer, so that an idle connection has none; looking whether a connection is still good just before
// a request goes out on it, at no cost (see Send); and seeing that the other side has gone although not all that it sent
// is read.
//
// One goroutine reads at a time, and one writes. Close may be called by any.
type Sock struct {
	*net.TCPConn
	raw     syscall.RawConn
	buffers *Buffers
	// Large says which buffers to read with.
	Large bool

	// readable is onReadable, made once so that reading allocates nothing. It uses the fields below.
	readable func(fd uintptr) bool
	step     step
	fresh    bool
	peek     [1]byte
	out      []byte  // still to be sent
	in       *Buffer // what was read
	err      error

	// writable is onWritable. It uses the fields below.
	writable func(fd uintptr) bool
	// Progress is called when the other side has taken some of what is written, but not all; it may be nil.
	Progress func()
	toWrite  []byte
	writeErr syscall.Errno
}

// step is what onReadable does next.
type step uint8

const (
	stepCheck   step = iota // see that nothing has come, not even the end
	stepSend                // send out
	stepBlocked             // out could not be sent all at once
	stepReceive             // read
)

// NewSock returns a Sock that reads conn with buffers that it borrows.
func NewSock(conn *net.TCPConn, buffers *Buffers, large bool) (*Sock, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Sock{TCPConn: conn, raw: raw, buffers: buffers, Large: large}
	s.readable, s.writable = s.onReadable, s.onWritable
	return s, nil
}

// Await waits until there is something to read and only then takes a buffer for it. The error is io.EOF at the end.
func (s *Sock) Await() (*Buffer, error) {
	s.step = stepReceive
	return s.run()
}

// Send sends b once it is sure that the other side has neither closed nor said anything, and waits for the answer.
// With ErrStale it has, or the connection is closed, and nothing was sent. A fresh connection needs no such look.
//
// The look is the read with which a wait begins anyway: it sees what has come before it, and what comes later ends the
// wait. So it costs nothing.
func (s *Sock) Send(b []byte, fresh bool) (*Buffer, error) {
	s.step, s.out, s.fresh = stepCheck, b, fresh
	if fresh {
		s.step = stepSend
	}
	in, err := s.run()
	switch {
	case err != nil && s.step == stepCheck:
		err = ErrStale
	case err == nil && s.step == stepBlocked:
		if _, err = s.Write(s.out); err == nil {
			in, err = s.Await()
		}
	}
	s.out = nil
	return in, err
}

func (s *Sock) run() (*Buffer, error) {
	s.in, s.err = nil, nil
	err := s.raw.Read(s.readable)
	if err == nil {
		err = s.err
	}
	return s.in, err
}

// onReadable is called by raw.Read, at once and then each time that there may be something to read, until it returns
// true.
func (s *Sock) onReadable(fd uintptr) bool {
	switch s.step {
	case stepCheck:
		if _, errno := read(fd, s.peek[:]); errno != syscall.EAGAIN {
			s.err = ErrStale
			return true
		}
		s.step = stepSend
		fallthrough
	case stepSend:
		n, errno := write(fd, s.out)
		if errno != 0 && errno != syscall.EAGAIN {
			s.err = errno
			return true
		}
		if s.out = s.out[n:]; len(s.out) > 0 {
			s.step = stepBlocked
			return true
		}
		s.step = stepReceive
		// Nobody has looked yet whether a fresh connection has spoken first, and if it has, that does not end the wait.
		return s.fresh && s.receive(fd)
	default:
		return s.receive(fd)
	}
}

func (s *Sock) receive(fd uintptr) bool {
	in := s.buffers.Get(s.Large)
	n, errno := read(fd, in.Free())
	if n > 0 {
		in.end += n
		s.in = in
		return true
	}
	s.buffers.Put(in)
	switch errno {
	case syscall.EAGAIN:
		return false
	case 0:
		s.err = io.EOF
	default:
		s.err = errno
	}
	return true
}

// Write implements net.Conn.
func (s *Sock) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	s.toWrite, s.writeErr = b, 0
	err := s.raw.Write(s.writable)
	n := len(b) - len(s.toWrite)
	s.toWrite = nil
	if err == nil && s.writeErr != 0 {
		err = s.writeErr
	}
	return n, err
}

// onWritable is called by raw.Write, at once and then each time that there may be room, until it returns true.
func (s *Sock) onWritable(fd uintptr) bool {
	for {
		n, errno := write(fd, s.toWrite)
		if errno == syscall.EAGAIN {
			return false
		}
		if errno != 0 {
			s.writeErr = errno
			return true
		}
		if s.toWrite = s.toWrite[n:]; len(s.toWrite) == 0 {
			return true
		}
		if s.Progress != nil {
			s.Progress()
		}
	}
}

// TryRead adds to b what has come already, and returns how much. An error shows in the next read.
func (s *Sock) TryRead(b *Buffer) int {
	got := 0
	_ = s.raw.Read(func(fd uintptr) bool {
		got, _ = read(fd, b.Free())
		return true
	})
	b.end += got
	return got
}

// AwaitGone waits until the other side has gone, whether or not all that it sent is read. With half it is not gone as
// long as it has closed only its own direction, and may still read.
func (s *Sock) AwaitGone(half bool) error {
	var events int16 // POLLHUP and POLLERR are always reported
	if !half {
		events = pollHalfClosed
	}
	return s.raw.Read(func(fd uintptr) bool {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}} //nolint:gosec // descriptors are small
		n, err := unix.Poll(fds[:], 0)
		return err == nil && n > 0
	})
}

// HasReset says that the other side has reset the connection, so that what it sent and is not read yet is lost.
func (s *Sock) HasReset() (reset bool) {
	_ = s.raw.Control(func(fd uintptr) { // fails only on a closed connection
		fds := [1]unix.PollFd{{Fd: int32(fd)}} //nolint:gosec // descriptors are small
		n, err := unix.Poll(fds[:], 0)
		reset = err == nil && n > 0
	})
	return reset
}

// PeekOne waits until there is something to read, and returns how many bytes of it a read of one would: 0 at the end.
func (s *Sock) PeekOne() (n int, _ error) {
	var failed error
	err := s.raw.Read(func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), s.peek[:], unix.MSG_PEEK)
		return !errors.Is(failed, syscall.EAGAIN)
	})
	return max(n, 0), cmp.Or(err, failed)
}

// HasSpoken waits until there is something to read, and reports whether that is other than the end.
func (s *Sock) HasSpoken() bool {
	n, err := s.PeekOne()
	return err == nil && n > 0
}

// HasSpokenNow says whether there is something to read now, other than the end.
func (s *Sock) HasSpokenNow() (spoken bool) {
	_ = s.raw.Control(func(fd uintptr) { // fails only on a closed connection
		n, _, err := unix.Recvfrom(int(fd), s.peek[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		spoken = err == nil && n > 0
	})
	return spoken
}

// Interrupt ends the reads that are under way, and those to come until Resume. Both fail only on a closed connection, whose
// reads end by themselves.
func (s *Sock) Interrupt() { _ = s.SetReadDeadline(time.Unix(1, 0)) }

// Resume lets reads wait again.
func (s *Sock) Resume() { _ = s.SetReadDeadline(time.Time{}) }

// InterruptUntil ends the reads that are under way, waits until done is closed, as the reader has to do when it notices, and
// lets reads wait again.
func (s *Sock) InterruptUntil(done <-chan struct{}) {
	s.Interrupt()
	<-done
	s.Resume()
}

// ClosedWithin reports whether the other side closes the connection within d without having sent anything.
func (s *Sock) ClosedWithin(d time.Duration) bool {
	if s.SetReadDeadline(time.Now().Add(d)) != nil {
		return true
	}
	n, err := s.PeekOne()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return s.SetReadDeadline(time.Time{}) != nil
	}
	return n == 0 || s.SetReadDeadline(time.Time{}) != nil
}

// BrokenOff says that err is of a connection that the other side closed or reset, as opposed to one that said something wrong.
func BrokenOff(err error) bool {
	var op *net.OpError
	var errno syscall.Errno
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) || errors.As(err, &errno)
}

// RemoteAddr is the address that a connection comes from.
func RemoteAddr(c net.Conn) netip.AddrPort {
	if addr, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return netip.AddrPortFrom(addr.AddrPort().Addr().Unmap(), addr.AddrPort().Port())
	}
	return netip.AddrPort{}
}
