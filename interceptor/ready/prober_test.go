// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package ready

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

const within = 10 * time.Second

// fakePod is a pod on a loopback address. It answers probes with a status, and everything else with 200.
type fakePod struct {
	t      *testing.T
	ip     string
	port   int32
	status atomic.Int32 // of probes
	slow   atomic.Bool  // probes are not answered
	probes atomic.Int64
	server *http.Server
}

// newPod returns a pod that does not listen yet.
func newPod(t *testing.T, ip string) *fakePod {
	t.Helper()
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	p := &fakePod{t: t, ip: ip, port: portOf(t, l.Addr().String())}
	p.status.Store(http.StatusOK)
	_ = l.Close()
	t.Cleanup(p.ends)
	return p
}

func (p *fakePod) addr() string { return net.JoinHostPort(p.ip, strconv.Itoa(int(p.port))) }

// listens makes the pod listen.
func (p *fakePod) listens() {
	p.t.Helper()
	l, err := net.Listen("tcp", p.addr())
	if err != nil {
		p.t.Fatal(err)
	}
	p.server = &http.Server{ReadHeaderTimeout: within, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.probes.Add(1)
		if p.slow.Load() {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(int(p.status.Load()))
	})}
	go func(s *http.Server) { _ = s.Serve(l) }(p.server)
}

// ends ends the pod's process.
func (p *fakePod) ends() {
	if p.server != nil {
		_ = p.server.Close()
	}
}

// world is a table with one workload that may be probed.
type world struct {
	*testing.T

	table  *route.Table
	prober *Prober
	route  *route.Route
	trust  time.Duration
	probes func(port int32) []api.Probe
}

func (w *world) Open(r *route.Route) { w.route = r }
func (w *world) Close(*route.Route)  {}

// Wake implements route.Waker.
func (w *world) Wake(_ *route.Route, t *route.Target, _ *route.Visit) { w.prober.Wake(t) }

type noMetrics struct{}

func (noMetrics) Held(time.Duration)      {}
func (noMetrics) Answered(int)            {}
func (noMetrics) Ignored()                {}
func (noMetrics) Woken()                  {}
func (noMetrics) ColdStart(time.Duration) {}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, trust: time.Minute}
	w.probes = func(port int32) []api.Probe {
		p := probe(port)
		p.HTTP, p.Timeout = &api.HTTPProbe{Path: "/ready"}, api.Duration(200*time.Millisecond)
		return []api.Probe{p}
	}
	w.prober = New(Options{
		Unready: func(target *route.Target) route.Unready { return route.EarlyPods{Table: w.table}.Unready(target) },
		Vouch: func(target *route.Target, ip string, word route.Word) {
			route.EarlyPods{Table: w.table}.Vouch(target, ip, word)
		},
		Every: 5 * time.Millisecond, Again: 5 * time.Millisecond, Log: logr.Discard(),
	})
	w.table = route.NewTable(route.TableOptions{
		Listeners: w, Waker: w, PodsChanged: w.prober.PodsChanged, Log: logr.Discard(),
		RouteMetrics:  func(string, string) route.Metrics { return noMetrics{} },
		TargetMetrics: func(route.Key) route.TargetMetrics { return noMetrics{} },
	})
	t.Cleanup(func() {
		w.prober.Close()
		w.table.Close()
	})
	return w
}

// set sets the pods.
func (w *world) set(ready, unready []*fakePod) {
	w.Helper()
	s := route.Service{
		Namespace: "shop", Name: "web", Pods: len(ready) + len(unready),
		Endpoints: map[string][]string{"http": addrs(ready)}, Unready: map[string][]string{"http": addrs(unready)},
		Routes: api.Routes{
			Service: "web", Direct: "web-direct", Workload: api.Workload{Kind: "Deployment", Name: "web"},
			Ports:    []api.Port{{Name: "http", Port: 80, Listen: 10000, Protocol: api.ProtocolAuto}},
			Cooldown: api.Duration(time.Minute), HoldTimeout: api.Duration(time.Minute),
		},
	}
	if all := append(ready, unready...); len(all) > 0 && w.probes != nil {
		s.Routes.Readiness = &api.Readiness{Probes: w.probes(all[0].port), Trust: api.Duration(w.trust)}
	}
	w.table.SetService(s)
}

