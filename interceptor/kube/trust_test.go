// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"slices"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// world is a store, and what its sink knows.
type world struct {
	*store

	sink   *fakeSink
	logged []string
}

func newWorld(o Options) *world {
	w := &world{sink: newFakeSink()}
	o.Namespace, o.PodIP, o.PodName, o.Service = "ours", "10.0.0.1", "me", "interceptors"
	o.Log = funcr.New(func(_, args string) { w.logged = append(w.logged, args) }, funcr.Options{})
	w.store = newStore(w.sink, o)
	return w
}

func (w *world) set(t *testing.T, all ...*discoveryv1.EndpointSlice) {
	t.Helper()
	for _, es := range all {
		if err := w.Update(es.DeepCopy()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestForgedRouteSlices tests that a slice counts only if it is named, labelled and owned like ours, and that another one neither
// changes a route nor keeps one.
func TestForgedRouteSlices(t *testing.T) {
	for name, forge := range map[string]func(*discoveryv1.EndpointSlice){
		"another name":     func(es *discoveryv1.EndpointSlice) { es.Name = "web-scale-to-zero-ipv4-x" },
		"the other family": func(es *discoveryv1.EndpointSlice) { es.AddressType = discoveryv1.AddressTypeIPv6 },
		"host names":       func(es *discoveryv1.EndpointSlice) { es.AddressType = discoveryv1.AddressTypeFQDN },
		"mirrored": func(es *discoveryv1.EndpointSlice) {
			es.Labels[discoveryv1.LabelManagedBy] = "endpointslicemirroring-controller.k8s.io"
		},
		"of Kubernetes": func(es *discoveryv1.EndpointSlice) {
			es.Labels[discoveryv1.LabelManagedBy] = api.EndpointSliceController
		},
		"managed by nobody":   func(es *discoveryv1.EndpointSlice) { delete(es.Labels, discoveryv1.LabelManagedBy) },
		"made by Helm":        func(es *discoveryv1.EndpointSlice) { es.Labels["app.kubernetes.io/managed-by"] = "Helm" },
		"without our Service": func(es *discoveryv1.EndpointSlice) { delete(es.Labels, api.ServiceLabel) },
		"for another Service": func(es *discoveryv1.EndpointSlice) { es.Labels[api.ServiceLabel] = "other" },
		"for a path":          func(es *discoveryv1.EndpointSlice) { es.Labels[api.ServiceLabel] = "../web" },
		"of another Service":  func(es *discoveryv1.EndpointSlice) { es.Labels[discoveryv1.LabelServiceName] = "other" },
		"without an owner":    func(es *discoveryv1.EndpointSlice) { es.OwnerReferences = nil },
		"with a second owner": func(es *discoveryv1.EndpointSlice) {
			es.OwnerReferences = append(es.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "kept", UID: "u"})
		},
		"owned by a ConfigMap": func(es *discoveryv1.EndpointSlice) { es.OwnerReferences[0].Kind = "ConfigMap" },
		"owned by Knative":     func(es *discoveryv1.EndpointSlice) { es.OwnerReferences[0].APIVersion = "serving.knative.dev/v1" },
		"owned by another":     func(es *discoveryv1.EndpointSlice) { es.OwnerReferences[0].Name = "other" },
		"with another UID":     func(es *discoveryv1.EndpointSlice) { es.OwnerReferences[0].UID = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(Options{})
			mine := routes("web")
			forged := routeSlice(t, "web", mine)
			forge(forged)
			w.set(t, forged, forged)
			if got, ok := w.sink.web(); ok {
				t.Errorf("there is a route: %+v", got)
			}
			if len(w.logged) != 1 {
				t.Errorf("logged %q, want it once", w.logged)
			}
			forged.Name = "another" // two slices with one name cannot be
			ours := routeSlice(t, "web", mine)
			w.set(t, ours, forged)
			if got, ok := w.sink.web(); !ok || got.Routes.ServiceUID != mine.ServiceUID {
				t.Errorf("beside it, the route is %+v", got)
			}
			if err := w.Delete(ours); err != nil {
				t.Fatal(err)
			}
			if got, ok := w.sink.web(); ok {
				t.Errorf("it keeps the route: %+v", got)
			}
			if err := w.Delete(forged); err != nil || len(w.omitted.why) > 1 || len(w.slices) > 0 {
				t.Errorf("left are %v and %v: %v", w.omitted.why, w.slices, err)
			}
		})
	}
}

// TestAliasRouteSlice tests that a slice of an alias Service counts, which has another name than the Service.
func TestAliasRouteSlice(t *testing.T) {
	w := newWorld(Options{})
	es := routeSlice(t, "web", routes("web"))
	es.Name, es.Labels[discoveryv1.LabelServiceName] = api.RouteSliceName("web-scale-to-zero", "IPv4"), "web-scale-to-zero"
	w.set(t, es)
	if got, ok := w.sink.services["shop/web-scale-to-zero"]; !ok || got.Routes.Service != "web" {
		t.Errorf("got %+v; logged %q", got, w.logged)
	}
}

func TestReservedPorts(t *testing.T) {
	w := newWorld(Options{Reserved: []int32{9090, 8081}})
	for _, port := range []int32{9090, 8081} {
		mine := routes("web")
		mine.Ports[0].Listen = port
		w.set(t, routeSlice(t, "web", mine))
		if got, ok := w.sink.web(); ok {
			t.Errorf("a route has port %d: %+v", port, got)
		}
	}
	w.set(t, routeSlice(t, "web", routes("web")))
	if _, ok := w.sink.web(); !ok {
		t.Error("no route has an allowed port")
	}
}

// TestForgedDirectSlices tests that only what Kubernetes itself lists, and only pods of the slice's own namespace, get requests.
func TestForgedDirectSlices(t *testing.T) {
	to := func(address string, ref *corev1.ObjectReference) func(*discoveryv1.EndpointSlice) {
		return func(es *discoveryv1.EndpointSlice) {
			es.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{address}, TargetRef: ref}}
		}
	}
	pod := func(namespace string) *corev1.ObjectReference {
		return &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: "web-1"}
	}
	managed := func(by string) func(*discoveryv1.EndpointSlice) {
		return func(es *discoveryv1.EndpointSlice) { es.Labels[discoveryv1.LabelManagedBy] = by }
	}
	for name, tc := range map[string]struct {
		forge func(*discoveryv1.EndpointSlice)
		want  []string
	}{
		"a pod":                       {to("10.1.0.9", pod("shop")), []string{"10.1.0.9:8080"}},
		"a pod of no namespace":       {to("10.1.0.9", pod("")), []string{"10.1.0.9:8080"}},
		"a pod over IPv6":             {to("fd00::9", pod("shop")), []string{"[fd00::9]:8080"}},
		"an address only":             {to("10.1.0.9", nil), nil},
		"another's pod":               {to("10.1.0.9", pod("other")), nil},
		"a Node":                      {to("10.1.0.9", &corev1.ObjectReference{Kind: "Node", Name: "n"}), nil},
		"a pod without a name":        {to("10.1.0.9", &corev1.ObjectReference{Kind: "Pod", Namespace: "shop"}), nil},
		"itself":                      {to("127.0.0.1", pod("shop")), nil},
		"itself over IPv6":            {to("::1", pod("shop")), nil},
		"itself, mapped":              {to("::ffff:127.0.0.1", pod("shop")), nil},
		"any address":                 {to("0.0.0.0", pod("shop")), nil},
		"any address over IPv6":       {to("::", pod("shop")), nil},
		"a cloud's metadata":          {to("169.254.169.254", pod("shop")), nil},
		"a link's address":            {to("fe80::1", pod("shop")), nil},
		"a zone":                      {to("fe80::1%eth0", pod("shop")), nil},
		"a group":                     {to("224.0.0.1", pod("shop")), nil},
		"a group over IPv6":           {to("ff02::1", pod("shop")), nil},
		"everybody":                   {to("255.255.255.255", pod("shop")), nil},
		"a host":                      {to("kubernetes.default.svc", pod("shop")), nil},
		"this interceptor":            {to("10.0.0.1", pod("shop")), nil},
		"another interceptor":         {to("10.0.0.2", pod("shop")), nil},
		"another, over IPv6":          {to("fd00::2", pod("shop")), nil},
		"mirrored from Endpoints":     {managed("endpointslicemirroring-controller.k8s.io"), nil},
		"made by hand":                {managed(""), nil},
		"labelled as a route slice's": {managed(api.ManagedBy), nil},
	} {
		t.Run(name, func(t *testing.T) {
			direct := withPort(endpointSlice("web-direct-1", "web-direct", api.RoleDirect, an("10.1.0.8")), 8080)
			tc.forge(direct)
			peers := endpointSlice("p", "interceptors", api.RoleInterceptor, an("10.0.0.1", ofPod("me")),
				an("10.0.0.2", ofPod("you")), an("fd00::2", ofPod("you")))
			peers.Namespace = "ours"
			for _, order := range [][]*discoveryv1.EndpointSlice{
				{routeSlice(t, "web", routes("web")), direct, peers}, {peers, direct, routeSlice(t, "web", routes("web"))},
			} {
				w := newWorld(Options{})
				w.set(t, order...)
				got, _ := w.sink.web()
				if diff := cmp.Diff(tc.want, slices.Concat(got.Endpoints["http"], got.Unready["http"])); diff != "" {
					t.Errorf("requests go to (-want +got):\n%s", diff)
				}
				if len(got.IPs) != len(tc.want) || got.Pods != len(tc.want) {
					t.Errorf("%d pods with %v", got.Pods, got.IPs)
				}
			}
		})
	}
}

