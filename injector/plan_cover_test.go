// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// cover answers AskCover.
func (w *world) cover(q Question) *Cover {
	c := &Cover{Ports: map[int32]bool{}, Admission: w.letIn.DeepCopy(), CutOff: w.cutOff}
	for _, p := range q.Routes.Ports {
		if c.Ports[p.Listen] = !w.uncovered[p.Listen]; w.uncovered[p.Listen] {
			c.Lacks, c.Lasting = "the interceptors' own NetworkPolicies do not follow yet", w.closed != ""
			if w.closed != "" {
				c.Lacks = w.closed
			}
		}
	}
	return c
}

// listens returns the interceptor ports that the route slices make interceptors listen on.
func (w *world) listens() string {
	ports := map[int32]bool{}
	for _, s := range w.slices {
		routes, _ := api.DecodeRoutes(s.Annotations[api.RoutesAnnotation])
		for _, p := range routes.Ports {
			ports[p.Listen] = true
		}
	}
	var out []int32
	for p := range ports {
		out = append(out, p)
	}
	slices.Sort(out)
	return fmt.Sprint(out)
}

// TestCoverBeforeListening: no interceptor listens for an app before its port is bound as its pods are, however the app is opted in.
func TestCoverBeforeListening(t *testing.T) {
	t.Parallel()
	follows := func(w *world) { w.follows, w.uncovered = true, map[int32]bool{10000: true, 10100: true} }
	for name, change := range map[string]func(*world){
		"a Service": func(*world) {}, "an Ingress": byIngress, "asleep": asleep,
		"without KEDA": func(w *world) { w.keda = false },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, change, follows)
			for range 5 {
				if p := w.reconcile(); p.Phase != PhaseListening || !p.Soon && p.After == 0 {
					t.Fatalf("it does not look again: %s", describe(p))
				}
				w.kubernetes()
				w.now = w.now.Add(2 * time.Second)
			}
			if len(w.slices) > 0 {
				t.Fatalf("interceptors listen on %s", w.listens())
			}
			const want = "InjectionSkipped: Not injected: the interceptors' own NetworkPolicies do"
			if got := strings.Join(w.events, "\n"); !strings.HasPrefix(got, want) {
				t.Errorf("events: %s", got)
			}
			w.uncovered = nil
			w.run()
			if !w.listening(name == "an Ingress") {
				t.Errorf("not injected: %v", w.events)
			}
		})
	}
}

// TestCoverOfNewPort: a port that an injected Service gets waits, and the others go on.
func TestCoverOfNewPort(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.follows = true })
	w.run()
	w.service.Spec.Ports = append(w.service.Spec.Ports, corev1.ServicePort{Name: "admin", Port: 81, Protocol: corev1.ProtocolTCP})
	w.uncovered = map[int32]bool{10001: true}
	for range 3 {
		if p := w.reconcile(); p.After == 0 && !p.Soon {
			t.Fatalf("it does not look again: %s", describe(p))
		}
	}
	if got := w.listens(); got != "[10000]" || !w.listening(false) {
		t.Fatalf("interceptors listen on %s", got)
	}
	w.uncovered = nil
	w.run()
	if got := w.listens(); got != "[10000 10001]" {
		t.Errorf("interceptors listen on %s", got)
	}
}

// TestCoverIsLost: an app whose policies cannot be followed any more stays injected, and is told so once.
func TestCoverIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.follows = true })
	w.run()
	w.uncovered, w.closed, w.events = map[int32]bool{10000: true}, "a write is refused", nil
	for range 3 {
		if p := w.reconcile(); p.Phase != PhaseRedirected || p.After == 0 {
			t.Fatal(describe(p))
		}
	}
	if got := strings.Join(w.events, "\n"); got != "NetworkPolicyNotFollowed: This Service stays redirected, but a write is refused" {
		t.Errorf("events: %s", got)
	}
	w.uncovered = nil
	w.run()
	w.uncovered, w.events = map[int32]bool{10000: true}, nil
	w.reconcile()
	if len(w.events) != 1 {
		t.Errorf("it is not told again after it was over: %v", w.events)
	}
}

