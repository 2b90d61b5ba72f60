// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/budget"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// within is how long tests wait for what should happen soon. It is long because the machine may be busy.
const within = 20 * time.Second

// opened keeps the route that a table makes, and stands in for the rest of the interceptor.
type opened struct{ route *route.Route }

func (o *opened) Open(r *route.Route)                            { o.route = r }
func (o *opened) Close(*route.Route)                             {}
func (o *opened) Wake(*route.Route, *route.Target, *route.Visit) {}

// answered counts answers. It can panic at an answer or at the end of a wait.
type answered struct {
	all              atomic.Int64
	fault, heldFault atomic.Bool
}

func (*answered) Ignored()                {}
func (*answered) Woken()                  {}
func (*answered) ColdStart(time.Duration) {}

func (a *answered) Held(time.Duration) {
	if a.heldFault.Load() {
		panic("a fault of the test")
	}
}

func (a *answered) Answered(int) {
	if a.all.Add(1); a.fault.Load() {
		panic("a fault of the test")
	}
}

// rigMemory is a budget of which the only route may use half.
const rigMemory = 64 << 20

// rig is a running engine with one route.
type rig struct {
	*Engine
	tb       testing.TB
	table    *route.Table
	route    *route.Route
	server   *Server
	answered answered
	listener *net.TCPListener
	conns    sync.WaitGroup
	// sendBuffer is the size of the kernel's buffer for an answer that the client does not read; 0 means the default.
	sendBuffer atomic.Int64
}

// newEngine returns an engine that ends with the test.
func newEngine(tb testing.TB, o Options) *Engine {
	tb.Helper()
	e := NewEngine(o)
	tb.Cleanup(e.Close)
	return e
}

// newServer returns a server that ends with the test.
func newServer(tb testing.TB, e *Engine, r *route.Route) *Server {
	tb.Helper()
	s := e.NewServer(r)
	tb.Cleanup(func() {
		s.Cut()
		s.Drain()
	})
	return s
}

// newRig starts an engine for pods at these addresses.
func newRig(tb testing.TB, o Options, pods ...string) *rig {
	tb.Helper()
	r := &rig{tb: tb, Engine: newEngine(tb, o)}
	var got opened
	r.table = route.NewTable(route.TableOptions{
		Listeners: &got, Waker: &got, NewPool: r.NewPool, Budget: budget.NewPool(rigMemory),
		RouteMetrics:  func(string, string) route.Metrics { return &r.answered },
		TargetMetrics: func(route.Key) route.TargetMetrics { return &r.answered },
	})
	r.table.SetService(route.Service{
		Namespace: "shop", Name: "web", Pods: len(pods), Endpoints: map[string][]string{"http": pods},
		Routes: api.Routes{
			Service: "web", Workload: api.Workload{Kind: "Deployment", Name: "web"},
			Ports:       []api.Port{{Name: "http", Port: 80, Listen: 10000, Protocol: api.ProtocolAuto}},
			HoldTimeout: api.Duration(time.Minute),
		},
	})
	r.route = got.route
	r.listener = listen(tb)
	r.server = newServer(tb, r.Engine, r.route)
	go r.accept()
	tb.Cleanup(func() {
		_ = r.listener.Close()
		r.server.Cut()
		r.conns.Wait()
		r.table.Close()
	})
	return r
}

func (r *rig) accept() {
	for {
		conn, err := r.listener.AcceptTCP()
		if err != nil {
			return
		}
		if n := r.sendBuffer.Load(); n > 0 {
			_ = conn.SetWriteBuffer(int(n))
		}
		r.conns.Go(func() {
			if kind, _, _ := r.server.serveHTTP(conn, nil, func() {}); kind != wire.KindUndecided {
				_ = conn.Close()
			}
		})
	}
}

// dial opens a client's connection.
func (r *rig) dial() *client {
	r.tb.Helper()
	conn := dial(r.tb, r.listener.Addr().String())
	return &client{TCPConn: conn, t: r.tb, r: bufio.NewReader(conn)}
}

// connections returns how many client connections the server has.
func (r *rig) connections() int {
	r.server.mu.Lock()
	defer r.server.mu.Unlock()
	return len(r.server.conns)
}

// only returns the engine's only client connection.
func (r *rig) only() *conn {
	r.tb.Helper()
	var c *conn
	eventually(r.tb, "serving one connection", func() bool {
		r.server.mu.Lock()
		defer r.server.mu.Unlock()
		for c = range r.server.conns {
		}
		return len(r.server.conns) == 1
	})
	return c
}

// pool returns the pool of the only pod.
func (r *rig) pool() *pool {
	r.tb.Helper()
	pools := r.allPools()
	if len(pools) != 1 {
		r.tb.Fatalf("%d pools", len(pools))
	}
	return pools[0]
}

func (p *pool) length() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}

// client writes and reads bytes.
type client struct {
	*net.TCPConn
	t testing.TB
	r *bufio.Reader
}

func (c *client) send(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, format, args...); err != nil {
		c.t.Fatalf("sending: %v", err)
	}
}

// reads reads as many bytes as want has, and compares.
func (c *client) reads(want string) {
	c.t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(c.r, b); err != nil || string(b) != want {
		c.t.Fatalf("read %q, %v; want %q", b[:n], err, want)
	}
}

// ends waits for the end and returns what came before it.
func (c *client) ends() string {
	c.t.Helper()
	b, err := io.ReadAll(c.r)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatalf("the connection goes on after %.200q", b)
	}
	return string(b)
}

func listen(tb testing.TB) *net.TCPListener {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	return l.(*net.TCPListener)
}

func dial(tb testing.TB, addr string) *net.TCPConn {
	tb.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(within))
	return conn.(*net.TCPConn)
}

// newPod starts a pod and returns its address. Each connection is closed when its script returns.
func newPod(tb testing.TB, script func(*net.TCPConn, *bufio.Reader)) string {
	tb.Helper()
	l := listen(tb)
	var all sync.WaitGroup
	var mu sync.Mutex // protects conns
	conns := map[*net.TCPConn]struct{}{}
	all.Go(func() {
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			mu.Lock()
			conns[conn] = struct{}{}
			mu.Unlock()
			all.Go(func() {
				script(conn, bufio.NewReaderSize(conn, maxFuzzed+4096))
				_ = conn.Close()
				mu.Lock()
				defer mu.Unlock()
				delete(conns, conn)
			})
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); time.Now().Before(end); <-tick.C {
		if ok() {
			return
		}
	}
	tb.Fatalf("not %s within %s", what, within)
}
