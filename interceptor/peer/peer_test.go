// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
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

// side is what a Server needs: a table with a target for each name, and the hub for the counts.
type side struct {
	*route.Table
	hub *counts.Hub
}

func newSide(names ...string) *side {
	hub := counts.NewHub()
	s := &side{hub: hub, Table: route.NewTable(route.TableOptions{
		Listeners: fakeListeners{}, Hub: hub, Log: logr.Discard(),
		RouteMetrics:  func(string, string) route.Metrics { return fakeMetrics{} },
		TargetMetrics: func(route.Key) route.TargetMetrics { return fakeMetrics{} },
	})}
	for i, name := range names {
		s.SetService(route.Service{Namespace: "shop", Name: name, Routes: api.Routes{
			Service: name, Workload: api.Workload{Kind: "Deployment", Name: name},
			Ports:    []api.Port{{Listen: int32(10000 + i), Protocol: api.ProtocolAuto}},
			Cooldown: api.Duration(time.Minute), HoldTimeout: api.Duration(time.Minute),
		}})
	}
	return s
}

func (s *side) options(interval time.Duration) ServerOptions {
	return ServerOptions{Targets: s.Targets, Target: s.Target, Hub: s.hub, Interval: interval, Log: logr.Discard()}
}

func key(name string) route.Key { return route.Key{Namespace: "shop", Workload: "Deployment/" + name} }

func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		side := newSide("a", "b")
		o := side.options(0)
		d := newDiffer(&o, side.hub.FollowAll())
		changes := func() string {
			got := ""
			for _, c := range d.changes(time.Now()) {
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
		if got := len(d.changes(time.Now())); got != 2 {
			t.Errorf("%d at first, want all", got)
		}
		want("nothing new", "")
		release := side.Target(key("a")).Begin()
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
		if len(d.due) != 0 {
			t.Errorf("%v are looked at although nothing happens", d.due)
		}
		stream := side.hub.Follow(key("b"))
		want("stream", "Deployment/b pending=0 idle=never keda=true;")
		stream.Close()
		want("its end", "Deployment/b pending=0 idle=never keda=false;")
		release = side.Target(key("a")).Begin()
		side.RemoveService("shop", "a")
		advance(time.Minute)
		want("removed", "Deployment/a pending=1 idle=0 keda=false;")
		release()
		want("ended behind its routes", "Deployment/a pending=0 idle=never keda=false;")
		side.SetService(route.Service{Namespace: "shop", Name: "c", Routes: api.Routes{
			Workload: api.Workload{Kind: "Deployment", Name: "c"}, Ports: []api.Port{{Listen: 10002}},
		}})
		want("new", "Deployment/c pending=0 idle=never keda=false;")
		quiet := side.Target(key("c")).BeginQuiet()
		want("a silent connection", "Deployment/c pending=1 idle=0 keda=false;")
		quiet()
		want("its end", "Deployment/c pending=0 idle=never keda=false;")
	})
}

