// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// galleries is a third party's kind, with a scale subresource.
func galleries() *apiextensionsv1.CustomResourceDefinition {
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "galleries.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "galleries", Kind: "Gallery", ListKind: "GalleryList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1beta1", Served: true, Storage: true,
				Subresources: &apiextensionsv1.CustomResourceSubresources{
					Status: &apiextensionsv1.CustomResourceSubresourceStatus{},
					Scale:  &apiextensionsv1.CustomResourceSubresourceScale{SpecReplicasPath: ".spec.replicas", StatusReplicasPath: ".status.replicas"},
				},
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: new(true),
				}},
			}},
		},
	}
}

// installGalleries has the API server know Galleries until the test ends.
func installGalleries(t *testing.T) {
	t.Helper()
	crd := envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{galleries()}}
	if _, err := envtest.InstallCRDs(env.Config, crd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := envtest.UninstallCRDs(env.Config, crd); err != nil {
			t.Error(err)
		}
		galleries := &unstructured.UnstructuredList{}
		galleries.SetGroupVersionKind(schema.GroupVersionKind{Group: "example.com", Version: "v1beta1", Kind: "GalleryList"})
		eventually(t, "the kind is gone", func() error {
			if err := kube.List(context.Background(), galleries); err == nil {
				return errors.New("it can be listed")
			}
			return nil
		})
	})
}

// gallery makes a Gallery named web.
func (a *app) gallery(replicas int64) *unstructured.Unstructured {
	a.t.Helper()
	g := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
		"replicas": replicas, "template": map[string]any{"metadata": map[string]any{"labels": map[string]any{"app": "web"}}},
	}}}
	g.SetGroupVersionKind(schema.GroupVersionKind{Group: "example.com", Version: "v1beta1", Kind: "Gallery"})
	g.SetNamespace(a.ns)
	g.SetName("web")
	create(a.t, g)
	return g
}

// scaleGallery writes its scale, as KEDA does.
func (a *app) scaleGallery(gallery *unstructured.Unstructured, replicas int64) {
	a.t.Helper()
	a.get("web", gallery)
	scale := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"replicas": replicas}}}
	scale.SetAPIVersion("autoscaling/v1")
	scale.SetKind("Scale")
	if err := kube.SubResource("scale").Update(a.t.Context(), gallery, client.WithSubResourceBody(scale)); err != nil {
		a.t.Fatal(err)
	}
}

// galleryHas returns nil once the Gallery has that replica count.
func (a *app) galleryHas(gallery *unstructured.Unstructured, replicas int64) error {
	a.t.Helper()
	a.get("web", gallery)
	if n, _, _ := unstructured.NestedInt64(gallery.Object, "spec", "replicas"); n != replicas {
		return fmt.Errorf("it is %d", n)
	}
	return nil
}

// TestCustomResource injects a Service whose pods belong to a kind that nothing here knows.
func TestCustomResource(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	if err := kube.Delete(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "web"}}); err != nil {
		t.Fatal(err)
	}
	if err := a.patch(`{"metadata":{"labels":{"scale-to-zero":"true"},` +
		`"annotations":{"scale-to-zero/workload":"Gallery.example.com/web"}}}`); err != nil {
		t.Fatal(err)
	}
	a.told("Service", "web", "the API server knows no kind Gallery.example.com")
	if _, err := envtest.InstallCRDs(env.Config,
		envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{galleries()}}); err != nil {
		t.Fatal(err)
	}
	gallery := a.gallery(3)
	a.followInjection()
	so := &keda.ScaledObject{}
	eventually(t, "the ScaledObject is made", func() error {
		return kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: "web-gallery"}, so)
	})
	if got := so.Spec.ScaleTargetRef; got.APIVersion != "example.com/v1beta1" || got.Kind != "Gallery" || got.Name != "web" {
		t.Errorf("KEDA is to scale %+v", got)
	}
	if _, routes := a.routeSlice(); routes.Workload.String() != "Gallery.example.com/web" || routes.Workload.Resource != "galleries" {
		t.Errorf("the routes have the workload %+v", routes.Workload)
	}
	a.scaleGallery(gallery, 0)
	a.told("Gallery", "web", "Asleep: ")
	a.pod("web-1", metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Painting", Name: "web", UID: "1"},
		corev1.PodStatus{ContainerStatuses: crashing()})
	a.scaleGallery(gallery, 1)
	a.told("Gallery", "web", "StartFailed: Gallery.example.com/web cannot start: container web has ended 3 times")
	a.label("null")
	eventually(t, "the old replica count is back", func() error { return a.galleryHas(gallery, 3) })
	a.nativeSlice(true)
	eventually(t, "nothing of ours is left", func() error {
		if err := a.gone("web-gallery", &keda.ScaledObject{}); err != nil {
			return err
		}
		if a.get("web", gallery); gallery.GetAnnotations()[injector.ReplicasAnnotation] != "" {
			return fmt.Errorf("annotations %v", gallery.GetAnnotations())
		}
		return a.nothingLeft()
	})
}

