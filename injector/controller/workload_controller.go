// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// WorkloadReconciler keeps the ScaledObject of every workload that an intercepted Service routes to, restores the
// workload when none does any more, and tells its story. Its requests are named as api.Workload.String says.
type WorkloadReconciler struct {
	Options

	client    client.Client
	live      client.Reader
	stories   *storyteller
	keda      *atomic.Bool
	workloads *workloads

	mu     sync.Mutex // protects lives, starts and wrote
	lives  map[types.NamespacedName]life
	starts map[types.NamespacedName]start
	wrote  map[types.NamespacedName]written
}

// demand is what the route slices of a namespace ask of one workload.
type demand struct {
	services []*corev1.Service   // taken over, and not being given back
	settings []injector.Settings // of these, and of those that are about to be taken over
	slices   []*discoveryv1.EndpointSlice
	// unsafe says that traffic goes past the interceptors: the workload must not sleep.
	unsafe bool
	// open says that it goes past them because none is ready: the workload must not sleep, nor be woken for that.
	open bool
	// retiring says that a Service is being given back.
	retiring bool
	// published says that pods which are not ready take requests, since a Service wants that.
	published bool
	// unknown says that a route slice of an earlier version does not say what it asks for; it is about to be rewritten.
	unknown bool
}

func (d demand) none() bool { return len(d.services) == 0 && !d.unsafe && !d.retiring && !d.unknown }

// objects are those whose events tell the story of the workload.
func (d demand) objects(w workload) []client.Object {
	objects := []client.Object{w.object}
	for _, s := range d.services {
		objects = append(objects, s)
	}
	return objects
}

