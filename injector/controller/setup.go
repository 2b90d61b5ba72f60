// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// CacheOptions keep the manager's cache small: of the cluster's EndpointSlices only those that concern us, and of every
// object's managed fields only who owns a replica count.
func CacheOptions() (cache.Options, error) {
	ours, err := labels.NewRequirement(api.RoleLabel, selection.Exists, nil)
	if err != nil {
		return cache.Options{}, fmt.Errorf("selecting endpoint slices: %w", err)
	}
	return cache.Options{
		DefaultTransform: func(o any) (any, error) {
			if a, err := meta.Accessor(o); err == nil {
				a.SetManagedFields(injector.KeepReplicaOwners(a.GetManagedFields()))
			}
			return o, nil
		},
		ByObject: map[client.Object]cache.ByObject{
			&discoveryv1.EndpointSlice{}: {Label: labels.NewSelector().Add(*ours)},
		},
	}, nil
}

// Add adds both controllers to the manager.
func Add(ctx context.Context, mgr ctrl.Manager, o Options) error {
	o.setDefaults()
	if o.Namespace == "" || o.InterceptorService == "" || o.ScalerAddress == "" {
		return errors.New("adding controllers: Namespace, InterceptorService and ScalerAddress are required")
	}
	stories := newStoryteller(mgr.GetClient(), o.Now)
	available := &atomic.Bool{}
	kinds := &workloads{client: mgr.GetClient()}
	writes := writer{mgr.GetClient(), stories}
	services := &ServiceReconciler{Options: o, client: writes, live: mgr.GetAPIReader(), stories: stories, keda: available, workloads: kinds, learned: newLearned(o.Learned)}
	services.learned.find = services.slicesWith
	reconciler := &WorkloadReconciler{
		Options: o, client: writes, live: mgr.GetAPIReader(), stories: stories, keda: available, workloads: kinds,
		lives: map[types.NamespacedName]life{}, starts: map[types.NamespacedName]start{}, wrote: map[types.NamespacedName]written{},
	}
	disco, err := discovery.NewDiscoveryClientForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("adding the watches of other APIs: %w", err)
	}
	services.gateway = &gatewayWatch{log: mgr.GetLogger().WithName("gateway"), discovery: disco, live: mgr.GetAPIReader(), cache: mgr.GetCache()}
	serviceController, err := services.build(mgr)
	if err != nil {
		return fmt.Errorf("adding service controller: %w", err)
	}
	workloadController, err := reconciler.build(mgr)
	if err != nil {
		return fmt.Errorf("adding workload controller: %w", err)
	}
	kinds.watchKind = func(kind schema.GroupVersionKind) error {
		object := &metav1.PartialObjectMetadata{}
		object.SetGroupVersionKind(kind)
		return errors.Join(
			serviceController.Watch(source.Kind[client.Object](mgr.GetCache(), object, handler.EnqueueRequestsFromMapFunc(services.neighbours), changed())),
			workloadController.Watch(source.Kind[client.Object](mgr.GetCache(), object, handler.EnqueueRequestsFromMapFunc(itself))),
		)
	}
	k := &kedaWatch{
		mgr: mgr, log: mgr.GetLogger().WithName("keda"), available: available, services: services,
		serviceController: serviceController, workloadController: workloadController, discovery: disco,
	}
	if err := k.look(ctx); err != nil {
		return err
	}
	services.gateway.watch = func(route *unstructured.Unstructured) error {
		return serviceController.Watch(source.Kind[client.Object](mgr.GetCache(), route,
			handler.EnqueueRequestsFromMapFunc(services.reachedTogether(routeBackends)), predicate.GenerationChangedPredicate{}))
	}
	if err := services.gateway.look(ctx); err != nil {
		return err
	}
	return errors.Join(mgr.Add(k), mgr.Add(services.gateway), mgr.Add(services.learned))
}

