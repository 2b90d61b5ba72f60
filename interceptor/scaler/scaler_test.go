// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

const never = time.Duration(math.MaxInt64)

// fakePeers return what the test sets.
type fakePeers struct {
	mu      sync.Mutex // protects all below
	pending int64
	idle    time.Duration
	lost    time.Duration
	keda    bool
	rate    float64
}

func newFakePeers() *fakePeers { return &fakePeers{idle: never, lost: never} }

func (p *fakePeers) Total(route.Key) (int64, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pending, p.idle
}

func (p *fakePeers) Rate(route.Key) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rate
}

func (p *fakePeers) KEDAStream(route.Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keda
}

func (p *fakePeers) SinceLost() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

type fakeMetrics struct{}

func (fakeMetrics) Woken()                  {}
func (fakeMetrics) ColdStart(time.Duration) {}
func (fakeMetrics) Held(time.Duration)      {}
func (fakeMetrics) Answered(int)            {}
func (fakeMetrics) Ignored()                {}

// fakeListeners keep the route.
type fakeListeners struct{ route *route.Route }

func (l *fakeListeners) Open(r *route.Route) { l.route = r }
func (l *fakeListeners) Close(*route.Route)  {}

func newTable(w route.Waker) (*route.Table, *fakeListeners) { return newTableOf(w, nil) }

// newTableOf is newTable with a hub of the test's.
func newTableOf(w route.Waker, hub *counts.Hub) (*route.Table, *fakeListeners) {
	l := &fakeListeners{}
	return route.NewTable(route.TableOptions{
		Listeners: l, Waker: w, Log: logr.Discard(), Hub: hub,
		RouteMetrics:  func(string, string) route.Metrics { return fakeMetrics{} },
		TargetMetrics: func(route.Key) route.TargetMetrics { return fakeMetrics{} },
	}), l
}

func service(addrs ...string) route.Service {
	return route.Service{
		Namespace: "shop", Name: "web", Pods: len(addrs), SleepID: "s1", Endpoints: map[string][]string{"http": addrs},
		Routes: api.Routes{
			Service: "web", ServiceUID: "u1", Direct: "web-direct", Workload: api.Workload{Kind: "Deployment", Name: "web"},
			Ports:    []api.Port{{Name: "http", Port: 80, Listen: 10000, Protocol: api.ProtocolAuto}},
			Cooldown: api.Duration(5 * time.Minute), HoldTimeout: api.Duration(time.Minute),
		},
	}
}

// deployment is the key of the workload of service.
var deployment = route.Key{Namespace: "shop", Workload: "Deployment/web"}

func TestActive(t *testing.T) {
	const hour = time.Hour
	for name, tc := range map[string]struct {
		change  func(*route.Service)
		pending bool          // at this interceptor
		ended   time.Duration // time since a request here; 0 means none
		peers   *fakePeers
		up      time.Duration // time since it was first seen
		want    bool
	}{
		"nothing ever, asleep":           {nil, false, 0, &fakePeers{idle: never, lost: never}, hour, false},
		"nothing ever, up":               {awake, false, 0, &fakePeers{idle: never, lost: never}, hour, false},
		"pending":                        {awake, true, 0, &fakePeers{idle: never, lost: never}, hour, true},
		"pending, asleep":                {nil, true, 0, &fakePeers{idle: never, lost: never}, hour, true},
		"just ended":                     {awake, false, time.Minute, &fakePeers{idle: never, lost: never}, hour, true},
		"ended a cool-down ago":          {awake, false, 6 * time.Minute, &fakePeers{idle: never, lost: never}, hour, false},
		"pending at a peer":              {awake, false, 0, &fakePeers{pending: 1, idle: 0, lost: never}, hour, true},
		"just ended at a peer":           {awake, false, 0, &fakePeers{idle: time.Minute, lost: never}, hour, true},
		"ended at a peer long ago":       {awake, false, 0, &fakePeers{idle: hour, lost: never}, hour, false},
		"counted since a minute, up":     {awake, false, 0, &fakePeers{idle: never, lost: never}, time.Minute, true},
		"counted since a minute, asleep": {nil, false, 0, &fakePeers{idle: never, lost: never}, time.Minute, false},
		"a peer was lost, up":            {awake, false, 0, &fakePeers{idle: never, lost: time.Minute}, hour, true},
		"a peer was lost, asleep":        {nil, false, 0, &fakePeers{idle: never, lost: time.Minute}, hour, false},
		"a peer was lost, pod not ready": {
			func(s *route.Service) { s.Pods = 1 }, false, 0, &fakePeers{idle: never, lost: time.Minute}, hour, true,
		},
		"a peer was lost a while ago": {awake, false, 0, &fakePeers{idle: never, lost: 6 * time.Minute}, hour, false},
		"retiring": {
			func(s *route.Service) { s.Routes.Retiring = true }, false, 0, &fakePeers{idle: never, lost: never}, hour, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table, l := newTable(nil)
				s := service()
				if tc.change != nil {
					tc.change(&s)
				}
				table.SetService(s)
				target := l.route.Target()
				advance(tc.up)
				if tc.pending {
					defer target.Begin()()
				}
				if tc.ended > 0 {
					target.Begin()()
					advance(tc.ended)
				}
				a := &Activity{Peers: tc.peers}
				if got := a.Active(target, target.Cooldown()); got != tc.want {
					t.Errorf("active is %v", got)
				}
			})
		})
	}
}

