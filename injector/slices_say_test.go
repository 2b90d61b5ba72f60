// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestRoutesOfAChart has all that the interceptors are told of a Service with every setting, and of one with none.
func TestRoutesOfAChart(t *testing.T) {
	grafana := func(change ...func(*corev1.Service)) *corev1.Service {
		return service(append([]func(*corev1.Service){called("grafana"), noPorts, func(s *corev1.Service) {
			s.UID = "svc-1"
			s.Spec.Ports = []corev1.ServicePort{
				{Name: "service", Port: 80, TargetPort: intstr.FromString("grafana")},
				{Name: "gossip", Port: 9094, AppProtocol: new("tcp")},
			}
		}}, change...)...)
	}
	w := workload("StatefulSet", "grafana", nil)
	ref := api.Workload{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "grafana", UID: "w-uid"}
	listen := map[string]int32{"service": 10001, "gossip": 10002, "gone": 10003}
	for name, tc := range map[string]struct {
		annotations map[string]string
		change      func(*corev1.Service)
		want        api.Routes
	}{
		"no setting": {nil, func(*corev1.Service) {}, api.Routes{
			Service: "grafana", ServiceUID: "svc-1", Direct: "grafana-direct", Workload: ref,
			Cooldown: api.Duration(5 * time.Minute), HoldTimeout: api.Duration(5 * time.Minute),
			Ports: []api.Port{
				{Name: "service", Port: 80, Listen: 10001, Protocol: api.ProtocolAuto},
				{Name: "gossip", Port: 9094, Listen: 10002, Protocol: api.ProtocolTCP},
			},
		}},
		"every setting": {map[string]string{
			"min-replicas": "1", "cooldown": "1h", "hold-timeout": "30s", "waiting-page": "never", "affinity-cookie": "grafana_session",
			"wake-with": "loki,tempo", "ignore-paths": "/api/health", "ignore-user-agents": "none,Uptime-Kuma/", "protocol": "http,9094=tcp",
			"proxy-protocol": "gossip=2", "awake": "Mon-Fri 08:00-18:30 Asia/Seoul", "target-request-rate": "20",
		}, func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }, api.Routes{
			Service: "grafana", ServiceUID: "svc-1", Direct: "grafana-direct", Workload: ref, NeverSleeps: true, ClientAffinity: true,
			Cooldown: api.Duration(time.Hour), HoldTimeout: api.Duration(30 * time.Second), WaitingPage: api.PageNever,
			AffinityCookie: "grafana_session", WakeWith: []string{"loki", "tempo"}, Awake: "Mon-Fri 08:00-18:30 Asia/Seoul",
			CountsRate: true,
			Ignores: api.Ignores{
				IgnorePaths: []string{"/api/health"}, IgnoreAgents: []string{"Uptime-Kuma/"}, CountKnownAgents: true,
			},
			Ports: []api.Port{
				{Name: "service", Port: 80, Listen: 10001, Protocol: api.ProtocolHTTP},
				{Name: "gossip", Port: 9094, Listen: 10002, Protocol: api.ProtocolTCP, ProxyProtocol: true},
			},
		}},
		"a proxy's header on all ports but one": {map[string]string{"proxy-protocol": "2,80=off"}, func(*corev1.Service) {}, api.Routes{
			Service: "grafana", ServiceUID: "svc-1", Direct: "grafana-direct", Workload: ref,
			Cooldown: api.Duration(5 * time.Minute), HoldTimeout: api.Duration(5 * time.Minute),
			Ports: []api.Port{
				{Name: "service", Port: 80, Listen: 10001, Protocol: api.ProtocolAuto},
				{Name: "gossip", Port: 9094, Listen: 10002, Protocol: api.ProtocolTCP, ProxyProtocol: true},
			},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			annotations := map[string]string{}
			for key, value := range tc.annotations {
				annotations[Prefix+key] = value
			}
			s, err := ParseSettings(annotations)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, NewRoutes(grafana(tc.change), s, w, listen)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestSlicesOfAService has all of the route slices of a Service of two ports and families, as kube-proxy and ingress controllers
// read them.
func TestSlicesOfAService(t *testing.T) {
	s := service(func(s *corev1.Service) {
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}
		s.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80, AppProtocol: new("http")}, {Name: "admin", Port: 81}}
	})
	pod := &corev1.ObjectReference{Kind: "Pod", Namespace: "scale-to-zero", Name: "interceptor-1"}
	interceptors := []Interceptor{
		{Address: "198.18.0.2", Node: new("node1"), Zone: new("eu-1a"), PodRef: pod}, {Address: "fd00::2"}, {Address: "198.18.0.3"},
	}
	routes := NewRoutes(s, DefaultSettings(), workload("Deployment", "web", nil), map[string]int32{"http": 10000, "admin": 10001})
	got := RouteSlices(s, s, routes, DefaultSettings(), Published{Ports: routes.Ports[1:], Interceptors: interceptors})
	ready := discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)}
	slice := func(name string, family discoveryv1.AddressType, endpoints ...discoveryv1.Endpoint) discoveryv1.EndpointSlice {
		return discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "apps", Name: name, Annotations: got[0].Annotations,
				Labels: map[string]string{
					ManagedByLabel: ManagedBy, ServiceLabel: "web", api.RoleLabel: api.RoleRoute,
					discoveryv1.LabelServiceName: "web", discoveryv1.LabelManagedBy: ManagedBy,
				},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: "web", UID: "uid-1", Controller: new(true)}},
			},
			AddressType: family,
			Ports:       []discoveryv1.EndpointPort{{Name: new("admin"), Port: new(int32(10001)), Protocol: new(corev1.ProtocolTCP)}},
			Endpoints:   endpoints,
		}
	}
	want := []discoveryv1.EndpointSlice{
		slice("web-scale-to-zero-ipv6", discoveryv1.AddressTypeIPv6, discoveryv1.Endpoint{Addresses: []string{"fd00::2"}, Conditions: ready}),
		slice(
			"web-scale-to-zero-ipv4", discoveryv1.AddressTypeIPv4,
			discoveryv1.Endpoint{
				Addresses: []string{"198.18.0.2"}, Conditions: ready, NodeName: new("node1"), Zone: new("eu-1a"), TargetRef: pod,
			},
			discoveryv1.Endpoint{Addresses: []string{"198.18.0.3"}, Conditions: ready},
		),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if back, err := api.DecodeRoutes(got[0].Annotations[api.RoutesAnnotation]); err != nil || back.Service != "web" || len(back.Ports) != 2 {
		t.Errorf("they say %+v, %v", back, err)
	}
}

