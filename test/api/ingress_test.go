// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// ingress makes an Ingress with three backends: Service web by the port's name and by its number, and another.
func (a *app) ingress(name string) *networkingv1.Ingress {
	a.t.Helper()
	backend := func(service string, port networkingv1.ServiceBackendPort) networkingv1.IngressBackend {
		return networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: service, Port: port}}
	}
	fallback := backend("web", networkingv1.ServiceBackendPort{Number: 80})
	path := func(path string, b networkingv1.IngressBackend) networkingv1.HTTPIngressPath {
		return networkingv1.HTTPIngressPath{Path: path, PathType: new(networkingv1.PathTypePrefix), Backend: b}
	}
	i := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: name},
		Spec: networkingv1.IngressSpec{
			DefaultBackend: &fallback,
			Rules: []networkingv1.IngressRule{{
				Host: name + ".example.com",
				IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
					Paths: []networkingv1.HTTPIngressPath{
						path("/", backend("web", networkingv1.ServiceBackendPort{Name: "http"})),
						path("/other", backend("other", networkingv1.ServiceBackendPort{Number: 80})),
					},
				}},
			}},
		},
	}
	create(a.t, i)
	return i
}

func (a *app) patchIngress(name, patch string) {
	a.t.Helper()
	i := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: name}}
	if err := kube.Patch(a.t.Context(), i, client.RawPatch("application/merge-patch+json", []byte(patch)),
		client.FieldOwner("kubectl-label")); err != nil {
		a.t.Fatal(err)
	}
}

func (a *app) backendsOf(name string) []string {
	a.t.Helper()
	i := &networkingv1.Ingress{}
	a.get(name, i)
	_, now := injector.Backends(i)
	return now
}

// led waits until an Ingress has these backends.
func (a *app) led(name string, want ...string) {
	a.t.Helper()
	eventually(a.t, "Ingress "+name+" has its backends", func() error {
		if got := a.backendsOf(name); !slices.Equal(got, want) {
			return fmt.Errorf("backends %v, want %v; events: %s", got, want, events(a.t, a.ns, "Service", "web"))
		}
		return nil
	})
}

const (
	label   = `{"metadata":{"labels":{"scale-to-zero":"true"}}}`
	unlabel = `{"metadata":{"labels":{"scale-to-zero":null}}}`
)