// KEDA learns that the workload is inactive after the time that the ScaledObject asks for or, if it does not ask, after the
// cool-down.
func TestInactiveAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, l := newTable(nil)
		table.SetService(service("10.0.0.1:80"))
		advance(time.Hour)
		l.route.Target().Begin()()
		s := NewServer(ServerOptions{Target: table.Target, Activity: &Activity{Peers: &fakePeers{idle: never, lost: never}}})
		active := func(metadata ...string) bool {
			got, err := s.IsActive(t.Context(), ref(append(metadata, api.MetadataWorkload, "Deployment/web")...))
			if err != nil {
				t.Fatal(err)
			}
			return got.GetResult()
		}
		for _, step := range []struct {
			pass         time.Duration
			told, untold bool
		}{
			{0, true, true},
			{269 * time.Second, true, true},
			{2 * time.Second, false, true},
			{28 * time.Second, false, true},
			{2 * time.Second, false, false},
		} {
			advance(step.pass)
			if told, untold := active(api.MetadataInactiveAfter, "4m30s"), active(); told != step.told || untold != step.untold {
				t.Errorf("after %s more: active is %v, and %v without being told", step.pass, told, untold)
			}
		}
	})
}

func awake(s *route.Service) {
	s.Pods, s.Endpoints = 1, map[string][]string{"http": {"10.0.0.1:80"}}
}

func TestPusher(t *testing.T) {
	type look struct {
		sight
		edge bool
	}
	idle, busy := look{}, look{sight: sight{active: true}}
	waits, starts := look{sight: sight{active: true, waiting: true}}, look{sight: sight{active: true, waiting: true, hasPods: true}}
	edge := func(l look) look {
		l.edge = true
		return l
	}
	again := waits
	again.emptied = 1
	for name, tc := range map[string]struct {
		looks []look
		want  string // what is pushed at each look: + for true, - for false, . for nothing
	}{
		"the state at first":                {[]look{edge(idle)}, "-"},
		"nothing without a change":          {[]look{edge(busy), busy, edge(busy)}, "+.."},
		"each change":                       {[]look{edge(idle), busy, idle}, "-+-"},
		"at the edge, then with ticks only": {[]look{edge(idle), edge(waits), edge(waits), waits}, "-+.+"},
		"at the edge although still active": {[]look{edge(busy), edge(waits)}, "++"},
		"waiting is active":                 {[]look{{sight{waiting: true}, true}}, "+"},
		"ever more rarely": {
			slices.Repeat([]look{waits}, 66), "++.+...+.......+...............+...............................+..",
		},
		"not when it has taken":          {[]look{edge(waits), starts, starts, starts, waits}, "+...+"},
		"soon again when pods have gone": {[]look{waits, waits, waits, waits, starts, waits}, "++.+.+"},
		"often again for the next wake":  {[]look{waits, waits, waits, waits, busy, waits, waits}, "++.+.++"},
		"pods came and went unseen":      {[]look{waits, waits, waits, edge(again), again}, "++.++"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			p := pusher{send: func(active bool) error { got += map[bool]string{true: "+", false: "-"}[active]; return nil }}
			for i, l := range tc.looks {
				if err := p.look(l.sight, l.edge); err != nil {
					t.Fatal(err)
				}
				if len(got) == i {
					got += "."
				}
			}
			if got != tc.want {
				t.Errorf("pushed\n%s, want\n%s", got, tc.want)
			}
		})
	}
}

