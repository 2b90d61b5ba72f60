// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// The fields by which the cache finds objects, so that no reconcile reads a whole namespace to find one of them.
const (
	byBackend  = "scale-to-zero.backend"  // an Ingress or a Gateway API route: a Service to which it sends traffic, by any of its names
	bySelector = "scale-to-zero.selector" // a Service: one key=value of its selector
	byPodLabel = "scale-to-zero.podLabel" // a workload: one key=value of its pods
	byRelease  = "scale-to-zero.release"  // a Service: its release
	byWorkload = "scale-to-zero.workload" // a Service or an Ingress: the workload that its annotation names; a route slice: its own
	byTarget   = "scale-to-zero.target"   // an HPA or a ScaledObject: Kind/name of its workload
	byListen   = "scale-to-zero.listen"   // a route slice: one of its interceptor ports
	byService  = "scale-to-zero.service"  // one of our slices: role/name of the Service for which it was made
	byCalled   = "scale-to-zero.called"   // what makes the API server call a Service: its namespace/name
	workloadIs = injector.Prefix + "workload"
)

// index indexes one kind by one of these fields.
type index struct {
	object client.Object
	field  string
	values client.IndexerFunc
}

// indexes returns the indexes of the kinds that every cluster has.
func indexes() []index {
	workload := func(o client.Object) []string { return annotation(o, workloadIs) }
	all := []index{
		{&networkingv1.Ingress{}, byBackend, ingressBackends},
		{&networkingv1.Ingress{}, byWorkload, workload},
		{&corev1.Service{}, bySelector, func(o client.Object) []string { return pairs(selectorOf(o)) }},
		{&corev1.Service{}, byRelease, serviceRelease},
		{&corev1.Service{}, byWorkload, workload},
		{&appsv1.Deployment{}, byPodLabel, podLabels},
		{&appsv1.StatefulSet{}, byPodLabel, podLabels},
		{&appsv1.DaemonSet{}, byPodLabel, podLabels},
		{&autoscalingv2.HorizontalPodAutoscaler{}, byTarget, hpaTarget},
		{&discoveryv1.EndpointSlice{}, byWorkload, routedWorkload},
		{&discoveryv1.EndpointSlice{}, byListen, routedPorts},
		{&discoveryv1.EndpointSlice{}, byService, sliceService},
	}
	for _, kind := range extensionKinds() {
		all = append(all, index{newUnstructured(kind), byCalled, calledServices})
	}
	return all
}

// addIndexes adds indexes to a cache.
func addIndexes(ctx context.Context, to client.FieldIndexer, all ...index) error {
	for _, i := range all {
		if err := to.IndexField(ctx, i.object, i.field, i.values); err != nil {
			return fmt.Errorf("indexing %T by %s: %w", i.object, i.field, err)
		}
	}
	return nil
}

func annotation(o client.Object, key string) []string {
	if value := o.GetAnnotations()[key]; value != "" {
		return []string{value}
	}
	return nil
}

