// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// starts returns an app with a pod that is not ready. Its cool-down is shorter than its start.
func starts() route.Service {
	s := service()
	s.Pods, s.Routes.Cooldown = 1, api.Duration(10*time.Second)
	return s
}

// TestStartIsGivenItsTime tests that a start gets its time even if its visitor has left, and at interceptors that have not seen the
// visitor.
func TestStartIsGivenItsTime(t *testing.T) {
	up := starts()
	up.Endpoints = map[string][]string{"http": {"10.0.0.1:80"}}
	failing := starts()
	failing.Progress = api.Progress{Stage: api.StagePulling, Failing: "no such image", Reason: "ImagePullBackOff"}
	for name, tc := range map[string]struct {
		visited bool // at this interceptor, and not at a peer
		then    route.Service
		after   time.Duration
		want    bool
	}{
		"it takes longer than the cool-down":      {true, starts(), time.Minute, true},
		"the visitor was at a peer":               {false, starts(), time.Minute, true},
		"it takes for ever":                       {true, starts(), 10 * time.Minute, false},
		"it cannot start":                         {true, failing, 20 * time.Second, false},
		"it is ready, and the cool-down not over": {true, up, 9 * time.Second, true},
		"it has been ready for the cool-down":     {true, up, 11 * time.Second, false},
		"a peer's, ready, not over":               {false, up, 9 * time.Second, true},
		"a peer's, ready, over":                   {false, up, 11 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table, l := newTable(nil)
				asleep := starts()
				asleep.Pods = 0
				table.SetService(asleep)
				advance(time.Hour)
				target := l.route.Target()
				if tc.visited {
					target.BeginWake()
					target.Begin()()
				}
				table.SetService(starts())
				advance(30 * time.Second)
				a := &Activity{Peers: newFakePeers()}
				if !a.Active(target, target.Cooldown()) {
					t.Error("it is put to sleep while it starts")
				}
				table.SetService(tc.then)
				advance(tc.after)
				if got := a.Active(target, target.Cooldown()); got != tc.want {
					t.Errorf("active is %v", got)
				}
			})
		})
	}
}

// TestWithoutAPodInSight tests an app that was in use a moment ago and has no pod any more: it sleeps if it has no replicas, and
// waits for its pod if it has some. The API server is not asked if the answer is certain.
func TestWithoutAPodInSight(t *testing.T) {
	for name, tc := range map[string]struct {
		replicas int64
		err      error
		idle     time.Duration
		held     bool
		paused   bool
		want     bool
		asked    int64
	}{
		"scaled to zero by hand":             {idle: time.Second, want: false, asked: 1},
		"its pod is replaced":                {replicas: 1, idle: time.Second, want: true, asked: 1},
		"its pod is replaced, and it idles":  {replicas: 1, idle: 9 * time.Minute, want: true, asked: 1},
		"nobody knows":                       {err: errors.New("no"), idle: time.Second, want: true, asked: 1},
		"somebody waits":                     {idle: time.Second, held: true, want: true},
		"its owner has paused it":            {idle: time.Second, held: true, paused: true, want: false, asked: 1},
		"it has slept for long, by the look": {idle: time.Hour, want: false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				workloads := &fakeWorkloads{err: tc.err}
				workloads.replicas.Store(tc.replicas)
				table, l := newTable(nil)
				table.SetService(service("10.0.0.1:80"))
				advance(time.Hour)
				target := l.route.Target()
				target.Begin()()
				gone := service()
				if tc.paused {
					gone.Progress.Paused = &api.Pause{Why: "its owner says so", Asleep: true}
				}
				table.SetService(gone)
				advance(tc.idle)
				if tc.held {
					defer target.Begin()()
				}
				s := NewServer(ServerOptions{Target: table.Target, Activity: &Activity{Peers: newFakePeers()}, Replicas: workloads.Replicas})
				for range 2 {
					got, err := s.IsActive(t.Context(), ref(api.MetadataWorkload, "Deployment/web"))
					if err != nil || got.GetResult() != tc.want {
						t.Errorf("active is %v, %v", got, err)
					}
					if got := workloads.asked.Load(); got != tc.asked {
						t.Errorf("asked the API server %d times", got)
					}
					workloads.asked.Store(0)
				}
			})
		})
	}
	// Once it is known that the app sleeps, there is no start.
	synctest.Test(t, func(t *testing.T) {
		workloads := &fakeWorkloads{}
		table, _ := newTable(nil)
		table.SetService(service("10.0.0.1:80"))
		table.SetService(service())
		s := NewServer(ServerOptions{Target: table.Target, Activity: &Activity{Peers: newFakePeers()}, Replicas: workloads.Replicas})
		for range 3 {
			advance(time.Minute)
			if got, err := s.IsActive(t.Context(), ref(api.MetadataWorkload, "Deployment/web")); err != nil || got.GetResult() {
				t.Errorf("active is %v, %v", got, err)
			}
		}
		if got := workloads.asked.Load(); got != 1 {
			t.Errorf("asked the API server %d times about one sleep", got)
		}
	})
}

// TestStreamWakesForNobody tests that on KEDA's stream, which KEDA may open again at any time, an app without a pod is active only
// while somebody waits for a pod.
func TestStreamWakesForNobody(t *testing.T) {
	table, l := newTable(nil)
	table.SetService(service("10.0.0.1:80"))
	l.route.Target().Begin()()
	table.SetService(service())
	peers := newFakePeers()
	s, client := serve(t, ServerOptions{
		Target: table.Target, Activity: &Activity{Peers: peers}, Repeat: 10 * time.Millisecond,
	})
	defer s.Close()
	stream, err := client.StreamIsActive(t.Context(), ref(api.MetadataWorkload, "Deployment/web"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := stream.Recv(); err != nil || got.GetResult() {
		t.Errorf("active is %v, %v", got, err)
	}
	peers.mu.Lock()
	peers.pending = 1
	peers.mu.Unlock()
	if got, err := stream.Recv(); err != nil || !got.GetResult() {
		t.Errorf("somebody waits: active is %v, %v", got, err)
	}
}

// TestWakerRespectsAPause tests a pause that begins while requests wait.
func TestWakerRespectsAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		workloads, events := &fakeWorkloads{}, &fakeEvents{}
		hub := counts.NewHub()
		defer hub.Follow(deployment).Close()
		w := NewWaker(WakerOptions{Scaler: workloads, Events: events, Peers: newFakePeers(), Log: logr.Discard(), Hub: hub})
		defer w.Close()
		table, l := newTable(w)
		table.SetService(service())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = l.route.Pick(ctx, &route.Visit{})
		}()
		synctest.Wait()
		paused := service()
		paused.Progress.Paused = &api.Pause{Why: "its owner says so"}
		table.SetService(paused)
		advance(20 * time.Second) // KEDA has not acted in this time
		if got := workloads.scales.Load(); got != 0 {
			t.Errorf("scaled %d times", got)
		}
		table.SetService(service())
		advance(2 * time.Second)
		if got := workloads.scales.Load(); got != 1 {
			t.Errorf("scaled %d times after the pause", got)
		}
		cancel()
		<-done
	})
}