// serve runs a Server and returns its client.
func serve(t *testing.T, o ServerOptions) (*Server, pb.ExternalScalerClient) {
	t.Helper()
	s := NewServer(o)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	pb.RegisterExternalScalerServer(g, s)
	go func() { _ = g.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		g.Stop()
	})
	return s, pb.NewExternalScalerClient(conn)
}

func ref(metadata ...string) *pb.ScaledObjectRef {
	r := &pb.ScaledObjectRef{Namespace: "shop", Name: "web", ScalerMetadata: map[string]string{}}
	for i := 0; i < len(metadata); i += 2 {
		r.ScalerMetadata[metadata[i]] = metadata[i+1]
	}
	return r
}

func TestServerAnswersKEDA(t *testing.T) {
	table, l := newTable(nil)
	table.SetService(service("10.0.0.1:80"))
	peers := newFakePeers()
	peers.pending = 2
	_, client := serve(t, ServerOptions{
		Target: table.Target, Activity: &Activity{Peers: peers},
	})
	defer l.route.Target().Begin()()
	known := ref(api.MetadataWorkload, "Deployment/web", api.MetadataTargetPendingRequests, "50")
	unknown := ref(api.MetadataWorkload, "Deployment/other")
	ctx := t.Context()

	if got, err := client.IsActive(ctx, known); err != nil || !got.GetResult() {
		t.Errorf("IsActive: %v, %v", got, err)
	}
	for _, bad := range []string{"", "0s", "-1m", "soon"} {
		wrong := ref(api.MetadataWorkload, "Deployment/web", api.MetadataInactiveAfter, bad)
		if _, err := client.IsActive(ctx, wrong); status.Code(err) != codes.InvalidArgument ||
			!strings.Contains(err.Error(), strconv.Quote(bad)) {
			t.Errorf("IsActive with inactive after %q: %v", bad, err)
		}
	}
	if _, err := client.IsActive(ctx, unknown); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "shop/Deployment/other") {
		t.Errorf("IsActive of an unknown workload: %v", err)
	}
	if _, err := client.IsActive(ctx, ref()); status.Code(err) != codes.InvalidArgument {
		t.Errorf("IsActive without a workload: %v", err)
	}
	metrics, err := client.GetMetrics(ctx, &pb.GetMetricsRequest{ScaledObjectRef: known, MetricName: api.MetricPendingRequests})
	if err != nil || metrics.GetMetricValues()[0].GetMetricValueFloat() != 3 || metrics.GetMetricValues()[0].GetMetricValue() != 3 {
		t.Errorf("GetMetrics: %v, %v; want 1 here and 2 at peers", metrics, err)
	}
	if _, err := client.GetMetrics(ctx,
		&pb.GetMetricsRequest{ScaledObjectRef: known, MetricName: "x"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("GetMetrics of an unknown metric: %v", err)
	}
	spec, err := client.GetMetricSpec(ctx, known)
	if err != nil || spec.GetMetricSpecs()[0].GetMetricName() != api.MetricPendingRequests ||
		spec.GetMetricSpecs()[0].GetTargetSizeFloat() != 50 {
		t.Errorf("GetMetricSpec: %v, %v", spec, err)
	}
	for _, bad := range []string{"", "0", "-1", "many"} {
		if _, err := client.GetMetricSpec(ctx, ref(api.MetadataTargetPendingRequests, bad)); status.Code(err) != codes.InvalidArgument {
			t.Errorf("GetMetricSpec with %q: %v", bad, err)
		}
	}
	stream, err := client.StreamMetricSpec(ctx, known)
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("StreamMetricSpec: %v", err)
	}
}