// TestAdmissionPolicy is the policy that lets the interceptors in: on the pods' ports, and to no pod that nobody else isolates.
func TestAdmissionPolicy(t *testing.T) {
	t.Parallel()
	us := networkingv1.NetworkPolicyPeer{
		NamespaceSelector: inNamespace("scale-to-zero"), PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "interceptor"}},
	}
	s := service()
	s.Namespace, s.Spec.Selector = "a1", map[string]string{"app": "web"}
	s.Spec.Ports = []corev1.ServicePort{{Port: 8080}, {Name: "admin", Port: 9000}}
	policy := func(selector metav1.LabelSelector) networkingv1.NetworkPolicy {
		p := policyFor()
		p.Spec.PodSelector = selector
		return p
	}
	for name, tc := range map[string]struct {
		labels map[string]string // of the pods, besides app=web
		by     *metav1.LabelSelector
		others []map[string]string // pods that are not isolated
	}{
		"nobody isolates": {nil, nil, nil},
		"all pods":        {nil, &metav1.LabelSelector{}, nil},
		"its own label": {
			map[string]string{"version": "2"},
			&metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			[]map[string]string{{"app": "db"}, nil},
		},
		"a version": {
			map[string]string{"version": "2"},
			&metav1.LabelSelector{MatchLabels: map[string]string{"version": "2"}},
			[]map[string]string{{"app": "web"}, {"app": "web", "version": "1"}},
		},
		"those without a label": {
			nil, &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: "open", Operator: metav1.LabelSelectorOpDoesNotExist},
			}},
			[]map[string]string{{"app": "web", "open": "yes"}},
		},
		"all but a value": {
			nil, &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: "tier", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"open"}},
			}},
			[]map[string]string{{"app": "web", "tier": "open"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pods := webPods("a1")
			pods.Labels = map[string]string{"app": "web"}
			maps.Copy(pods.Labels, tc.labels)
			var policies []networkingv1.NetworkPolicy
			if tc.by != nil {
				policies = append(policies, policy(*tc.by))
			}
			added := AdmissionPolicy(s, pods, policies, us)
			if (added != nil) != (tc.by != nil) {
				t.Fatalf("added %+v", added)
			}
			if added == nil {
				return
			}
			if again := AdmissionPolicy(s, pods, append(policies, *added), us); !equality.Semantic.DeepEqual(again, added) {
				t.Error("our own policy changes what is added")
			}
			if AdmissionPolicy(s, pods, []networkingv1.NetworkPolicy{*added}, us) != nil {
				t.Error("our own policy keeps itself")
			}
			all := slices.Concat(policies, []networkingv1.NetworkPolicy{*added})
			web := peer{"a1", pods.Labels, "10.0.0.1"}
			stranger := peer{"a1", map[string]string{"x": "y"}, "10.0.0.2"}
			for port, want := range map[int32]bool{8080: true, 9000: true, 9001: false} {
				if got := admits(all, web, nil, port, interceptorPod()); got != want || admits(all, web, nil, port, stranger) {
					t.Errorf("port %d lets the interceptors in: %t, want %t", port, got, want)
				}
			}
			for _, labels := range tc.others {
				if !admits(all, peer{"a1", labels, "10.0.0.3"}, nil, 8080, stranger) {
					t.Errorf("pods with %v are isolated now", labels)
				}
			}
		})
	}
}

// TestAdmissionPolicyComesAndGoes with the opt-in.
func TestAdmissionPolicyComesAndGoes(t *testing.T) {
	t.Parallel()
	added := &networkingv1.NetworkPolicy{}
	added.Name, added.Spec.PodSelector.MatchLabels = "web-scale-to-zero", map[string]string{"app": "web"}
	for name, admits := range map[string]bool{"allowed": true, "not allowed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(w *world) { w.follows, w.admits, w.letIn = true, admits, added.DeepCopy() })
			w.run()
			if (w.added != nil) != admits {
				t.Fatalf("added: %t", w.added != nil)
			}
			w.letIn.Spec.PodSelector.MatchLabels["tier"] = "front"
			w.run()
			if admits && w.added.Spec.PodSelector.MatchLabels["tier"] != "front" {
				t.Error("it does not follow")
			}
			delete(w.service.Labels, OptInLabel)
			w.run()
			if w.added != nil {
				t.Error("it stays after the opt-out")
			}
		})
	}
}
