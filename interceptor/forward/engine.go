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

// Limits bound what clients may use of one interceptor. A field that is 0 has its default.
type Limits struct {
	// MaxConnections is how many connections one route may have open. Default 10000.
	MaxConnections int
	// MaxHeaderBytes is the maximum length of a request's first line and header together, including line ends and the empty line. An
	// HTTP/2 request is counted as in RFC 9113 (6.5.2): the names and values of its fields, plus 32 bytes for each field. Default 64
	// KiB.
	//
	// An answer's head may be as long as this or maxAnswerHead, whichever is longer.
	MaxHeaderBytes int
	// ReadHeaderTimeout is how long a client may take to send a request's head. For the first request it runs from the start of the
	// connection. Default 30 s.
	ReadHeaderTimeout time.Duration
	// IdleTimeout is how long a client's connection stays open without a request. It should be longer than the idle timeout of the
	// proxies before us (nginx: 60 s). Then the proxies close the connections, and no request meets a connection that we have just
	// closed. Default 5 min.
	IdleTimeout time.Duration
	// WriteTimeout is how long a client may read nothing of its answer before it is cut. A slow client that reads a little is not cut.
	// Default 1 min.
	WriteTimeout time.Duration
}

// maxAnswerHead is the maximum length of an answer's first line and header together, even if Limits allows clients less.
const maxAnswerHead = 256 << 10

func (l *Limits) answerHead() int { return max(maxAnswerHead, l.MaxHeaderBytes) }

// SetDefaults replaces zeros by the defaults.
func (l *Limits) SetDefaults() {
	l.MaxConnections = cmp.Or(l.MaxConnections, 10000)
	l.MaxHeaderBytes = cmp.Or(l.MaxHeaderBytes, 64<<10)
	l.ReadHeaderTimeout = cmp.Or(l.ReadHeaderTimeout, 30*time.Second)
	l.IdleTimeout = cmp.Or(l.IdleTimeout, 5*time.Minute)
	l.WriteTimeout = cmp.Or(l.WriteTimeout, time.Minute)
}

// DefaultPageGrace is the default of Options.PageGrace.
const DefaultPageGrace = time.Second

// Options configure an Engine.
type Options struct {
	Limits Limits
	// TrustedHops is how many proxies before this one are trusted to name their client: that many of the last entries of X-Forwarded-For
	// are passed on. With 0, no X-Forwarded field is passed on. headers.AllHops trusts all proxies; it is never a default.
	TrustedHops int
	// HideHeld omits from answers how long their requests were held.
	HideHeld bool
	// Pages makes the waiting page for browsers. Default none.
	Pages *page.Pages
	// PageGrace is how long browsers are held before they see the page. Default DefaultPageGrace.
	PageGrace time.Duration
	// DialTimeout is how long one attempt to connect to a pod may take. It is short because a pod may just have gone and its address may
	// swallow packets. The request then goes to another pod or is held. Default 1 s.
	DialTimeout time.Duration
	// MaxIdlePerPod bounds the idle connections that are kept open to one pod. Default 64.
	MaxIdlePerPod int
	// PodIdleTimeout is how long an idle connection to a pod is kept. Default 30 s.
	PodIdleTimeout time.Duration
	// Tick is how often timeouts are checked. Default 250 ms.
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

// Engine carries requests and connections to pods, for the Servers of all routes. One goroutine checks the timeouts of all of them.
// Close ends it.
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

// Close closes the idle connections to pods, and stops the goroutine that checks timeouts.
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

// look ends whatever has lasted too long, and starts to watch the clients of requests that are not answered at once.
func (e *Engine) look() {
	e.mu.Lock()
	servers := slices.Collect(maps.Keys(e.servers))
	e.mu.Unlock()
	for _, s := range servers {
		s.each((*watch).look)
	}
}
