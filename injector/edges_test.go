// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestWarnedLater: what the Service's owner sets after the injection is reported then, and again once it was taken back.
func TestWarnedLater(t *testing.T) {
	sticky := func(w *world) { annotated("nginx.org/sticky-cookie-services", "x")(w.service) }
	loose := func(w *world) { delete(w.service.Annotations, "nginx.org/sticky-cookie-services") }
	local := func(w *world) { w.service.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }
	cluster := func(w *world) { w.service.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster }
	beside := func(w *world) { w.siblings = []corev1.Service{*service(called("api"), unlabelled)} }
	front := func(w *world) { // an Ingress to the Service, which is not opted in
		byIngress(w)
		w.service.Labels = map[string]string{OptInLabel: "true"}
		w.ingresses[0].Labels, w.ingresses[0].Annotations = nil, map[string]string{"nginx.ingress.kubernetes.io/affinity": "cookie"}
	}
	for name, tc := range map[string]struct {
		steps []func(*world)
		want  []string
	}{
		"an affinity":                 {[]func(*world){sticky}, []string{ReasonAffinity}},
		"an affinity, for long":       {[]func(*world){sticky, func(*world) {}, func(*world) {}}, []string{ReasonAffinity}},
		"an affinity, to and fro":     {[]func(*world){sticky, loose, sticky}, []string{ReasonAffinity, ReasonAffinity}},
		"an affinity of its Ingress":  {[]func(*world){front}, []string{ReasonAffinity}},
		"the client's address":        {[]func(*world){local}, []string{ReasonClientAddress}},
		"the client's address, twice": {[]func(*world){local, cluster, local}, []string{ReasonClientAddress, ReasonClientAddress}},
		"a Service beside it":         {[]func(*world){beside}, []string{ReasonSiblings}},
		"a Service beside it, still":  {[]func(*world){beside, func(*world) {}}, []string{ReasonSiblings}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(w *world) { w.workload.Replicas, w.workload.ReadyReplicas = 2, 2 }, soonRedirected)
			for _, step := range tc.steps {
				step(w)
				w.reconcile()
			}
			var got []string
			for _, e := range w.events {
				reason, _, _ := strings.Cut(e, ":")
				got = append(got, reason)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestLooksAgain: what no watch reports is looked for after a while.
func TestLooksAgain(t *testing.T) {
	custom := func(w *world) { annotated(Prefix+"workload", "Deployment/web")(w.service) }
	for name, tc := range map[string]struct {
		world []func(*world)
		after time.Duration
	}{
		"a workload that may not be read": {[]func(*world){func(w *world) { w.forbidden = "no right" }}, KindRetry},
		"one of an app that is injected": {
			[]func(*world){custom, soonRedirected, func(w *world) { w.forbidden = "no right" }}, KindRetry,
		},
		"there is none": {[]func(*world){func(w *world) { w.skip = "there is none" }}, 0},
		"everything is restored for another minute": {[]func(*world){func(w *world) { w.restoringFor = time.Minute }}, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.world...)
			if p := w.reconcile(); p.After != tc.after || p.Soon {
				t.Errorf("got %s", describe(p))
			}
		})
	}
	w := newWorld(t)
	o := w.observe()
	o.Answers.Target = &Target{Skip: "the API server does not know Gallery.example.com", Retry: true}
	if p, q := PlanService(o); q.Kind != NoQuestion || p.After != KindRetry || p.Phase != PhaseAbsent {
		t.Errorf("a kind that may come: %s", describe(p))
	}
	o.Answers.Target = &Target{Workload: w.workload}
	if p, q := PlanService(o); q.Kind != NoQuestion || p.Phase != PhaseAbsent || len(p.Reports) > 0 {
		t.Errorf("a workload that was deleted a moment ago: %s", describe(p))
	}
}

// TestBackendsOfIngresses: which Ingresses send traffic to a port, and which hosts they do so for.
func TestBackendsOfIngresses(t *testing.T) {
	backend := func(name string, port networkingv1.ServiceBackendPort) networkingv1.IngressBackend {
		return networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: name, Port: port}}
	}
	rule := func(host string, backends ...networkingv1.IngressBackend) networkingv1.IngressRule {
		r := networkingv1.IngressRule{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{}}}
		for _, b := range backends {
			r.HTTP.Paths = append(r.HTTP.Paths, networkingv1.HTTPIngressPath{Backend: b})
		}
		return r
	}
	number, name := networkingv1.ServiceBackendPort{Number: 80}, networkingv1.ServiceBackendPort{Name: "http"}
	bucket := networkingv1.IngressBackend{Resource: &corev1.TypedLocalObjectReference{Kind: "Bucket", Name: "web"}}
	for title, tc := range map[string]struct {
		aliases string
		rules   []networkingv1.IngressRule
		refers  bool
		hosts   []string
	}{
		"nothing":   {"", nil, false, nil},
		"by number": {"", []networkingv1.IngressRule{rule("a", backend("web", number))}, true, []string{"a"}},
		"by name":   {"", []networkingv1.IngressRule{rule("a", backend("web", name))}, true, []string{"a"}},
		"the second path": {
			"", []networkingv1.IngressRule{rule("a", backend("x", number), backend("web", number))}, true, []string{"a"},
		},
		"another port's number": {
			"", []networkingv1.IngressRule{rule("a", backend("web", networkingv1.ServiceBackendPort{Number: 81}))}, false, []string{"a"},
		},
		"another port's name": {
			"", []networkingv1.IngressRule{rule("a", backend("web", networkingv1.ServiceBackendPort{Name: "x"}))}, false, []string{"a"},
		},
		"another Service": {"", []networkingv1.IngressRule{rule("a", backend("api", number))}, false, nil},
		"another Service, for any host": {
			"", []networkingv1.IngressRule{rule("", backend("api", number)), rule("b", backend("web", number))}, true, []string{"b"},
		},
		"by its alias": {
			"web=web-alias", []networkingv1.IngressRule{rule("a", backend("web-alias", number))}, true, []string{"a"},
		},
		"by another's alias":   {"api=api-alias", []networkingv1.IngressRule{rule("a", backend("api-alias", number))}, false, nil},
		"no Service":           {"", []networkingv1.IngressRule{rule("a", bucket)}, false, nil},
		"a rule without paths": {"", []networkingv1.IngressRule{{Host: "a"}, rule("b", backend("web", number))}, true, []string{"b"}},
		"an annotation that is garbled": {
			"web,=x,y=,web=web-alias",
			[]networkingv1.IngressRule{rule("a", backend("web-alias", number)), rule("b", backend("x", number))},
			true,
			[]string{"a"},
		},
	} {
		t.Run(title, func(t *testing.T) {
			i := &networkingv1.Ingress{Spec: networkingv1.IngressSpec{Rules: tc.rules}}
			i.Annotations = map[string]string{AliasesAnnotation: tc.aliases}
			if got := refersTo(i, "web", "http", 80); got != tc.refers {
				t.Errorf("it sends traffic to the port: %t", got)
			}
			hosts, known := hostsOf(i, "web")
			if !known || !slices.Equal(hosts, tc.hosts) {
				t.Errorf("for hosts %v, known: %t", hosts, known)
			}
		})
	}
	fallback := backend("web", networkingv1.ServiceBackendPort{Number: 81})
	unnamed := &networkingv1.Ingress{Spec: networkingv1.IngressSpec{DefaultBackend: &fallback}}
	if refersTo(unnamed, "web", "", 80) {
		t.Error("a number is taken for the name of a port that has none")
	}
	other := &networkingv1.Ingress{Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{rule("a", backend("api", number))}}}
	other.Annotations = map[string]string{"nginx.ingress.kubernetes.io/server-alias": "b"}
	inside := service(func(s *corev1.Service) { s.Spec.ClusterIPs = []string{corev1.ClusterIPNone, "fd00::7"} })
	want := &api.Reach{Inside: []string{"fd00::7"}}
	if diff := cmp.Diff(want, ReachOf(inside, []networkingv1.Ingress{*other})); diff != "" {
		t.Error(diff)
	}
}

