// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"cmp"
	"errors"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// errStale is returned for a connection on which the other side has spoken or closed before a request went out on it.
var errStale = errors.New("the connection was closed or spoken on while it was idle")

// sock is a connection that is also read and written by its descriptor, for three things that net.TCPConn cannot do:
// waiting without a buffer, so that an idle connection has none; looking whether a connection is still good just before
// a request goes out on it, at no cost (see send); and seeing that the other side has gone although not all that it sent
// is read.
//
// One goroutine reads at a time, and one writes. Close may be called by any.
type sock struct {
	*net.TCPConn
	raw     syscall.RawConn
	buffers *buffers
	pipes   *pipes
	large   bool // which buffers to read with

	// readable is onReadable, made once so that reading allocates nothing. It uses the fields below.
	readable func(fd uintptr) bool
	step     step
	fresh    bool
	peek     [1]byte
	out      []byte  // still to be sent
	in       *buffer // what was read
	err      error

	// writable is onWritable. It uses the fields below.
	writable func(fd uintptr) bool
	// progress is called when the other side has taken some of what is written, but not all; it may be nil.
	progress func()
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

func (e *Engine) newSock(conn *net.TCPConn, large bool) (*sock, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &sock{TCPConn: conn, raw: raw, buffers: e.buffers, pipes: &e.pipes, large: large}
	s.readable, s.writable = s.onReadable, s.onWritable
	return s, nil
}

// await waits until there is something to read and only then takes a buffer for it. The error is io.EOF at the end.
func (s *sock) await() (*buffer, error) {
	s.step = stepReceive
	return s.run()
}

// send sends b once it is sure that the other side has neither closed nor said anything, and waits for the answer.
// With errStale it has, or the connection is closed, and nothing was sent. A fresh connection needs no such look.
//
// The look is the read with which a wait begins anyway: it sees what has come before it, and what comes later ends the
// wait. So it costs nothing.
func (s *sock) send(b []byte, fresh bool) (*buffer, error) {
	s.step, s.out, s.fresh = stepCheck, b, fresh
	if fresh {
		s.step = stepSend
	}
	in, err := s.run()
	switch {
	case err != nil && s.step == stepCheck:
		err = errStale
	case err == nil && s.step == stepBlocked:
		if _, err = s.Write(s.out); err == nil {
			in, err = s.await()
		}
	}
	s.out = nil
	return in, err
}

func (s *sock) run() (*buffer, error) {
	s.in, s.err = nil, nil
	err := s.raw.Read(s.readable)
	if err == nil {
		err = s.err
	}
	return s.in, err
}

// onReadable is called by raw.Read, at once and then each time that there may be something to read, until it returns
// true.
func (s *sock) onReadable(fd uintptr) bool {
	switch s.step {
	case stepCheck:
		if _, errno := read(fd, s.peek[:]); errno != syscall.EAGAIN {
			s.err = errStale
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

func (s *sock) receive(fd uintptr) bool {
	in := s.buffers.get(s.large)
	n, errno := read(fd, in.free())
	if n > 0 {
		in.end += n
		s.in = in
		return true
	}
	s.buffers.put(in)
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
func (s *sock) Write(b []byte) (int, error) {
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
func (s *sock) onWritable(fd uintptr) bool {
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
		if s.progress != nil {
			s.progress()
		}
	}
}

// tryRead adds to b what has come already, and returns how much. An error shows in the next read.
func (s *sock) tryRead(b *buffer) int {
	got := 0
	_ = s.raw.Read(func(fd uintptr) bool {
		got, _ = read(fd, b.free())
		return true
	})
	b.end += got
	return got
}

// awaitGone waits until the other side has gone, whether or not all that it sent is read. With half it is not gone as
// long as it has closed only its own direction, and may still read.
func (s *sock) awaitGone(half bool) error {
	var events int16 // POLLHUP and POLLERR are always told
	if !half {
		events = pollHalfClosed
	}
	return s.raw.Read(func(fd uintptr) bool {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}} //nolint:gosec // descriptors are small
		n, err := unix.Poll(fds[:], 0)
		return err == nil && n > 0
	})
}

// hasReset says that the other side has reset the connection, so that what it sent and is not read yet is lost.
func (s *sock) hasReset() (reset bool) {
	_ = s.raw.Control(func(fd uintptr) { // fails only on a closed connection
		fds := [1]unix.PollFd{{Fd: int32(fd)}} //nolint:gosec // descriptors are small
		n, err := unix.Poll(fds[:], 0)
		reset = err == nil && n > 0
	})
	return reset
}

// peekOne waits until there is something to read, and returns how many bytes of it a read of one would: 0 at the end.
func (s *sock) peekOne() (n int, _ error) {
	var failed error
	err := s.raw.Read(func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), s.peek[:], unix.MSG_PEEK)
		return !errors.Is(failed, syscall.EAGAIN)
	})
	return max(n, 0), cmp.Or(err, failed)
}

// hasSpoken says that there is something to read, other than the end.
func (s *sock) hasSpoken() bool {
	n, err := s.peekOne()
	return err == nil && n > 0
}