// KEDA may open its stream before the route is known. It gets the state as soon as there is one, and io.EOF at the end.
func TestStreamOfWhatIsNotKnownYet(t *testing.T) {
	table, _ := newTable(nil)
	hub := counts.NewHub()
	all := hub.FollowAll()
	s, client := serve(t, ServerOptions{
		Target: table.Target, Activity: &Activity{Peers: newFakePeers()}, Repeat: 10 * time.Millisecond, Hub: hub,
	})
	stream, err := client.StreamIsActive(t.Context(), ref(api.MetadataWorkload, "Deployment/web"))
	if err != nil {
		t.Fatal(err)
	}
	<-all.Now()
	if !hub.Followed(deployment) || !hub.Poke(deployment) || !slices.Equal(all.Take(), []route.Key{deployment}) {
		t.Error("the stream is not known")
	}
	table.SetService(service("10.0.0.1:80"))
	if got, err := stream.Recv(); err != nil || !got.GetResult() {
		t.Errorf("got %v, %v", got, err)
	}
	s.Close()
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v, want io.EOF", err)
	}
	<-all.Now()
	if hub.Followed(deployment) || hub.Poke(deployment) {
		t.Error("the stream is still known")
	}
}

// looks counts how often a follower has to look.
func looks(t *testing.T, f *counts.Follower) *atomic.Int64 {
	t.Helper()
	n, done, ended := &atomic.Int64{}, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-f.Now():
				n.Add(1)
			case <-done:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(done)
		<-ended
	})
	return n
}

type fakeWorkloads struct {
	scales, asked, replicas atomic.Int64
	err                     error
}

func (w *fakeWorkloads) Replicas(context.Context, string, api.Workload) (int32, error) {
	w.asked.Add(1)
	return int32(w.replicas.Load()), w.err
}

func (w *fakeWorkloads) Scale(context.Context, string, api.Workload, int32) (bool, error) {
	w.scales.Add(1)
	return w.err == nil, w.err
}

type fakeEvents struct {
	mu       sync.Mutex // protects the others
	wakes    []Wake
	warnings []Warning
}

func (e *fakeEvents) Warn(w Warning) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.warnings = append(e.warnings, w)
}

func (e *fakeEvents) WakeRequested(w Wake) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.wakes = append(e.wakes, w)
}

func TestWaker(t *testing.T) {
	for name, tc := range map[string]struct {
		push   bool // KEDA's stream is open here
		peer   bool // KEDA's stream is open at a peer
		err    error
		after  time.Duration // until a pod is ready
		scales int64
		warns  string // part of each warning
	}{
		"scaling is refused": {
			false, false, &RefusedError{Err: errors.New("quota")}, 1500 * time.Millisecond, 1,
			"Deployment/web cannot be woken: the API server refuses to scale it up: quota",
		},
		"scaling is refused for long": {
			false, false, fmt.Errorf("x: %w", &RefusedError{Err: errors.New("quota\nx")}), 10500 * time.Millisecond, 3,
			"Deployment/web cannot be woken: the API server refuses to scale it up: quota?x",
		},
		"nobody listens":                  {false, false, nil, 1500 * time.Millisecond, 1, ""},
		"nobody listens, slow":            {false, false, nil, 10500 * time.Millisecond, 3, ""}, // at 0, 2 and 6 s
		"scaling fails":                   {false, false, errors.New("no"), 10500 * time.Millisecond, 3, ""},
		"KEDA listens here":               {true, false, nil, 2500 * time.Millisecond, 0, ""},
		"KEDA listens at a peer":          {false, true, nil, 2500 * time.Millisecond, 0, ""},
		"KEDA listens but does not act":   {true, false, nil, 4500 * time.Millisecond, 1, ""},
		"a peer's KEDA that does nothing": {false, true, nil, 4500 * time.Millisecond, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				workloads, events, peers := &fakeWorkloads{err: tc.err}, &fakeEvents{}, newFakePeers()
				peers.keda = tc.peer
				hub := counts.NewHub()
				pushes := &atomic.Int64{}
				if tc.push {
					pushes = looks(t, hub.Follow(deployment))
				}
				pokes := looks(t, hub.FollowAll())
				w := NewWaker(WakerOptions{Scaler: workloads, Events: events, Peers: peers, Log: logr.Discard(), Hub: hub})
				defer w.Close()
				table, l := newTable(w)
				table.SetService(service())
				var all sync.WaitGroup
				for range 10 {
					all.Go(func() {
						e, err := l.route.Pick(t.Context(), &route.Visit{Method: "GET", Path: "/", Remote: "192.0.2.1:5"})
						if err != nil {
							t.Error(err)
							return
						}
						e.Done()
					})
				}
				synctest.Wait()
				if tc.push && pushes.Load() != 1 || pokes.Load() != 1 {
					t.Errorf("%d pushes and %d pokes at the edge", pushes.Load(), pokes.Load())
				}
				advance(tc.after)
				table.SetService(service("10.0.0.1:80"))
				all.Wait()
				advance(time.Minute)
				if got := workloads.scales.Load(); got != tc.scales {
					t.Errorf("scaled %d times, want %d", got, tc.scales)
				}
				want := []Wake{{
					Namespace: "shop", Service: "web", ServiceUID: "u1", SleepID: "s1", Workload: service().Routes.Workload,
					Message: "GET / from 192.0.2.1: waking Deployment/web",
				}}
				for _, w := range events.warnings {
					if w.Message != tc.warns || w.ID != "wake-refused-s1" || w.ServiceUID != "u1" || w.Workload != service().Routes.Workload {
						t.Errorf("warning %+v", w)
					}
				}
				if warned := int64(len(events.warnings)); warned != 0 && tc.warns == "" || warned != tc.scales && tc.warns != "" {
					t.Errorf("%d warnings", warned)
				}
				if diff := cmp.Diff(want, events.wakes); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
				if most := int64(tc.after/time.Second) + 3; pushes.Load() > most {
					t.Errorf("pushed %d times", pushes.Load())
				}
			})
		})
	}
}

