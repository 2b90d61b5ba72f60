// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// workloadReconciler scales every workload that a redirected Service routes to. It restores the workload when no Service does so any
// more, and emits its events. Like serviceReconciler it observes, lets injector.PlanWorkload plan, and carries the plan out. The
// names of its requests have the format of api.Workload.String.
//
// +kubebuilder:rbac:groups=apps,resources=deployments;statefulsets,verbs=patch
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=patch
// +kubebuilder:rbac:groups=keda.sh,resources=scaledobjects,verbs=create;patch;delete
type workloadReconciler struct {
	client   writer
	observer *workloadObserver
	events   *recorder
	now      func() time.Time
	retries  workqueue.TypedRateLimiter[types.NamespacedName]
	// again is rung for workloads that are to be planned again, because who scales them has changed.
	again *bell

	mu       sync.Mutex // protects memories and marked
	memories map[types.NamespacedName]injector.WorkloadMemory
	marked   map[types.NamespacedName]bool // workloads with pods that an earlier leader has marked
}

// Reconcile brings one workload a step closer to what its Services' route slices ask for.
func (r *workloadReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if !r.observer.keda.settled() {
		return ctrl.Result{RequeueAfter: settling}, nil
	}
	w, err := r.observer.workloads.get(ctx, req.Namespace, req.Name)
	if err != nil {
		return ctrl.Result{}, err
	}
	if w.Forbidden != "" {
		return ctrl.Result{RequeueAfter: injector.KindRetry}, nil // no watch reports when the workload may be read again
	}
	if w.Object == nil {
		return r.abandon(ctx, req.NamespacedName) // the workload owns its ScaledObject, so that is deleted with it
	}
	o, plan, err := r.observer.plan(ctx, w, r.memory(req.NamespacedName))
	if err != nil {
		return ctrl.Result{}, err
	}
	r.resize(ctx, o, &plan)
	err = r.execute(ctx, req.NamespacedName, o, plan)
	result := ctrl.Result{RequeueAfter: plan.After}
	if plan.Soon {
		result.RequeueAfter = r.retries.When(req.NamespacedName)
	} else {
		r.retries.Forget(req.NamespacedName)
	}
	consequence := w.Workload.Ref().String() + " is not scaled as it should be"
	return r.events.finish(ctx, req.NamespacedName, injector.ReasonRefused, consequence, result, err, o.Objects()...)
}

// execute carries a plan out, in its order.
func (r *workloadReconciler) execute(ctx context.Context, key types.NamespacedName, o injector.WorkloadObservation,
	p injector.WorkloadPlan,
) error {
	// First: what KEDA asks the interceptors when the ScaledObject changes depends on it.
	told := r.writeProgress(ctx, p)
	if p.Disown {
		if err := r.disown(ctx, o.Object); err != nil {
			return err
		}
	}
	o.Memory.Life, o.Memory.CPU, o.Memory.Learning = p.Life, p.Memory.CPU, p.Memory.Learning
	r.remember(key, o.Memory)
	r.events.emit(ctx, p.Story...)
	for _, step := range []func() error{
		func() error { return r.rememberCount(ctx, o, p) },
		func() error { return r.writeScaledObject(ctx, p) },
		func() error { return r.writeTrigger(ctx, p) },
		func() error { return r.scale(ctx, o, p) },
		func() error { return r.deleteScaledObject(ctx, p) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	if told != nil {
		return told
	}
	r.events.emit(ctx, p.Reports...)
	if p.Forget {
		r.forget(key)
	} else {
		r.remember(key, p.Memory)
	}
	return nil
}

func (r *workloadReconciler) memory(key types.NamespacedName) injector.WorkloadMemory {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.memories[key]
	if r.marked[key] {
		m.CPU.Marked = true
		r.memories[key] = m
		delete(r.marked, key)
	}
	return m
}

func (r *workloadReconciler) remember(key types.NamespacedName, m injector.WorkloadMemory) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.memories[key] = m
}

// planAll has every workload planned again.
func (r *workloadReconciler) planAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for workload := range r.memories {
		r.again.ring(workload.Namespace, workload.Name)
	}
}

func (r *workloadReconciler) forget(key types.NamespacedName) {
	r.mu.Lock()
	delete(r.memories, key)
	r.mu.Unlock()
	r.events.forget(key)
	r.retries.Forget(key)
}