func addrs(pods []*fakePod) []string {
	var out []string
	for _, p := range pods {
		out = append(out, p.addr())
	}
	return out
}

// held holds a request. It returns a channel with the address that the request goes to. The channel gets nothing if the test ends
// earlier.
func (w *world) held() <-chan string {
	got := make(chan string, 1)
	ctx, cancel := context.WithCancel(context.Background())
	w.Cleanup(cancel)
	go func() {
		if e, err := w.route.Pick(ctx, &route.Visit{}); err == nil {
			e.Done()
			got <- e.Addr
		}
	}()
	eventually(w.T, "held, or served", func() bool { return w.route.Held() > 0 || len(got) > 0 })
	return got
}

func (w *world) goesTo(got <-chan string, p *fakePod) {
	w.Helper()
	select {
	case addr := <-got:
		if addr != p.addr() {
			w.Errorf("the request goes to %s, want %s", addr, p.addr())
		}
	case <-time.After(within):
		w.Fatal("the request is still held")
	}
}

// isHeld reports whether no pod takes requests.
func (w *world) isHeld() bool { return !w.route.HasEndpoint() }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); time.Now().Before(end); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatalf("not %s within %s", what, within)
}

// A pod gets held requests once its probe succeeds, whatever Kubernetes says. It gets none while it does not listen or while the
// probe fails.
func TestTakesRequestsWhenItSaysSo(t *testing.T) {
	w, p := newWorld(t), newPod(t, "127.0.0.1")
	w.set(nil, nil)
	got := w.held()
	w.set(nil, []*fakePod{p})
	p.status.Store(http.StatusServiceUnavailable)
	p.listens()
	eventually(t, "asked", func() bool { return p.probes.Load() >= 5 })
	if !w.isHeld() {
		t.Fatal("the request is not held any more")
	}
	p.status.Store(http.StatusNoContent)
	w.goesTo(got, p)
	w.set([]*fakePod{p}, nil)
	w.goesTo(w.held(), p)
	// From now on the pod is not probed.
	eventually(t, "left alone", func() bool {
		before := p.probes.Load()
		<-time.After(50 * time.Millisecond)
		return p.probes.Load() == before
	})
}

// No pod is probed while no request waits.
func TestAsksOnlyWhileHeld(t *testing.T) {
	w, p := newWorld(t), newPod(t, "127.0.0.1")
	p.listens()
	w.set(nil, []*fakePod{p})
	<-time.After(50 * time.Millisecond)
	if n := p.probes.Load(); n > 0 {
		t.Errorf("asked %d times", n)
	}
	w.goesTo(w.held(), p)
}

// Without probes of the app, only Kubernetes decides who is ready.
func TestWithoutProbes(t *testing.T) {
	w, p := newWorld(t), newPod(t, "127.0.0.1")
	w.probes = nil
	p.listens()
	w.set(nil, []*fakePod{p})
	got := w.held()
	<-time.After(50 * time.Millisecond)
	if p.probes.Load() > 0 || !w.isHeld() {
		t.Error("the pod is asked, or takes requests")
	}
	w.set([]*fakePod{p}, nil)
	w.goesTo(got, p)
}

// If the app says later that it is not ready, or ends, its pod gets no more requests until it is probed successfully again.
func TestTakesItBack(t *testing.T) {
	for name, tc := range map[string]struct{ falls, rises func(*fakePod) }{
		"not ready any more": {
			func(p *fakePod) { p.status.Store(http.StatusServiceUnavailable) }, func(p *fakePod) { p.status.Store(http.StatusOK) },
		},
		"it ends": {(*fakePod).ends, (*fakePod).listens},
	} {
		t.Run(name, func(t *testing.T) {
			w, p := newWorld(t), newPod(t, "127.0.0.1")
			p.listens()
			w.set(nil, []*fakePod{p})
			w.goesTo(w.held(), p)
			tc.falls(p)
			eventually(t, "held", w.isHeld)
			got := w.held()
			tc.rises(p)
			w.goesTo(got, p)
		})
	}
}

