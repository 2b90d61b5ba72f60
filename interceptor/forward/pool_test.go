// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// still returns Options for an engine whose clock only the test advances.
func still() Options { return Options{Tick: time.Hour} }

// pass advances the clock of such an engine.
func (e *Engine) pass(d time.Duration) { e.clock.Add(int64(d)) }

// poolRig is a pool with a pod that accepts connections and sends nothing.
type poolRig struct {
	*pool
	t *testing.T
	l *net.TCPListener
}

func newPoolRig(t *testing.T, o Options) *poolRig {
	t.Helper()
	l := listen(t)
	return &poolRig{newEngine(t, o).NewPool(l.Addr().String()).(*pool), t, l}
}

// open returns a new connection and the pod's end of it.
func (r *poolRig) open() (*podConn, *net.TCPConn) {
	r.t.Helper()
	c, err := r.dial(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	theirs, err := r.l.AcceptTCP()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _, _ = c.Close(), theirs.Close() })
	_ = theirs.SetDeadline(time.Now().Add(within))
	return c, theirs
}

func (r *poolRig) wantClosed(what string, c *podConn, theirs *net.TCPConn) {
	r.t.Helper()
	if err := c.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		r.t.Errorf("%s is open", what)
	} else if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		r.t.Errorf("the other side of %s got %v", what, err)
	}
}

func (r *poolRig) wantOpen(what string, c *podConn) {
	r.t.Helper()
	if err := c.SetDeadline(time.Time{}); err != nil {
		r.t.Errorf("%s: %v", what, err)
	}
}

func TestPoolGivesTheLastUsedFirst(t *testing.T) {
	r := newPoolRig(t, still())
	if r.get(time.Hour) != nil {
		t.Fatal("an empty pool has a connection")
	}
	a, _ := r.open()
	b, _ := r.open()
	if a.reused || a.pool != r.pool {
		t.Error("a new connection is used or another pool's")
	}
	r.put(a, 10)
	r.put(b, 5)
	if got := r.get(time.Hour); got != b {
		t.Error("the first is not the one used last")
	}
	r.put(b, 7)
	for i, want := range []*podConn{b, a, nil} {
		if got := r.get(time.Hour); got != want {
			t.Errorf("connection %d is another one", i)
		}
	}
	if !a.reused || !b.reused || a.sent != 10 || b.sent != 12 {
		t.Errorf("%d and %d bytes were sent", a.sent, b.sent)
	}
}

func TestPoolKeepsColdConnections(t *testing.T) {
	r := newPoolRig(t, still())
	a, _ := r.open()
	r.put(a, 1)
	r.engine.pass(hotFor)
	if got := r.get(hotFor); got != a {
		t.Fatal("one that is just hot was not given")
	}
	r.put(a, 1)
	r.engine.pass(hotFor + time.Millisecond)
	if r.get(hotFor) != nil {
		t.Error("a cold one was given")
	}
	if r.get(r.engine.options.PodIdleTimeout) != a {
		t.Error("it was not kept for who may have it")
	}
}

func TestFullPoolDropsTheOldest(t *testing.T) {
	o := still()
	o.MaxIdlePerPod = 2
	r := newPoolRig(t, o)
	a, atA := r.open()
	b, _ := r.open()
	c, _ := r.open()
	r.put(a, 1)
	r.put(b, 1)
	r.wantOpen("the first", a)
	r.put(c, 1)
	r.wantClosed("the first", a, atA)
	r.wantOpen("the second", b)
	if r.get(time.Hour) != c || r.get(time.Hour) != b || r.get(time.Hour) != nil {
		t.Error("the pool has others")
	}
}

func TestClosedPool(t *testing.T) {
	r := newPoolRig(t, still())
	idle, atIdle := r.open()
	used, atUsed := r.open()
	r.put(idle, 1)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.wantClosed("the idle one", idle, atIdle)
	r.wantOpen("the one in use", used)
	if len(r.engine.allPools()) != 0 {
		t.Error("the engine still has the pool")
	}
	r.put(used, 1)
	r.wantClosed("the one that was in use", used, atUsed)
	if r.get(time.Hour) != nil {
		t.Error("it has a connection")
	}
}

func TestPoolExpires(t *testing.T) {
	r := newPoolRig(t, still())
	old, atOld := r.open()
	young, _ := r.open()
	r.put(old, 1)
	r.engine.pass(time.Second)
	r.put(young, 1)
	r.expire(2 * time.Second)
	r.wantOpen("the old one, not yet", old)
	r.engine.pass(1500 * time.Millisecond)
	r.expire(2 * time.Second)
	r.wantClosed("the old one", old, atOld)
	r.wantOpen("the young one", young)
	if r.get(time.Hour) != young || r.length() != 0 {
		t.Error("the pool has others")
	}
}

// The tick does the same.
func TestEngineExpiresPools(t *testing.T) {
	r := newPoolRig(t, Options{Tick: time.Millisecond, PodIdleTimeout: 20 * time.Millisecond})
	c, theirs := r.open()
	r.put(c, 1)
	eventually(t, "empty", func() bool { return r.length() == 0 })
	r.wantClosed("the idle one", c, theirs)
}

func TestDialFails(t *testing.T) {
	r := newPoolRig(t, still())
	_ = r.l.Close()
	if c, err := r.dial(t.Context()); err == nil || c != nil {
		t.Errorf("got %v, %v", c, err)
	}
}

// A request that must not be carried out twice is not sent on a connection that the pod may be about to close. Other requests are.
func TestColdConnectionsAreForSafeRequests(t *testing.T) {
	var accepted atomic.Int64
	r := newRig(t, still(), newPod(t, func(c *net.TCPConn, b *bufio.Reader) {
		accepted.Add(1)
		for {
			req, err := http.ReadRequest(b)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		}
	}))
	c := r.dial()
	ask := func(head string, want int64) {
		t.Helper()
		c.send("%s / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", head)
		c.reads("HTTP/1.1 204 No Content\r\n\r\n")
		if got := accepted.Load(); got != want {
			t.Fatalf("%s: %d connections, want %d", head, got, want)
		}
		// The client gets its answer a moment before the connection is idle.
		eventually(t, "idle", func() bool { return r.pool().length() == int(want) })
	}
	ask("GET", 1)
	ask("POST", 1) // the connection is hot
	r.pass(hotFor + time.Millisecond)
	ask("GET", 1)
	ask("POST", 1)
	r.pass(hotFor + time.Millisecond)
	ask("POST", 2)
	r.pass(hotFor + time.Millisecond)
	for _, method := range []string{"HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "GET"} {
		ask(method, 2)
		r.pass(hotFor + time.Millisecond)
	}
	ask("PATCH", 3)
	r.pass(hotFor + time.Millisecond)
	ask("get", 4) // a different method from GET
}
