// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"maps"
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// requests finds out which Services and workloads a change concerns. If an error occurs, some may be missing: objects that cannot be
// read from the cache cannot be reconciled either.
type requests struct {
	client client.Reader
	// namespace is where scale-to-zero runs, and deployment is its own Deployment there.
	namespace, deployment string
	workloads             *workloadClient
}

// named returns requests for objects of one namespace, without duplicates.
func named(namespace string, names ...string) []reconcile.Request {
	names = slices.Clone(names)
	slices.Sort(names)
	var out []reconcile.Request
	for _, name := range slices.Compact(names) {
		if name != "" {
			out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}})
		}
	}
	return out
}

// servicesOfSlice returns the Service for which our EndpointSlice was made. For the interceptors' own slice it returns all injected
// Services. A slice in another namespace that is labelled like that one concerns none.
func (r *requests) servicesOfSlice(ctx context.Context, o client.Object) []reconcile.Request {
	if o.GetLabels()[api.RoleLabel] == api.RoleInterceptor {
		if o.GetNamespace() != r.namespace {
			return nil // anybody may label a slice so
		}
		return r.injected(ctx)
	}
	return named(o.GetNamespace(), o.GetLabels()[injector.ServiceLabel])
}

// injected returns the Services that have route slices, in all namespaces.
func (r *requests) injected(ctx context.Context) []reconcile.Request {
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.MatchingLabels{api.RoleLabel: api.RoleRoute}, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "Listing route slices")
	}
	var out []reconcile.Request
	for i := range list.Items {
		if s := &list.Items[i]; injector.IsRouteSlice(s) {
			out = append(out, named(s.Namespace, s.Labels[injector.ServiceLabel])...)
		}
	}
	return out
}

// servicesOfPolicy returns the Services of a NetworkPolicy's namespace that have route slices: interceptors may reach their pods now, or
// not any more.
//
// A policy about egress may concern the clients of all Services.
func (r *requests) servicesOfPolicy(ctx context.Context, o client.Object) []reconcile.Request {
	if n, ok := o.(*networkingv1.NetworkPolicy); ok && slices.Contains(n.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) {
		return r.injected(ctx)
	}
	var list discoveryv1.EndpointSliceList
	err := r.client.List(ctx, &list, client.InNamespace(o.GetNamespace()), client.MatchingLabels{api.RoleLabel: api.RoleRoute},
		client.UnsafeDisableDeepCopy)
	if err != nil {
		log.FromContext(ctx).Error(err, "Listing route slices")
	}
	var names []string
	for _, s := range list.Items {
		names = append(names, s.Labels[injector.ServiceLabel])
	}
	return named(o.GetNamespace(), names...)
}

// servicesOfIngress returns the Services to which an Ingress sends traffic, and other Services with the same pods: a Namespace's
// opt-in takes them over together.
func (r *requests) servicesOfIngress(ctx context.Context, o client.Object) []reconcile.Request {
	return r.sharing(ctx, o.GetNamespace(), ingressBackends(o))
}

// servicesOfRoute is servicesOfIngress for a route of the Gateway API.
func (r *requests) servicesOfRoute(ctx context.Context, o client.Object) []reconcile.Request {
	return r.sharing(ctx, o.GetNamespace(), routeBackends(o))
}

// sharing adds to Services those with the same pods, if their Namespace is opted in.
func (r *requests) sharing(ctx context.Context, namespace string, names []string) []reconcile.Request {
	if !r.optedIn(ctx, namespace) {
		return named(namespace, names...)
	}
	all := slices.Clone(names)
	for _, name := range names {
		service := &corev1.Service{}
		if err := r.client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, service); err == nil {
			all = append(all, r.selecting(ctx, service)...)
		}
	}
	return named(namespace, all...)
}

func (r *requests) optedIn(ctx context.Context, name string) bool {
	namespace := &corev1.Namespace{}
	if err := r.client.Get(ctx, types.NamespacedName{Name: name}, namespace); err != nil {
		return false
	}
	optedIn, err := injector.OptedIn(namespace)
	return err == nil && optedIn
}

// selecting returns the names of the Services whose selectors share a label with the Service's.
func (r *requests) selecting(ctx context.Context, service *corev1.Service) []string {
	others, err := servicesBy(ctx, r.client, service.Namespace, bySelector, pairs(injector.OriginalSelector(service))...)
	if err != nil {
		log.FromContext(ctx).Error(err, "Finding Services of the same pods")
	}
	names := make([]string, len(others))
	for i := range others {
		names[i] = others[i].Name
	}
	return names
}