// TestInterceptorsAsListed tests that what an interceptor's own slice says about it comes into the route slices, and that a
// terminating one, or one without an address, does not.
func TestInterceptorsAsListed(t *testing.T) {
	pod := &corev1.ObjectReference{Kind: "Pod", Name: "interceptor-1"}
	full := discoveryv1.Endpoint{
		Addresses: []string{"198.18.0.2", "198.18.0.9"}, NodeName: new("node1"), Zone: new("eu-1a"), TargetRef: pod,
		Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
	}
	ending, nowhere := *full.DeepCopy(), *full.DeepCopy()
	ending.Addresses, ending.Conditions.Terminating = []string{"198.18.0.3"}, new(true)
	nowhere.Addresses = nil
	got := Interceptors([]discoveryv1.EndpointSlice{{Endpoints: []discoveryv1.Endpoint{nowhere, ending, full}}, {}})
	want := []Interceptor{{Address: "198.18.0.2", Node: new("node1"), Zone: new("eu-1a"), PodRef: pod}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestScalingOfSlices tests that a slice says how its Service wants the workload to be scaled, and that a slice of an earlier version
// or another's does not pass for one.
func TestScalingOfSlices(t *testing.T) {
	for name, tc := range map[string]struct {
		annotation string
		want       string // min, max, target; empty if it cannot be read
	}{
		"the defaults":         {`{"minReplicas":0,"targetPendingRequests":100}`, "0 0 100"},
		"every setting":        {`{"minReplicas":1,"maxReplicas":4,"targetPendingRequests":7}`, "1 4 7"},
		"a rate":               {`{"minReplicas":0,"targetPendingRequests":100,"targetRequestRate":0.5}`, "0 0 100 0.5"},
		"no pending request":   {`{"minReplicas":0,"targetPendingRequests":0}`, ""},
		"a rate below none":    {`{"minReplicas":0,"targetPendingRequests":100,"targetRequestRate":-1}`, ""},
		"of a later version":   {`{"minReplicas":1,"targetPendingRequests":7,"mood":"good"}`, "1 0 7"},
		"of an earlier one":    {"", ""},
		"what nobody can read": {"{", ""},
	} {
		t.Run(name, func(t *testing.T) {
			slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "web-1", Annotations: map[string]string{}}}
			if tc.annotation != "" {
				slice.Annotations[ScalingAnnotation] = tc.annotation
			}
			s, err := ScalingSettings(slice, api.Routes{Cooldown: api.Duration(time.Hour)})
			switch {
			case tc.want == "" && err == nil:
				t.Errorf("got %+v", s)
			case tc.want == "":
			case err != nil || s.Cooldown != time.Hour ||
				tc.want != scalingText(s):
				t.Errorf("got %+v, %v", s, err)
			}
		})
	}
}

