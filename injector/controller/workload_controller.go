package controller

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// WorkloadReconciler keeps the ScaledObject of every workload that an intercepted Service routes to, restores the
// workload when none does any more, and tells its story. Its requests are named Kind/name.
type WorkloadReconciler struct {
	Options

	client  client.Client
	live    client.Reader
	stories *storyteller
	keda    *atomic.Bool

	mu    sync.Mutex // protects lives
	lives map[types.NamespacedName]life
}

// demand is what the route slices of a namespace ask of one workload.
type demand struct {
	services []*corev1.Service // intercepted, and not being given back
	// settings are those of services, and of the Services that make it unsafe: without them there is no range to scale in.
	settings []injector.Settings
	// unsafe says that a Service still has traffic that goes past the interceptors: the workload must not sleep.
	unsafe bool
	// retiring says that a Service is being given back.
	retiring bool
}

func (d demand) none() bool { return len(d.services) == 0 && !d.unsafe && !d.retiring }

// Reconcile brings one workload to where its Services' route slices want it.
func (r *WorkloadReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	kind, name, _ := strings.Cut(req.Name, "/")
	ref := api.Workload{Kind: kind, Name: name}
	d, err := r.demand(ctx, req.Namespace, ref)
	if err != nil {
		return ctrl.Result{}, err
	}
	if !r.keda.Load() {
		if d.none() {
			return ctrl.Result{}, nil
		}
		return ctrl.Result{RequeueAfter: kedaRetry}, nil
	}
	so, err := r.scaledObject(ctx, req.Namespace, ref)
	if err != nil || d.none() && so == nil {
		r.forget(req.NamespacedName)
		return ctrl.Result{}, err
	}
	object, w, err := getWorkload(ctx, r.client, types.NamespacedName{Namespace: req.Namespace, Name: name}, kind)
	if err != nil || object == nil {
		// Its ScaledObject goes with it: the workload owns it.
		return ctrl.Result{}, err
	}
	if err := r.disown(ctx, object); err != nil {
		return ctrl.Result{}, err
	}
	if len(d.services) == 0 && (d.retiring || so != nil && !d.unsafe) {
		return r.restore(ctx, object, w, so)
	}
	r.observe(ctx, req.NamespacedName, object, w, d)
	return ctrl.Result{}, r.apply(ctx, w, so, d)
}

// demand collects what asks for the workload.
func (r *WorkloadReconciler) demand(ctx context.Context, namespace string, w api.Workload) (demand, error) {
	var d demand
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{api.RoleLabel: api.RoleRoute}); err != nil {
		return d, fmt.Errorf("listing route slices of namespace %s: %w", namespace, err)
	}
	seen := map[string]bool{} // a Service with two address types has two slices
	for _, s := range list.Items {
		routes, err := api.DecodeRoutes(s.Annotations[api.RoutesAnnotation])
		if err != nil || routes.Workload.String() != w.String() || seen[routes.Service] {
			continue
		}
		seen[routes.Service] = true
		service := &corev1.Service{}
		err = r.client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: routes.Service}, service)
		switch {
		case apierrors.IsNotFound(err) || err == nil && !ownedBy(&s, service.UID):
			// The slice is on its way out too.
		case err != nil:
			return d, fmt.Errorf("getting service %s: %w", routes.Service, err)
		case routes.Retiring:
			d.retiring = true
		default:
			intercepted := injector.Intercepted(service)
			d.unsafe = d.unsafe || !intercepted
			settings, err := injector.ParseSettings(service.Annotations)
			if err != nil {
				continue // the ServiceReconciler says so
			}
			d.settings = append(d.settings, settings)
			if intercepted {
				d.services = append(d.services, service)
			}
		}
	}
	return d, nil
}

// scaledObject returns ours for the workload, or nil.
func (r *WorkloadReconciler) scaledObject(ctx context.Context, namespace string, w api.Workload) (*keda.ScaledObject, error) {
	so := &keda.ScaledObject{}
	err := r.client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: injector.ScaledObjectName(w)}, so)
	if apierrors.IsNotFound(err) || err == nil && so.Labels[injector.ManagedByLabel] != injector.ManagedBy {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("getting scaledobject of %s: %w", w, err)
	}
	return so, nil
}

// apply creates or updates the ScaledObject. It is created only when all traffic goes through the interceptors: before,
// an app might be put to sleep under requests that nobody counts.
func (r *WorkloadReconciler) apply(ctx context.Context, w injector.Workload, so *keda.ScaledObject, d demand) error {
	if so == nil && (d.unsafe || len(d.services) == 0) {
		return nil
	}
	remembered := w.Replicas
	if so != nil {
		if !so.DeletionTimestamp.IsZero() {
			return nil // KEDA is at it; the deletion comes back here
		}
		remembered = injector.Remembered(so)
		if so.Spec.MaxReplicaCount != nil {
			remembered = injector.Remember(remembered, w.Replicas, *so.Spec.MaxReplicaCount)
		}
	}
	remembered = max(1, remembered)
	scaling := injector.NewScaling(d.settings, remembered)
	if d.unsafe {
		scaling.MinReplicas = max(1, scaling.MinReplicas)
	}
	want := injector.ScaledObject(w, scaling, remembered, r.ScalerAddress)
	if so == nil {
		if err := r.client.Create(ctx, want); err != nil {
			return fmt.Errorf("creating scaledobject %s: %w", client.ObjectKeyFromObject(want), err)
		}
		return nil
	}
	if equality.Semantic.DeepEqual(so.Spec, want.Spec) && equality.Semantic.DeepEqual(so.OwnerReferences, want.OwnerReferences) &&
		so.Annotations[injector.ReplicasAnnotation] == want.Annotations[injector.ReplicasAnnotation] {
		return nil
	}
	updated := so.DeepCopy()
	updated.Spec, updated.OwnerReferences = want.Spec, want.OwnerReferences
	updated.Annotations[injector.ReplicasAnnotation] = want.Annotations[injector.ReplicasAnnotation]
	delete(updated.Annotations, injector.SinceAnnotation)
	return r.update(ctx, so, updated)
}

// update patches what differs: KEDA's part of the ScaledObject, which our type does not know, stays as it is.
func (r *WorkloadReconciler) update(ctx context.Context, from, to *keda.ScaledObject) error {
	patch := client.MergeFromWithOptions(from, client.MergeFromWithOptimisticLock{})
	if err := r.client.Patch(ctx, to, patch); err != nil {
		return fmt.Errorf("updating scaledobject %s: %w", client.ObjectKeyFromObject(to), err)
	}
	return nil
}
