// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

func TestStateHoldsAll(t *testing.T) {
	for p := phaseNew; p <= phaseClosed; p++ {
		for _, since := range []time.Duration{0, time.Millisecond, time.Hour, 50 * 365 * 24 * time.Hour} {
			for _, watched := range []state{0, watchedBit} {
				// Of the state before only the watching counts.
				s := newState(p, since, watched|state(phaseTunnel)|1<<40)
				if s.phase() != p || s.since() != since || s.watched() != (watched != 0) {
					t.Errorf("%d since %v watched %v became %d since %v watched %v", p, since, watched, s.phase(), s.since(), s.watched())
				}
			}
		}
	}
	if phaseClosed > phaseMask {
		t.Error("the phases do not fit")
	}
	if got := newState(phaseIdle, 1999*time.Microsecond, 0).since(); got != time.Millisecond {
		t.Errorf("since %v", got)
	}
}

// newConn returns a connection that nothing serves, and the client's end of it.
func newConn(t *testing.T, o Options) (*conn, *net.TCPConn) {
	t.Helper()
	e := newEngine(t, o)
	s, theirs := newSockPair(t, e, false)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return &conn{engine: e, group: e.NewGroup(ctx), client: s}, theirs
}

func (c *conn) is() state { return state(c.state.Load()) }

func (c *conn) closed() bool { return errors.Is(c.client.SetDeadline(time.Time{}), net.ErrClosed) }

func TestEnter(t *testing.T) {
	c, _ := newConn(t, still())
	c.engine.pass(time.Minute)
	c.state.Store(watchedBit)
	if !c.enter(phaseWrite) || c.is() != newState(phaseWrite, time.Minute, watchedBit) {
		t.Errorf("got %b", c.is())
	}
	c.state.Store(uint64(newState(phaseClosed, 0, 0)))
	if c.enter(phaseHead) || c.is().phase() != phaseClosed {
		t.Error("a connection that was closed as idle has begun a request")
	}
}

func TestLookAfter(t *testing.T) {
	limits := Limits{IdleTimeout: 40 * time.Second, ReadHeaderTimeout: 20 * time.Second, WriteTimeout: 30 * time.Second}
	const long = 24 * time.Hour
	for name, tc := range map[string]struct {
		phase    phase
		age      time.Duration
		draining bool
		want     bool // the connection is closed
	}{
		"new":                        {phaseNew, 20*time.Second - time.Millisecond, false, false},
		"new for too long":           {phaseNew, 20 * time.Second, false, true},
		"new while draining":         {phaseNew, newGrace - time.Millisecond, true, false},
		"new, too long for draining": {phaseNew, newGrace, true, true},
		"idle":                       {phaseIdle, 40*time.Second - time.Millisecond, false, false},
		"idle for too long":          {phaseIdle, 40 * time.Second, false, true},
		"head":                       {phaseHead, 20*time.Second - time.Millisecond, false, false},
		"head for too long":          {phaseHead, 20 * time.Second, false, true},
		"writing":                    {phaseWrite, 30*time.Second - time.Millisecond, false, false},
		"writing for too long":       {phaseWrite, 30 * time.Second, false, true},
		"waiting for the pod":        {phaseAnswer, long, false, false},
		"uploading":                  {phaseUpload, long, false, false},
		"held":                       {phaseHeld, long, false, false},
		"tunnel":                     {phaseTunnel, long, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			o := still()
			o.Limits = limits
			c, _ := newConn(t, o)
			c.engine.pass(time.Second)
			c.enter(tc.phase)
			c.group.draining.Store(tc.draining)
			c.engine.pass(tc.age)
			c.lookAfter()
			watched := c.is().watched()
			c.unwatch()
			if got := c.closed(); got != tc.want || watched != (tc.phase == phaseAnswer) {
				t.Errorf("closed %v, watched %v", got, watched)
			}
		})
	}
}

func TestCloseIdleClosesOnlyWhatIsIdle(t *testing.T) {
	for p := range phaseClosed {
		c, _ := newConn(t, still())
		c.enter(p)
		c.closeIdle()
		if got := c.closed(); got != (p == phaseIdle) || got != (c.is().phase() == phaseClosed) {
			t.Errorf("phase %d: closed %v, then phase %d", p, got, c.is().phase())
		}
	}
}

