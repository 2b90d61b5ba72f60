// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ingress returns an opted-in Ingress with these Services as its default backend and in two paths.
func ingress(labelled bool, aliases, fallback, first, second string) *networkingv1.Ingress {
	backend := func(name string) networkingv1.IngressBackend {
		return networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
			Name: name,
			Port: networkingv1.ServiceBackendPort{Name: "http"},
		}}
	}
	other := backend(fallback)
	i := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{
			Name: "front", Namespace: "apps", Labels: map[string]string{},
			Annotations: map[string]string{"example.com/x": "y"},
		},
		Spec: networkingv1.IngressSpec{
			DefaultBackend: &other,
			Rules: []networkingv1.IngressRule{
				{Host: "nothing.example.com"},
				{Host: "a.example.com", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
					Paths: []networkingv1.HTTPIngressPath{
						{Path: "/a", Backend: backend(first)},
						{Path: "/b", Backend: backend(second)},
						{Path: "/static", Backend: networkingv1.IngressBackend{Resource: nil}},
					},
				}}},
			},
		},
	}
	if labelled {
		i.Labels[OptInLabel] = "true"
	}
	if aliases != "" {
		i.Annotations[AliasesAnnotation] = aliases
	}
	return i
}

func TestAdmitIngress(t *testing.T) {
	const both = "api=api-scale-to-zero,web=web-scale-to-zero"
	const web = "web=web-scale-to-zero"
	tests := map[string]struct {
		ingress, old *networkingv1.Ingress
		byController bool
		want         *networkingv1.Ingress
	}{
		"create is left alone": {
			ingress: ingress(true, "", "web", "web", "api"), want: ingress(true, "", "web", "web", "api"),
		},
		"create as a copy of a rewritten one gets the author's names": {
			ingress: ingress(true, web, "web-scale-to-zero", "web-scale-to-zero", "api"), want: ingress(true, "", "web", "web", "api"),
		},
		"the controller asks for one": {
			ingress: ingress(true, web, "web", "web", "api"), old: ingress(true, "", "web", "web", "api"), byController: true,
			want: ingress(true, web, "web-scale-to-zero", "web-scale-to-zero", "api"),
		},
		"nobody else can": {
			ingress: ingress(true, web, "web", "web", "api"), old: ingress(true, "", "web", "web", "api"),
			want: ingress(true, "", "web", "web", "api"),
		},
		"the chart again": {
			ingress: ingress(true, "", "web", "web", "api"), old: ingress(true, both, "web-scale-to-zero", "web-scale-to-zero", "api-scale-to-zero"),
			want: ingress(true, both, "web-scale-to-zero", "web-scale-to-zero", "api-scale-to-zero"),
		},
		"an edit in the author's names": {
			ingress: ingress(true, web, "api", "web", "web"), old: ingress(true, web, "web-scale-to-zero", "web-scale-to-zero", "api"),
			want: ingress(true, web, "api", "web-scale-to-zero", "web-scale-to-zero"),
		},
		"an edit in the names that are there": {
			ingress: ingress(true, web, "web-scale-to-zero", "new", "web-scale-to-zero"), old: ingress(true, web, "web-scale-to-zero",
				"web-scale-to-zero", "api"),
			want: ingress(true, web, "web-scale-to-zero", "new", "web-scale-to-zero"),
		},
		"the label goes, and the aliases stay for the time being": {
			ingress: ingress(false, web, "web-scale-to-zero", "web-scale-to-zero", "api"), old: ingress(true, web, "web-scale-to-zero",
				"web-scale-to-zero", "api"),
			want: ingress(false, web, "web-scale-to-zero", "web-scale-to-zero", "api"),
		},
		"the controller gives one back": {
			ingress: ingress(false, "api=api-scale-to-zero", "web-scale-to-zero", "new", "api-scale-to-zero"), old: ingress(false, both,
				"web-scale-to-zero", "new", "api-scale-to-zero"),
			byController: true, want: ingress(false, "api=api-scale-to-zero", "web", "new", "api-scale-to-zero"),
		},
		"the controller gives all back": {
			ingress: ingress(false, "", "web-scale-to-zero", "new", "api-scale-to-zero"), old: ingress(false, both, "web-scale-to-zero", "new",
				"api-scale-to-zero"),
			byController: true, want: ingress(false, "", "web", "new", "api"),
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			for range 2 { // applying it twice equals applying it once
				if err := AdmitIngress(tc.ingress, tc.old, tc.byController); err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(tc.want, tc.ingress); d != "" {
					t.Fatalf("(-want +got):\n%s", d)
				}
			}
		})
	}
}

func TestBackends(t *testing.T) {
	author, now := Backends(ingress(true, "web=web-scale-to-zero", "web-scale-to-zero", "web-scale-to-zero", "api"))
	if d := cmp.Diff([][]string{{"api", "web"}, {"api", "web-scale-to-zero"}}, [][]string{author, now}); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestAdmitIngressDenies(t *testing.T) {
	i := ingress(true, "", "a", "b", "c")
	i.Labels[OptInLabel] = "yes"
	if err := AdmitIngress(i, nil, false); err == nil {
		t.Error("a label that means nothing was let in")
	}
	i = ingress(true, "", "a", "b", "c")
	i.Annotations["scale-to-zero/cooldown"] = "5"
	if err := AdmitIngress(i, nil, false); err == nil {
		t.Error("a setting that cannot be read was let in")
	}
	// Both were written while admission was down. The controller must still be able to restore the backends.
	i.Labels[OptInLabel] = "yes"
	if err := AdmitIngress(i, i.DeepCopy(), true); err != nil {
		t.Error(err)
	}
}
