// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// fakeWork says what the test sets, and notes who asks.
type fakeWork struct {
	mu         sync.Mutex // protects all below
	busy, last map[route.Key]bool
	asked      []route.Key
	idle       time.Duration
	replicas   int32
	err        error
}

func newFakeWork() *fakeWork {
	return &fakeWork{busy: map[route.Key]bool{}, last: map[route.Key]bool{}, replicas: 1}
}

func (w *fakeWork) Busy(_ context.Context, t *route.Target, idle time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked, w.idle = append(w.asked, t.Key), idle
	return w.busy[t.Key]
}

func (w *fakeWork) Last(t *route.Target) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last[t.Key]
}

func (w *fakeWork) Replicas(context.Context, string, api.Workload) (int32, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.replicas, w.err
}

func (w *fakeWork) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// asks returns who was asked since it was last called.
func (w *fakeWork) asks() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.asked)
	w.asked = nil
	return n
}

// A busy workload is active without requests. It is asked only when nothing else keeps it up, and never when it has no pods.
func TestBusyIsActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, l := newTable(nil)
		table.SetService(service("10.0.0.1:80"))
		work := newFakeWork()
		s := NewServer(ServerOptions{Target: table.Target, Activity: &Activity{Peers: newFakePeers()}, Work: work, Replicas: work.Replicas})
		poll := func(what string, active bool, asks int) {
			t.Helper()
			got, err := s.IsActive(t.Context(), ref(api.MetadataWorkload, "Deployment/web"))
			if err != nil || got.GetResult() != active {
				t.Errorf("%s: active is %v, %v", what, got.GetResult(), err)
			}
			if n := work.asks(); n != asks {
				t.Errorf("%s: asked %d times", what, n)
			}
		}
		work.busy[deployment] = true
		poll("it became ready a moment ago", true, 0)
		advance(time.Hour)
		l.route.Target().Begin()()
		advance(time.Minute)
		poll("visited", true, 0)
		advance(5 * time.Minute)
		poll("busy", true, 1)
		if work.idle != 6*time.Minute {
			t.Errorf("it is said to be idle for %s", work.idle)
		}
		work.replicas = 0
		poll("busy, and just scaled to zero by hand", false, 1)
		work.err = errors.New("no answer")
		poll("busy, and the API server does not answer", true, 1)
		work.err, work.replicas = nil, 1
		work.busy[deployment] = false
		poll("idle", false, 1)
		work.busy[deployment] = true
		table.SetService(service())
		advance(api.StartTime(time.Minute))
		poll("asleep", false, 0)
	})
}

// What a busy workload leads stays up with it, and is not woken by it.
func TestBusyLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, _ := newTable(nil)
		table.SetService(front("10.0.0.1:80"))
		table.SetService(database("10.0.0.2:80"))
		work := newFakeWork()
		s := NewServer(ServerOptions{
			Target: table.Target, Work: work, Replicas: work.Replicas,
			Activity: &Activity{Peers: newFakePeers(), Leaders: route.Stacks{Table: table}.Leaders},
		})
		advance(time.Hour)
		active := func() bool {
			t.Helper()
			got, err := s.IsActive(t.Context(), ref(api.MetadataWorkload, "Deployment/db"))
			if err != nil {
				t.Fatal(err)
			}
			return got.GetResult()
		}
		if active() {
			t.Error("it is active although nobody works")
		}
		work.busy[deployment] = true
		if !active() {
			t.Error("it is not active although its leader works")
		}
		table.SetService(database())
		advance(api.StartTime(time.Minute))
		if active() {
			t.Error("it is woken because its leader works")
		}
	})
}

// fakeStream notes what is sent.
type fakeStream struct {
	grpc.ServerStream
	ctx context.Context

	mu   sync.Mutex // protects sent
	sent []bool
}

func (s *fakeStream) Context() context.Context { return s.ctx }

func (s *fakeStream) Send(r *pb.IsActiveResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, r.GetResult())
	return nil
}

// A stream says what was last known, and never asks: it looks each second. It says nothing that could wake what sleeps.
func TestStreamOfBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, l := newTable(nil)
		table.SetService(service("10.0.0.1:80"))
		work := newFakeWork()
		s := NewServer(ServerOptions{Target: table.Target, Activity: &Activity{Peers: newFakePeers()}, Work: work, Replicas: work.Replicas})
		ctx, cancel := context.WithCancel(t.Context())
		streams := map[*fakeStream]string{}
		open := func(name string) *fakeStream {
			out := &fakeStream{ctx: ctx}
			streams[out] = name
			go func() { _ = s.StreamIsActive(ref(api.MetadataWorkload, "Deployment/web"), out) }()
			advance(2 * time.Second)
			return out
		}
		want := func(out *fakeStream, sent ...bool) {
			t.Helper()
			advance(5 * time.Second)
			out.mu.Lock()
			defer out.mu.Unlock()
			if !slices.Equal(out.sent, sent) {
				t.Errorf("stream %s: sent %v, want %v", streams[out], out.sent, sent)
			}
		}
		work.set(func() { work.last[deployment] = true })
		first := open("first")
		want(first, true)
		advance(time.Hour)
		want(first, true)
		work.set(func() { work.last[deployment] = false })
		want(first, true, false)
		work.set(func() { work.last[deployment] = true })
		want(first, true, false, true)
		l.route.Target().Begin()()
		want(first, true, false, true)
		advance(time.Hour)
		want(first, true, false, true)

		work.set(func() { work.replicas = 0 })
		second := open("second, of what was just scaled to zero")
		want(second, false)
		table.SetService(service())
		advance(api.StartTime(time.Minute))
		third := open("third, of what sleeps")
		want(third, false)
		want(first, true, false, true, false)
		if n := work.asks(); n > 0 {
			t.Errorf("asked %d times", n)
		}
		cancel()
	})
}