// ingressBackends returns the Services of an Ingress, by the names that its author wrote and by its present names. It includes
// Services whose alias the Ingress has been asked to use.
func ingressBackends(o client.Object) []string {
	ingress, ok := o.(*networkingv1.Ingress)
	if !ok {
		return nil
	}
	names, now := injector.Backends(ingress)
	names = append(names, now...)
	for service := range injector.Aliases(ingress) {
		names = append(names, service)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// selectorOf returns the selector of a Service that is not ours, as its author wrote it.
func selectorOf(o client.Object) map[string]string {
	service, ok := o.(*corev1.Service)
	if !ok || service.Labels[injector.ManagedByLabel] == injector.ManagedBy {
		return nil
	}
	return injector.OriginalSelector(service)
}

func serviceRelease(o client.Object) []string {
	if service, ok := o.(*corev1.Service); ok {
		if release := injector.ReleaseOf(service); release != "" {
			return []string{release}
		}
	}
	return nil
}

func podLabels(o client.Object) []string {
	w, _ := injector.NewWorkload(o)
	return pairs(w.PodLabels)
}

// pairs returns labels as key=value.
func pairs(labels map[string]string) []string {
	out := make([]string, 0, len(labels))
	for k, v := range labels {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}

func hpaTarget(o client.Object) []string {
	if hpa, ok := o.(*autoscalingv2.HorizontalPodAutoscaler); ok {
		return []string{target(hpa.Spec.ScaleTargetRef.Kind, hpa.Spec.ScaleTargetRef.Name)}
	}
	return nil
}

func scaledObjectTarget(o client.Object) []string {
	if so, ok := o.(*keda.ScaledObject); ok {
		return []string{target(so.Spec.ScaleTargetRef.TargetKind(), so.Spec.ScaleTargetRef.Name)}
	}
	return nil
}

func target(kind, name string) string { return kind + "/" + name }

// routesOf is injector.RoutesOf for any object.
func routesOf(o client.Object) (api.Routes, bool) {
	s, ok := o.(*discoveryv1.EndpointSlice)
	if !ok {
		return api.Routes{}, false
	}
	return injector.RoutesOf(s)
}

func routedWorkload(o client.Object) []string {
	if routes, ok := routesOf(o); ok {
		return []string{routes.Workload.String()}
	}
	return nil
}

// sliceService returns the role and the Service of one of our slices. Slices of others that are labelled like ours have none.
func sliceService(o client.Object) []string {
	s, ok := o.(*discoveryv1.EndpointSlice)
	if !ok || !injector.IsRouteSlice(s) && !injector.IsDirectSlice(s) {
		return nil
	}
	return []string{s.Labels[api.RoleLabel] + "/" + s.Labels[injector.ServiceLabel]}
}

func routedPorts(o client.Object) []string {
	routes, _ := routesOf(o)
	out := make([]string, len(routes.Ports))
	for i, p := range routes.Ports {
		out[i] = strconv.Itoa(int(p.Listen))
	}
	return out
}

// routeBackends returns the Services to which a route of the Gateway API sends traffic.
func routeBackends(o client.Object) []string {
	route, ok := o.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	var names []string
	for _, b := range injector.NewGatewayRoute(route).Backends {
		names = append(names, b.Service)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// listBy returns the objects in the cache that have any of the values in a field, without duplicates. The caller must not change
// them, because they are the cache's own; only Ingresses, which are written, are copies.
func listBy[T any](items func() []T, key func(*T) string, list func(value string) error, values []string) ([]T, error) {
	var out []T
	seen := map[string]bool{}
	for _, value := range values {
		if err := list(value); err != nil {
			return nil, err
		}
		for _, item := range items() {
			if name := key(&item); !seen[name] {
				seen[name] = true
				out = append(out, item)
			}
		}
	}
	return out, nil
}

// servicesBy returns the Services of a namespace that have any of the values of a field.
func servicesBy(ctx context.Context, c client.Reader, namespace, field string, values ...string) ([]corev1.Service, error) {
	var list corev1.ServiceList
	return listBy(func() []corev1.Service { return list.Items }, func(s *corev1.Service) string { return s.Name }, func(value string) error {
		list = corev1.ServiceList{}
		err := c.List(ctx, &list, client.InNamespace(namespace), client.MatchingFields{field: value}, client.UnsafeDisableDeepCopy)
		if err != nil {
			return fmt.Errorf("listing services of namespace %s by %s: %w", namespace, field, err)
		}
		return nil
	}, values)
}

// ingressesBy is servicesBy for Ingresses, sorted by name.
func ingressesBy(ctx context.Context, c client.Reader, namespace, field string, values ...string) ([]networkingv1.Ingress, error) {
	var list networkingv1.IngressList
	out, err := listBy(func() []networkingv1.Ingress { return list.Items }, func(i *networkingv1.Ingress) string { return i.Name },
		func(value string) error {
			list = networkingv1.IngressList{}
			if err := c.List(ctx, &list, client.InNamespace(namespace), client.MatchingFields{field: value}); err != nil {
				return fmt.Errorf("listing ingresses of namespace %s by %s: %w", namespace, field, err)
			}
			return nil
		}, values)
	slices.SortFunc(out, func(a, b networkingv1.Ingress) int { return strings.Compare(a.Name, b.Name) })
	return out, err
}

// ingressesTo returns the Ingresses that send traffic to a Service or to its alias.
func ingressesTo(ctx context.Context, c client.Reader, namespace, service string) ([]networkingv1.Ingress, error) {
	return ingressesBy(ctx, c, namespace, byBackend, service, injector.AliasServiceName(service))
}
