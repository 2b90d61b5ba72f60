// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/reach"
)

// fakeRoutes answers what the test sets.
type fakeRoutes struct {
	pb.UnimplementedReachServer
	answer *pb.RoutesResponse
	err    error
}

func (f fakeRoutes) Routes(_ context.Context, r *pb.RoutesRequest) (*pb.RoutesResponse, error) {
	if r.GetNamespace() != "shop" || r.GetService() != "web" {
		return nil, status.Error(codes.InvalidArgument, r.String())
	}
	return f.answer, f.err
}

// TestAskOwns tests which ports an interceptor has for a Service, by its answer: only those of the same Service, port and number.
func TestAskOwns(t *testing.T) {
	routes := api.Routes{ServiceUID: "u", Ports: []api.Port{{Name: "http", Listen: 10000}, {Name: "admin", Listen: 10001}}}
	nobody := interceptorWith(t, func(s *grpc.Server) { s.Stop() })
	answers := func(uid string, all ...*pb.Route) func(*grpc.Server) {
		return func(s *grpc.Server) {
			pb.RegisterReachServer(s, fakeRoutes{answer: &pb.RoutesResponse{ServiceUid: uid, Routes: all}})
		}
	}
	fails := func(code codes.Code) func(*grpc.Server) {
		return func(s *grpc.Server) { pb.RegisterReachServer(s, fakeRoutes{err: status.Error(code, "x")}) }
	}
	http, admin := &pb.Route{Port: "http", Listen: 10000}, &pb.Route{Port: "admin", Listen: 10001}
	for name, tc := range map[string]struct {
		register func(*grpc.Server)
		want     map[string]bool
		fails    codes.Code
	}{
		"both":               {answers("u", http, admin), map[string]bool{"http": true, "admin": true}, codes.OK},
		"one":                {answers("u", admin), map[string]bool{"http": false, "admin": true}, codes.OK},
		"none":               {answers("u"), map[string]bool{"http": false, "admin": false}, codes.OK},
		"of another Service": {answers("v", http, admin), map[string]bool{"http": false, "admin": false}, codes.OK},
		"of nobody":          {answers("", http, admin), map[string]bool{"http": false, "admin": false}, codes.OK},
		"exchanged":          {answers("u", &pb.Route{Port: "http", Listen: 10001}), map[string]bool{"http": false, "admin": false}, codes.OK},
		"it knows no route":  {fails(codes.NotFound), map[string]bool{}, codes.OK},
		"it is busy":         {fails(codes.ResourceExhausted), nil, codes.OK},
		"it is at its end":   {fails(codes.Unavailable), nil, codes.Unavailable},
		"one of before":      {func(*grpc.Server) {}, nil, codes.Unimplemented},
		"nobody answers":     {nil, nil, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			port := nobody
			if tc.register != nil {
				port = interceptorWith(t, tc.register)
			}
			got, err := askOwns(interceptorDialer{}, port)(t.Context(), "127.0.0.1", types.NamespacedName{Namespace: "shop", Name: "web"}, routes)
			if diff := cmp.Diff(tc.want, got); diff != "" || status.Code(err) != tc.fails {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// TestUnservedRoutes tests that interceptors are not published that do not say that the routes are theirs, although they accept
// connections, and what the Service's owner reads.
func TestUnservedRoutes(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"they cannot be asked": {status.Error(codes.Unavailable, "x"), "scale-to-zero's controller cannot ask " +
			"its interceptors over gRPC which routes they serve (Unavailable)"},
		"they are old": {status.Error(codes.Unimplemented, "x"), "are of an older version than its controller"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, webDeployment(1), webService())
			c.ownsErr = tc.err
			c.both(1)
			c.directSlice(true)
			c.both(2)
			c.now = c.now.Add(time.Minute)
			c.both(2)
			if got := c.events(); len(c.routeSlice().Endpoints) > 0 || injector.Intercepted(c.service()) || !strings.Contains(got, tc.want) {
				t.Errorf("events %s", got)
			}
			c.ownsErr = nil
			c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
			c.both(3)
			if !injector.Intercepted(c.service()) {
				t.Errorf("it is not injected afterwards; events %s", c.events())
			}
		})
	}
}

// TestForeignSlice tests that a slice of somebody else's with the name of a route slice is an event, once, and that the Service is
// injected when it is gone.
func TestForeignSlice(t *testing.T) {
	for name, change := range map[string]func(*discoveryv1.EndpointSlice){
		"without labels": func(s *discoveryv1.EndpointSlice) { s.Labels = nil },
		"without a role": func(s *discoveryv1.EndpointSlice) { delete(s.Labels, api.RoleLabel) },
		"of Kubernetes":  func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelManagedBy] = api.EndpointSliceController },
		"of nobody":      func(s *discoveryv1.EndpointSlice) { s.OwnerReferences = nil },
	} {
		t.Run(name, func(t *testing.T) {
			foreign := sliceLikeOurs("apps", "web", "other", "")
			change(foreign)
			c := newCluster(t, webDeployment(1), webService(), foreign)
			c.directSlice(true)
			c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
			for range 5 {
				result, err := c.reconcileService()
				if err != nil || result.RequeueAfter < refusedMin/2 {
					t.Fatalf("%+v, %v", result, err)
				}
			}
			const want = "creating EndpointSlice web-scale-to-zero-ipv4 is refused: there is one of that name that scale-to-zero has not made. " +
				"If nobody needs it, delete it: kubectl delete endpointslice -n apps web-scale-to-zero-ipv4."
			if got := c.events(); strings.Count(got, want) != 1 {
				t.Errorf("events %s", got)
			}
			if err := c.Delete(t.Context(), foreign); err != nil {
				t.Fatal(err)
			}
			c.both(4)
			if !injector.Intercepted(c.service()) {
				t.Errorf("not injected; events %s", c.events())
			}
		})
	}
}