// A pod with a startup probe alone that ends takes no more requests until it has started again.
func TestTakesBackWhatRestarts(t *testing.T) {
	w, p := newWorld(t), newPod(t, "127.0.0.1")
	w.probes = func(port int32) []api.Probe {
		startup := probe(port)
		startup.Startup, startup.HTTP = true, &api.HTTPProbe{Path: "/started"}
		return []api.Probe{startup}
	}
	p.listens()
	w.set(nil, []*fakePod{p})
	w.goesTo(w.held(), p)
	p.ends()
	eventually(t, "held", w.isHeld)
	got := w.held()
	p.status.Store(http.StatusServiceUnavailable)
	p.listens()
	before := p.probes.Load()
	eventually(t, "probed", func() bool { return p.probes.Load() > before+3 })
	if !w.isHeld() {
		t.Error("it takes requests before it has started")
	}
	p.status.Store(http.StatusOK)
	w.goesTo(got, p)
}

// A pod that is too busy for its probe keeps getting requests.
func TestBusyIsNotUnready(t *testing.T) {
	w, p := newWorld(t), newPod(t, "127.0.0.1")
	p.listens()
	w.set(nil, []*fakePod{p})
	w.goesTo(w.held(), p)
	p.slow.Store(true)
	before := p.probes.Load()
	eventually(t, "asked, and asked again", func() bool { return p.probes.Load() > before+2 })
	w.goesTo(w.held(), p)
}

// A pod that Kubernetes does not call ready in time gets no more requests.
func TestTrustEnds(t *testing.T) {
	w, p := newWorld(t), newPod(t, "127.0.0.1")
	w.trust = 100 * time.Millisecond
	p.listens()
	w.set(nil, []*fakePod{p})
	w.goesTo(w.held(), p)
	eventually(t, "held", w.isHeld)
	got := w.held()
	<-time.After(50 * time.Millisecond)
	if len(got) > 0 {
		t.Error("the pod takes requests again")
	}
	w.set([]*fakePod{p}, nil)
	w.goesTo(got, p)
}

// A probe may require several successes in a row, and a startup probe comes first.
func TestThresholds(t *testing.T) {
	w, p := newWorld(t), newPod(t, "127.0.0.1")
	startup := newPod(t, "127.0.0.1")
	w.probes = func(port int32) []api.Probe {
		first, second := probe(startup.port), probe(port)
		first.Startup, first.HTTP = true, &api.HTTPProbe{Path: "/"}
		second.Successes, second.HTTP = 3, &api.HTTPProbe{Path: "/"}
		return []api.Probe{first, second}
	}
	startup.status.Store(http.StatusServiceUnavailable)
	p.listens()
	startup.listens()
	w.set(nil, []*fakePod{p})
	got := w.held()
	eventually(t, "asked", func() bool { return startup.probes.Load() >= 5 })
	if p.probes.Load() > 0 || !w.isHeld() {
		t.Fatal("the readiness probe runs before the startup probe has succeeded")
	}
	startup.status.Store(http.StatusOK)
	w.goesTo(got, p)
	if n := p.probes.Load(); n < 3 {
		t.Errorf("asked %d times, want 3", n)
	}
}

// As soon as Kubernetes calls a pod ready, Kubernetes decides: the other pods are not probed, and get no more requests.
func TestKubernetesDecides(t *testing.T) {
	w, one, two := newWorld(t), newPod(t, "127.0.0.1"), newPod(t, "127.0.0.2")
	one.listens()
	two.listens()
	w.set(nil, []*fakePod{one})
	w.goesTo(w.held(), one)
	w.set([]*fakePod{two}, []*fakePod{one})
	for range 20 {
		w.goesTo(w.held(), two)
	}
}

// Once the template changes, the pods are probed by the new one.
func TestProbesChange(t *testing.T) {
	w, p := newWorld(t), newPod(t, "127.0.0.1")
	other := newPod(t, "127.0.0.1")
	w.set(nil, []*fakePod{p})
	got := w.held()
	w.probes = func(int32) []api.Probe { return []api.Probe{probe(other.port)} }
	w.set(nil, []*fakePod{p})
	other.listens()
	w.goesTo(got, p)
}
