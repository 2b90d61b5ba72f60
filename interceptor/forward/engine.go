// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"cmp"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/page"
)

// Limits bound what clients may take of one interceptor. A field that is 0 has its default.
type Limits struct {
	// MaxConnections is how many connections one route may have open. Default 10000.
	MaxConnections int
	// MaxHeaderBytes is how long the first line and the header of a request may be together, with the line ends and the
	// empty line. A request of HTTP/2 is counted as RFC 9113 (6.5.2) does: the names and values of its fields, and 32 bytes
	// for each. Default 64 KiB.
	//
	// An answer's may be as long, or maxAnswerHead if that is longer.
	MaxHeaderBytes int
	// ReadHeaderTimeout is how long a client may take to send them, for its first request from when it has connected.
	// Default 30 s.
	ReadHeaderTimeout time.Duration
	// IdleTimeout is how long a client's connection is kept open without a request. It is to be longer than the proxies
	// before us keep theirs (nginx: 60 s), so that it is they who close them, and no request meets a connection that we
	// have just closed. Default 5 min.
	IdleTimeout time.Duration
	// WriteTimeout is how long a client may take nothing of its answer; a slow one that takes a little is not cut.
	// Default 1 min.
	WriteTimeout time.Duration
}

// maxAnswerHead is how long the first line and the header of an answer may be together, however little clients may send.
const maxAnswerHead = 256 << 10

func (l *Limits) answerHead() int { return max(maxAnswerHead, l.MaxHeaderBytes) }

// SetDefaults puts the defaults in the place of zeros.
func (l *Limits) SetDefaults() {
	l.MaxConnections = cmp.Or(l.MaxConnections, 10000)
	l.MaxHeaderBytes = cmp.Or(l.MaxHeaderBytes, 64<<10)
	l.ReadHeaderTimeout = cmp.Or(l.ReadHeaderTimeout, 30*time.Second)
	l.IdleTimeout = cmp.Or(l.IdleTimeout, 5*time.Minute)
	l.WriteTimeout = cmp.Or(l.WriteTimeout, time.Minute)
}

// AllHops is the Options.TrustedHops that believes everybody.
const AllHops = -1

// Options configure an Engine.
type Options struct {
	Limits Limits
	// TrustedHops is how many proxies before this one are believed about whom they speak for: that many of the last
	// entries of X-Forwarded-For are passed on. With 0 no X-Forwarded field is. AllHops, which has to be said, is
	// everybody.
	TrustedHops int
	// HideHeld leaves out of answers how long their requests were held.
	HideHeld bool
	// Pages makes the page that browsers are shown while they wait. Default none is shown.
	Pages *page.Pages
	// PageGrace is how long they wait before. Default 1 s.
	PageGrace time.Duration
	// DialTimeout is how long one attempt to reach a pod may take. It is short, since pods may just have gone away and
	// their addresses swallow packets; the request then goes to another pod or is held. Default 1 s.
	DialTimeout time.Duration
	// MaxIdlePerPod bounds the connections kept open to one pod without a request. Default 64.
	MaxIdlePerPod int
	// PodIdleTimeout is how long such a connection is kept. Default 30 s.
	PodIdleTimeout time.Duration
	// Tick is how often time-outs are looked after. Default 250 ms.
	Tick time.Duration
	Log  logr.Logger
}

func (o *Options) setDefaults() {
	o.Limits.SetDefaults()
	o.PageGrace = cmp.Or(o.PageGrace, time.Second)
	o.DialTimeout = cmp.Or(o.DialTimeout, time.Second)
	o.MaxIdlePerPod = cmp.Or(o.MaxIdlePerPod, 64)
	o.PodIdleTimeout = cmp.Or(o.PodIdleTimeout, 30*time.Second)
	o.Tick = cmp.Or(o.Tick, 250*time.Millisecond)
}

// Engine carries requests and connections to pods. One goroutine looks after the time-outs of all of them; it ends with
// Close.
type Engine struct {
	options Options
	dialer  net.Dialer
	buffers *buffers
	pipes   pipes
	http2   *http2

	base  time.Time
	clock atomic.Int64 // nanoseconds since base, as of the last tick
	done  chan struct{}
	ended chan struct{}

	mu    sync.Mutex // protects all below
	conns map[*conn]struct{}
	pools map[*pool]struct{}
}

// NewEngine returns an Engine.
func NewEngine(o Options) *Engine {
	o.setDefaults()
	e := &Engine{
		options: o, buffers: newBuffers(), base: time.Now(),
		dialer: net.Dialer{Timeout: o.DialTimeout, KeepAlive: 30 * time.Second},
		conns:  map[*conn]struct{}{}, pools: map[*pool]struct{}{},
		done: make(chan struct{}), ended: make(chan struct{}),
	}
	e.http2 = newHTTP2(o, &e.dialer)
	go e.tick()
	return e
}

// now is the engine's clock. It is up to Tick late, and reading it costs nothing.
func (e *Engine) now() time.Duration { return time.Duration(e.clock.Load()) }

// Close closes the connections to pods that no request uses and ends what looks after the others.
func (e *Engine) Close() {
	close(e.done)
	<-e.ended
	for _, p := range e.allPools() {
		p.expire(0)
	}
	e.http2.transport.CloseIdleConnections()
}

func (e *Engine) tick() {
	defer close(e.ended)
	ticker := time.NewTicker(e.options.Tick)
	defer ticker.Stop()
	for ticks := 0; ; ticks++ {
		select {
		case <-ticker.C:
		case <-e.done:
			return
		}
		e.clock.Store(int64(time.Since(e.base)))
		e.lookAfter()
		if ticks%8 == 0 {
			for _, p := range e.allPools() {
				p.expire(e.options.PodIdleTimeout)
			}
		}
	}
}

func (e *Engine) allPools() []*pool {
	e.mu.Lock()
	defer e.mu.Unlock()
	pools := make([]*pool, 0, len(e.pools))
	for p := range e.pools {
		pools = append(pools, p)
	}
	return pools
}

// lookAfter ends what has lasted too long, and watches the clients of requests that are not answered at once.
func (e *Engine) lookAfter() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		c.lookAfter()
	}
}

func (e *Engine) add(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conns[c] = struct{}{}
}

func (e *Engine) remove(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
}

// Group is the HTTP/1.1 connections of one route, which end together.
type Group struct {
	engine *Engine
	// base is done when what still runs is to be cut.
	base context.Context
	// draining says that no connection is to be used for another request.
	draining atomic.Bool
}

// NewGroup returns a Group whose requests stop waiting for a pod when ctx is done.
func (e *Engine) NewGroup(ctx context.Context) *Group { return &Group{engine: e, base: ctx} }

// Drain closes the connections without a request and lets the others end with the one that they have. One that has just
// been opened is given some time for its first request.
func (g *Group) Drain() {
	g.draining.Store(true)
	g.each((*conn).closeIdle)
}

// Cut ends the requests that are still under way. The context that the Group was made with is to be done before.
func (g *Group) Cut() { g.each((*conn).cut) }

func (g *Group) each(do func(*conn)) {
	g.engine.mu.Lock()
	defer g.engine.mu.Unlock()
	for c := range g.engine.conns {
		if c.group == g {
			do(c)
		}
	}
}
