// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestOnlyPods tests which endpoints of a direct slice count as pods.
func TestOnlyPods(t *testing.T) {
	pod := func(namespace string) *corev1.ObjectReference {
		return &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: "web-1"}
	}
	for name, tc := range map[string]struct {
		address string
		ref     *corev1.ObjectReference
		want    bool
	}{
		"a pod":              {"10.1.0.9", pod("apps"), true},
		"a pod over IPv6":    {"fd00::9", pod(""), true},
		"an address only":    {"10.1.0.9", nil, false},
		"another's pod":      {"10.1.0.9", pod("kube-system"), false},
		"a Node":             {"10.1.0.9", &corev1.ObjectReference{Kind: "Node", Name: "n"}, false},
		"loopback":           {"127.0.0.1", pod("apps"), false},
		"a cloud's metadata": {"169.254.169.254", pod("apps"), false},
		"a host":             {"db.example.com", pod("apps"), false},
		"an interceptor":     {"198.18.0.2", pod("apps"), false},
	} {
		s := discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{{Addresses: []string{tc.address}, TargetRef: tc.ref}}}
		s.Namespace = "apps"
		before := s.DeepCopy()
		got := OnlyPods([]discoveryv1.EndpointSlice{s}, []Interceptor{{Address: "198.18.0.2"}})
		if (len(got[0].Endpoints) == 1) != tc.want {
			t.Errorf("%s counts: %t", name, !tc.want)
		}
		if s.Endpoints[0].Addresses[0] != before.Endpoints[0].Addresses[0] {
			t.Errorf("%s: what was read has changed", name)
		}
	}
}

// TestRouteSlicesAreOurs tests that whatever the injector writes counts as its own, under every name.
func TestRouteSlicesAreOurs(t *testing.T) {
	long := service(func(s *corev1.Service) {
		s.Name = fmt.Sprintf("%063d", 1)
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	})
	for _, s := range []*corev1.Service{service(), long} {
		for _, front := range []*corev1.Service{s, AliasService(s)} {
			front.Spec.IPFamilies = s.Spec.IPFamilies
			routes := NewRoutes(s, DefaultSettings(), workload("Deployment", "web", nil), map[string]int32{"http": 10000})
			for _, slice := range RouteSlices(front, s, routes, DefaultSettings(), Published{}) {
				if got, ok := RoutesOf(&slice); !ok || got.Service != s.Name {
					t.Errorf("%s does not count: %v", slice.Name, sliceMeta(&slice).Check())
				}
				slice.OwnerReferences[0].UID = "other"
				if _, ok := RoutesOf(&slice); ok {
					t.Errorf("%s counts although its owner is another", slice.Name)
				}
			}
		}
	}
}

// TestPortsAreNotGuessed tests that ports do not follow from names, and that a slice's port is kept.
func TestPortsAreNotGuessed(t *testing.T) {
	owner := PortOwner{"apps", "web", "http"}
	seen := map[int32]int{}
	for range 200 {
		ps := NewPorts(10000, 29999)
		p, err := ps.Get(owner, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		seen[p]++
		if !ps.Learn(owner, p) || ps.Learn(PortOwner{"evil", "web", "http"}, p) {
			t.Errorf("port %d is another's", p)
		}
	}
	if len(seen) < 150 {
		t.Errorf("200 books give %d ports", len(seen))
	}
}

// TestRoom tests the limit on the routes of a namespace.
func TestRoom(t *testing.T) {
	ps := NewPorts(10000, 29999)
	take := func(namespace, service string, ports ...string) {
		for _, port := range ports {
			if _, err := ps.Get(PortOwner{namespace, service, port}, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	take("apps", "a", "x", "y")
	take("apps", "b", "x")
	take("other", "a", "x", "y", "z")
	for name, tc := range map[string]struct {
		service string
		limit   int
		ports   []string
		full    bool
	}{
		"no limit":            {"c", 0, []string{"x"}, false},
		"room for one":        {"c", 4, []string{"x"}, false},
		"room for one of two": {"c", 4, []string{"x", "y"}, true},
		"none":                {"c", 3, []string{"x"}, true},
		"it has them":         {"a", 1, []string{"x", "y"}, false},
		"it has one of them":  {"a", 1, []string{"x"}, false},
		"it has another name": {"b", 3, []string{"z"}, false},
		"it wants more":       {"b", 3, []string{"x", "z"}, true},
	} {
		if got := ps.Room("apps", tc.service, tc.limit, tc.ports...); (got != "") != tc.full {
			t.Errorf("%s: %q", name, got)
		}
	}
	ps.Keep("apps", "a", time.Time{})
	if got := ps.Room("apps", "c", 3, "x", "y"); got != "" {
		t.Errorf("after two are freed: %s", got)
	}
	if ps.count["apps"] != 1 {
		t.Errorf("%d are left", ps.count["apps"])
	}
}

// FuzzSliceMeta tests that no other name than ours counts, and that checking does not fail.
func FuzzSliceMeta(f *testing.F) {
	f.Add("web-scale-to-zero-ipv4", "IPv4", "web", "web")
	f.Add("web-scale-to-zero-scale-to-zero-ipv6", "IPv6", "web-scale-to-zero", "web")
	f.Fuzz(func(t *testing.T, name, family, front, service string) {
		m := api.SliceMeta{
			Name: name, AddressType: family, Front: front, Service: service, ManagedBy: api.ManagedBy, MadeBy: api.ManagedBy,
			Owners: []api.Owner{{APIVersion: "v1", Kind: "Service", Name: service}},
		}
		if m.Check() == nil && (name != RouteSliceName(front, family) || front != service && front != AliasServiceName(service)) {
			t.Errorf("%+v counts", m)
		}
	})
}
