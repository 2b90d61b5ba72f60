// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/scale-to-zero/scale-to-zero/injector"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/peer"
)

func TestDefaults(t *testing.T) {
	o := Options{ScalerAddress: "interceptors:9090"}
	o.setDefaults()
	if o.PortLow != 10000 || o.PortHigh != 29999 || o.AliasLinger != 30*time.Second || o.Counts == nil || o.Learned == nil ||
		o.Dial == nil || o.Reach == nil || o.Now == nil {
		t.Errorf("%+v", o)
	}
	given := Options{PortLow: 1, PortHigh: 2, AliasLinger: time.Second, Counts: &fakeCounts{}, Learned: lessons(nil)}
	given.setDefaults()
	if given.PortLow != 1 || given.PortHigh != 2 || given.AliasLinger != time.Second {
		t.Errorf("%+v", given)
	}
	if _, ok := given.Counts.(*fakeCounts); !ok {
		t.Error("counts of its own")
	}
}

func TestDial(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := dial(t.Context(), l.Addr().String()); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if dial(t.Context(), l.Addr().String()) == nil {
		t.Error("it listens when it is closed")
	}
}

// lessons are what interceptors learn, one after the other.
type lessons func(ctx context.Context, note func(Lesson)) error

func (l lessons) Follow(ctx context.Context, note func(Lesson)) error { return l(ctx, note) }

// TestLearnedFollows tests that interceptors are followed again after a failure, until the context ends.
func TestLearnedFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var follows atomic.Int32
		l := &learned{
			from: lessons(func(_ context.Context, note func(Lesson)) error {
				note(Lesson{ServerFirst: []int32{10000 + follows.Add(1)}})
				return errors.New("it ends")
			}),
			find: func(context.Context, map[int32]bool) ([]discoveryv1.EndpointSlice, error) {
				return nil, errors.New("no cache")
			},
			spoken: injector.Spoken{ServerFirst: map[int32]bool{}, HTTP: map[int32]bool{}},
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*relearn+time.Second)
		defer cancel()
		if err := l.Start(ctx); err != nil || follows.Load() != 3 || len(l.known().ServerFirst) != 3 {
			t.Errorf("%v; followed %d times, knows %v", err, follows.Load(), l.known())
		}
	})
}

// fakePeer has learned one port, and seen one call.
type fakePeer struct {
	pb.UnimplementedPeerServer
}

func (fakePeer) Watch(r *pb.WatchRequest, stream pb.Peer_WatchServer) error {
	if !r.GetOnlyLearned() {
		return errors.New("asked for everything")
	}
	return stream.Send(&pb.Counts{
		ServerFirstPorts: []int32{10007}, HttpPorts: []int32{10008},
		Calls: []*pb.Call{{
			Namespace: "shop", Caller: "Deployment/web", Callee: "Deployment/api", AgeMilliseconds: time.Hour.Milliseconds(), Asleep: true,
		}},
	})
}

func TestPeerClient(t *testing.T) {
	port := interceptorWith(t, func(s *grpc.Server) { pb.RegisterPeerServer(s, fakePeer{}) })
	var got Lesson
	err := peerClient{address: "127.0.0.1:" + port}.Follow(t.Context(), func(l Lesson) { got = l })
	if err == nil || !slices.Equal(got.ServerFirst, []int32{10007}) || !slices.Equal(got.HTTP, []int32{10008}) || len(got.Calls) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if c := got.Calls[0]; c.Namespace != "shop" || c.Caller != "Deployment/web" || c.Callee != "Deployment/api" || !c.Asleep ||
		time.Since(c.At) < time.Hour {
		t.Errorf("a call %+v", c)
	}
	if err := (peerClient{address: "\x00"}).Follow(t.Context(), nil); err == nil {
		t.Error("an address that is none")
	}
}

// TestVisits tests that the interceptors' counts lead to the warning about an app that may never have visitors.
func TestVisits(t *testing.T) {
	release := func(s *corev1.Service) { s.Labels["release"] = "r" }
	c := newCluster(t, webDeployment(1), webService(release), webService(release, func(s *corev1.Service) {
		s.Name, s.Spec.Selector = "front", map[string]string{"app": "front"}
	}))
	c.injected()
	c.now = c.now.Add(3 * time.Minute)
	c.counts.err = errors.New("unavailable")
	if result, err := c.reconcileService(); err != nil || result.RequeueAfter < time.Minute || result.RequeueAfter > 2*time.Minute {
		t.Errorf("%+v, %v", result, err)
	}
	c.counts.err = nil
	c.both(2)
	c.told("NoVisitorYet on Service/web: Service web has had no request recently")
}

// TestNotReadyAddresses tests that a workload whose pods take requests before they are ready counts as awake by the slices of its
// direct Service.
func TestNotReadyAddresses(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService(func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true }))
	c.injected()
	c.ready(0, 0)
	c.directSlice(false)
	c.both(1)
	c.ready(1, 0)
	c.directSlice(true)
	c.both(1)
	c.told("Awake on Service/web: Deployment/web takes requests before it is ready")
}

// TestLastingEvents tests that an event about a lasting state is written once, even by a restarted controller, and that others are
// written as often as they happen.
func TestLastingEvents(t *testing.T) {
	c := newCluster(t, webService())
	s := c.service()
	for range 2 {
		c.services.events.emit(t.Context(),
			injector.Report{Reason: "Lasting", Note: "x", Lasting: true, Objects: []injector.Object{s}},
			injector.Report{Reason: "Passing", Note: "x", Objects: []injector.Object{s}})
	}
	var list corev1.EventList
	if err := c.List(t.Context(), &list); err != nil || len(list.Items) != 3 {
		t.Errorf("%d events, %v", len(list.Items), err)
	}
	// An event about an object of an unknown kind is logged.
	c.services.events.emit(t.Context(), injector.Report{Reason: "Odd", Objects: []injector.Object{&unknown{}}})
}

// unknown is an object that no scheme knows.
type unknown struct{ corev1.Service }

func (u *unknown) DeepCopyObject() runtime.Object { return u }
