// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestNamespaceTakesWhatVisitorsReach: a Namespace's opt-in injects a Service when an Ingress exposes it, and restores it
// when none does any more.
func TestNamespaceTakesWhatVisitorsReach(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	if err := a.patchNamespace(label); err != nil {
		t.Fatal(err)
	}
	const why = "Not injected: only its namespace opts it in, and no Ingress, Gateway API route, " +
		"load balancer or node port exposes it. To inject it, label it scale-to-zero=true; for all such Services, " +
		"annotate the Namespace scale-to-zero/internal-services=true"
	a.told("Service", "web", why)
	if got := eventTypes(t, a.ns, "web", "InjectionSkipped"); !slices.Equal(got, []string{corev1.EventTypeNormal}) {
		t.Errorf("the event is %v: its namespace is opted in, not this Service in particular", got)
	}
	front := a.ingress("front")
	a.followInjection()
	if err := kube.Delete(t.Context(), front); err != nil {
		t.Fatal(err)
	}
	a.given("when its Ingress is gone")
	if err := a.patchNamespace(`{"metadata":{"annotations":{"scale-to-zero/internal-services":"true"}}}`); err != nil {
		t.Fatal(err)
	}
	a.followInjection()
	if err := a.patchNamespace(`{"metadata":{"annotations":{"scale-to-zero/internal-services":null}}}`); err != nil {
		t.Fatal(err)
	}
	a.given("when internal Services are not opted in any more")
	// Another Service of the same pods is exposed.
	public := a.service()
	public.Name, public.Spec.Type = "public", corev1.ServiceTypeLoadBalancer
	create(t, public)
	a.followInjection()
}

// given waits until the Service is restored.
func (a *app) given(when string) {
	a.t.Helper()
	eventually(a.t, "the sentinel goes "+when, func() error {
		if a.intercepted() == nil {
			return fmt.Errorf("selector %v", a.live().Spec.Selector)
		}
		return nil
	})
	a.nativeSlice(true)
	eventually(a.t, "nothing of ours is left "+when, a.nothingLeft)
	if err := client.IgnoreNotFound(kube.Delete(a.t.Context(),
		&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "web-direct-native"}})); err != nil {
		a.t.Fatal(err)
	}
}

// TestGatewayRoutes: the Gateway API may be installed while the controllers run. An HTTPRoute exposes a Service as an
// Ingress does.
func TestGatewayRoutes(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	p := start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	if err := a.patchNamespace(label); err != nil {
		t.Fatal(err)
	}
	a.told("Service", "web", "no Ingress, Gateway API route, load balancer or node port exposes it")
	create(t, routesCRD("HTTPRoute", "httproutes", "v1"))
	t.Cleanup(func() { deleteCRD(t, "httproutes.gateway.networking.k8s.io") })
	route := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": map[string]any{"namespace": a.ns, "name": "front"},
		"spec": map[string]any{"rules": []any{map[string]any{"backendRefs": []any{map[string]any{"name": "web", "port": int64(80)}}}}},
	}}
	eventually(t, "the API server takes routes", func() error { return kube.Create(t.Context(), route.DeepCopy()) })
	a.followInjection()
	p.stop()
	// A controller that starts reads the HTTPRoutes before it decides anything.
	start(t, planeOptions{interceptors: &interceptors{}})
	other := a.service()
	other.Name = "other"
	create(t, other)
	eventually(t, "another Service of the same pods is injected with it", func() error {
		return kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: "other-direct"}, &corev1.Service{})
	})
	if err := a.intercepted(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if err := errors.Join(kube.Delete(t.Context(), other), kube.Delete(t.Context(), route)); err != nil {
		t.Fatal(err)
	}
	a.given("when its route is gone")
}

// routesCRD is the smallest CRD of the Gateway API with which a server stores routes.
func routesCRD(kind, plural, version string) *apiextensionsv1.CustomResourceDefinition {
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{
			Name:        plural + ".gateway.networking.k8s.io",
			Annotations: map[string]string{"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api"},
		},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "gateway.networking.k8s.io", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: plural, Kind: kind, ListKind: kind + "List"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: version, Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{
					OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: new(true)},
				},
			}},
		},
	}
}

func deleteCRD(t *testing.T, name string) {
	t.Helper()
	if err := kube.Delete(context.Background(),
		&apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: name}}); client.IgnoreNotFound(err) != nil {
		t.Error(err)
	}
}
