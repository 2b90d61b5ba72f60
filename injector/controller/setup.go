package controller

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
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
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// kedaRetry is how often it is looked for while it is not there.
const kedaRetry = 5 * time.Second

// CacheOptions keep the manager's cache small: of the cluster's EndpointSlices only those that concern us, and of every
// object's managed fields only those that disown looks for.
func CacheOptions() (cache.Options, error) {
	ours, err := labels.NewRequirement(api.RoleLabel, selection.Exists, nil)
	if err != nil {
		return cache.Options{}, fmt.Errorf("selecting endpoint slices: %w", err)
	}
	return cache.Options{
		DefaultTransform: func(o any) (any, error) {
			if a, err := meta.Accessor(o); err == nil {
				a.SetManagedFields(onlyScale(a.GetManagedFields()))
			}
			return o, nil
		},
		ByObject: map[client.Object]cache.ByObject{
			&discoveryv1.EndpointSlice{}: {Label: labels.NewSelector().Add(*ours)},
		},
	}, nil
}

func onlyScale(all []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
	var kept []metav1.ManagedFieldsEntry
	for _, m := range all {
		if byScale(m) {
			kept = append(kept, metav1.ManagedFieldsEntry{Manager: m.Manager, Subresource: m.Subresource})
		}
	}
	return kept
}

// Add adds both controllers to the manager.
func Add(ctx context.Context, mgr ctrl.Manager, o Options) error {
	o.setDefaults()
	if o.Namespace == "" || o.InterceptorService == "" || o.ScalerAddress == "" {
		return errors.New("adding controllers: Namespace, InterceptorService and ScalerAddress are required")
	}
	stories := newStoryteller(mgr.GetClient(), o.Now)
	available := &atomic.Bool{}
	services := &ServiceReconciler{Options: o, client: mgr.GetClient(), live: mgr.GetAPIReader(), stories: stories, keda: available}
	workloads := &WorkloadReconciler{
		Options: o, client: mgr.GetClient(), live: mgr.GetAPIReader(), stories: stories, keda: available,
		lives: map[types.NamespacedName]life{},
	}
	serviceController, err := services.build(mgr)
	if err != nil {
		return fmt.Errorf("adding service controller: %w", err)
	}
	workloadController, err := workloads.build(mgr)
	if err != nil {
		return fmt.Errorf("adding workload controller: %w", err)
	}
	k := &kedaWatch{mgr: mgr, available: available, services: services, serviceController: serviceController, workloadController: workloadController}
	installed, err := k.installed(ctx)
	switch {
	case err != nil:
		return err
	case installed:
		return k.watch()
	default:
		return mgr.Add(k)
	}
}

func (r *ServiceReconciler) build(mgr ctrl.Manager) (controller.Controller, error) {
	neighbours := handler.EnqueueRequestsFromMapFunc(r.optedIn)
	changed := builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))
	return ctrl.NewControllerManagedBy(mgr).
		Named("service").
		For(&corev1.Service{}).
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(r.sliceOf)).
		Watches(&appsv1.Deployment{}, neighbours, changed).
		Watches(&appsv1.StatefulSet{}, neighbours, changed).
		Watches(&appsv1.DaemonSet{}, neighbours, changed).
		Watches(&autoscalingv2.HorizontalPodAutoscaler{}, neighbours, builder.WithPredicates(retargeted())).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Build(r)
}

// sliceOf returns the Service that an EndpointSlice of ours was made for, or, for the interceptors' own, all.
func (r *ServiceReconciler) sliceOf(ctx context.Context, o client.Object) []reconcile.Request {
	if o.GetLabels()[api.RoleLabel] == api.RoleInterceptor {
		return r.list(ctx, client.MatchingLabels{injector.OptInLabel: "true"})
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetLabels()[injector.ServiceLabel]}}}
}

// optedIn returns the Services that a change of o may concern: the opted-in ones of its namespace, or, for the
// controller's own Deployment, all.
func (r *ServiceReconciler) optedIn(ctx context.Context, o client.Object) []reconcile.Request {
	if o.GetNamespace() == r.Namespace {
		return r.list(ctx, client.MatchingLabels{injector.OptInLabel: "true"})
	}
	return r.list(ctx, client.InNamespace(o.GetNamespace()), client.MatchingLabels{injector.OptInLabel: "true"})
}