// A workload that falls asleep again is woken again, with an event of its own.
func TestWakerWakesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		workloads, events := &fakeWorkloads{}, &fakeEvents{}
		w := NewWaker(WakerOptions{
			Scaler: workloads, Events: events, Peers: newFakePeers(), Log: logr.Discard(), Hub: counts.NewHub(),
		})
		defer w.Close()
		table, l := newTable(w)
		for range 3 {
			table.SetService(service())
			done := make(chan struct{})
			go func() {
				defer close(done)
				if e, err := l.route.Pick(t.Context(), &route.Visit{}); err == nil {
					e.Done()
				}
			}()
			synctest.Wait()
			table.SetService(service("10.0.0.1:80"))
			<-done
			advance(time.Minute)
		}
		if len(events.wakes) != 3 || workloads.scales.Load() != 3 {
			t.Errorf("%d events, %d scales", len(events.wakes), workloads.scales.Load())
		}
	})
}

// A wake is over when a pod is ready. If somebody then scales the workload to zero by hand, only the next request brings it back, and
// KEDA gets its time again for that request.
func TestWakerEndsWithTheFirstPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		workloads, events := &fakeWorkloads{}, &fakeEvents{}
		hub := counts.NewHub()
		pushes := looks(t, hub.Follow(deployment))
		w := NewWaker(WakerOptions{Scaler: workloads, Events: events, Peers: newFakePeers(), Log: logr.Discard(), Hub: hub})
		defer w.Close()
		table, l := newTable(w)
		table.SetService(service())
		visit := func() (done chan struct{}) {
			done = make(chan struct{})
			go func() {
				defer close(done)
				release := l.route.Target().Begin()
				defer release()
				if e, err := l.route.Pick(t.Context(), &route.Visit{}); err == nil {
					e.Done()
				}
			}()
			synctest.Wait()
			return done
		}
		for range 3 { // each visit comes before the loop of the last wake has ended
			before := pushes.Load()
			done := visit()
			if pushes.Load() == before {
				t.Error("the push waits for a tick")
			}
			advance(1200 * time.Millisecond)
			table.SetService(service("10.0.0.1:80"))
			<-done
			table.SetService(service())
			advance(300 * time.Millisecond)
		}
		advance(time.Minute)
		if n := workloads.scales.Load(); n != 0 {
			t.Errorf("scaled up %d times for nobody", n)
		}
		if len(events.wakes) != 3 {
			t.Errorf("%d wakes", len(events.wakes))
		}
	})
}

