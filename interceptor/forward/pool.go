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

// hotFor is how long after its last answer a connection may take a request that must not be sent twice. Servers close
// idle connections, the hastiest that is known (gunicorn) after 2 s, and a request that meets the close may have been
// read. Under load a connection is never idle for that long, so that such requests share connections too.
const hotFor = time.Second

// maxDials is how many connections to one pod are opened at a time. When an app wakes, all that were held come at once,
// and the queue in which connections wait to be accepted may be short (128 is a usual length).
const maxDials = 64

// errUnreachable is returned for a pod that another request has failed to reach.
var errUnreachable = errors.New("the pod could not be reached a moment ago")

// podConn is a connection to a pod.
type podConn struct {
	*wire.Sock
	pool *pool
	// reused says that it has carried a request before.
	reused bool
	// single says that it carries one request: it began with a PROXY header.
	single bool
	// sent counts the bytes of the requests before the present one, all of which were answered.
	sent int64
	idle time.Duration // since when it is idle, by the engine's clock
}

// deliverable returns whether any of what was sent since the last answer may have reached the app.
func (p *podConn) deliverable() bool {
	n, known := p.Delivered()
	return !known || n > p.sent
}

// pool keeps the connections to one pod that no request uses. It is a route.Endpoint's Pool.
type pool struct {
	engine *Engine
	addr   string
	dials  chan struct{} // has an element for each connection that is being opened

	mu     sync.Mutex // protects all below
	idle   []*podConn // the one that was used last is at the end
	closed bool
}

// NewPool returns the pool for the pod at addr. Its Close closes the connections that are idle now, and those in use
// when they become so.
func (e *Engine) NewPool(addr string) io.Closer {
	p := &pool{engine: e, addr: addr, dials: make(chan struct{}, maxDials)}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pools[p] = struct{}{}
	return p
}

// get returns the idle connection that was used last, if that was no longer ago than maxIdle.
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

// put takes back a connection whose request has been answered to the end, in the place of the one that has been idle
// longest if there are too many.
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

// connect returns a connection to pod: an idle one that was used no longer ago than maxIdle, otherwise a new one; maxIdle 0
// always dials. The error says that pod could not be reached, which the pod knows by then.
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
		return nil, errUnreachable // one request has found out; not all have to
	}
	if c := p.get(maxIdle); c != nil { // a request has been answered
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
