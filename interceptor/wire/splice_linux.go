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
	// pipeSize is what a pipe between two connections holds: more saves system calls until it no longer fits the
	// processor's cache, and costs memory for each connection whose reader is slow.
	pipeSize = 256 << 10
	// bulkMin is how much must come at a time for moving it in the kernel to be cheaper than copying it.
	bulkMin = 16 << 10
)

// pipes lends the pipes through which the kernel moves bytes.
type pipes struct{ pool sync.Pool }

// pipe is empty while it is not lent.
type pipe struct {
	r, w int

	// For the callbacks, made once.
	fill, drain func(fd uintptr) bool
	want, n     int
	err         error

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
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize) // 64 KiB do as well, if that is all one may have
	made := &pipe{r: fds[0], w: fds[1]}
	made.fill, made.drain = made.onReadable, made.onWritable
	made.forgotten = runtime.AddCleanup(made, closePipe, fds) // a sync.Pool drops what it has without a word
	return made, nil
}

func (p *pipes) put(one *pipe) { p.pool.Put(one) }

func (p *pipe) close() {
	p.forgotten.Stop()
	closePipe([2]int{p.r, p.w})
}

func closePipe(fds [2]int) {
	_ = unix.Close(fds[0])
	_ = unix.Close(fds[1])
}

func (p *pipe) onReadable(fd uintptr) bool { return p.splice(int(fd), p.w) }

func (p *pipe) onWritable(fd uintptr) bool { return p.splice(p.r, int(fd)) }

func (p *pipe) splice(from, to int) bool {
	for {
		n, err := unix.Splice(from, nil, to, nil, p.want, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if !errors.Is(err, syscall.EINTR) || err == nil {
			p.n, p.err = int(n), err
			return !errors.Is(err, syscall.EAGAIN)
		}
	}
}

// moveBulk carries some of what b lets pass unseen, without it leaving the kernel.
func (f *Flow) moveBulk(b *Body) error {
	p, err := f.Src.buffers.pipes.get()
	if err != nil { // out of descriptors
		f.bulk = false
		return f.moveBuffer(b)
	}
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
		if err := cmp.Or(f.Dst.raw.Write(p.drain), p.err); err != nil {
			p.close() // something is left in it
			return WriteError{err}
		}
	}
	f.Src.buffers.pipes.put(p)
	b.skip(int64(came))
	return nil
}