func (r *ServiceReconciler) build(mgr ctrl.Manager) (controller.Controller, error) {
	neighbours := handler.EnqueueRequestsFromMapFunc(r.neighbours)
	return ctrl.NewControllerManagedBy(mgr).
		Named("service").
		For(&corev1.Service{}).
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(r.sliceOf)).
		Watches(&networkingv1.Ingress{}, handler.EnqueueRequestsFromMapFunc(r.reachedTogether(backends))).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(r.reachedTogether(nothing)), builder.WithPredicates(reachChanged())).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.inNamespace), builder.WithPredicates(predicate.Or(predicate.LabelChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		Watches(&appsv1.Deployment{}, neighbours, builder.WithPredicates(changed())).
		Watches(&appsv1.StatefulSet{}, neighbours, builder.WithPredicates(changed())).
		Watches(&appsv1.DaemonSet{}, neighbours, builder.WithPredicates(changed())).
		Watches(&autoscalingv2.HorizontalPodAutoscaler{}, neighbours, builder.WithPredicates(retargeted())).
		WatchesRawSource(source.Channel(r.learned.changed, handler.TypedEnqueueRequestsFromMapFunc(func(ctx context.Context, s *discoveryv1.EndpointSlice) []reconcile.Request {
			return r.sliceOf(ctx, s)
		}))).
		// Most of the time of one is spent waiting for connections that a packet filter drops.
		WithOptions(controller.Options{MaxConcurrentReconciles: 16}).
		Build(r)
}

// changed passes what somebody has written, and not the status that controllers write all the time.
func changed() predicate.Predicate {
	return predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{})
}

// sliceOf returns the Service that an EndpointSlice of ours was made for, or, for the interceptors' own, all that are
// taken over.
func (r *ServiceReconciler) sliceOf(ctx context.Context, o client.Object) []reconcile.Request {
	if o.GetLabels()[api.RoleLabel] == api.RoleInterceptor {
		return r.takenOver(ctx)
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetLabels()[injector.ServiceLabel]}}}
}

// takenOver returns the Services that have route slices.
func (r *ServiceReconciler) takenOver(ctx context.Context) []reconcile.Request {
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.MatchingLabels{api.RoleLabel: api.RoleRoute}); err != nil {
		log.FromContext(ctx).Error(err, "Listing route slices")
		return nil
	}
	out := make([]reconcile.Request, len(list.Items))
	for i, s := range list.Items {
		out[i].NamespacedName = types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[injector.ServiceLabel]}
	}
	return out
}

// neighbours returns the Services that a change of o may concern: those of its namespace, or, for the controller's own
// Deployment, all that are, or may be, taken over.
func (r *ServiceReconciler) neighbours(ctx context.Context, o client.Object) []reconcile.Request {
	if o.GetNamespace() == r.Namespace {
		return append(r.takenOver(ctx), r.optedIn(ctx)...)
	}
	return r.list(ctx, client.InNamespace(o.GetNamespace()))
}

// optedIn returns the Services that are opted in themselves.
func (r *ServiceReconciler) optedIn(ctx context.Context) []reconcile.Request {
	var list corev1.ServiceList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "Listing Services")
		return nil
	}
	var out []reconcile.Request
	for i := range list.Items {
		if optedIn, err := injector.OptedIn(&list.Items[i]); err == nil && optedIn {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return out
}

// inNamespace returns the Services of a Namespace.
func (r *ServiceReconciler) inNamespace(ctx context.Context, o client.Object) []reconcile.Request {
	return r.list(ctx, client.InNamespace(o.GetName()))
}

// backends returns the Services to which an Ingress sends traffic, by the names that its author wrote.
func backends(_ context.Context, o client.Object) []reconcile.Request {
	ingress, ok := o.(*networkingv1.Ingress)
	if !ok {
		return nil
	}
	names, _ := injector.Backends(ingress)
	for service := range injector.Aliases(ingress) {
		names = append(names, service)
	}
	out := make([]reconcile.Request, len(names))
	for i, name := range names {
		out[i].NamespacedName = types.NamespacedName{Namespace: ingress.Namespace, Name: name}
	}
	return out
}

func (r *ServiceReconciler) list(ctx context.Context, options ...client.ListOption) []reconcile.Request {
	var list corev1.ServiceList
	if err := r.client.List(ctx, &list, append(options, client.UnsafeDisableDeepCopy)...); err != nil {
		log.FromContext(ctx).Error(err, "Listing Services")
		return nil
	}
	out := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		out[i].NamespacedName = client.ObjectKeyFromObject(&list.Items[i])
	}
	return out
}

