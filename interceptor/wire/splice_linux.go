// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"cmp"
	"errors"
	"io"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is the capacity of a pipe between two connections. A larger pipe saves system calls until it no longer fits the
	// processor's cache, but costs memory for each connection with a slow reader.
	pipeSize = 256 << 10
	// bulkMin is how many bytes must arrive at a time before moving them in the kernel is cheaper than copying them.
	bulkMin = 16 << 10
)

// pipes lends pipes through which the kernel moves bytes.
type pipes struct{ pool sync.Pool }

// pipe is a pipe. It is empty while it is not lent.
type pipe struct {
	r, w int

	// For the callbacks, which are made once.
	fill, drain func(fd uintptr) bool
	want, n     int
	err         error
	to          *Sock // that drain writes to

	forgotten runtime.Cleanup
}

func (p *pipes) get() (*pipe, error) {
	if got, ok := p.pool.Get().(*pipe); ok {
		return got, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize) // if that is not allowed, the default of 64 KiB works as well
	made := &pipe{r: fds[0], w: fds[1]}
	made.fill, made.drain = made.onReadable, made.onWritable
	made.forgotten = runtime.AddCleanup(made, closePipe, fds) // a sync.Pool drops its content silently
	return made, nil
}

func (p *pipes) put(one *pipe) {
	one.to = nil
	p.pool.Put(one)
}

func (p *pipe) close() {
	p.forgotten.Stop()
	closePipe([2]int{p.r, p.w})
}

func closePipe(fds [2]int) {
	_ = unix.Close(fds[0])
	_ = unix.Close(fds[1])
}

func (p *pipe) onReadable(fd uintptr) bool { return p.splice(int(fd), p.w) }

func (p *pipe) onWritable(fd uintptr) bool {
	if p.splice(p.r, int(fd)) {
		return true
	}
	if p.to.block() {
		return false
	}
	p.err = syscall.ENOBUFS
	return true
}

func (p *pipe) splice(from, to int) bool {
	for {
		n, err := unix.Splice(from, nil, to, nil, p.want, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if !errors.Is(err, syscall.EINTR) || err == nil {
			p.n, p.err = int(n), err
			return !errors.Is(err, syscall.EAGAIN)
		}
	}
}

// maxUnsent is how many bytes may wait in the kernel until the other side has room for them. Without a bound, the kernel's buffer for
// a fast connection grows to some MiB, which the process pays for once the other side reads slowly.
const maxUnsent = 256 << 10

// boundUnsent sets maxUnsent, once. Failing does no harm.
func (s *Sock) boundUnsent() {
	if !s.bounded {
		s.bounded = true
		_ = s.raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent) })
	}
}

// moveBulk carries some of the bytes that need not be looked at. They stay in the kernel.
func (f *Flow) moveBulk(b *Body) error {
	p, err := f.Src.buffers.pipes.get()
	if err != nil { // there are no descriptors left
		f.bulk = false
		return f.moveBuffer(b)
	}
	f.Dst.boundUnsent()
	p.to = f.Dst
	p.want = pipeSize
	if raw := b.raw(); raw != UntilEnd {
		p.want = int(min(raw, pipeSize))
	}
	f.Waits.Reading()
	if err := cmp.Or(f.Src.raw.Read(p.fill), p.err); err != nil {
		f.Src.buffers.pipes.put(p)
		return ReadError{err}
	}
	if p.n == 0 {
		f.Src.buffers.pipes.put(p)
		return ReadError{io.EOF}
	}
	came := p.n
	f.bulk = came >= bulkMin
	for p.want = came; p.want > 0; p.want -= p.n {
		f.Waits.Writing()
		err := cmp.Or(f.Dst.raw.Write(p.drain), p.err)
		f.Dst.unblock()
		if err != nil {
			p.close() // the pipe is not empty
			return WriteError{err}
		}
	}
	f.Src.buffers.pipes.put(p)
	b.skip(int64(came))
	return nil
}