func TestIngress(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 2)
	before := a.ingress("front").DeepCopy()
	a.ingress("back")
	a.patchIngress("front", `{"metadata":{"labels":{"scale-to-zero":"true"},"annotations":{"scale-to-zero/cooldown":"4m"}}}`)
	a.directMade()
	a.led("front", "other", "web-scale-to-zero")
	a.led("back", "other", "web")
	eventually(t, "the ScaledObject is made", a.scaled)
	if a.intercepted() == nil {
		t.Error("the Service itself was injected")
	}
	var alias corev1.Service
	a.get("web-scale-to-zero", &alias)
	if len(alias.Spec.Selector) > 0 || alias.Spec.ClusterIP == "" || !cmp.Equal(alias.Spec.Ports, a.live().Spec.Ports) {
		t.Errorf("alias: %+v", alias.Spec)
	}
	var slice discoveryv1.EndpointSlice
	a.get("web-scale-to-zero-scale-to-zero-ipv4", &slice)
	if slice.Labels[discoveryv1.LabelServiceName] != alias.Name || len(slice.Endpoints) != 1 ||
		slice.Endpoints[0].Addresses[0] != "198.18.0.2" {
		t.Errorf("route slice: labels %v, endpoints %v", slice.Labels, slice.Endpoints)
	}
	a.told("Ingress", "front",
		"Requests through Ingress front to Service web (port 80) now go through scale-to-zero; Deployment/web sleeps after 4m")

	// Another Ingress shares the backend.
	a.patchIngress("back",
		`{"metadata":{"labels":{"scale-to-zero":"true"},"annotations":{"scale-to-zero/cooldown":"9m","scale-to-zero/hold-timeout":"2m"}}}`)
	a.led("back", "other", "web-scale-to-zero")
	eventually(t, "the settings of both count, and where they differ the later name's", func() error {
		a.get("web-scale-to-zero-scale-to-zero-ipv4", &slice)
		routes, err := api.DecodeRoutes(slice.Annotations[api.RoutesAnnotation])
		if routes.Cooldown.String() != "4m0s" || routes.HoldTimeout.String() != "2m0s" {
			return fmt.Errorf("cool-down %s, hold time-out %s: %w", routes.Cooldown, routes.HoldTimeout, err)
		}
		return nil
	})

	// Its author edits it, with the original names, as a chart's replace does.
	edited := &networkingv1.Ingress{}
	a.get("front", edited)
	edited.Spec = *before.Spec.DeepCopy()
	edited.Spec.Rules[0].HTTP.Paths[1].Path = "/edited"
	delete(edited.Annotations, injector.AliasesAnnotation)
	if err := kube.Update(t.Context(), edited); err != nil {
		t.Fatal(err)
	}
	if got := a.backendsOf("front"); !slices.Equal(got, []string{"other", "web-scale-to-zero"}) {
		t.Errorf("after an edit its backends are %v", got)
	}

	// It sleeps, and the first of the two restores it: the other keeps it.
	a.scale(0)
	a.patchIngress("front", unlabel)
	if got := a.backendsOf("front"); !slices.Equal(got, []string{"other", "web-scale-to-zero"}) {
		t.Errorf("without the label and while the app sleeps, its backends are %v", got)
	}
	a.patchIngress("back", unlabel)
	eventually(t, "the old replica count is back", func() error {
		if n := a.replicas(); n != 2 {
			return fmt.Errorf("it is %d", n)
		}
		return nil
	})
	a.ready(2)
	for _, name := range []string{"front", "back"} {
		a.led(name, "other", "web")
	}
	want := before.Spec.DeepCopy()
	want.Rules[0].HTTP.Paths[1].Path = "/edited"
	a.get("front", edited)
	if d := cmp.Diff(*want, edited.Spec); d != "" || edited.Annotations[injector.AliasesAnnotation] != "" {
		t.Errorf("annotations %v; (-author +got):\n%s", edited.Annotations, d)
	}
	eventually(t, "nothing of ours is left", func() error {
		if err := a.gone("web-scale-to-zero", &corev1.Service{}); err != nil {
			return err
		}
		if err := a.gone("web-scale-to-zero-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{}); err != nil {
			return err
		}
		return a.nothingLeft()
	})
}

// TestIngressAndService: the label of the Service itself makes the Ingress's superfluous, and without it the Ingress's
// counts again.
func TestIngressAndService(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.ingress("front")
	a.patchIngress("front", label)
	a.directMade()
	a.led("front", "other", "web-scale-to-zero")
	a.injected()
	a.led("front", "other", "web")
	eventually(t, "the alias goes", func() error { return a.gone("web-scale-to-zero", &corev1.Service{}) })
	if err := a.intercepted(); err != nil {
		t.Error(err)
	}
	if n := a.replicas(); n != 1 {
		t.Errorf("%d replicas", n)
	}
	a.label("null")
	a.led("front", "other", "web-scale-to-zero")
	eventually(t, "the Service is restored", func() error {
		if a.intercepted() == nil {
			return fmt.Errorf("selector %v", a.live().Spec.Selector)
		}
		return nil
	})
	a.nativeSlice(true)
	eventually(t, "its route slice goes", func() error { return a.gone("web-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{}) })
	if err := a.scaled(); err != nil {
		t.Errorf("the workload was restored: %v", err)
	}
}

// TestIngressStrippedWithoutAdmission: an Ingress that has our backends without the annotation is found, and its own
// backends are restored.
func TestIngressStrippedWithoutAdmission(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	p := start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.ingress("front")
	a.patchIngress("front", label)
	a.directMade()
	a.led("front", "other", "web-scale-to-zero")
	p.stop()
	a.patchIngress("front", `{"metadata":{"labels":{"scale-to-zero":null},"annotations":{"scale-to-zero/aliases":null}}}`)
	start(t, planeOptions{interceptors: &interceptors{}})
	a.led("front", "other", "web")
}
