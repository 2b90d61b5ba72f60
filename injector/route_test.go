// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

func TestDirectService(t *testing.T) {
	s := service(sentinel, func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.Ports[0].NodePort = 30080
		s.Spec.Ports[0].TargetPort = intstr.FromString("web-ui")
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}
		s.Spec.IPFamilyPolicy = new(corev1.IPFamilyPolicyPreferDualStack)
	})
	got := DirectService(s, Settings{})
	if d := cmp.Diff(map[string]string{"app": "web"}, got.Spec.Selector); d != "" {
		t.Errorf("selector (-want +got):\n%s", d)
	}
	if p := got.Spec.Ports[0]; p.NodePort != 0 || p.TargetPort.StrVal != "web-ui" || p.Name != "http" {
		t.Errorf("port %+v", p)
	}
	if got.Spec.ClusterIP != corev1.ClusterIPNone || got.Spec.Type == corev1.ServiceTypeLoadBalancer {
		t.Errorf("not a plain headless Service: %+v", got.Spec)
	}
	if got.Spec.PublishNotReadyAddresses {
		t.Error("publishes addresses that are not ready")
	}
	s.Spec.PublishNotReadyAddresses = true
	if !DirectService(s, Settings{}).Spec.PublishNotReadyAddresses {
		t.Error("does not publish addresses that are not ready")
	}
	if !cmp.Equal(got.Spec.IPFamilies, s.Spec.IPFamilies) || *got.Spec.IPFamilyPolicy != corev1.IPFamilyPolicyPreferDualStack {
		t.Errorf("IP families %v, policy %v", got.Spec.IPFamilies, got.Spec.IPFamilyPolicy)
	}
	if got.OwnerReferences[0].UID != s.UID || got.Labels[OptInLabel] != "" {
		t.Errorf("owner %v, labels %v", got.OwnerReferences, got.Labels)
	}
	if s.Spec.Ports[0].NodePort != 30080 || !Intercepted(s) {
		t.Error("the user's Service was changed")
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, tc := range []struct {
		got   string
		limit int
	}{
		{DirectServiceName(long), 63},
		{ScaledObjectName(api.Workload{Kind: "StatefulSet", Name: long}), 54},
		{RouteSliceName(long, "IPv4"), 253},
	} {
		if len(tc.got) > tc.limit {
			t.Errorf("%s has %d characters, more than %d", tc.got, len(tc.got), tc.limit)
		}
	}
	if DirectServiceName(long) == DirectServiceName(long[:62]+"b") {
		t.Error("two long names meet")
	}
	if got := DirectServiceName("web"); got != "web-direct" {
		t.Errorf("got %s", got)
	}
}

func TestNewRoutes(t *testing.T) {
	s := service(func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{
			{Name: "ui", Port: 80},
			{Name: "grpc", Port: 81, AppProtocol: new("grpc")},
			{Name: "tls", Port: 82, AppProtocol: new("HTTPS")},
			{Name: "odd", Port: 83, AppProtocol: new("example.com/own")},
		}
	})
	listen := map[string]int32{"ui": 10001, "grpc": 10002, "tls": 10003, "odd": 10004}
	w := workload("Deployment", "web", nil)
	got := NewRoutes(s, DefaultSettings(), w, listen)
	want := []api.Port{
		{Name: "ui", Port: 80, Listen: 10001, Protocol: "auto"},
		{Name: "grpc", Port: 81, Listen: 10002, Protocol: "http"},
		{Name: "tls", Port: 82, Listen: 10003, Protocol: "tcp"},
		{Name: "odd", Port: 83, Listen: 10004, Protocol: "auto"},
	}
	if d := cmp.Diff(want, got.Ports); d != "" {
		t.Errorf("ports (-want +got):\n%s", d)
	}
	if got.ClientAffinity {
		t.Error("a Service without session affinity has it in its routes")
	}
	s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	if got = NewRoutes(s, DefaultSettings(), w, listen); !got.ClientAffinity {
		t.Errorf("session affinity ClientIP is lost: %+v", got)
	}
	encoded, err := got.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := api.DecodeRoutes(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(got, back); d != "" {
		t.Errorf("after encoding and decoding (-want +got):\n%s", d)
	}
}