// TestOptedInIngresses are those whose traffic is to be redirected.
func TestOptedInIngresses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*networkingv1.Ingress)
		want   bool
	}{
		"opted in":      {func(*networkingv1.Ingress) {}, true},
		"not":           {func(i *networkingv1.Ingress) { i.Labels = nil }, false},
		"neither nor":   {func(i *networkingv1.Ingress) { i.Annotations = map[string]string{EnabledAnnotation: "false"} }, false},
		"to another":    {func(i *networkingv1.Ingress) { i.Spec.DefaultBackend.Service.Name = "api" }, false},
		"being deleted": {func(i *networkingv1.Ingress) { i.DeletionTimestamp = &metav1.Time{Time: noon} }, false},
		"to the alias": {func(i *networkingv1.Ingress) {
			i.Spec.DefaultBackend.Service.Name = "web-scale-to-zero"
			i.Annotations = map[string]string{AliasesAnnotation: "web=web-scale-to-zero"}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			i := networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: "front", Labels: map[string]string{OptInLabel: "true"}}}
			i.Spec.DefaultBackend = &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web"}}
			tc.change(&i)
			if got := len(OptedInIngresses([]networkingv1.Ingress{i}, "web")) == 1; got != tc.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

// TestRouteBackends: a backend of a Gateway API route counts if it is surely a Service of the route's namespace.
func TestRouteBackends(t *testing.T) {
	for name, tc := range map[string]struct {
		ref  map[string]any
		want bool
	}{
		"a name":                   {map[string]any{"name": "web", "port": int64(80)}, true},
		"a Service":                {map[string]any{"kind": "Service", "name": "web", "port": int64(80)}, true},
		"of the core group":        {map[string]any{"group": "", "kind": "Service", "name": "web", "port": int64(80)}, true},
		"another kind":             {map[string]any{"kind": "Bucket", "name": "web", "port": int64(80)}, false},
		"a Service of other group": {map[string]any{"group": "example.com", "kind": "Service", "name": "web", "port": int64(80)}, false},
		"a group and no kind":      {map[string]any{"group": "example.com", "name": "web", "port": int64(80)}, false},
		"its own namespace":        {map[string]any{"namespace": "apps", "name": "web", "port": int64(80)}, true},
		"another namespace":        {map[string]any{"namespace": "other", "name": "web", "port": int64(80)}, false},
		"no name":                  {map[string]any{"port": int64(80)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			route := &unstructured.Unstructured{Object: map[string]any{
				"kind": "HTTPRoute", "metadata": map[string]any{"namespace": "apps", "name": "r"},
				"spec": map[string]any{"rules": []any{map[string]any{"backendRefs": []any{tc.ref}}}},
			}}
			got := NewGatewayRoute(route)
			want := GatewayRoute{Kind: "HTTPRoute", Name: "r"}
			if tc.want {
				want.Backends = []RouteBackend{{"web", 80}}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestLate: pods that have not come back for as long as a request may be held are waited for no longer.
func TestLate(t *testing.T) {
	front := func(since string) Front {
		return Front{Routes: api.Routes{HoldTimeout: api.Duration(time.Minute)}, Slices: []discoveryv1.EndpointSlice{{
			ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{SinceAnnotation: since}},
		}}}
	}
	began := noon.Format(time.RFC3339)
	for name, tc := range map[string]struct {
		since string
		after time.Duration
		want  bool
	}{
		"at once":               {began, 0, false},
		"the hold timeout":      {began, time.Minute, false},
		"longer than it":        {began, time.Minute + 1, true},
		"it has not begun":      {"", time.Hour, false},
		"nobody can read since": {"noon", time.Hour, false},
	} {
		if got := front(tc.since).late(noon.Add(tc.after)); got != tc.want {
			t.Errorf("%s: late %t", name, got)
		}
	}
}

// TestPortsRestAndReturn: who comes back gets the port of before; a port that has rested is anybody's again, and one that is
// learned does not rest.
func TestPortsRestAndReturn(t *testing.T) {
	web, api := PortOwner{"apps", "web", "http"}, PortOwner{"apps", "api", "http"}
	get := func(ps *Ports, o PortOwner, at time.Time) int32 {
		p, err := ps.Get(o, at)
		if err != nil {
			return 0
		}
		return p
	}
	ps := NewPorts(1, 1)
	if get(ps, web, noon) != 1 || get(ps, api, noon) != 0 {
		t.Error("one port is given to two")
	}
	ps.Keep("other", "web", noon)
	ps.Keep("apps", "api", noon)
	ps.Keep("apps", "web", noon, "http")
	if get(ps, api, noon.Add(time.Hour)) != 0 {
		t.Error("a port is free that its owner still has")
	}
	ps.Keep("apps", "web", noon)
	for _, rest := range []time.Duration{0, PortRest - 1} {
		if got := get(ps, api, noon.Add(rest)); got != 0 {
			t.Errorf("after a rest of %s: %d", rest, got)
		}
	}
	if got := get(ps, api, noon.Add(PortRest)); got != 1 {
		t.Errorf("after its rest: %d", got)
	}
	ps.Keep("apps", "api", noon)
	if !ps.Learn(web, 1) || get(ps, web, noon) != 1 {
		t.Error("a slice says that it has the port, and it rests")
	}
	wide := NewPorts(1, 1000)
	first := get(wide, web, noon)
	wide.Keep("apps", "web", noon)
	if got := get(wide, web, noon.Add(PortRest)); got != first {
		t.Errorf("back, it gets %d, and had %d", got, first)
	}
	several := map[int32]bool{}
	for range 100 {
		several[get(NewPorts(1, 1000), web, noon)] = true
	}
	if len(several) < 10 {
		t.Errorf("a name leads to %d ports of 1000", len(several))
	}
}