// Reconcile brings one workload to where its Services' route slices want it.
func (r *WorkloadReconciler) Reconcile(ctx context.Context, req ctrl.Request) (result ctrl.Result, err error) {
	w, err := r.workloads.get(ctx, req.Namespace, req.Name)
	if err != nil {
		return ctrl.Result{}, err
	}
	if w.forbidden != "" {
		return ctrl.Result{RequeueAfter: kindRetry}, nil // no watch says when it may be read again
	}
	if w.object == nil {
		// Its ScaledObject goes with it: the workload owns it.
		r.forget(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	d, err := r.demand(ctx, req.Namespace, w.Ref())
	if err != nil || d.unknown {
		return ctrl.Result{}, err
	}
	defer func() {
		result, err = r.stories.settle(ctx, req.NamespacedName, reasonRefused, w.Ref().String()+" is not scaled as it should be", result, err, d.objects(w)...)
	}()
	so, err := r.scaledObject(ctx, req.Namespace, w.Ref())
	if err != nil {
		return ctrl.Result{}, err
	}
	if d.none() && so == nil && injector.Remembered(w.Annotations) == 0 {
		r.forget(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	if err := r.disown(ctx, w); err != nil {
		return ctrl.Result{}, err
	}
	w.serves = w.ReadyReplicas > 0 || d.published
	if len(d.services) == 0 && (d.retiring || !d.unsafe) {
		result, err = r.restore(ctx, w, so)
	} else {
		p := pauseOf(so)
		awoke := r.observe(ctx, req.NamespacedName, w, d, p)
		if result, err = r.apply(ctx, w, so, d); err != nil {
			return ctrl.Result{}, err
		}
		var again ctrl.Result
		again, err = r.progress(ctx, w, d, p, awoke)
		result = soonest(result, again)
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	return result, nil
}

// demand collects what asks for the workload.
func (r *WorkloadReconciler) demand(ctx context.Context, namespace string, w api.Workload) (demand, error) {
	var d demand
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{api.RoleLabel: api.RoleRoute}); err != nil {
		return d, fmt.Errorf("listing route slices of namespace %s: %w", namespace, err)
	}
	seen := map[string]bool{} // a Service with two address types has two slices
	for i := range list.Items {
		s := &list.Items[i]
		front := s.Labels[discoveryv1.LabelServiceName]
		routes, err := api.DecodeRoutes(s.Annotations[api.RoutesAnnotation])
		if err != nil || routes.Workload.String() != w.String() {
			continue
		}
		d.slices = append(d.slices, s)
		if seen[front] {
			continue
		}
		seen[front] = true
		service := &corev1.Service{}
		err = r.client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: routes.Service}, service)
		switch {
		case apierrors.IsNotFound(err) || err == nil && !ownedBy(s, service.UID):
			continue // the slice is on its way out too
		case err != nil:
			return d, fmt.Errorf("getting service %s: %w", routes.Service, err)
		}
		if err := r.ask(ctx, &d, s, routes, service); err != nil {
			return d, err
		}
	}
	return d, nil
}

// ask adds to a demand what one route slice asks for.
func (r *WorkloadReconciler) ask(ctx context.Context, d *demand, s *discoveryv1.EndpointSlice, routes api.Routes, service *corev1.Service) error {
	if routes.Retiring {
		d.retiring = true
		return nil
	}
	taken := injector.Intercepted(service)
	if s.Labels[discoveryv1.LabelServiceName] != service.Name && !taken {
		ingresses, err := backingOf(ctx, r.client, service)
		if err != nil {
			return err
		}
		taken = ingresses.rewritten(service.Name)
	}
	settings, err := injector.ScalingSettings(s, routes)
	if err != nil {
		d.unknown = true
		return nil //nolint:nilerr // the ServiceReconciler rewrites it
	}
	d.settings = append(d.settings, settings)
	if service.Spec.PublishNotReadyAddresses && !d.published {
		direct, err := directSlices(ctx, r.client, service)
		if err != nil {
			return err
		}
		d.published = injector.HasReadyEndpoint(direct)
	}
	if !taken {
		d.unsafe = true
		return nil
	}
	d.open = d.open || s.Annotations[injector.FailOpenAnnotation] != ""
	d.services = append(d.services, service)
	return nil
}

// scaledObject returns ours for the workload, or nil.
func (r *WorkloadReconciler) scaledObject(ctx context.Context, namespace string, w api.Workload) (*keda.ScaledObject, error) {
	if !r.keda.Load() {
		return nil, nil
	}
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

// apply has the workload scaled: by KEDA, through a ScaledObject, or by ourselves where there is no KEDA. That begins
// only when all traffic goes through the interceptors: before, an app might be put to sleep under requests that nobody
// counts.
func (r *WorkloadReconciler) apply(ctx context.Context, w workload, so *keda.ScaledObject, d demand) (ctrl.Result, error) {
	remembered := remembered(w, so)
	if remembered == 0 && (d.unsafe || len(d.services) == 0) {
		return ctrl.Result{}, nil
	}
	if so != nil && !so.DeletionTimestamp.IsZero() {
		return ctrl.Result{RequeueAfter: retry}, r.release(ctx, so) // and then made anew
	}
	scaling := injector.NewScaling(d.settings, remembered)
	remembered = injector.Remember(remembered, w.Replicas, r.limit(key(w.Namespace, w.Ref()), w.Replicas, scaling, so))
	scaling = injector.NewScaling(d.settings, remembered)
	held := r.held(key(w.Namespace, w.Ref()), scaling, so, d)
	if d.unsafe || d.retiring || held > 0 && w.Replicas > 0 {
		scaling.MinReplicas = max(1, scaling.MinReplicas)
		scaling.MaxReplicas = max(1, scaling.MaxReplicas)
	}
	if err := remember(ctx, r.client, w, remembered); err != nil {
		return ctrl.Result{}, err
	}
	// No watch says when KEDA is removed.
	again := time.Minute
	if held > 0 {
		again = min(held, again)
	}
	withKEDA := r.keda.Load()
	if withKEDA {
		if err := r.applyScaledObject(ctx, w, d, so, injector.ScaledObject(w.Workload, scaling, remembered, r.ScalerAddress)); err != nil {
			return ctrl.Result{}, err
		}
	}
	switch {
	case d.retiring && w.Replicas == 0:
		// Requests held for the Service that is given back wake nobody, and KEDA may be down.
		return ctrl.Result{RequeueAfter: again}, scale(ctx, r.client, w.object, scaling.MinReplicas)
	case withKEDA:
		return ctrl.Result{RequeueAfter: again}, nil
	default:
		return r.scaleByCounts(ctx, w, scaling, d)
	}
}

// remembered returns the replica count to go back to, or 0 if none is known yet.
func remembered(w workload, so *keda.ScaledObject) int32 {
	n := injector.Remembered(w.Annotations)
	if n == 0 && so != nil {
		n = injector.Remembered(so.Annotations) // an earlier version, or a replace, has left it only there
	}
	return n
}