func TestPublish(t *testing.T) {
	a, b := Interceptor{Address: "10.0.0.1"}, Interceptor{Address: "10.0.0.2"}
	old, added := api.Port{Name: "http", Listen: 10001}, api.Port{Name: "admin", Listen: 10002}
	both := api.Routes{Ports: []api.Port{old, added}}
	tests := map[string]struct {
		routes  api.Routes
		before  []api.Port
		answers string // "address:port" of those that answer
		want    Published
	}{
		"nobody listens yet": {routes: both, want: Published{}},
		"one of two listens": {routes: both, answers: "10.0.0.2:10001 10.0.0.2:10002", want: Published{both.Ports, []Interceptor{b}}},
		"an added port waits": {
			routes: both, before: []api.Port{old}, answers: "10.0.0.1:10001 10.0.0.2:10001",
			want: Published{[]api.Port{old}, []Interceptor{a, b}},
		},
		"one is ahead": {
			routes: both, before: []api.Port{old}, answers: "10.0.0.1:10001 10.0.0.2:10001 10.0.0.1:10002",
			want: Published{both.Ports, []Interceptor{a}},
		},
		"a removed port goes": {
			routes: api.Routes{Ports: []api.Port{old}}, before: both.Ports, answers: "10.0.0.1:10001",
			want: Published{[]api.Port{old}, []Interceptor{a}},
		},
		"an interceptor that left": {routes: api.Routes{Ports: []api.Port{old}}, before: []api.Port{old}, want: Published{
			[]api.Port{old},
			[]Interceptor{},
		}},
		"a port with a new number": {
			routes: api.Routes{Ports: []api.Port{{Name: "http", Listen: 10009}}}, before: []api.Port{old},
			answers: "10.0.0.1:10001", want: Published{},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := Publish(tc.routes, []Interceptor{a, b}, tc.before, func(i Interceptor, p api.Port) bool {
				return strings.Contains(tc.answers, fmt.Sprintf("%s:%d", i.Address, p.Listen))
			})
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestRouteSlices(t *testing.T) {
	s := service(func(s *corev1.Service) {
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
		s.Spec.Ports[0].AppProtocol = new("http")
	})
	routes := api.Routes{
		Service: "web", Direct: "web-direct", Workload: api.Workload{Kind: "Deployment", Name: "web"},
		Ports: []api.Port{{Name: "http", Port: 80, Listen: 12345, Protocol: "http"}},
	}
	four, six := Interceptor{Address: "10.0.0.1", Node: new("node1")}, Interceptor{Address: "fd00::1"}
	asked := DefaultSettings()
	asked.MinReplicas, asked.MaxReplicas, asked.TargetPendingRequests, asked.TargetRequestRate, asked.Cooldown = 1, 4, 7, 0.5, time.Hour
	routes.Cooldown = api.Duration(asked.Cooldown)
	got := RouteSlices(s, s, routes, asked, Published{routes.Ports, []Interceptor{four, six}})
	if back, err := ScalingSettings(&got[1], routes); err != nil || back != asked {
		t.Errorf("the scaling settings come back as %+v, %v; want %+v", back, err, asked)
	}
	if len(got) != 2 {
		t.Fatalf("got %d slices, want one for each address type", len(got))
	}
	for i, want := range []struct{ name, address string }{{"web-scale-to-zero-ipv4", "10.0.0.1"}, {"web-scale-to-zero-ipv6", "fd00::1"}} {
		g := got[i]
		if g.Name != want.name || len(g.Endpoints) != 1 || g.Endpoints[0].Addresses[0] != want.address || *g.Ports[0].Port != 12345 ||
			*g.Ports[0].AppProtocol != "http" {
			t.Errorf("slice %d: %+v", i, g)
		}
		if g.Labels[discoveryv1.LabelServiceName] != "web" || g.Labels[discoveryv1.LabelManagedBy] != ManagedBy ||
			g.OwnerReferences[0].UID != s.UID {
			t.Errorf("slice %d: labels %v, owners %v", i, g.Labels, g.OwnerReferences)
		}
	}
}

// TestHasReadyEndpoint tests that a pod that is ready and terminating, as with published unready addresses, does not count as ready.
func TestHasReadyEndpoint(t *testing.T) {
	for name, tc := range map[string]struct {
		conditions discoveryv1.EndpointConditions
		want       bool
	}{
		"ready":      {discoveryv1.EndpointConditions{Ready: new(true), Terminating: new(false)}, true},
		"unsaid":     {discoveryv1.EndpointConditions{}, true},
		"not ready":  {discoveryv1.EndpointConditions{Ready: new(false)}, false},
		"it is gone": {discoveryv1.EndpointConditions{Ready: new(true), Terminating: new(true)}, false},
	} {
		list := []discoveryv1.EndpointSlice{{}, {Endpoints: []discoveryv1.Endpoint{{Conditions: tc.conditions}}}}
		if got := HasReadyEndpoint(list); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestInterceptors(t *testing.T) {
	endpoint := func(address string, ready *bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: ready}}
	}
	got := Interceptors([]discoveryv1.EndpointSlice{
		{Endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.2", new(true)), endpoint("10.0.0.3", new(false))}},
		{Endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1", nil), endpoint("10.0.0.2", new(true))}},
	})
	if d := cmp.Diff([]Interceptor{{Address: "10.0.0.1"}, {Address: "10.0.0.2"}}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestInterceptorsOfFamilies(t *testing.T) {
	four, six := Interceptor{Address: "10.0.0.1"}, Interceptor{Address: "fd00::1"}
	v4, v6 := corev1.IPv4Protocol, corev1.IPv6Protocol
	for name, tc := range map[string]struct {
		families []corev1.IPFamily
		all      []Interceptor
		want     []Interceptor
		missing  corev1.IPFamily
	}{
		"none is ready":               {families: []corev1.IPFamily{v4}, want: []Interceptor{}, missing: v4},
		"single-stack among dual":     {families: []corev1.IPFamily{v6}, all: []Interceptor{four, six}, want: []Interceptor{six}},
		"dual-stack among dual":       {families: []corev1.IPFamily{v6, v4}, all: []Interceptor{four, six}, want: []Interceptor{four, six}},
		"dual-stack among IPv4":       {families: []corev1.IPFamily{v4, v6}, all: []Interceptor{four}, want: []Interceptor{four}, missing: v6},
		"IPv6 single-stack, all IPv4": {families: []corev1.IPFamily{v6}, all: []Interceptor{four}, want: []Interceptor{}, missing: v6},
	} {
		got := OfFamilies(tc.all, tc.families)
		if d := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: (-want +got):\n%s", name, d)
		}
		if missing := MissingFamily(got, tc.families); missing != tc.missing {
			t.Errorf("%s: %q is missing, want %q", name, missing, tc.missing)
		}
	}
}

func TestPorts(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	web, api2 := PortOwner{"apps", "web", "http"}, PortOwner{"apps", "api", "http"}
	ps := NewPorts(10000, 10001)
	first, err := ps.Get(web, now)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := ps.Get(web, now); again != first {
		t.Errorf("the same route got %d, then %d", first, again)
	}
	second, err := ps.Get(api2, now)
	if err != nil || second == first {
		t.Fatalf("second route got %d, %v", second, err)
	}
	if _, err := ps.Get(PortOwner{"apps", "third", "http"}, now); err == nil || !strings.Contains(err.Error(), "10000 to 10001") {
		t.Errorf("a full range gives %v", err)
	}
	ps.Keep("apps", "web", now)
	if _, err := ps.Get(PortOwner{"apps", "third", "http"}, now.Add(PortRest-time.Second)); err == nil {
		t.Error("a freed port did not rest")
	}
	if got, err := ps.Get(PortOwner{"apps", "third", "http"}, now.Add(PortRest)); err != nil || got != first {
		t.Errorf("a rested port: got %d, %v", got, err)
	}
	if ps.Learn(web, first) {
		t.Error("two routes share a port")
	}
	if ps.Learn(web, 9999) {
		t.Error("a port outside of the range was taken")
	}
}

func TestPortsKeepOnlyNamed(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	ps := NewPorts(10000, 20000)
	a, _ := ps.Get(PortOwner{"apps", "web", "a"}, now)
	b, _ := ps.Get(PortOwner{"apps", "web", "b"}, now)
	ps.Keep("apps", "web", now, "b")
	if got, _ := ps.Get(PortOwner{"apps", "web", "b"}, now); got != b {
		t.Errorf("the kept port changed from %d to %d", b, got)
	}
	if got, _ := ps.Get(PortOwner{"apps", "web", "a"}, now); got != a {
		t.Errorf("the port that was let go has changed from %d to %d", a, got)
	}
}

// TestPortsComeBack tests that a Service that replaces another one of the same name gets its ports, unless others have them by then.
func TestPortsComeBack(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	web := PortOwner{"apps", "web", "http"}
	ps := NewPorts(10000, 10001)
	first, _ := ps.Get(web, now)
	other := 20001 - first
	ps.Keep("apps", "web", now)
	if got, err := ps.Get(PortOwner{"apps", "api", "http"}, now); err != nil || got != other {
		t.Fatalf("another route got %d, %v", got, err)
	}
	if got, err := ps.Get(web, now); err != nil || got != first {
		t.Errorf("it had %d and got %d, %v", first, got, err)
	}
	ps.Keep("apps", "web", now)
	ps.Keep("apps", "api", now)
	for _, name := range []string{"one", "two"} {
		if _, err := ps.Get(PortOwner{"apps", name, "http"}, now.Add(PortRest)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := ps.Get(web, now.Add(PortRest)); err == nil {
		t.Errorf("got %d, which another route has", got)
	}
}

func TestAliasRouteSlices(t *testing.T) {
	affinity := &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(60))}}
	s := service(func(s *corev1.Service) {
		s.Spec.SessionAffinity, s.Spec.SessionAffinityConfig = corev1.ServiceAffinityClientIP, affinity
	})
	alias := AliasService(s)
	if alias.Name != "web-scale-to-zero" || alias.Spec.ClusterIP != "" || alias.Spec.Selector != nil || !cmp.Equal(alias.Spec.Ports,
		s.Spec.Ports) {
		t.Errorf("alias %s: %+v", alias.Name, alias.Spec)
	}
	if alias.Spec.SessionAffinity != corev1.ServiceAffinityClientIP || alias.Spec.SessionAffinityConfig != affinity {
		t.Errorf("the alias's session affinity is %q, %v", alias.Spec.SessionAffinity, alias.Spec.SessionAffinityConfig)
	}
	got := RouteSlices(alias, s, api.Routes{Service: "web"}, DefaultSettings(), Published{})
	if len(got) != 1 {
		t.Fatal(len(got))
	}
	if got[0].Labels[discoveryv1.LabelServiceName] != alias.Name || got[0].Labels[ServiceLabel] != "web" ||
		got[0].Name == RouteSliceName("web", "IPv4") {
		t.Errorf("slice %s, labels %v", got[0].Name, got[0].Labels)
	}
}

// The alias has the annotations that an ingress controller reads from a backend. It has none that would make a tool act on the alias
// in addition to the Service.
func TestAliasAnnotations(t *testing.T) {
	for key, want := range map[string]bool{
		"traefik.ingress.kubernetes.io/service.serversscheme": true,
		"traefik.ingress.kubernetes.io/service.sticky.cookie": true,
		"alb.ingress.kubernetes.io/healthcheck-path":          true,
		"haproxy.org/check":                                  true,
		"haproxy-ingress.github.io/balance-algorithm":        true,
		"ingress.kubernetes.io/service-upstream":             true,
		"konghq.com/plugins":                                 true,
		"projectcontour.io/upstream-protocol.h2c":            true,
		"cloud.google.com/backend-config":                    true,
		"cloud.google.com/app-protocols":                     true,
		"config.linkerd.io/opaque-ports":                     true,
		"prometheus.io/scrape":                               false,
		"prometheus.io/port":                                 false,
		"external-dns.alpha.kubernetes.io/hostname":          false,
		"service.beta.kubernetes.io/aws-load-balancer-type":  false,
		"service.kubernetes.io/topology-mode":                false,
		"metallb.io/address-pool":                            false,
		"metallb.universe.tf/loadBalancerIPs":                false,
		"lbipam.cilium.io/ips":                               false,
		"service.cilium.io/global":                           false,
		"cloud.google.com/neg-status":                        false,
		"cloud.google.com/load-balancer-type":                false,
		"networking.gke.io/load-balancer-type":               false,
		"consul.hashicorp.com/service-sync":                  false,
		"ad.datadoghq.com/service.checks":                    false,
		"getambassador.io/config":                            false,
		"tailscale.com/expose":                               false,
		"service.beta.openshift.io/serving-cert-secret-name": false,
		"argocd.argoproj.io/tracking-id":                     false,
		"meta.helm.sh/release-name":                          false,
		"kustomize.toolkit.fluxcd.io/prune":                  false,
		"kubectl.kubernetes.io/last-applied-configuration":   false,
		"reloader.stakater.com/auto":                         false,
		"kube-linter.io/ignore-all":                          false,
		"scale-to-zero/cooldown":                             false,
		"example.com/anything":                               false,
		"no-domain":                                          false,
	} {
		alias := AliasService(service(annotated(key, "x")))
		if _, got := alias.Annotations[key]; got != want {
			t.Errorf("%s is copied: %t, want %t", key, got, want)
		}
	}
	for value, want := range map[string]bool{`{"ingress": true}`: true, `{"exposed_ports": {"80":{"name": "mine"}}}`: false} {
		alias := AliasService(service(annotated("cloud.google.com/neg", value)))
		if _, got := alias.Annotations["cloud.google.com/neg"]; got != want {
			t.Errorf("neg %s is copied: %t, want %t", value, got, want)
		}
	}
}

// With direct-labels, a monitor sees the direct Service as the Service, and everybody else as ours.
func TestDirectLabels(t *testing.T) {
	s := service(annotated("prometheus.io/scrape", "true"), annotated("example.com/x", "1"), annotated("scale-to-zero/direct-labels", "true"),
		func(s *corev1.Service) { s.Labels[ManagedByLabel], s.Labels["scale-to-zero/x"] = "Helm", "y" })
	plain := DirectService(s, Settings{})
	if _, ok := plain.Labels["app"]; ok || len(plain.Annotations) > 0 {
		t.Errorf("without it: labels %v, annotations %v", plain.Labels, plain.Annotations)
	}
	got := DirectService(s, Settings{DirectLabels: true})
	want := maps.Clone(plain.Labels)
	want["app"] = "web"
	if d := cmp.Diff(want, got.Labels); d != "" {
		t.Errorf("labels (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string]string{"prometheus.io/scrape": "true"}, got.Annotations); d != "" {
		t.Errorf("annotations (-want +got):\n%s", d)
	}
	if _, ok := s.Labels["app"]; !ok || s.Labels[ManagedByLabel] != "Helm" {
		t.Errorf("the user's Service was changed: %v", s.Labels)
	}
	if bare := DirectService(service(func(s *corev1.Service) { s.Labels = nil }),
		Settings{DirectLabels: true}); len(bare.Labels) != len(plain.Labels) {
		t.Errorf("of a Service without labels: %v", bare.Labels)
	}
}

func TestFailOpen(t *testing.T) {
	ready, ending := discoveryv1.EndpointConditions{Ready: new(true)}, discoveryv1.EndpointConditions{Ready: new(false)}
	direct := func(family discoveryv1.AddressType, port int32, endpoints ...discoveryv1.Endpoint) discoveryv1.EndpointSlice {
		return discoveryv1.EndpointSlice{AddressType: family, Endpoints: endpoints, Ports: []discoveryv1.EndpointPort{{
			Name: new("http"),
			Port: new(port),
		}}}
	}
	one := discoveryv1.Endpoint{Addresses: []string{"10.1.0.1"}, Conditions: ready}
	two := discoveryv1.Endpoint{Addresses: []string{"10.1.0.2"}, Conditions: ending}
	three := discoveryv1.Endpoint{Addresses: []string{"10.1.0.3"}, Conditions: ready}
	slices := func() []discoveryv1.EndpointSlice {
		return RouteSlices(service(), service(), api.Routes{Service: "web"}, DefaultSettings(), Published{})
	}
	got := slices()
	if !FailOpen(got, service(), []discoveryv1.EndpointSlice{
		direct(discoveryv1.AddressTypeIPv6, 8080, discoveryv1.Endpoint{Addresses: []string{"fd00::1"}, Conditions: ready}),
		direct(discoveryv1.AddressTypeIPv4, 8080, one, two), direct(discoveryv1.AddressTypeIPv4, 9090,
			three), direct(discoveryv1.AddressTypeIPv4, 8080, three),
	}) {
		t.Error("no ready pod was found")
	}
	if d := cmp.Diff([]discoveryv1.Endpoint{one, three}, got[0].Endpoints); d != "" || *got[0].Ports[0].Port != 8080 {
		t.Errorf("port %d, endpoints (-want +got):\n%s", *got[0].Ports[0].Port, d)
	}
	if got[0].Annotations[FailOpenAnnotation] != "true" || got[0].Annotations[api.RoutesAnnotation] == "" {
		t.Errorf("annotations %v", got[0].Annotations)
	}
	if FailOpen(slices(), service(), []discoveryv1.EndpointSlice{direct(discoveryv1.AddressTypeIPv4, 8080, two)}) {
		t.Error("a pod that is not ready was taken for one")
	}
}