// TestFailOpenOfFamilies tests which pods each of a Service's route slices lists while no interceptor is ready.
func TestFailOpenOfFamilies(t *testing.T) {
	ports := func(n int32) []discoveryv1.EndpointPort {
		return []discoveryv1.EndpointPort{{Name: new("http"), Port: &n}}
	}
	pods := func(family discoveryv1.AddressType, port int32, ready bool, addresses ...string) discoveryv1.EndpointSlice {
		s := discoveryv1.EndpointSlice{AddressType: family, Ports: ports(port)}
		for _, a := range addresses {
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{a}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			})
		}
		return s
	}
	const four, six = discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6
	for name, tc := range map[string]struct {
		direct    []discoveryv1.EndpointSlice
		four, six string // ADDRESSES:PORT
		listed    bool
	}{
		"nothing":      {nil, "", "", false},
		"no ready pod": {[]discoveryv1.EndpointSlice{pods(four, 8080, false, "10.1.0.1")}, "", "", false},
		"one family":   {[]discoveryv1.EndpointSlice{pods(four, 8080, true, "10.1.0.1", "10.1.0.2")}, "10.1.0.1,10.1.0.2:8080", "", true},
		"both": {
			[]discoveryv1.EndpointSlice{pods(six, 8080, true, "fd00::1"), pods(four, 8080, true, "10.1.0.1")}, "10.1.0.1:8080", "fd00::1:8080", true,
		},
		"two slices of one family": {
			[]discoveryv1.EndpointSlice{pods(four, 8080, true, "10.1.0.1"), pods(four, 8080, true, "10.1.0.2")}, "10.1.0.1,10.1.0.2:8080", "", true,
		},
		"pods of a rollout that changes the port": {
			[]discoveryv1.EndpointSlice{pods(four, 8080, true, "10.1.0.1"), pods(four, 9090, true, "10.1.0.2"), pods(four, 8080, true, "10.1.0.3")},
			"10.1.0.1,10.1.0.3:8080", "", true,
		},
		"unready pods before ready ones": {
			[]discoveryv1.EndpointSlice{pods(four, 9090, false, "10.1.0.1"), pods(four, 8080, true, "10.1.0.2")}, "10.1.0.2:8080", "", true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			slices := []discoveryv1.EndpointSlice{pods(four, 10000, true, "198.18.0.2"), pods(six, 10000, true, "fd00::9")}
			for i := range slices {
				slices[i].Annotations = map[string]string{}
			}
			if got := FailOpen(slices, service(), tc.direct); got != tc.listed {
				t.Errorf("a pod is listed: %t", got)
			}
			for i, want := range []string{tc.four, tc.six} {
				if got := listsText(slices[i]); got != want || slices[i].Annotations[FailOpenAnnotation] != "true" {
					t.Errorf("slice %d lists %q, want %q; %v", i, got, want, slices[i].Annotations)
				}
				if slices[i].Ports == nil || slices[i].Endpoints == nil {
					t.Errorf("slice %d has null instead of a list: %+v", i, slices[i])
				}
			}
		})
	}
}

func scalingText(s Settings) string {
	text := fmt.Sprint(s.MinReplicas, s.MaxReplicas, s.TargetPendingRequests)
	if s.TargetRequestRate > 0 {
		text += fmt.Sprint(" ", s.TargetRequestRate)
	}
	return text
}

func listsText(s discoveryv1.EndpointSlice) string {
	var addresses []string
	for _, e := range s.Endpoints {
		addresses = append(addresses, e.Addresses...)
	}
	if len(s.Ports) == 0 {
		return strings.Join(addresses, ",")
	}
	return fmt.Sprintf("%s:%d", strings.Join(addresses, ","), *s.Ports[0].Port)
}