// TestForgedInterceptors tests that a slice in another namespace does not make anybody a peer.
func TestForgedInterceptors(t *testing.T) {
	w := newWorld(Options{})
	w.set(t, endpointSlice("p", "interceptors", api.RoleInterceptor, an("10.6.6.6", ofPod("evil"))))
	if len(w.sink.peers) > 0 {
		t.Errorf("peers are %v", w.sink.peers)
	}
}

// TestQuotaOfRoutes tests that the slices of one namespace cannot take what the others need, and that one is served once another goes.
func TestQuotaOfRoutes(t *testing.T) {
	many := func(name string, n int) *discoveryv1.EndpointSlice {
		r := routes(name)
		for i := range n - 1 {
			r.Ports = append(r.Ports, api.Port{Name: fmt.Sprint("p", i), Port: 80, Listen: int32(11000 + i), Protocol: api.ProtocolAuto})
		}
		return routeSlice(t, name, r)
	}
	w := newWorld(Options{MaxRoutesPerNamespace: 100})
	elsewhere := many("e", 50)
	elsewhere.Namespace = "other"
	w.set(t, many("a", 50), many("b", 50), many("c", 1), many("c", 1), elsewhere)
	has := func(want ...string) {
		t.Helper()
		for _, name := range []string{"shop/a", "shop/b", "shop/c", "other/e"} {
			if _, ok := w.sink.services[name]; ok != slices.Contains(want, name) {
				t.Errorf("%s is served: %t", name, ok)
			}
		}
	}
	has("shop/a", "shop/b", "other/e")
	if len(w.logged) != 1 {
		t.Errorf("logged %q, want one line", w.logged)
	}
	w.set(t, many("b", 49))
	has("shop/a", "shop/b", "shop/c", "other/e")
	w.set(t, many("b", 50))
	if got := w.sink.services["shop/b"]; len(got.Routes.Ports) != 49 {
		t.Errorf("it has %d routes", len(got.Routes.Ports))
	}
	if err := w.Delete(many("a", 50)); err != nil {
		t.Fatal(err)
	}
	has("shop/b", "shop/c", "other/e")
	if got := w.sink.services["shop/b"]; len(got.Routes.Ports) != 50 {
		t.Errorf("with room again, it has %d routes", len(got.Routes.Ports))
	}
	for _, es := range []*discoveryv1.EndpointSlice{many("b", 50), many("c", 1), elsewhere} {
		if err := w.Delete(es); err != nil {
			t.Fatal(err)
		}
	}
	if has(); len(w.quota.sum)+len(w.quota.taken)+len(w.quota.over) > 0 {
		t.Errorf("left is %+v", w.quota)
	}
	unlimited := newStore(newFakeSink(), Options{Log: logr.Discard()})
	if !unlimited.quota.take(name{"shop", "a"}, 1<<20) {
		t.Error("there is a limit without one")
	}
}
