// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

func TestStateHoldsAll(t *testing.T) {
	for p := phaseNew; p <= phaseClosed; p++ {
		for _, since := range []time.Duration{0, time.Millisecond, time.Hour, 50 * 365 * 24 * time.Hour} {
			for _, watched := range []state{0, watchedBit} {
				// Of the former state only the watched bit counts.
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

// newConn returns a connection that nobody serves, and the client's end of it.
func newConn(t *testing.T, o Options) (*conn, *net.TCPConn) {
	t.Helper()
	l := listen(t)
	theirs := dial(t, l.Addr().String())
	ours, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close() })
	c, err := newServer(t, newEngine(t, o), &route.Route{Namespace: "shop", Service: "web"}).newConn(ours, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, theirs
}

func (w *watch) is() state { return state(w.state.Load()) }

func (c *conn) closed() bool { return errors.Is(c.client.SetDeadline(time.Time{}), net.ErrClosed) }

func TestEnter(t *testing.T) {
	c, _ := newConn(t, still())
	c.server.engine.pass(time.Minute)
	c.watch.state.Store(watchedBit)
	if !c.watch.enter(phaseWrite) || c.watch.is() != newState(phaseWrite, time.Minute, watchedBit) {
		t.Errorf("got %b", c.watch.is())
	}
	c.watch.state.Store(uint64(newState(phaseClosed, 0, 0)))
	if c.watch.enter(phaseHead) || c.watch.is().phase() != phaseClosed {
		t.Error("a connection that was closed as idle has begun a request")
	}
}

func TestLook(t *testing.T) {
	limits := Limits{IdleTimeout: 40 * time.Second, ReadHeaderTimeout: 20 * time.Second, WriteTimeout: 30 * time.Second}
	const long = 24 * time.Hour
	for name, tc := range map[string]struct {
		phase    phase
		age      time.Duration
		draining bool
		want     bool // whether the connection is closed
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
			c.server.engine.pass(time.Second)
			c.watch.enter(tc.phase)
			c.server.draining.Store(tc.draining)
			c.server.engine.pass(tc.age)
			c.watch.look()
			watched := c.watch.is().watched()
			c.watch.unwatch()
			if got := c.closed(); got != tc.want || watched != (tc.phase == phaseAnswer) {
				t.Errorf("closed %v, watched %v", got, watched)
			}
		})
	}
}

func TestCloseIdleClosesOnlyWhatIsIdle(t *testing.T) {
	for p := range phaseClosed {
		c, _ := newConn(t, still())
		c.watch.enter(p)
		c.watch.closeIdle()
		if got := c.closed(); got != (p == phaseIdle) || got != (c.watch.is().phase() == phaseClosed) {
			t.Errorf("phase %d: closed %v, then phase %d", p, got, c.watch.is().phase())
		}
	}
}

// If a request begins at the very moment when the connection is closed as idle, either the one or the other happens.
func TestCloseInsteadOfAnOlderState(t *testing.T) {
	c, _ := newConn(t, still())
	c.watch.enter(phaseIdle)
	before := c.watch.is()
	c.watch.enter(phaseHead)
	c.watch.closeInstead(before)
	if c.closed() || c.watch.is().phase() != phaseHead {
		t.Error("it was closed under a request")
	}
}

func TestWatchSeesTheClientGo(t *testing.T) {
	c, theirs := newConn(t, still())
	gone := make(chan struct{})
	c.watch.enter(phaseHeld)
	c.watch.watchNow(func() { close(gone) })
	if !c.watch.is().watched() {
		t.Error("it does not say that it is watched")
	}
	_ = theirs.Close()
	select {
	case <-gone:
	case <-time.After(within):
		t.Fatal("nobody noticed")
	}
	c.watch.unwatch()
	if c.watch.is().watched() {
		t.Error("it still says that it is watched")
	}
}

func TestUnwatchEndsTheWatching(t *testing.T) {
	c, theirs := newConn(t, still())
	c.watch.unwatch() // nothing to end
	var gone atomic.Bool
	for range 100 {
		c.watch.enter(phaseHeld)
		c.watch.watchNow(func() { gone.Store(true) })
		c.watch.unwatch()
	}
	if _, err := theirs.Write([]byte("next")); err != nil {
		t.Fatal(err)
	}
	// The client can be read again.
	in, err := c.client.Await()
	if err != nil || string(in.Bytes()) != "next" || gone.Load() || c.watch.is().phase() != phaseHeld {
		t.Errorf("got %v, gone %v", err, gone.Load())
	}
}

// The engine begins to watch at the same time as the answer arrives, which ends the watch.
func TestWatchAndUnwatchAtOnce(t *testing.T) {
	c, theirs := newConn(t, still())
	for range 500 {
		c.watch.enter(phaseAnswer)
		watching := make(chan struct{})
		go func() {
			defer close(watching)
			c.watch.watchFrom(c.watch.is())
		}()
		c.watch.enter(phaseWrite)
		c.watch.unwatch()
		<-watching
		c.watch.unwatch() // this would end a watch that began after the answer, if no other phase was entered
	}
	if _, err := theirs.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.client.Await(); err != nil || c.watch.gone.Load() {
		t.Errorf("got %v, gone %v", err, c.watch.gone.Load())
	}
}

func TestWatchFromAnOlderState(t *testing.T) {
	c, _ := newConn(t, still())
	c.watch.enter(phaseAnswer)
	before := c.watch.is()
	c.watch.enter(phaseWrite)
	c.watch.watchFrom(before)
	if c.watch.is().watched() || c.watch.done != nil {
		t.Error("it is watched although the answer has come")
	}
}

func TestAbandonClosesThePods(t *testing.T) {
	r := newPoolRig(t, still())
	c, _ := newConn(t, still())
	c.watch.abandon() // without a pod
	up, theirs := r.open()
	c.watch.up.Store(up)
	c.watch.abandon()
	if !c.watch.gone.Load() {
		t.Error("the client is not gone")
	}
	r.wantClosed("the pod's connection", up, theirs)
}

func TestCut(t *testing.T) {
	r := newPoolRig(t, still())
	c, theirs := newConn(t, still())
	up, atUp := r.open()
	c.watch.up.Store(up)
	c.watch.cut()
	r.wantClosed("the pod's connection", up, atUp)
	// The client has a moment to read the result.
	if _, err := c.client.Write([]byte("bye")); err != nil {
		t.Error(err)
	}
	if _, err := c.client.Await(); err == nil {
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
		"reading": {c.Reading, phaseAnswer},
		"reading beside an upload": {func() {
			c.now.uploading = u
			u.running.Store(true)
			c.Reading()
		}, phaseUpload},
		"reading after an upload": {func() {
			c.now.uploading = u
			u.running.Store(false)
			c.Reading()
		}, phaseAnswer},
		"writing": {c.Writing, phaseWrite},
	} {
		c.now.uploading = nil
		tc.do()
		if got := c.watch.is().phase(); got != tc.want {
			t.Errorf("%s: phase %d, want %d", name, got, tc.want)
		}
	}
}