// servicesBeside returns the Services that may share pods with a Service of an opted-in Namespace.
func (r *requests) servicesBeside(ctx context.Context, o client.Object) []reconcile.Request {
	service, ok := o.(*corev1.Service)
	if !ok || !r.optedIn(ctx, service.Namespace) {
		return nil
	}
	return named(service.Namespace, r.selecting(ctx, service)...)
}

// servicesOfNamespace returns all Services of a Namespace: its opt-in and its settings apply to each of them.
func (r *requests) servicesOfNamespace(ctx context.Context, o client.Object) []reconcile.Request {
	return r.list(ctx, func(*corev1.Service) bool { return true }, client.InNamespace(o.GetName()))
}

func (r *requests) list(ctx context.Context, pick func(*corev1.Service) bool, options ...client.ListOption) []reconcile.Request {
	var list corev1.ServiceList
	if err := r.client.List(ctx, &list, append(options, client.UnsafeDisableDeepCopy)...); err != nil {
		log.FromContext(ctx).Error(err, "Listing Services")
	}
	var out []reconcile.Request
	for i := range list.Items {
		if pick(&list.Items[i]) {
			out = append(out, named(list.Items[i].Namespace, list.Items[i].Name)...)
		}
	}
	return out
}

// servicesOfWorkload returns the Services that belong to a workload, or could: they select its pods, name it, or have a route to it.
// For our own Deployment it returns all that are injected or opted in, because an annotation of the Deployment makes all apps be
// restored.
func (r *requests) servicesOfWorkload(ctx context.Context, o client.Object) []reconcile.Request {
	if o.GetNamespace() == r.namespace {
		if o.GetName() != r.deployment {
			return nil // nothing in our own namespace is injected
		}
		return append(r.injected(ctx), r.list(ctx, func(s *corev1.Service) bool {
			optedIn, err := injector.OptedIn(s)
			return err == nil && optedIn
		})...)
	}
	w, _ := injector.NewWorkload(o)
	return r.leadingTo(ctx, o.GetNamespace(), refOfObject(o), w.PodLabels)
}

// leadingTo returns the Services that belong to a workload whose pods have these labels.
func (r *requests) leadingTo(ctx context.Context, namespace string, w api.Workload, podLabels map[string]string) []reconcile.Request {
	ref := w.String()
	var names []string
	routes, err := slicesRoutedTo(ctx, r.client, namespace, ref)
	for i := range routes {
		names = append(names, routes[i].Labels[injector.ServiceLabel])
	}
	selecting, err2 := servicesBy(ctx, r.client, namespace, bySelector, pairs(podLabels)...)
	naming, err3 := servicesBy(ctx, r.client, namespace, byWorkload, ref)
	for _, s := range append(selecting, naming...) {
		names = append(names, s.Name)
	}
	ingresses, err4 := ingressesBy(ctx, r.client, namespace, byWorkload, ref)
	for i := range ingresses {
		names = append(names, ingressBackends(&ingresses[i])...)
	}
	for _, err := range []error{err, err2, err3, err4} {
		if err != nil {
			log.FromContext(ctx).Error(err, "Finding the Services of a workload", "workload", ref)
		}
	}
	return named(namespace, names...)
}

// servicesOfHPA returns the Services of the workload that an HPA scales.
func (r *requests) servicesOfHPA(ctx context.Context, o client.Object) []reconcile.Request {
	hpa, ok := o.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok {
		return nil
	}
	t := hpa.Spec.ScaleTargetRef
	return r.scaledBy(ctx, hpa.Namespace, api.Workload{APIVersion: t.APIVersion, Kind: t.Kind, Name: t.Name})
}

// servicesOfScaledObject returns the Services of the workload that a ScaledObject scales, and of the workload whose own ScaledObject
// would have the same name.
func (r *requests) servicesOfScaledObject(ctx context.Context, so *keda.ScaledObject) []reconcile.Request {
	out := r.scaledBy(ctx, so.Namespace, targetOf(so))
	for _, kind := range injector.WorkloadKinds() {
		if name, ok := strings.CutSuffix(so.Name, "-"+strings.ToLower(kind)); ok {
			out = append(out, r.scaledBy(ctx, so.Namespace, api.Workload{Kind: kind, Name: name})...)
		}
	}
	return out
}

func (r *requests) scaledBy(ctx context.Context, namespace string, w api.Workload) []reconcile.Request {
	found := injector.Target{}
	if w.Kind == "Deployment" || w.Kind == "StatefulSet" {
		var err error
		if found, err = r.workloads.get(ctx, namespace, target(w.Kind, w.Name)); err != nil {
			log.FromContext(ctx).Error(err, "Finding a workload", "workload", w.String())
		}
	}
	return r.leadingTo(ctx, namespace, w, found.Workload.PodLabels)
}

