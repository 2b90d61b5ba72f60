// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/budget"
)

// phase says what a client's connection waits for.
type phase uint64

const (
	// phaseNew waits for the first request.
	phaseNew phase = iota
	// phaseIdle waits for a further request.
	phaseIdle
	// phaseHead waits for the rest of a request's head, or for the rest of a body whose answer is complete.
	phaseHead
	// phaseAnswer waits for the pod.
	phaseAnswer
	// phaseUpload waits for the pod too, while another goroutine reads from the client.
	phaseUpload
	// phaseWrite waits for the client to take some of its answer.
	phaseWrite
	// phaseHeld waits for a pod, or for a connection to one.
	phaseHeld
	// phaseTunnel carries the bytes of an upgraded connection.
	phaseTunnel
	// phaseClosed means that the connection was closed while idle.
	phaseClosed

	phaseBits = 4
	phaseMask = 1<<phaseBits - 1
	// watchedBit is set while a goroutine watches whether the client is still there.
	watchedBit = 1 << phaseBits
	timeShift  = phaseBits + 1
)

// state holds a phase, its start, and whether the client is watched, in one word. The goroutine that serves the connection writes it
// several times for each request, and the engine's goroutine reads it now and then.
type state uint64

func newState(p phase, since time.Duration, watched state) state {
	return state(p) | watched&watchedBit | state(since/time.Millisecond)<<timeShift //nolint:gosec // never negative
}

func (s state) phase() phase { return phase(s & phaseMask) }

func (s state) watched() bool { return s&watchedBit != 0 }

func (s state) since() time.Duration { return time.Duration(s>>timeShift) * time.Millisecond }

const (
	// newGrace is how long a new connection may take for its first request while the server drains.
	newGrace = 2 * time.Second
	// halfClosedGrace is how long a client that has closed its direction after its last request may wait for the answer, before we test
	// whether it is still there.
	halfClosedGrace = time.Second
	// cutGrace is how long a client that is cut may take to read the reason.
	cutGrace = time.Second
)

// watched is what a watch needs of a client's connection. *wire.Sock implements it.
type watched interface {
	io.WriteCloser
	SetDeadline(time.Time) error
	AwaitGone(half bool) error
	HasReset() bool
	Interrupt()
	InterruptUntil(<-chan struct{})
}

// watch knows what a client's connection waits for, and since when. The goroutine that serves the connection enters one phase after
// the other. The engine's goroutine checks the phase at each tick. It closes the connection if a phase takes too long. If an answer
// takes longer, it has the client watched, so that the request ends when the client goes away. A watch knows nothing about requests.
type watch struct {
	client   watched
	clock    *atomic.Int64 // the engine's clock
	options  *Options
	draining *atomic.Bool // of the server
	log      func() logr.Logger
	memory   *budget.Account // pays for watchFrom

	state atomic.Uint64           // a state
	up    atomic.Pointer[podConn] // the connection to the pod that serves the request
	gone  atomic.Bool             // the client went away while it was watched
	begun atomic.Bool             // part of the answer, or of an informational answer, has been written
	// exhausted is set once the request was given up because the route may not have more memory.
	exhausted atomic.Bool

	// last is set if the client sends no further request, and informs if it understands informational answers. Both are written before
	// the client is watched.
	last, informs bool

	mu         sync.Mutex // protects all below
	stop, done chan struct{}
	paid       bool // memory has paid for the watch
}

func (w *watch) now() time.Duration { return time.Duration(w.clock.Load()) }

// request notes that another request begins.
func (w *watch) request(last, informs bool) {
	w.last, w.informs = last, informs
	w.begun.Store(false)
	w.exhausted.Store(false)
}

// phase returns what the connection waits for.
func (w *watch) phase() phase { return state(w.state.Load()).phase() }

// enter begins a phase. It returns false if the connection has been closed as idle.
func (w *watch) enter(p phase) bool {
	for {
		old := w.state.Load()
		if state(old).phase() == phaseClosed {
			return false
		}
		if w.state.CompareAndSwap(old, uint64(newState(p, w.now(), state(old)))) {
			return true
		}
	}
}

// advance begins phase to if the connection is in phase from.
func (w *watch) advance(from, to phase) {
	if s := state(w.state.Load()); s.phase() == from {
		w.state.CompareAndSwap(uint64(s), uint64(newState(to, w.now(), s)))
	}
}

