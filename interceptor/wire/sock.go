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

	"github.com/scale-to-zero/scale-to-zero/interceptor/budget"
)

// ErrStale is returned for a connection on which the other side spoke, or which it closed, before a request was sent.
var ErrStale = errors.New("the connection was closed or spoken on while it was idle")

// Sock is a connection that is also read and written through its descriptor. This allows three things that net.TCPConn cannot do. It
// waits without a buffer, so an idle connection has none. Just before it sends a request, it checks at no cost whether the connection
// is still good (see Send). And it notices that the other side has gone even if not everything that it sent has been read.
//
// Only one goroutine at a time may read, and only one may write. Any goroutine may call Close.
type Sock struct {
	*net.TCPConn
	raw     syscall.RawConn
	buffers *Buffers
	// Large says which buffers to use for reading.
	Large bool

	// readable is onReadable. It is made once, so that reading allocates nothing. It uses the fields below.
	readable func(fd uintptr) bool
	step     step
	fresh    bool
	peek     [1]byte
	out      []byte  // bytes still to be sent
	in       *Buffer // bytes that were read
	err      error

	// writable is onWritable. It uses the fields below.
	writable func(fd uintptr) bool
	// Progress is called when the other side has taken some of the bytes being written, but not all. It may be nil.
	Progress func()
	toWrite  []byte
	writeErr syscall.Errno

	// Memory pays for bytes that the other side does not take at once; nil is nobody. A write that it refuses fails with ENOBUFS.
	Memory  *budget.Account
	blocked bool // Memory has paid
	bounded bool // see boundUnsent
}

// blockedCost is the memory of a write that waits: a large buffer, or a pipe, and as much in the kernel.
const blockedCost = 2 * LargeBuffer

// step is the next step of onReadable.
type step uint8

const (
	stepCheck   step = iota // check that nothing has arrived, not even the end
	stepSend                // send out
	stepBlocked             // out could not be sent all at once
	stepReceive             // read
)

// NewSock returns a Sock for conn. It borrows its buffers from buffers.
func NewSock(conn *net.TCPConn, buffers *Buffers, large bool) (*Sock, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Sock{TCPConn: conn, raw: raw, buffers: buffers, Large: large}
	s.readable, s.writable = s.onReadable, s.onWritable
	return s, nil
}

// Await waits until there is something to read, and only then borrows a buffer. The error is io.EOF at the end.
func (s *Sock) Await() (*Buffer, error) {
	s.step = stepReceive
	return s.run()
}

// Send sends b if the other side has neither closed the connection nor spoken, and waits for the answer. Otherwise, or if the
// connection is closed here, it sends nothing and returns ErrStale. A fresh connection is not checked.
//
// The check is the read with which a wait begins anyway. It sees what arrived earlier, and what arrives later ends the wait. So it
// costs nothing.
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

// onReadable is a callback of raw.Read, which calls it at once and then whenever there may be something to read, until it returns
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
		// A fresh connection has not been checked yet. If the other side has spoken first, that does not end the wait, so read now.
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
	s.unblock()
	if err == nil && s.writeErr != 0 {
		err = s.writeErr
	}
	return n, err
}

// onWritable is a callback of raw.Write, which calls it at once and then whenever there may be room, until it returns true.
func (s *Sock) onWritable(fd uintptr) bool {
	for {
		n, errno := write(fd, s.toWrite)
		if errno == syscall.EAGAIN && s.block() {
			return false
		}
		if errno == syscall.EAGAIN {
			errno = syscall.ENOBUFS
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

// block notes that a write has to wait. It returns false if there is no memory for that.
func (s *Sock) block() bool {
	if s.Memory == nil || s.blocked {
		return true
	}
	s.blocked = s.Memory.Take(blockedCost)
	return s.blocked
}

// unblock notes that the write is over.
func (s *Sock) unblock() {
	if s.blocked {
		s.blocked = false
		s.Memory.Give(blockedCost)
	}
}

// TryRead adds the bytes that have already arrived to b, and returns their number. An error shows at the next read.
func (s *Sock) TryRead(b *Buffer) int {
	got := 0
	_ = s.raw.Read(func(fd uintptr) bool {
		got, _ = read(fd, b.Free())
		return true
	})
	b.end += got
	return got
}

// AwaitGone waits until the other side has gone, even if not everything that it sent has been read. If half is set, a side that has
// closed only its own direction has not gone, since it may still read.
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

// HasReset reports whether the other side has reset the connection. Unread bytes from it are then lost.
func (s *Sock) HasReset() (reset bool) {
	_ = s.raw.Control(func(fd uintptr) { // it fails only on a closed connection
		fds := [1]unix.PollFd{{Fd: int32(fd)}} //nolint:gosec // descriptors are small
		n, err := unix.Poll(fds[:], 0)
		reset = err == nil && n > 0
	})
	return reset
}

// PeekOne waits until there is something to read. It returns how many bytes a read of one byte would return: 0 at the end.
func (s *Sock) PeekOne() (n int, _ error) {
	var failed error
	err := s.raw.Read(func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), s.peek[:], unix.MSG_PEEK)
		return !errors.Is(failed, syscall.EAGAIN)
	})
	return max(n, 0), cmp.Or(err, failed)
}

// HasSpoken waits until there is something to read, and reports whether it is not just the end.
func (s *Sock) HasSpoken() bool {
	n, err := s.PeekOne()
	return err == nil && n > 0
}

// HasSpokenNow reports whether there is something to read now that is not just the end.
func (s *Sock) HasSpokenNow() (spoken bool) {
	_ = s.raw.Control(func(fd uintptr) { // it fails only on a closed connection
		n, _, err := unix.Recvfrom(int(fd), s.peek[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		spoken = err == nil && n > 0
	})
	return spoken
}

// Interrupt ends running reads, and later ones until Resume. Both fail only on a closed connection, whose reads end by themselves.
func (s *Sock) Interrupt() { _ = s.SetReadDeadline(time.Unix(1, 0)) }

// Resume lets reads wait again.
func (s *Sock) Resume() { _ = s.SetReadDeadline(time.Time{}) }

// InterruptUntil ends running reads and waits until done is closed, which the reader has to do when it notices. Then reads can wait
// again.
func (s *Sock) InterruptUntil(done <-chan struct{}) {
	s.Interrupt()
	<-done
	s.Resume()
}

// ClosedWithin reports whether the other side closes the connection within d without sending anything.
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

// BrokenOff reports whether err means that the other side closed or reset the connection, and not that it sent something wrong.
func BrokenOff(err error) bool {
	var op *net.OpError
	var errno syscall.Errno
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) || errors.As(err, &errno)
}

// RemoteAddr returns the address from which a connection comes.
func RemoteAddr(c net.Conn) netip.AddrPort {
	if addr, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return netip.AddrPortFrom(addr.AddrPort().Addr().Unmap(), addr.AddrPort().Port())
	}
	return netip.AddrPort{}
}