// serve runs a Server. It returns its address, and the server to stop.
func serve(t *testing.T, addr string, side *side) (string, *grpc.Server) {
	t.Helper()
	s := NewServer(side.options(20 * time.Millisecond))
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	pb.RegisterPeerServer(g, s)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return l.Addr().String(), g
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
	side := newSide("a")
	addr, first := serve(t, "127.0.0.1:0", side)
	hub := counts.NewHub()
	stream := hub.Follow(key("a"))
	p := NewPool(PoolOptions{
		Name: "me", Dial: func(Peer) string { return addr }, Hub: hub,
		MinRetry: 10 * time.Millisecond, MaxRetry: 50 * time.Millisecond, Log: logr.Discard(),
		Led: func(key route.Key) []route.Key {
			return []route.Key{{Namespace: key.Namespace, Workload: "Deployment/led"}}
		},
	})
	led := hub.Follow(key("led"))
	defer p.Close()
	you := Peer{Name: "you", Addr: "127.0.0.1"}
	p.SetPeers([]Peer{you})
	p.SetPeers([]Peer{you})
	total := func(want int64) func() bool {
		return func() bool { got, _ := p.Total(key("a")); return got == want }
	}
	release := side.Target(key("a")).Begin()
	eventually(t, "pending", total(1))
	if _, idle := p.Total(key("a")); idle > time.Minute {
		t.Errorf("idle %s", idle)
	}
	select {
	case <-stream.Now():
	default:
		t.Error("who follows the workload here was not told")
	}
	select {
	case <-led.Now():
	default:
		t.Error("who follows a workload that wakes with it was not told")
	}
	defer side.hub.Follow(key("a")).Close()
	eventually(t, "KEDA's stream", func() bool { return p.KEDAStream(key("a")) })
	if p.SinceLost() != never {
		t.Error("lost before anything was")
	}

	first.Stop()
	eventually(t, "dropped", total(0))
	if p.KEDAStream(key("a")) || p.SinceLost() > time.Minute {
		t.Errorf("the peer's state outlived it")
	}
	serve(t, addr, side)
	eventually(t, "pending again", total(1))
	release()
	side.hub.Flush()
	eventually(t, "ended", total(0))

	lost := p.SinceLost()
	p.SetPeers(nil)
	eventually(t, "unsubscribed", func() bool { return p.SinceLost() < lost })
}

// An edge is sent without waiting for the interval.
func TestFlushSendsAtOnce(t *testing.T) {
	side := newSide("a")
	s := NewServer(side.options(time.Hour))
	out := &fakeStream{ctx: t.Context(), sent: make(chan *pb.Counts)}
	done := make(chan error, 1)
	go func() { done <- s.Watch(&pb.WatchRequest{}, out) }()
	if got := <-out.sent; len(got.GetWorkloads()) != 1 {
		t.Errorf("at first %v", got)
	}
	defer side.Target(key("a")).Begin()()
	side.hub.Flush()
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

// advance advances the bubble's clock by d.
func advance(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a bubble this takes no time
	synctest.Wait()
}

// TestNewsTravels tests that a message carries all news.
func TestNewsTravels(t *testing.T) {
	news := route.News{
		ServerFirst: []int32{10000}, HTTP: []int32{10001},
		Tabs:  []route.TabNews{{Listen: 10001, Tab: route.Tab{Client: 1, Place: 2}, Age: time.Second, Forgotten: true}},
		Calls: []route.CallNews{{Caller: key("a"), Callee: "Deployment/b", Age: time.Minute, Asleep: true}},
		Early: []route.EarlyNews{{Key: key("a"), Age: time.Minute}},
	}
	if got := newsOf(message(nil, news)); !reflect.DeepEqual(got, news) {
		t.Errorf("got %+v, want %+v", got, news)
	}
}

// TestNewsIsPassedOn tests that a follower of one interceptor hears what another one has learned, although no count changes.
func TestNewsIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := counts.NewHub()
		memory := route.NewMemory(hub)
		s := NewServer(ServerOptions{
			Targets: func() []*route.Target { return nil }, Target: func(route.Key) *route.Target { return nil },
			Hub: hub, Memory: memory, Log: logr.Discard(),
		})
		ctx, cancel := context.WithCancel(t.Context())
		stream := &fakeStream{ctx: ctx, sent: make(chan *pb.Counts, 9)}
		done := make(chan error, 1)
		go func() { done <- s.Watch(&pb.WatchRequest{OnlyLearned: true}, stream) }()
		hub.Changed(key("a")) // nobody takes this in
		for i := range 3 {
			advance(time.Minute)
			memory.Learn(route.News{Calls: []route.CallNews{{Caller: key("a"), Callee: fmt.Sprint(i)}}})
		}
		memory.Learn(route.News{Calls: []route.CallNews{{Caller: key("a"), Callee: "2", Age: time.Second}}})
		advance(time.Minute)
		var heard []string
		for len(stream.sent) > 0 {
			for _, c := range (<-stream.sent).GetCalls() {
				heard = append(heard, c.GetCallee())
			}
		}
		if got := fmt.Sprint(heard); got != "[0 1 2]" {
			t.Errorf("heard %s", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