// TestOwnSliceThatTheCacheLacks tests that a slice of ours that exists already is no refusal: the cache is late.
func TestOwnSliceThatTheCacheLacks(t *testing.T) {
	c := newCluster(t)
	ours := sliceLikeOurs("apps", "web", "u", "")
	c.create(ours.DeepCopy())
	w := writer{c, c, newRecorder(c, time.Now)}
	if err := w.Create(t.Context(), ours); err == nil || strings.Contains(err.Error(), "creating") || client.IgnoreAlreadyExists(err) != nil {
		t.Errorf("got %v", err)
	}
}

// TestRoutesOfANamespaceAreBounded tests that a Service beyond the limit is skipped with what to do, and injected when there is room.
func TestRoutesOfANamespaceAreBounded(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService(), serviceNamed("web2", map[string]string{"app": "web"}, func(s *corev1.Service) {
		s.Labels = map[string]string{injector.OptInLabel: "true"}
	}))
	c.services.observer.ports.perNamespace = 1
	c.each(1, "web")
	c.each(1, "web2")
	c.now = c.now.Add(time.Minute)
	c.each(2, "web2")
	err := c.Get(t.Context(), client.ObjectKey{Namespace: "apps", Name: "web2-scale-to-zero-ipv4"}, &discoveryv1.EndpointSlice{})
	if client.IgnoreNotFound(err) != nil || err == nil || len(c.routeSlice().Annotations) == 0 {
		t.Errorf("web2 has a route: %v", err)
	}
	const want = "Not injected: with it, namespace apps would have 2 routes, one for each port of an injected Service, and 1 is the limit; " +
		"opt another Service out, or have scale-to-zero's chart value controller.maxRoutesPerNamespace raised"
	if got := c.events(); strings.Count(got, want) != 1 {
		t.Errorf("events %s", got)
	}
	c.services.observer.ports.perNamespace = 2
	c.each(1, "web2")
	if get(c, "web2-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{}) == nil {
		t.Error("with room, it has no route")
	}
	c.services.observer.ports.perNamespace = 1
	c.each(2, "web2")
	if get(c, "web2-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{}) == nil {
		t.Error("what it has is taken from it")
	}
}

// TestSlicesOfOthers tests that a slice that only looks like ours changes nothing about a Service, and is left alone.
func TestSlicesOfOthers(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService(func(s *corev1.Service) { s.Labels = nil }))
	forged := sliceLikeOurs("apps", "web", c.service().UID, "")
	forged.Name, forged.UID = "web-forged", "forged"
	peers := interceptorSlice("10.6.6.6")
	peers.ObjectMeta = metav1.ObjectMeta{Namespace: "apps", Name: "peers", Labels: peers.Labels}
	c.create(forged)
	c.create(peers)
	c.both(2)
	if get(c, "web-forged", &discoveryv1.EndpointSlice{}) == nil || c.events() != "" {
		t.Errorf("events %s", c.events())
	}
	if got := c.requests.servicesOfSlice(t.Context(), peers); len(got) > 0 {
		t.Errorf("a slice in another namespace concerns %v", got)
	}
	if got, err := c.services.observer.interceptors(t.Context()); err != nil || len(got) != 2 {
		t.Errorf("interceptors %v, %v", got, err)
	}
	if got, err := remaining(t.Context(), c, c.now); err != nil || len(got) > 0 {
		t.Errorf("an uninstallation waits for %v, %v", got, err)
	}
}