// A request that begins at the very moment in which the connection is closed as idle is one or the other.
func TestCloseInsteadOfAnOlderState(t *testing.T) {
	c, _ := newConn(t, still())
	c.enter(phaseIdle)
	before := c.is()
	c.enter(phaseHead)
	c.closeInstead(before)
	if c.closed() || c.is().phase() != phaseHead {
		t.Error("it was closed under a request")
	}
}

func TestWatchSeesTheClientGo(t *testing.T) {
	c, theirs := newConn(t, still())
	gone := make(chan struct{})
	c.enter(phaseHeld)
	c.watchNow(func() { close(gone) })
	if !c.is().watched() {
		t.Error("it does not say that it is watched")
	}
	_ = theirs.Close()
	select {
	case <-gone:
	case <-time.After(within):
		t.Fatal("nobody noticed")
	}
	c.unwatch()
	if c.is().watched() {
		t.Error("it still says that it is watched")
	}
}

func TestUnwatchEndsTheWatching(t *testing.T) {
	c, theirs := newConn(t, still())
	c.unwatch() // nothing
	var gone atomic.Bool
	for range 100 {
		c.enter(phaseHeld)
		c.watchNow(func() { gone.Store(true) })
		c.unwatch()
	}
	if _, err := theirs.Write([]byte("next")); err != nil {
		t.Fatal(err)
	}
	// The client can be read again.
	in, err := c.client.await()
	if err != nil || string(in.bytes()) != "next" || gone.Load() || c.is().phase() != phaseHeld {
		t.Errorf("got %v, gone %v", err, gone.Load())
	}
}

// The engine begins to watch while the answer comes, which ends the watching.
func TestWatchAndUnwatchAtOnce(t *testing.T) {
	c, theirs := newConn(t, still())
	for range 500 {
		c.enter(phaseAnswer)
		watching := make(chan struct{})
		go func() {
			defer close(watching)
			c.watchFrom(c.is())
		}()
		c.enter(phaseWrite)
		c.unwatch()
		<-watching
		c.unwatch() // had it begun after the answer, and had nobody entered another phase
	}
	if _, err := theirs.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.client.await(); err != nil || c.gone.Load() {
		t.Errorf("got %v, gone %v", err, c.gone.Load())
	}
}

func TestWatchFromAnOlderState(t *testing.T) {
	c, _ := newConn(t, still())
	c.enter(phaseAnswer)
	before := c.is()
	c.enter(phaseWrite)
	c.watchFrom(before)
	if c.is().watched() || c.watchDone != nil {
		t.Error("it is watched although the answer has come")
	}
}

func TestAbandonClosesThePods(t *testing.T) {
	r := newPoolRig(t, still())
	c, _ := newConn(t, still())
	c.abandon() // without one
	up, theirs := r.open()
	c.upstream.Store(up)
	c.abandon()
	if !c.gone.Load() {
		t.Error("the client is not gone")
	}
	r.wantClosed("the pod's connection", up, theirs)
}

func TestCut(t *testing.T) {
	r := newPoolRig(t, still())
	c, theirs := newConn(t, still())
	up, atUp := r.open()
	c.upstream.Store(up)
	c.cut()
	r.wantClosed("the pod's connection", up, atUp)
	// The client has a moment for what comes of it.
	if _, err := c.client.Write([]byte("bye")); err != nil {
		t.Error(err)
	}
	if _, err := c.client.await(); err == nil {
		t.Error("reading the client goes on")
	}
	b := make([]byte, 3)
	if n, err := theirs.Read(b); err != nil || string(b[:n]) != "bye" {
		t.Errorf("the client got %q, %v", b[:n], err)
	}
}

func TestReadingAndWriting(t *testing.T) {
	c, _ := newConn(t, still())
	u := &upload{}
	for name, tc := range map[string]struct {
		do   func()
		want phase
	}{
		"reading": {c.reading, phaseAnswer},
		"reading beside an upload": {func() {
			c.uploading = u
			u.running.Store(true)
			c.reading()
		}, phaseUpload},
		"reading after an upload": {func() {
			c.uploading = u
			u.running.Store(false)
			c.reading()
		}, phaseAnswer},
		"writing": {c.writing, phaseWrite},
	} {
		c.uploading = nil
		tc.do()
		if got := c.is().phase(); got != tc.want {
			t.Errorf("%s: phase %d, want %d", name, got, tc.want)
		}
	}
}
