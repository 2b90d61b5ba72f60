// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
)

// fakeClient is a client's connection in a bubble.
type fakeClient struct {
	mu     sync.Mutex // protects all below
	change *sync.Cond
	half   bool // the client has closed its direction
	gone   bool
	stop   bool // reads are interrupted
	closed bool
	reset  bool
	wrote  string
	// answersReset makes the client reset the connection when something is sent to it: it has gone.
	answersReset bool
}

func newFakeClient() *fakeClient {
	c := &fakeClient{}
	c.change = sync.NewCond(&c.mu)
	return c
}

func (c *fakeClient) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	c.change.Broadcast()
}

func (c *fakeClient) Write(b []byte) (int, error) {
	c.set(func() {
		c.wrote += string(b)
		c.gone = c.gone || c.answersReset
	})
	return len(b), nil
}

func (c *fakeClient) Close() error {
	c.set(func() { c.closed = true })
	return nil
}

func (c *fakeClient) SetDeadline(time.Time) error { return nil }

func (c *fakeClient) AwaitGone(half bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.stop && !c.closed && !c.gone && (half || !c.half) {
		c.change.Wait()
	}
	switch {
	case c.closed:
		return os.ErrClosed
	case c.stop:
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

func (c *fakeClient) HasReset() bool { return c.reset }

func (c *fakeClient) Interrupt() { c.set(func() { c.stop = true }) }

func (c *fakeClient) InterruptUntil(done <-chan struct{}) {
	c.Interrupt()
	<-done
	c.set(func() { c.stop = false })
}

// bubble is a watch over a fake client.
type bubble struct {
	watch
	client *fakeClient
	clock  atomic.Int64
	drains atomic.Bool
}

func newBubble() *bubble {
	b := &bubble{client: newFakeClient()}
	o := Options{Tick: 250 * time.Millisecond}
	o.setDefaults()
	b.watch = watch{client: b.client, clock: &b.clock, options: &o, draining: &b.drains, log: logr.Discard}
	return b
}

func (b *bubble) tick(d time.Duration) {
	b.clock.Add(int64(d))
	b.look()
	synctest.Wait()
}

// wait advances the bubble's clock by d.
func wait(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a bubble this takes no time
	synctest.Wait()
}

// A client that leaves while the pod works ends the request at the next ticks. A client that stays does not.
func TestWatchInABubble(t *testing.T) {
	for name, tc := range map[string]struct {
		last, informs bool
		leaves        func(*fakeClient)
		gone          bool
		wrote         string
	}{
		"it stays":              {leaves: func(*fakeClient) {}},
		"it goes":               {leaves: func(c *fakeClient) { c.gone = true }, gone: true},
		"it ends its direction": {leaves: func(c *fakeClient) { c.half = true }, gone: true},
		"it ends it with its last request": {
			last: true, informs: true, leaves: func(c *fakeClient) { c.half = true }, wrote: "HTTP/1.1 100 Continue\r\n\r\n",
		},
		"it ends it with its last, by HTTP/1.0": {last: true, leaves: func(c *fakeClient) { c.half = true }},
		"it has gone with its last request": {
			last: true, informs: true, leaves: func(c *fakeClient) { c.half, c.answersReset = true, true }, gone: true,
			wrote: "HTTP/1.1 100 Continue\r\n\r\n",
		},
		"it goes after its last, by HTTP/1.0":     {last: true, leaves: func(c *fakeClient) { c.half, c.gone = true, true }, gone: true},
		"it resets while another goroutine reads": {leaves: func(c *fakeClient) { c.reset = true }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble()
				b.enter(phaseHead)
				b.request(tc.last, tc.informs)
				b.enter(phaseAnswer)
				b.tick(100 * time.Millisecond)
				if state(b.state.Load()).watched() {
					t.Error("it is watched although the answer may come at once")
				}
				b.tick(200 * time.Millisecond)
				if !state(b.state.Load()).watched() {
					t.Fatal("it is not watched")
				}
				b.client.set(func() { tc.leaves(b.client) })
				wait(2 * halfClosedGrace)
				b.unwatch()
				if got := b.gone.Load(); got != tc.gone || b.client.wrote != tc.wrote {
					t.Errorf("gone %v, want %v; wrote %q", got, tc.gone, b.client.wrote)
				}
				if b.phase() != phaseHeld || state(b.state.Load()).watched() || b.client.stop {
					t.Errorf("phase %d, watched %v", b.phase(), state(b.state.Load()).watched())
				}
			})
		})
	}
}

// If the watch ends during the client's grace, nothing is written to the client.
func TestUnwatchWithinTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble()
		b.request(true, true)
		b.enter(phaseHeld)
		var called atomic.Bool
		b.watchNow(func() { called.Store(true) })
		b.client.set(func() { b.client.half = true })
		wait(halfClosedGrace / 2)
		b.unwatch()
		wait(2 * halfClosedGrace)
		if called.Load() || b.client.wrote != "" {
			t.Errorf("called %v, wrote %q", called.Load(), b.client.wrote)
		}
	})
}

// If another goroutine reads from the client, a reset is noticed by asking.
func TestUploadSeesAReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble()
		b.enter(phaseUpload)
		b.tick(time.Second)
		if b.gone.Load() {
			t.Error("gone although it uploads")
		}
		b.client.reset = true
		b.tick(time.Second)
		if !b.gone.Load() {
			t.Error("the reset was not seen")
		}
	})
}

// Each piece of a body gives the client the full time again, but only while the body is being waited for.
func TestAdvance(t *testing.T) {
	b := newBubble()
	b.enter(phaseHead)
	b.clock.Store(int64(time.Minute))
	b.advance(phaseHead, phaseHead)
	if got := state(b.state.Load()).since(); got != time.Minute {
		t.Errorf("since %s", got)
	}
	b.advance(phaseUpload, phaseAnswer)
	if b.phase() != phaseHead {
		t.Errorf("phase %d", b.phase())
	}
	b.enter(phaseUpload)
	b.advance(phaseUpload, phaseAnswer)
	if b.phase() != phaseAnswer {
		t.Errorf("phase %d", b.phase())
	}
}