func (r *ServiceReconciler) list(ctx context.Context, options ...client.ListOption) []reconcile.Request {
	var list corev1.ServiceList
	if err := r.client.List(ctx, &list, options...); err != nil {
		log.FromContext(ctx).Error(err, "Listing opted-in Services")
		return nil
	}
	out := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		out[i].NamespacedName = client.ObjectKeyFromObject(&list.Items[i])
	}
	return out
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
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(routed)).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(r.behind)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Build(r)
}

// workloadRequest names a workload as the WorkloadReconciler wants it.
func workloadRequest(namespace string, w api.Workload) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: namespace, Name: w.String()}}}
}

func itself(_ context.Context, o client.Object) []reconcile.Request {
	w, _ := injector.NewWorkload(o)
	return workloadRequest(o.GetNamespace(), w.Ref())
}

// routed returns the workload that a route slice is for.
func routed(_ context.Context, o client.Object) []reconcile.Request {
	routes, err := api.DecodeRoutes(o.GetAnnotations()[api.RoutesAnnotation])
	if err != nil {
		return nil
	}
	return workloadRequest(o.GetNamespace(), routes.Workload)
}

// behind returns the workload that a Service's route slices are for.
func (r *WorkloadReconciler) behind(ctx context.Context, o client.Object) []reconcile.Request {
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.InNamespace(o.GetNamespace()), client.MatchingLabels{
		api.RoleLabel: api.RoleRoute, injector.ServiceLabel: o.GetName(),
	}); err != nil {
		log.FromContext(ctx).Error(err, "Listing route slices of a Service")
		return nil
	}
	for i := range list.Items {
		if requests := routed(ctx, &list.Items[i]); requests != nil {
			return requests
		}
	}
	return nil
}

// kedaWatch starts to watch ScaledObjects as soon as the API server knows them.
type kedaWatch struct {
	mgr       ctrl.Manager
	available *atomic.Bool
	services  *ServiceReconciler

	serviceController, workloadController controller.Controller
}

// installed says whether the API server knows ScaledObjects.
func (k *kedaWatch) installed(context.Context) (bool, error) {
	kind := keda.GroupVersion().WithKind("ScaledObject")
	_, err := k.mgr.GetRESTMapper().RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for KEDA's API: %w", err)
	}
	return true, nil
}

// Start implements manager.Runnable: it waits for KEDA. Services that were looked at meanwhile come back by themselves.
func (k *kedaWatch) Start(ctx context.Context) error {
	log.FromContext(ctx).Info("KEDA is not installed; no app is taken over until it is")
	for {
		err := wait.PollUntilContextCancel(ctx, kedaRetry, false, k.installed)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			return k.watch()
		}
		log.FromContext(ctx).Error(err, "Waiting for KEDA")
	}
}

// watch makes both controllers watch ScaledObjects.
func (k *kedaWatch) watch() error {
	byService := handler.TypedEnqueueRequestsFromMapFunc(func(ctx context.Context, so *keda.ScaledObject) []reconcile.Request {
		return k.services.optedIn(ctx, so)
	})
	byTarget := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, so *keda.ScaledObject) []reconcile.Request {
		target := so.Spec.ScaleTargetRef
		return workloadRequest(so.Namespace, api.Workload{Kind: target.TargetKind(), Name: target.Name})
	})
	if err := k.serviceController.Watch(source.Kind(k.mgr.GetCache(), &keda.ScaledObject{}, byService, predicate.TypedGenerationChangedPredicate[*keda.ScaledObject]{})); err != nil {
		return fmt.Errorf("watching scaledobjects for services: %w", err)
	}
	if err := k.workloadController.Watch(source.Kind(k.mgr.GetCache(), &keda.ScaledObject{}, byTarget)); err != nil {
		return fmt.Errorf("watching scaledobjects for workloads: %w", err)
	}
	k.available.Store(true)
	return nil
}
