// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import "time"

// phase is what a client's connection waits for.
type phase uint64

const (
	// phaseNew waits for the first request.
	phaseNew phase = iota
	// phaseIdle waits for another one.
	phaseIdle
	// phaseHead waits for the rest of a request's head, or of a body whose answer is complete.
	phaseHead
	// phaseAnswer waits for the pod.
	phaseAnswer
	// phaseUpload waits for the pod too, while another goroutine reads the client.
	phaseUpload
	// phaseWrite waits for the client to take some of its answer.
	phaseWrite
	// phaseHeld waits for there to be a pod, or for a connection to one.
	phaseHeld
	// phaseTunnel carries the bytes of an upgraded connection.
	phaseTunnel
	// phaseClosed was closed while it was idle.
	phaseClosed

	phaseBits = 4
	phaseMask = 1<<phaseBits - 1
	// watchedBit says that a goroutine looks whether the client is still there.
	watchedBit = 1 << phaseBits
	timeShift  = phaseBits + 1
)

// state is a phase, since when it lasts, and whether the client is watched, in one word: the goroutine that serves the
// connection writes it several times for each request, and the engine's reads it now and then.
type state uint64

func newState(p phase, since time.Duration, watched state) state {
	return state(p) | watched&watchedBit | state(since/time.Millisecond)<<timeShift //nolint:gosec // never negative
}

func (s state) phase() phase { return phase(s & phaseMask) }

func (s state) watched() bool { return s&watchedBit != 0 }

func (s state) since() time.Duration { return time.Duration(s>>timeShift) * time.Millisecond }

// newGrace is how long a connection that has just been opened may take for its first request while the group drains.
const newGrace = 2 * time.Second

// halfClosedGrace is how long a client that has ended its direction with its last request may wait for the answer before
// it is asked whether it is there.
const halfClosedGrace = time.Second

// cutGrace is how long a client that is cut may take to read why.
const cutGrace = time.Second

// enter begins a phase. It is false if the connection has been closed as idle.
func (c *conn) enter(p phase) bool {
	for {
		old := c.state.Load()
		if state(old).phase() == phaseClosed {
			return false
		}
		if c.state.CompareAndSwap(old, uint64(newState(p, c.engine.now(), state(old)))) {
			return true
		}
	}
}

// reading and writing tell what a flow to the client waits for.
func (c *conn) reading() {
	u := c.uploading
	if u != nil && u.running.Load() {
		c.enter(phaseUpload)
		if u.running.Load() {
			return
		}
		// It has ended in between, and could not say so.
	}
	c.enter(phaseAnswer)
}

func (c *conn) writing() { c.enter(phaseWrite) }

// lookAfter is called with each tick of the engine.
func (c *conn) lookAfter() {
	s := state(c.state.Load())
	age := c.engine.now() - s.since()
	limits := &c.engine.options.Limits
	switch s.phase() {
	case phaseNew:
		if age >= limits.ReadHeaderTimeout || c.group.draining.Load() && age >= newGrace {
			c.closeInstead(s)
		}
	case phaseIdle:
		if age >= limits.IdleTimeout {
			c.closeInstead(s)
		}
	case phaseHead:
		if age >= limits.ReadHeaderTimeout {
			_ = c.client.Close()
		}
	case phaseWrite:
		if age >= limits.WriteTimeout {
			_ = c.client.Close()
		}
	case phaseAnswer:
		if age >= c.engine.options.Tick && !s.watched() {
			c.watchFrom(s)
		}
	case phaseUpload:
		// Who reads the client may be waiting for the app to take what it has read.
		if age >= c.engine.options.Tick && c.client.hasReset() {
			c.abandon()
		}
	default:
	}
}

// closeInstead closes the connection if it still waits for a request.
func (c *conn) closeInstead(s state) {
	if c.state.CompareAndSwap(uint64(s), uint64(newState(phaseClosed, 0, s))) {
		_ = c.client.Close()
	}
}

// closeIdle closes the connection if it waits for another request.
func (c *conn) closeIdle() {
	if s := state(c.state.Load()); s.phase() == phaseIdle {
		c.closeInstead(s)
	}
}

// cut ends the request under way: its pod's connection is closed, and the client has a moment to read what comes of it.
func (c *conn) cut() {
	if up := c.upstream.Load(); up != nil {
		_ = up.Close()
	}
	_ = c.client.SetDeadline(time.Now().Add(cutGrace)) // fails only where it is closed
}

// watchFrom begins to watch the client if the connection is still in state s.
func (c *conn) watchFrom(s state) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.CompareAndSwap(uint64(s), uint64(s|watchedBit)) {
		c.startWatch(c.abandon)
	}
}

// watchNow begins to watch the client, and calls gone when it has gone.
func (c *conn) watchNow(gone func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		old := c.state.Load()
		if c.state.CompareAndSwap(old, old|watchedBit) {
			break
		}
	}
	c.startWatch(gone)
}

func (c *conn) startWatch(gone func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	c.watchStop, c.watchDone = stop, done
	go func() {
		defer close(done)
		defer Rescue(c.engine.options.Log, func() {})
		if c.hasGone(stop) {
			gone()
		}
	}()
}

// hasGone waits until the client has gone, or the watching is to end.
//
// A client that ends its direction has gone, as browsers and proxies go, unless it has said that this is its last
// request: then it may have no more to say and wait for the answer. TCP tells the two apart only when something is sent:
// who has gone resets the connection. So such a client gets an informational answer, which any client of HTTP/1.1 has to
// skip (RFC 9110, 15.2), if the real one is not there soon.
func (c *conn) hasGone(stop <-chan struct{}) bool {
	if c.client.awaitGone(false) != nil {
		return false
	}
	if !c.last {
		return true
	}
	if !c.begun.Load() && c.req.Minor == 1 {
		select {
		case <-stop:
			return false
		case <-time.After(halfClosedGrace):
		}
		_, _ = c.client.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n")) // an error is what is waited for
	}
	return c.client.awaitGone(true) == nil
}

// unwatch ends the watching, so that the client can be read again, and returns when it has ended. It leaves phaseAnswer
// with that, or the engine could begin to watch right after.
func (c *conn) unwatch() {
	var old state
	for {
		old = state(c.state.Load())
		if p := old.phase(); p == phaseClosed || p != phaseAnswer && !old.watched() {
			return
		}
		if c.state.CompareAndSwap(uint64(old), uint64(newState(phaseHeld, c.engine.now(), 0))) {
			break
		}
	}
	if !old.watched() {
		return
	}
	c.mu.Lock()
	stop, done := c.watchStop, c.watchDone
	c.mu.Unlock()
	close(stop)
	_ = c.client.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection, whose reads end by themselves
	<-done
	_ = c.client.SetReadDeadline(time.Time{})
}

// abandon gives up the request because its client has gone.
func (c *conn) abandon() {
	c.gone.Store(true)
	if up := c.upstream.Load(); up != nil {
		_ = up.Close()
	}
}
