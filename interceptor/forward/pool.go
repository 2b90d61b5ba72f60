// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// hotFor is how recently a connection must have carried an answer to take a request that must not be sent twice. Servers close idle
// connections (gunicorn, the fastest known, after 2 s), and a request that meets the close may have been read. Under load no
// connection is idle for that long, so such requests share connections too.
const hotFor = time.Second

// maxDials is how many connections to one pod are opened at a time. When an app wakes, all held requests come at once, and the pod's
// accept queue may be short (often 128).
const maxDials = 64

// errUnreachable is returned for a pod that another request has just failed to reach.
var errUnreachable = errors.New("the pod could not be reached a moment ago")

// podConn is a connection to a pod.
type podConn struct {
	*wire.Sock
	pool *pool
	// reused is set once the connection has carried a request.
	reused bool
	// single is set if the connection carries only one request, because it began with a PROXY header.
	single bool
	// sent counts the bytes of earlier requests, which were all answered.
	sent int64
	idle time.Duration // since when the connection is idle, by the engine's clock
}

// deliverable reports whether the app may have received any bytes that were sent since the last answer.
func (p *podConn) deliverable() bool {
	n, known := p.Delivered()
	return !known || n > p.sent
}

// pool keeps the idle connections to one pod. It is a route.Endpoint's Pool.
type pool struct {
	engine *Engine
	addr   string
	dials  chan struct{} // holds one element for each connection that is being opened

	mu     sync.Mutex // protects all below
	idle   []*podConn // the most recently used is at the end
	closed bool
}

// NewPool returns the pool for the pod at addr. Its Close closes the idle connections at once, and the others as soon as they become
// idle.
func (e *Engine) NewPool(addr string) io.Closer {
	p := &pool{engine: e, addr: addr, dials: make(chan struct{}, maxDials)}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pools[p] = struct{}{}
	return p
}

// get returns the most recently used idle connection, if it was used within maxIdle.
func (p *pool) get(maxIdle time.Duration) *podConn {
	if maxIdle == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	c := p.idle[n-1]
	if maxIdle < p.engine.options.PodIdleTimeout && p.engine.now()-c.idle > maxIdle {
		return nil
	}
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	return c
}

// put takes back a connection whose request has been answered completely. If there are too many, it drops the one that has been idle
// longest.
func (p *pool) put(c *podConn, sent int) {
	c.reused = true
	c.sent += int64(sent)
	c.idle = p.engine.now()
	p.mu.Lock()
	surplus := c
	if !p.closed {
		surplus = nil
		if len(p.idle) >= p.engine.options.MaxIdlePerPod {
			surplus = p.idle[0]
			p.idle = p.idle[:copy(p.idle, p.idle[1:])]
		}
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	if surplus != nil {
		_ = surplus.Close()
	}
}

// connect returns a connection to pod: an idle one that was used within maxIdle, or else a new one. With maxIdle 0 it always dials.
// An error means that pod could not be reached; connect has noted that at pod.
func connect(ctx context.Context, pod *route.Endpoint, maxIdle time.Duration) (*podConn, error) {
	p, ok := pod.Pool.(*pool)
	if !ok {
		panic("forward: the table was made without the engine's NewPool")
	}
	if c := p.get(maxIdle); c != nil {
		pod.Succeed()
		return c, nil
	}
	failures := pod.Failures()
	select {
	case p.dials <- struct{}{}:
		defer func() { <-p.dials }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if pod.Failures() > failures {
		return nil, errUnreachable // one request has found out; the others need not try
	}
	if c := p.get(maxIdle); c != nil { // another request was answered meanwhile
		pod.Succeed()
		return c, nil
	}
	c, err := p.dial(ctx)
	if err != nil {
		if ctx.Err() != nil {
			pod.Fail()
		} else {
			pod.Unreachable(err)
		}
		return nil, err
	}
	pod.Succeed()
	return c, nil
}

func (p *pool) dial(ctx context.Context) (*podConn, error) {
	conn, err := p.engine.dialer.DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return nil, err
	}
	s, err := wire.NewSock(conn.(*net.TCPConn), p.engine.buffers, true)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &podConn{Sock: s, pool: p}, nil
}

// Close implements io.Closer.
func (p *pool) Close() error {
	p.engine.mu.Lock()
	delete(p.engine.pools, p)
	p.engine.mu.Unlock()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.expire(0)
	return nil
}

// expire closes connections that have been idle for longer than the limit.
func (p *pool) expire(limit time.Duration) {
	p.mu.Lock()
	old := 0
	for old < len(p.idle) && (limit == 0 || p.engine.now()-p.idle[old].idle > limit) {
		old++
	}
	expired := p.idle[:old:old]
	p.idle = append([]*podConn(nil), p.idle[old:]...)
	p.mu.Unlock()
	for _, c := range expired {
		_ = c.Close()
	}
}