// disown removes the ownership of spec.replicas from everybody who wrote it through the scale subresource: KEDA, the HPA, the
// interceptors and ourselves. Otherwise the next upgrade of a chart with `replicas: 1` would fail with a conflict if it used
// server-side apply, as Helm 4 and Flux do.
func (r *workloadReconciler) disown(ctx context.Context, o client.Object) error {
	now, ok := o.DeepCopyObject().(client.Object)
	if !ok {
		return nil
	}
	// The cache has only a part of the managed fields.
	if err := r.observer.live.Get(ctx, client.ObjectKeyFromObject(o), now); err != nil {
		return client.IgnoreNotFound(err)
	}
	from := now.DeepCopyObject().(client.Object)
	now.SetManagedFields(slices.DeleteFunc(now.GetManagedFields(), injector.ByScale))
	err := r.client.Patch(ctx, now, client.MergeFromWithOptions(from, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) {
		return nil // the workload has changed meanwhile, which causes another reconcile
	}
	if err != nil {
		return fmt.Errorf("taking the ownership of replicas from scalers of %s: %w", client.ObjectKeyFromObject(o), err)
	}
	return nil
}

// rememberCount writes injector.ReplicasAnnotation and injector.AutoscalerAnnotation to the workload, or removes them.
func (r *workloadReconciler) rememberCount(ctx context.Context, o injector.WorkloadObservation, p injector.WorkloadPlan) error {
	changed := injector.Annotations{}
	set := func(key, value string) {
		switch {
		case o.Workload.Annotations[key] == value:
		case value == "":
			changed[key] = nil
		default:
			changed[key] = value
		}
	}
	if p.Remember != nil {
		value := ""
		if *p.Remember > 0 {
			value = strconv.Itoa(int(*p.Remember))
		}
		set(injector.ReplicasAnnotation, value)
	}
	if p.Autoscaler != nil {
		set(injector.AutoscalerAnnotation, *p.Autoscaler)
	}
	if len(changed) == 0 {
		return nil
	}
	return r.annotate(ctx, o.Object, o.Workload.Ref().String(), changed)
}

// writeTrigger makes admission add our trigger to somebody else's ScaledObject, or remove it.
func (r *workloadReconciler) writeTrigger(ctx context.Context, p injector.WorkloadPlan) error {
	if p.Trigger == nil {
		return nil
	}
	return r.annotate(ctx, p.Trigger.Object, "ScaledObject/"+p.Trigger.Object.GetName(), p.Trigger.Annotations)
}

// annotate changes annotations of an object of somebody else, if it still exists.
func (r *workloadReconciler) annotate(ctx context.Context, o client.Object, name string, annotations injector.Annotations) error {
	text, _ := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}}) // it cannot fail: text and nulls
	object := o.DeepCopyObject().(client.Object)
	patch := client.RawPatch(types.MergePatchType, text)
	if err := r.client.Patch(ctx, object, patch, client.FieldOwner(injector.ManagedBy)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("annotating %s of namespace %s: %w", name, o.GetNamespace(), err)
	}
	return nil
}

// writeScaledObject patches only what differs. Fields that our type does not know stay unchanged.
func (r *workloadReconciler) writeScaledObject(ctx context.Context, p injector.WorkloadPlan) error {
	if p.ScaledObject == nil {
		return nil
	}
	from, to := p.ScaledObject.From, p.ScaledObject.To
	if from == nil {
		err := r.client.Create(ctx, to, client.FieldOwner(injector.ManagedBy))
		if err != nil && !apierrors.IsAlreadyExists(err) { // if the cache does not have it yet, another reconcile follows when it does
			return fmt.Errorf("creating scaledobject %s: %w", client.ObjectKeyFromObject(to), err)
		}
		return nil
	}
	patch := client.MergeFromWithOptions(from, client.MergeFromWithOptimisticLock{})
	if err := r.client.Patch(ctx, to, patch, client.FieldOwner(injector.ManagedBy)); err != nil {
		return fmt.Errorf("updating scaledobject %s: %w", client.ObjectKeyFromObject(to), err)
	}
	return nil
}

func (r *workloadReconciler) scale(ctx context.Context, o injector.WorkloadObservation, p injector.WorkloadPlan) error {
	if p.Scale == nil {
		return nil
	}
	log.FromContext(ctx).Info("Scaling", "from", o.Workload.Replicas, "to", *p.Scale)
	err := r.client.written("scaling", o.Object, r.observer.workloads.scale(ctx, o.Workload, *p.Scale))
	if err != nil {
		return fmt.Errorf("scaling %s of namespace %s to %d: %w", o.Workload.Ref(), o.Workload.Namespace, *p.Scale, err)
	}
	return nil
}

func (r *workloadReconciler) deleteScaledObject(ctx context.Context, p injector.WorkloadPlan) error {
	if p.Delete == nil {
		return nil
	}
	if err := r.client.Delete(ctx, p.Delete); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting scaledobject %s: %w", client.ObjectKeyFromObject(p.Delete), err)
	}
	return nil
}

// writeProgress annotates route slices.
func (r *workloadReconciler) writeProgress(ctx context.Context, p injector.WorkloadPlan) error {
	values := map[string]any{api.ProgressAnnotation: nil, api.LearnedAnnotation: nil}
	for key, value := range map[string]string{api.ProgressAnnotation: p.Progress, api.LearnedAnnotation: p.Learned} {
		if value != "" {
			values[key] = value
		}
	}
	data, _ := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": values}}) // it cannot fail: this is text
	for _, s := range p.Slices {
		patch := client.RawPatch(types.MergePatchType, data)
		object := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}}
		if err := r.client.Patch(ctx, object, patch, client.FieldOwner(injector.ManagedBy)); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("annotating route slice %s: %w", client.ObjectKeyFromObject(s), err)
		}
	}
	return nil
}
