// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/answers"
	"github.com/scale-to-zero/scale-to-zero/interceptor/page"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
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
	// WriteTimeout is after how long without reading any of its answer a client is cut; a slow one that reads a little is not.
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

// DefaultPageGrace is Options.PageGrace where nothing else is said.
const DefaultPageGrace = time.Second

// Options configure an Engine.
type Options struct {
	Limits Limits
	// TrustedHops is how many proxies before this one are believed about whom they speak for: that many of the last
	// entries of X-Forwarded-For are passed on. With 0 no X-Forwarded field is. headers.AllHops, which has to be
	// said, believes all.
	TrustedHops int
	// HideHeld leaves out of answers how long their requests were held.
	HideHeld bool
	// Pages makes the page that browsers are shown while they wait. Default none is shown.
	Pages *page.Pages
	// PageGrace is how long they wait before. Default DefaultPageGrace.
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
	o.PageGrace = cmp.Or(o.PageGrace, DefaultPageGrace)
	o.DialTimeout = cmp.Or(o.DialTimeout, time.Second)
	o.MaxIdlePerPod = cmp.Or(o.MaxIdlePerPod, 64)
	o.PodIdleTimeout = cmp.Or(o.PodIdleTimeout, 30*time.Second)
	o.Tick = cmp.Or(o.Tick, 250*time.Millisecond)
}

// Engine carries requests and connections to pods, for the Servers of all routes. One goroutine looks after the time-outs of all
// of them; it ends with Close.
type Engine struct {
	options Options
	answers answers.Maker
	dialer  net.Dialer
	buffers *wire.Buffers
	http2   *http2

	base  time.Time
	clock atomic.Int64 // nanoseconds since base, as of the last tick
	done  chan struct{}
	ended chan struct{}

	mu      sync.Mutex // protects all below
	servers map[*Server]struct{}
	pools   map[*pool]struct{}
}

// NewEngine returns an Engine.
func NewEngine(o Options) *Engine {
	o.setDefaults()
	e := &Engine{
		options: o, answers: answers.Maker{Pages: o.Pages, HideHeld: o.HideHeld}, buffers: wire.NewBuffers(), base: time.Now(),
		dialer:  net.Dialer{Timeout: o.DialTimeout, KeepAlive: 30 * time.Second},
		servers: map[*Server]struct{}{}, pools: map[*pool]struct{}{},
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
		e.look()
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
	return slices.Collect(maps.Keys(e.pools))
}

// look ends what has lasted too long, and has the clients of requests watched that are not answered at once.
func (e *Engine) look() {
	e.mu.Lock()
	servers := slices.Collect(maps.Keys(e.servers))
	e.mu.Unlock()
	for _, s := range servers {
		s.each((*watch).look)
	}
}
