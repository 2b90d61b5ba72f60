// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// extensionKinds are the kinds of objects that make the API server call a Service.
func extensionKinds() []schema.GroupVersionKind {
	return []schema.GroupVersionKind{
		{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingWebhookConfiguration"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "MutatingWebhookConfiguration"},
		{Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService"},
		{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"},
	}
}

// calledKey is where calledOnly keeps what calledServices finds.
const calledKey = "called"

// calledServices returns the Services, as namespace/name, that the API server calls because of an object.
func calledServices(o client.Object) []string {
	object, ok := o.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	if called, found, _ := unstructured.NestedStringSlice(object.Object, calledKey); found {
		return called
	}
	var called []string
	add := func(from map[string]any, path ...string) {
		service, _, _ := unstructured.NestedMap(from, path...)
		namespace, _ := service["namespace"].(string)
		name, _ := service["name"].(string)
		if namespace != "" && name != "" {
			called = append(called, namespace+"/"+name)
		}
	}
	add(object.Object, "spec", "service")
	add(object.Object, "spec", "conversion", "webhook", "clientConfig", "service")
	webhooks, _, _ := unstructured.NestedSlice(object.Object, "webhooks")
	for _, w := range webhooks {
		if webhook, ok := w.(map[string]any); ok {
			add(webhook, "clientConfig", "service")
		}
	}
	slices.Sort(called)
	return slices.Compact(called)
}

// calledOnly keeps of an object for the cache only what calledServices finds. A CustomResourceDefinition's schema is large.
func calledOnly(o any) (any, error) {
	object, ok := o.(*unstructured.Unstructured)
	if !ok {
		return o, nil
	}
	called := []any{}
	for _, service := range calledServices(object) {
		called = append(called, service)
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": object.GetAPIVersion(), "kind": object.GetKind(), calledKey: called,
		"metadata": map[string]any{"name": object.GetName(), "uid": string(object.GetUID()), "resourceVersion": object.GetResourceVersion()},
	}}, nil
}

// extensionCache is the cache's part for extensions.
func extensionCache(by map[client.Object]cache.ByObject) {
	for _, kind := range extensionKinds() {
		by[newUnstructured(kind)] = cache.ByObject{Transform: calledOnly}
	}
}

// extensions finds the extensions of the API server that Services serve.
//
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=validatingwebhookconfigurations,verbs=list;watch
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=mutatingwebhookconfigurations,verbs=list;watch
// +kubebuilder:rbac:groups=apiregistration.k8s.io,resources=apiservices,verbs=list;watch
// +kubebuilder:rbac:groups=apiextensions.k8s.io,resources=customresourcedefinitions,verbs=list;watch
type extensions struct{ client client.Reader }

// served returns the extensions that a Service serves, as Kind/name.
func (e extensions) served(ctx context.Context, service types.NamespacedName) ([]string, error) {
	var out []string
	for _, kind := range extensionKinds() {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
		if err := e.client.List(ctx, list, client.MatchingFields{byCalled: service.String()}); err != nil {
			return nil, fmt.Errorf("listing the %ss that call service %s: %w", kind.Kind, service, err)
		}
		for i := range list.Items {
			out = append(out, kind.Kind+"/"+list.Items[i].GetName())
		}
	}
	slices.Sort(out)
	return out, nil
}

// watchExtensions makes a controller of Services notice when one begins, or ceases, to serve an extension.
func watchExtensions(b *builder.Builder) *builder.Builder {
	changed := predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return !slices.Equal(calledServices(e.ObjectOld), calledServices(e.ObjectNew))
	}}
	for _, kind := range extensionKinds() {
		b = b.Watches(newUnstructured(kind), handler.EnqueueRequestsFromMapFunc(servicesOfExtension), builder.WithPredicates(changed))
	}
	return b
}

// servicesOfExtension returns the Services that serve an extension.
func servicesOfExtension(_ context.Context, o client.Object) []reconcile.Request {
	var out []reconcile.Request
	for _, service := range calledServices(o) {
		namespace, name, _ := strings.Cut(service, "/")
		out = append(out, named(namespace, name)...)
	}
	return out
}