// withdraw takes the controllers' rights on an API group away, until grant is called or the test ends.
func withdraw(t *testing.T, group string) (grant func()) {
	t.Helper()
	key := client.ObjectKey{Name: "scale-to-zero-controller"}
	var whole []rbacv1.PolicyRule
	write := func(ctx context.Context, rules func([]rbacv1.PolicyRule) []rbacv1.PolicyRule) {
		role := &rbacv1.ClusterRole{}
		if err := kube.Get(ctx, key, role); err != nil {
			t.Fatal(err)
		}
		role.Rules = rules(role.Rules)
		if err := kube.Update(ctx, role); err != nil {
			t.Fatal(err)
		}
	}
	write(t.Context(), func(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
		whole = rules
		return slices.DeleteFunc(slices.Clone(rules), func(r rbacv1.PolicyRule) bool { return slices.Contains(r.APIGroups, group) })
	})
	grant = sync.OnceFunc(func() {
		write(context.Background(), func([]rbacv1.PolicyRule) []rbacv1.PolicyRule { return whole })
	})
	t.Cleanup(grant)
	return grant
}

// TestWorkloadForbidden: while the controller may not read a sleeping app's kind, the app stays injected and still wakes.
// It is restored only once the kind can be read again.
func TestWorkloadForbidden(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	installGalleries(t)
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	if err := kube.Delete(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "web"}}); err != nil {
		t.Fatal(err)
	}
	gallery := a.gallery(2)
	if err := a.patch(`{"metadata":{"labels":{"scale-to-zero":"true"},"annotations":{"scale-to-zero/workload":"Gallery.example.com/web",` +
		`"scale-to-zero/hold-timeout":"1s"}}}`); err != nil {
		t.Fatal(err)
	}
	a.followInjection()
	scaled := func() error {
		return kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: "web-gallery"}, &keda.ScaledObject{})
	}
	eventually(t, "the ScaledObject is made", scaled)
	a.scaleGallery(gallery, 0)
	a.directSlice(false)
	a.told("Gallery", "web", "Asleep: ")

	grant := withdraw(t, "example.com")
	eventually(t, "an event says so", func() error {
		// This makes the controller look at the Service; the API server takes a moment to end the right.
		if err := a.patch(fmt.Sprintf(`{"metadata":{"annotations":{"touched":%q}}}`, time.Now())); err != nil {
			return err
		}
		if got := events(t, a.ns, "Service", "web"); strings.Count(got,
			"WorkloadForbidden: This Service stays redirected as it is: scale-to-zero may not read and scale galleries.example.com") != 1 {
			return fmt.Errorf("events: %q", got)
		}
		return nil
	})
	listInterceptors(t, "198.18.0.3")
	eventually(t, "its route follows the interceptors", func() error {
		s, routes := a.routeSlice()
		if len(s.Endpoints) != 1 || s.Endpoints[0].Addresses[0] != "198.18.0.3" || routes.Retiring ||
			routes.Workload.UID != string(gallery.GetUID()) {
			return fmt.Errorf("endpoints %v of %+v", s.Endpoints, routes)
		}
		return errors.Join(a.intercepted(), scaled())
	})

	a.label("null")
	a.told("Service", "web", "Restoring: Not restored yet: scale-to-zero may not read and scale galleries.example.com")
	eventually(t, "its requests have been held for the longest", func() error {
		s, routes := a.routeSlice()
		since, err := time.Parse(time.RFC3339, s.Annotations[injector.SinceAnnotation])
		if err != nil || !routes.Retiring || time.Since(since) < 3*time.Second {
			return fmt.Errorf("retiring %t since %s: %w", routes.Retiring, since, err)
		}
		return a.patch(fmt.Sprintf(`{"metadata":{"annotations":{"touched":%q}}}`, time.Now()))
	})
	a.staysRouted()

	grant()
	eventually(t, "the old replica count is back", func() error { return a.galleryHas(gallery, 2) })
	// No request is held for it any more, so nothing waits for its pods.
	eventually(t, "nothing of ours is left", func() error {
		return errors.Join(a.gone("web-gallery", &keda.ScaledObject{}), a.nothingLeft())
	})
}