// look checks the connection. The engine calls it at each tick.
func (w *watch) look() {
	s := state(w.state.Load())
	age := w.now() - s.since()
	limits := &w.options.Limits
	switch s.phase() {
	case phaseNew:
		if age >= limits.ReadHeaderTimeout || w.draining.Load() && age >= newGrace {
			w.closeInstead(s)
		}
	case phaseIdle:
		if age >= limits.IdleTimeout {
			w.closeInstead(s)
		}
	case phaseHead:
		if age >= limits.ReadHeaderTimeout {
			_ = w.client.Close()
		}
	case phaseWrite:
		if age >= limits.WriteTimeout {
			_ = w.client.Close()
		}
	case phaseAnswer:
		if age >= w.options.Tick && !s.watched() {
			w.watchFrom(s)
		}
	case phaseUpload:
		// The upload may be waiting for the app to take the bytes that it has read from the client.
		if age >= w.options.Tick && w.client.HasReset() {
			w.abandon()
		}
	default:
	}
}

// closeInstead closes the connection if it still waits for a request.
func (w *watch) closeInstead(s state) {
	if w.state.CompareAndSwap(uint64(s), uint64(newState(phaseClosed, 0, s))) {
		_ = w.client.Close()
	}
}

// closeIdle closes the connection if it is idle.
func (w *watch) closeIdle() {
	if s := state(w.state.Load()); s.phase() == phaseIdle {
		w.closeInstead(s)
	}
}

// cut ends the present request: it closes the pod's connection, and the client gets a moment to read the result.
func (w *watch) cut() {
	w.closeUp()
	_ = w.client.SetDeadline(time.Now().Add(cutGrace)) // it fails only if the connection is closed
}

// abandon gives up the request because the client has gone.
func (w *watch) abandon() {
	w.gone.Store(true)
	w.closeUp()
}

func (w *watch) closeUp() {
	if up := w.up.Load(); up != nil {
		_ = up.Close()
	}
}

// watchFrom starts to watch the client if the connection is still in state s. If there is no memory for that, it gives up the request:
// a request whose answer takes long needs more than others.
func (w *watch) watchFrom(s state) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.memory.Take(slowCost) {
		w.exhausted.Store(true)
		w.closeUp()
		return
	}
	w.paid = w.state.CompareAndSwap(uint64(s), uint64(s|watchedBit))
	if !w.paid {
		w.memory.Give(slowCost)
		return
	}
	w.start(w.abandon)
}

// watchNow starts to watch the client, and calls gone when the client has gone.
func (w *watch) watchNow(gone func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		old := w.state.Load()
		if w.state.CompareAndSwap(old, old|watchedBit) {
			break
		}
	}
	w.start(gone)
}

func (w *watch) start(gone func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	w.stop, w.done = stop, done
	go func() {
		defer close(done)
		defer rescue(w.log, func() {})
		if w.hasGone(stop) {
			gone()
		}
	}()
}

// hasGone waits until the client has gone, or until the watch has to end.
//
// A client that closes its direction counts as gone, because browsers and proxies go that way. A client that has said that this is
// its last request may still wait for the answer, though. TCP shows the difference only when something is sent: a client that has
// gone resets the connection. So, unless the answer comes soon, such a client gets an informational answer, which every HTTP/1.1
// client has to skip (RFC 9110, 15.2).
func (w *watch) hasGone(stop <-chan struct{}) bool {
	if w.client.AwaitGone(false) != nil {
		return false
	}
	if !w.last {
		return true
	}
	if !w.begun.Load() && w.informs {
		select {
		case <-stop:
			return false
		case <-time.After(halfClosedGrace):
		}
		_, _ = w.client.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n")) // hasGone waits for the error that this may cause
	}
	return w.client.AwaitGone(true) == nil
}

// unwatch ends the watch, so that the client can be read again, and returns when the watch has ended. It also leaves phaseAnswer;
// otherwise the engine could begin a new watch right away.
func (w *watch) unwatch() {
	var old state
	for {
		old = state(w.state.Load())
		if p := old.phase(); p == phaseClosed || p != phaseAnswer && !old.watched() {
			return
		}
		if w.state.CompareAndSwap(uint64(old), uint64(newState(phaseHeld, w.now(), 0))) {
			break
		}
	}
	if !old.watched() {
		return
	}
	w.mu.Lock()
	stop, done := w.stop, w.done
	if w.paid {
		w.paid = false
		w.memory.Give(slowCost)
	}
	w.mu.Unlock()
	close(stop)
	w.client.InterruptUntil(done)
}