// When everybody who waited has given up and nobody has scaled, the next request begins a new wake.
func TestWakerAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		workloads, events := &fakeWorkloads{}, &fakeEvents{}
		w := NewWaker(WakerOptions{
			Scaler: workloads, Events: events, Peers: newFakePeers(), Log: logr.Discard(), Hub: counts.NewHub(),
		})
		defer w.Close()
		table, l := newTable(w)
		table.SetService(service())
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			if _, err := l.route.Pick(ctx, &route.Visit{}); err == nil {
				t.Error("picked a pod where there is none")
			}
			cancel()
			advance(time.Minute)
		}
		if workloads.scales.Load() != 2 || len(events.wakes) != 2 {
			t.Errorf("%d scales, %d events", workloads.scales.Load(), len(events.wakes))
		}
	})
}

// Repeated requests, like those of a page without JavaScript, are one wake until none has come for a while.
func TestWakerLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		workloads, events := &fakeWorkloads{}, &fakeEvents{}
		w := NewWaker(WakerOptions{
			Scaler: workloads, Events: events, Peers: newFakePeers(), Log: logr.Discard(), Hub: counts.NewHub(),
		})
		defer w.Close()
		table, l := newTable(w)
		table.SetService(service())
		target := l.route.Target()
		for range 10 {
			release := target.Begin()
			if _, err := l.route.Pick(t.Context(), &route.Visit{Wait: route.Wait{Limit: time.Second}}); err == nil {
				t.Error("picked a pod where there is none")
			}
			release()
			advance(2 * time.Second)
		}
		if len(events.wakes) != 1 || target.Waking() != 30*time.Second {
			t.Errorf("%d events, and the wake takes %s", len(events.wakes), target.Waking())
		}
		advance(10 * time.Second)
		if target.Waking() != 0 {
			t.Error("the wake goes on for nobody")
		}
	})
}

func TestDescribe(t *testing.T) {
	long := strings.Repeat("/ä", 500)
	for name, tc := range map[string]struct {
		visit route.Visit
		want  string
	}{
		"a visitor": {
			route.Visit{Method: "GET", Path: "/login", Remote: "198.18.0.9:1", Agent: "curl/8.5"}, "GET /login from 198.18.0.9 (curl/8.5)",
		},
		"query":         {route.Visit{Method: "GET", Path: "/a?token=1", Remote: "198.18.0.9"}, "GET /a from 198.18.0.9"},
		"v6":            {route.Visit{Method: "GET", Path: "/", Remote: "[fd00::1]:80"}, "GET / from fd00::1"},
		"v4 in v6":      {route.Visit{Method: "GET", Path: "/", Remote: "[::ffff:192.0.2.1]:80"}, "GET / from 192.0.2.1"},
		"tcp":           {route.Visit{Remote: "192.0.2.1:80"}, "a connection from 192.0.2.1"},
		"no address":    {route.Visit{Method: "GET", Path: "/", Remote: "<script>"}, "GET / from an unknown address"},
		"control":       {route.Visit{Method: "GET", Path: "/a\x1b[31m\nb\u202e\xff", Remote: "192.0.2.1"}, "GET /a?[31m?b?? from 192.0.2.1"},
		"long in runes": {route.Visit{Method: "GET", Path: long, Remote: "192.0.2.1"}, "GET " + long[:70] + "... from 192.0.2.1"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Describe(&tc.visit); got != tc.want {
				t.Errorf("\n got %q\nwant %q", got, tc.want)
			}
		})
	}
}

func FuzzDescribe(f *testing.F) {
	f.Add("GET", "/a?b", "192.0.2.1:80", "curl/8.5")
	f.Add("\x00", "\xff\u202e", "fe80::1%eth0", strings.Repeat("x", 1000))
	f.Fuzz(func(t *testing.T, method, path, remote, agent string) {
		got := Describe(&route.Visit{Method: method, Path: path, Remote: remote, Agent: agent})
		if len(got) > 200 {
			t.Errorf("%d bytes", len(got))
		}
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Errorf("%q does not print", r)
			}
		}
	})
}

// advance advances the bubble's clock by d.
func advance(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a bubble this takes no time
	synctest.Wait()
}