// targetOf returns the workload that a ScaledObject scales.
func targetOf(so *keda.ScaledObject) api.Workload {
	t := so.Spec.ScaleTargetRef
	return api.Workload{APIVersion: t.APIVersion, Kind: t.TargetKind(), Name: t.Name}
}

// refOfObject returns the reference of a workload of any kind.
func refOfObject(o client.Object) api.Workload {
	if w, ok := injector.NewWorkload(o); ok {
		return w.Ref()
	}
	ref := api.Workload{Name: o.GetName()}
	ref.APIVersion, ref.Kind = o.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
	return ref
}

// itself returns the workload's own request.
func itself(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: key(o.GetNamespace(), refOfObject(o))}}
}

// workloadsOfSlice returns the workload that one of our slices concerns. That is a route slice, or the slice of a Service whose pods
// take requests before they are ready, which the workload's own status does not show.
func (r *requests) workloadsOfSlice(ctx context.Context, o client.Object) []reconcile.Request {
	if o.GetLabels()[api.RoleLabel] != api.RoleDirect {
		return routed(o)
	}
	service := &corev1.Service{}
	name := types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetLabels()[injector.ServiceLabel]}
	if err := r.client.Get(ctx, name, service); err != nil || !service.Spec.PublishNotReadyAddresses {
		return nil
	}
	return r.workloadsOfService(ctx, service)
}

// routed returns the workload of a route slice.
func routed(o client.Object) []reconcile.Request {
	if routes, ok := routesOf(o); ok {
		return []reconcile.Request{{NamespacedName: key(o.GetNamespace(), routes.Workload)}}
	}
	return nil
}

// workloadsOfService returns the workloads of a Service's route slices.
func (r *requests) workloadsOfService(ctx context.Context, o client.Object) []reconcile.Request {
	return r.behind(ctx, client.ObjectKeyFromObject(o))
}

func (r *requests) behind(ctx context.Context, service types.NamespacedName) []reconcile.Request {
	list, err := routeSlices(ctx, r.client, service)
	if err != nil {
		log.FromContext(ctx).Error(err, "Listing route slices of a Service")
	}
	var out []reconcile.Request
	for i := range list {
		out = append(out, routed(&list[i])...)
	}
	return out
}

// workloadsOfIngress returns the workloads behind all backends of an Ingress.
func (r *requests) workloadsOfIngress(ctx context.Context, o client.Object) []reconcile.Request {
	var out []reconcile.Request
	for _, service := range ingressBackends(o) {
		out = append(out, r.behind(ctx, types.NamespacedName{Namespace: o.GetNamespace(), Name: service})...)
	}
	return out
}

// relabelled passes a workload that appears or disappears, or whose annotations or Services change. It filters out all changes that
// come with scaling.
func relabelled() predicate.Predicate {
	return predicate.Or(predicate.AnnotationChangedPredicate{}, predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, _ := injector.NewWorkload(e.ObjectOld)
		after, _ := injector.NewWorkload(e.ObjectNew)
		return !maps.Equal(before.PodLabels, after.PodLabels) || before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero()
	}})
}

// reselected passes somebody else's Service that appears or disappears, or that changes so that Services with the same pods may be
// judged differently.
func reselected() predicate.Predicate {
	ours := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetLabels()[injector.ManagedByLabel] != injector.ManagedBy })
	changed := predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return !e.IsInInitialList },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok := e.ObjectOld.(*corev1.Service)
			after, ok2 := e.ObjectNew.(*corev1.Service)
			return ok && ok2 && (before.Spec.Type != after.Spec.Type ||
				injector.OptedOut(before) != injector.OptedOut(after) ||
				!maps.Equal(injector.OriginalSelector(before), injector.OriginalSelector(after)))
		},
	}
	return predicate.And(ours, changed)
}

// workloadOfHPA returns the workload that an HPA scales.
func workloadOfHPA(_ context.Context, o client.Object) []reconcile.Request {
	hpa, ok := o.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok {
		return nil
	}
	t := hpa.Spec.ScaleTargetRef
	return []reconcile.Request{{NamespacedName: key(hpa.Namespace, api.Workload{APIVersion: t.APIVersion, Kind: t.Kind, Name: t.Name})}}
}

// retargeted passes an HPA that appears or disappears, or that changes what it scales, or its bounds. It filters out changes of the
// status, which HPAs write all the time.
func retargeted() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*autoscalingv2.HorizontalPodAutoscaler)
		after, ok2 := e.ObjectNew.(*autoscalingv2.HorizontalPodAutoscaler)
		return ok && ok2 && (before.Spec.ScaleTargetRef != after.Spec.ScaleTargetRef || before.Spec.MaxReplicas != after.Spec.MaxReplicas ||
			!equality.Semantic.DeepEqual(before.Spec.MinReplicas, after.Spec.MinReplicas))
	}}
}