// nothing is for watches of objects that concern no Service by themselves.
func nothing(context.Context, client.Object) []reconcile.Request { return nil }

// reachChanged passes Services of others that come, go or change so that the others of the same pods may be judged
// otherwise.
func reachChanged() predicate.Predicate {
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

// retargeted passes HPAs that come, go or change what they scale, and not the status that they write all the time.
func retargeted() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*autoscalingv2.HorizontalPodAutoscaler)
		after, ok2 := e.ObjectNew.(*autoscalingv2.HorizontalPodAutoscaler)
		return ok && ok2 && before.Spec.ScaleTargetRef != after.Spec.ScaleTargetRef
	}}
}

func (r *WorkloadReconciler) build(mgr ctrl.Manager) (controller.Controller, error) {
	return ctrl.NewControllerManagedBy(mgr).
		Named("workload").
		Watches(&appsv1.Deployment{}, handler.EnqueueRequestsFromMapFunc(itself)).
		Watches(&appsv1.StatefulSet{}, handler.EnqueueRequestsFromMapFunc(itself)).
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(r.ofSlice)).
		Watches(&networkingv1.Ingress{}, handler.EnqueueRequestsFromMapFunc(r.behindAll)).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(r.behind)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Build(r)
}

func itself(_ context.Context, o client.Object) []reconcile.Request {
	ref := api.Workload{Name: o.GetName()}
	if w, ok := injector.NewWorkload(o); ok {
		ref = w.Ref()
	} else {
		ref.APIVersion, ref.Kind = o.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
	}
	return []reconcile.Request{{NamespacedName: key(o.GetNamespace(), ref)}}
}

// ofSlice returns the workload that a slice of ours concerns: a route slice, or that of a Service whose pods take requests
// before they are ready, so that the workload's own status does not tell.
func (r *WorkloadReconciler) ofSlice(ctx context.Context, o client.Object) []reconcile.Request {
	if o.GetLabels()[api.RoleLabel] != api.RoleDirect {
		return routed(ctx, o)
	}
	service := &corev1.Service{}
	name := types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetLabels()[injector.ServiceLabel]}
	if err := r.client.Get(ctx, name, service); err != nil || !service.Spec.PublishNotReadyAddresses {
		return nil
	}
	return r.behind(ctx, service)
}

// routed returns the workload that a route slice is for.
func routed(_ context.Context, o client.Object) []reconcile.Request {
	routes, err := api.DecodeRoutes(o.GetAnnotations()[api.RoutesAnnotation])
	if err != nil {
		return nil
	}
	return []reconcile.Request{{NamespacedName: key(o.GetNamespace(), routes.Workload)}}
}

// behind returns the workload that a Service's route slices are for.
func (r *WorkloadReconciler) behind(ctx context.Context, o client.Object) []reconcile.Request {
	return r.routedFrom(ctx, o.GetNamespace(), o.GetName())
}

// behindAll returns the workloads behind all backends of an Ingress.
func (r *WorkloadReconciler) behindAll(ctx context.Context, o client.Object) []reconcile.Request {
	var out []reconcile.Request
	for _, service := range backends(ctx, o) {
		out = append(out, r.routedFrom(ctx, service.Namespace, service.Name)...)
	}
	return out
}

func (r *WorkloadReconciler) routedFrom(ctx context.Context, namespace, service string) []reconcile.Request {
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{
		api.RoleLabel: api.RoleRoute, injector.ServiceLabel: service,
	}); err != nil {
		log.FromContext(ctx).Error(err, "Listing route slices of a Service")
		return nil
	}
	var out []reconcile.Request
	for i := range list.Items {
		out = append(out, routed(ctx, &list.Items[i])...)
	}
	return out
}
