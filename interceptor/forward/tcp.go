package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// maxEarly bounds what is read of a connection before it has a pod.
const maxEarly = 4 << 10

// probeGrace is how long a connection to a workload that sleeps may take to prove that it is no probe, by not being
// closed at once. The injector connects to every route before it publishes it, and so do load balancers.
const probeGrace = 100 * time.Millisecond

// TCPOptions configure a TCP.
type TCPOptions struct {
	DialTimeout time.Duration // default 1 s
}

// TCP carries connections byte by byte.
type TCP struct {
	dialer  net.Dialer
	buffers *bufferPool
}

// NewTCP returns a TCP.
func NewTCP(o TCPOptions) *TCP {
	return &TCP{
		dialer:  net.Dialer{Timeout: cmp.Or(o.DialTimeout, time.Second), KeepAlive: 30 * time.Second},
		buffers: newBufferPool(),
	}
}

// Serve carries conn to a pod of r and returns when both sides have ended or ctx has. It closes conn. Peeked is what was
// read of it already.
//
// A connection is a pending request until it has a pod. From then on only bytes count, since a pool of idle connections
// must not keep an app up for ever.
func (t *TCP) Serve(ctx context.Context, conn *net.TCPConn, peeked []byte, r *route.Route) error {
	defer closeAll(conn)
	pod, upstream, early, err := t.connect(ctx, conn, peeked, r)
	if err != nil {
		return err
	}
	defer pod.Done()
	defer closeAll(upstream)

	stop := context.AfterFunc(ctx, func() { closeAll(conn, upstream) })
	defer stop()
	target := r.Target()
	up := make(chan error, 1)
	go func() { up <- t.copyHalf(upstream, conn, early, target) }()
	down := t.copyHalf(conn, upstream, nil, target)
	return errors.Join(down, <-up)
}

// connect counts, waits for a pod and dials it. It returns what the client has sent meanwhile.
func (t *TCP) connect(ctx context.Context, conn *net.TCPConn, peeked []byte, r *route.Route) (
	_ *route.Endpoint, _ *net.TCPConn, early []byte, _ error,
) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	early = peeked
	if !r.HasEndpoint() {
		w := watch(conn, early, cancel)
		defer func() { early = w.stop() }()
		if len(peeked) == 0 && w.closedWithin(probeGrace) {
			return nil, nil, nil, ErrNoBytes
		}
	}
	release := r.Target().Begin()
	defer release()
	visit := route.Visit{Remote: conn.RemoteAddr().String()}
	for {
		pod, err := r.Pick(ctx, &visit)
		if err != nil {
			return nil, nil, nil, err
		}
		upstream, err := t.dialer.DialContext(ctx, "tcp", pod.Addr)
		if err == nil {
			pod.Succeed()
			return pod, upstream.(*net.TCPConn), early, nil
		}
		pod.Done()
		if ctx.Err() != nil {
			return nil, nil, nil, fmt.Errorf("dialing a pod: %w", err)
		}
		pod.Fail()
	}
}

// copyHalf copies one direction to its end and passes the end on, while the other direction goes on. When it fails both
// sides are closed.
func (t *TCP) copyHalf(dst, src *net.TCPConn, first []byte, target *route.Target) error {
	_, err := dst.Write(first)
	if err == nil {
		err = t.copy(dst, src, target)
	}
	if err != nil {
		closeAll(dst, src)
		return err
	}
	return dst.CloseWrite()
}

// closeAll closes connections that are over, whatever that says.
func closeAll(conns ...*net.TCPConn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// copy is io.Copy that tells the target of bytes, at most once a second. A splice in the kernel would not let us see
// them.
func (t *TCP) copy(dst, src *net.TCPConn, target *route.Target) error {
	wait, err := newReadable(src)
	if err != nil {
		return err
	}
	var touched time.Time
	for {
		if err := wait(); err != nil {
			return err
		}
		n, err := t.copyOnce(dst, src)
		if n > 0 {
			if now := time.Now(); now.Sub(touched) >= time.Second {
				touched = now
				target.Touch()
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// copyOnce copies what one read brings.
func (t *TCP) copyOnce(dst io.Writer, src io.Reader) (int, error) {
	buf := t.buffers.Get()
	defer t.buffers.Put(buf)
	n, err := src.Read(buf)
	if n > 0 {
		if _, err := dst.Write(buf[:n]); err != nil {
			return n, err
		}
	}
	return n, err
}

// clientWatch reads what a client sends while it is held, so that its going away is seen and frees its place. After
// maxEarly bytes it stops reading, and no longer sees that.
type clientWatch struct {
	conn  *net.TCPConn
	gone  func()
	spoke chan struct{} // closed at the client's first byte
	done  chan struct{} // closed when the reading has ended
	once  sync.Once
	buf   []byte // written by the reading goroutine until done
	eof   bool   // so too: the client closed without a byte
}

// watch begins to read. Gone is called when the client goes away.
func watch(conn *net.TCPConn, peeked []byte, gone func()) *clientWatch {
	w := &clientWatch{conn: conn, gone: gone, spoke: make(chan struct{}), done: make(chan struct{}), buf: peeked}
	go w.read()
	return w
}

func (w *clientWatch) read() {
	defer close(w.done)
	buf := make([]byte, maxEarly)
	for len(w.buf) < maxEarly {
		n, err := w.conn.Read(buf[:maxEarly-len(w.buf)])
		if n > 0 && len(w.buf) == 0 {
			close(w.spoke)
		}
		w.buf = append(w.buf, buf[:n]...)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		case errors.Is(err, io.EOF) && len(w.buf) > 0:
			return // it has said all it wants to say and waits for the answer
		default:
			w.eof = true
			w.gone()
			return
		}
	}
}

// closedWithin reports whether the client closes the connection within d without having sent anything.
func (w *clientWatch) closedWithin(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-w.spoke:
		return false
	case <-w.done:
		return w.eof
	case <-timer.C:
		return false
	}
}

// stop ends the reading and returns what was read.
func (w *clientWatch) stop() []byte {
	w.once.Do(func() {
		_ = w.conn.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection, whose read ends by itself
		<-w.done
		_ = w.conn.SetReadDeadline(time.Time{})
	})
	return w.buf
}
