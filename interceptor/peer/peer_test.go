// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

type fakeMetrics struct{}

func (fakeMetrics) Woken()                  {}
func (fakeMetrics) ColdStart(time.Duration) {}
func (fakeMetrics) Held(time.Duration)      {}
func (fakeMetrics) Answered(int)            {}
func (fakeMetrics) Ignored()                {}

type fakeListeners struct{}

func (fakeListeners) Open(*route.Route)  {}
func (fakeListeners) Close(*route.Route) {}

// table has a target for each name.
func table(names ...string) *route.Table {
	t := route.NewTable(route.TableOptions{
		Listeners: fakeListeners{}, Log: logr.Discard(),
		RouteMetrics:  func(string, string) route.Metrics { return fakeMetrics{} },
		TargetMetrics: func(route.Key) route.TargetMetrics { return fakeMetrics{} },
	})
	for i, name := range names {
		t.SetService(route.Service{Namespace: "shop", Name: name, Routes: api.Routes{
			Service: name, Workload: api.Workload{Kind: "Deployment", Name: name},
			Ports:    []api.Port{{Listen: int32(10000 + i), Protocol: api.ProtocolAuto}},
			Cooldown: api.Duration(time.Minute), HoldTimeout: api.Duration(time.Minute),
		}})
	}
	return t
}

func key(name string) route.Key { return route.Key{Namespace: "shop", Workload: "Deployment/" + name} }

func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := table("a", "b")
		keda := map[route.Key]bool{}
		d := differ{sent: map[route.Key]sent{}}
		changes := func() string {
			got := ""
			for _, c := range d.changes(table.Targets(), func(k route.Key) bool { return keda[k] }, time.Now()) {
				idle := fmt.Sprint(c.GetIdleMilliseconds())
				if c.GetIdleMilliseconds() == forgotten {
					idle = "never"
				}
				got += fmt.Sprintf("%s pending=%d idle=%s keda=%v;", c.GetWorkload(), c.GetPending(), idle, c.GetKedaStream())
			}
			return got
		}
		want := func(what, want string) {
			t.Helper()
			if got := changes(); got != want {
				t.Errorf("%s: got %q, want %q", what, got, want)
			}
		}
		if got := len(d.changes(table.Targets(), func(route.Key) bool { return false }, time.Now())); got != 2 {
			t.Errorf("%d at first, want all", got)
		}
		want("nothing new", "")
		release := table.Target(key("a")).Begin()
		want("begun", "Deployment/a pending=1 idle=0 keda=false;")
		want("told", "")
		advance(500 * time.Millisecond)
		want("still pending, too soon", "")
		advance(500 * time.Millisecond)
		want("still pending", "Deployment/a pending=1 idle=0 keda=false;")
		release()
		advance(30 * time.Millisecond)
		want("ended", "Deployment/a pending=0 idle=30 keda=false;")
		advance(time.Hour)
		want("idle", "")
		keda[key("b")] = true
		want("stream", "Deployment/b pending=0 idle=never keda=true;")
		table.RemoveService("shop", "a")
		advance(time.Minute)
		want("removed", "Deployment/a pending=0 idle=never keda=false;")
	})
}

// serve runs a Server and returns where and how to stop it.
func serve(t *testing.T, addr string, table *route.Table, keda *atomic.Bool) (*Server, string, *grpc.Server) {
	t.Helper()
	s := NewServer(ServerOptions{
		Targets: table.Targets, KEDAStream: func(route.Key) bool { return keda.Load() }, Interval: 20 * time.Millisecond, Log: logr.Discard(),
	})
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	pb.RegisterPeerServer(g, s)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return s, l.Addr().String(), g
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatalf("not %s", what)
}

func TestPool(t *testing.T) {
	table, keda := table("a"), &atomic.Bool{}
	_, addr, first := serve(t, "127.0.0.1:0", table, keda)
	var changed atomic.Int64
	p := NewPool(PoolOptions{
		Name: "me", Dial: func(Peer) string { return addr }, Changed: func(route.Key) { changed.Add(1) },
		MinRetry: 10 * time.Millisecond, MaxRetry: 50 * time.Millisecond, Log: logr.Discard(),
	})
	defer p.Close()
	you := Peer{Name: "you", Addr: "127.0.0.1"}
	p.SetPeers([]Peer{you})
	p.SetPeers([]Peer{you})
	total := func(want int64) func() bool {
		return func() bool { got, _ := p.Total(key("a")); return got == want }
	}
	release := table.Target(key("a")).Begin()
	eventually(t, "pending", total(1))
	if _, idle := p.Total(key("a")); idle > time.Minute {
		t.Errorf("idle %s", idle)
	}
	if changed.Load() == 0 {
		t.Error("nobody was told")
	}
	keda.Store(true)
	eventually(t, "KEDA's stream", func() bool { return p.KEDAStream(key("a")) })
	if p.SinceLost() != never {
		t.Error("lost before anything was")
	}

	first.Stop()
	eventually(t, "dropped", total(0))
	if p.KEDAStream(key("a")) || p.SinceLost() > time.Minute {
		t.Errorf("the peer's state outlived it")
	}
	s, _, _ := serve(t, addr, table, keda)
	eventually(t, "pending again", total(1))
	release()
	s.Poke()
	eventually(t, "ended", total(0))

	p.SetPeers(nil)
	eventually(t, "unsubscribed", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.subscribers) == 0
	})
}

// An edge does not wait for the next gathering.
func TestPokeSendsAtOnce(t *testing.T) {
	table := table("a")
	s := NewServer(ServerOptions{
		Targets: table.Targets, KEDAStream: func(route.Key) bool { return false }, Interval: time.Hour, Log: logr.Discard(),
	})
	out := &fakeStream{ctx: t.Context(), sent: make(chan *pb.Counts)}
	done := make(chan error, 1)
	go func() { done <- s.Watch(&pb.WatchRequest{}, out) }()
	if got := <-out.sent; len(got.GetWorkloads()) != 1 {
		t.Errorf("at first %v", got)
	}
	defer table.Target(key("a")).Begin()()
	s.Poke()
	if got := <-out.sent; got.GetWorkloads()[0].GetPending() != 1 {
		t.Errorf("then %v", got)
	}
	s.Close()
	if err := <-done; err != nil {
		t.Errorf("ended with %v", err)
	}
}

type fakeStream struct {
	grpc.ServerStream
	ctx  context.Context
	sent chan *pb.Counts
}

func (s *fakeStream) Context() context.Context { return s.ctx }

func (s *fakeStream) Send(c *pb.Counts) error {
	s.sent <- c
	return nil
}

// advance lets d pass by the clock of the test's bubble.
func advance(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a bubble this takes no time
	synctest.Wait()
}
