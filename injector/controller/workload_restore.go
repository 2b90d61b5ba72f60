// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// kedaPatience is how long restoring waits for KEDA to take note before it goes on without: KEDA may be down.
const kedaPatience = 10 * time.Second

// restore gives the workload its old replica count back, takes the ScaledObject away, and forgets that the workload was
// ours. KEDA and its HPA hold what they are told to hold until they are gone, so they are told the old count first, and
// taken away when they hold it.
func (r *WorkloadReconciler) restore(ctx context.Context, w workload, so *keda.ScaledObject) (ctrl.Result, error) {
	n := remembered(w, so)
	if n == 0 && so == nil {
		return ctrl.Result{}, nil // it has been restored
	}
	n = max(1, n, w.Replicas)
	ending := so != nil && !so.DeletionTimestamp.IsZero()
	if so != nil && !ending && (so.Annotations[injector.SinceAnnotation] == "" || *so.Spec.MinReplicaCount != n || *so.Spec.MaxReplicaCount != n) {
		held := injector.Restoring(so, n)
		held.Annotations[injector.SinceAnnotation] = r.Now().UTC().Format(time.RFC3339)
		if err := r.update(ctx, so, held); err != nil {
			return ctrl.Result{}, err
		}
		so = held
	}
	if w.Replicas < n {
		if err := scale(ctx, r.client, w.object, n); err != nil {
			return ctrl.Result{}, err
		}
		return ctrl.Result{RequeueAfter: retry}, nil
	}
	switch {
	case ending:
		return ctrl.Result{RequeueAfter: retry}, r.release(ctx, so)
	case so != nil:
		if holds, err := r.kedaHolds(ctx, so, n); err != nil || !holds {
			return ctrl.Result{RequeueAfter: retry}, err
		}
		if err := r.client.Delete(ctx, so); client.IgnoreNotFound(err) != nil {
			return ctrl.Result{}, fmt.Errorf("deleting scaledobject %s: %w", client.ObjectKeyFromObject(so), err)
		}
		return ctrl.Result{RequeueAfter: retry}, nil
	}
	r.forget(key(w.Namespace, w.Ref()))
	return ctrl.Result{}, remember(ctx, r.client, w, 0)
}

// release lets a ScaledObject of ours go that has been deleted and that KEDA has not let go in its time: KEDA's operator
// may be gone for good. What its finalizer is for is done without it: the HPA goes with its owner, and the replica count
// is ours.
func (r *WorkloadReconciler) release(ctx context.Context, so *keda.ScaledObject) error {
	if r.Now().Sub(so.DeletionTimestamp.Time) < kedaPatience {
		return nil
	}
	free := so.DeepCopy()
	free.Finalizers = slices.DeleteFunc(free.Finalizers, func(f string) bool { return f == keda.Finalizer })
	if len(free.Finalizers) == len(so.Finalizers) {
		return nil
	}
	log.FromContext(ctx).Info("KEDA does not let a deleted ScaledObject go; doing it", "scaledObject", client.ObjectKeyFromObject(so))
	return r.update(ctx, so, free)
}

// kedaHolds says whether KEDA's HPA is told n, is not there, or has had its time.
func (r *WorkloadReconciler) kedaHolds(ctx context.Context, so *keda.ScaledObject, n int32) (bool, error) {
	var hpa autoscalingv2.HorizontalPodAutoscaler
	err := r.client.Get(ctx, types.NamespacedName{Namespace: so.Namespace, Name: "keda-hpa-" + so.Name}, &hpa)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("getting KEDA's horizontalpodautoscaler of %s: %w", so.Name, err)
	}
	if hpa.Spec.MinReplicas != nil && *hpa.Spec.MinReplicas == n && hpa.Spec.MaxReplicas == n {
		return true, nil
	}
	since, err := time.Parse(time.RFC3339, so.Annotations[injector.SinceAnnotation])
	return err == nil && r.Now().Sub(since) > kedaPatience, nil
}

// disown takes the ownership of spec.replicas from whoever wrote it through the scale subresource: KEDA, the HPA, the
// interceptors and ourselves. Server-side apply would otherwise refuse the next upgrade of a chart that says `replicas: 1`,
// as Helm 4 and Flux do it, with a conflict.
func (r *WorkloadReconciler) disown(ctx context.Context, w workload) error {
	if !slices.ContainsFunc(w.object.GetManagedFields(), byScale) {
		return nil
	}
	now, ok := w.object.DeepCopyObject().(client.Object)
	if !ok {
		return nil
	}
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(w.object), now); err != nil {
		return client.IgnoreNotFound(err)
	}
	kept := slices.DeleteFunc(now.GetManagedFields(), byScale)
	from := now.DeepCopyObject().(client.Object)
	now.SetManagedFields(kept)
	err := r.client.Patch(ctx, now, client.MergeFromWithOptions(from, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) {
		return nil // it has changed meanwhile; that change comes back here
	}
	if err != nil {
		return fmt.Errorf("taking field ownership of replicas from scalers of %s: %w", client.ObjectKeyFromObject(w.object), err)
	}
	return nil
}

func byScale(m metav1.ManagedFieldsEntry) bool { return m.Subresource == "scale" }

// held is for how much longer an app that is up is not to sleep, since it may have had visitors whom nobody counted: until
// a cool-down after its traffic last went past the interceptors. KEDA too needs the time, to find them and the app active
// before it may put it to sleep. That a ScaledObject asks for more replicas than the settings do is what another controller,
// or this one before it was started anew, left for that reason.
func (r *WorkloadReconciler) held(key types.NamespacedName, s injector.Scaling, so *keda.ScaledObject, d demand) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	life := r.lives[key]
	if d.unsafe || d.open || life.uncounted.IsZero() && so != nil && so.Spec.MinReplicaCount != nil && *so.Spec.MinReplicaCount > s.MinReplicas {
		life.uncounted = r.Now()
		r.lives[key] = life
	}
	if life.uncounted.IsZero() {
		return 0
	}
	return max(0, s.Cooldown-r.Now().Sub(life.uncounted))
}

// limit is how many replicas the workload may have without anybody having wished for more: as many as it may be scaled to,
// or as it has been scaled to before that became less, until they go. Of what was before this controller was started, a
// ScaledObject tells.
func (r *WorkloadReconciler) limit(key types.NamespacedName, replicas int32, s injector.Scaling, so *keda.ScaledObject) int32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	life := r.lives[key]
	if life.within == 0 && so != nil && so.Spec.MaxReplicaCount != nil {
		life.within = *so.Spec.MaxReplicaCount
	}
	limit := max(s.MaxReplicas, life.within)
	if replicas <= limit {
		life.within = replicas
		r.lives[key] = life
	}
	return limit
}

func (r *WorkloadReconciler) forget(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.lives, key)
	delete(r.starts, key)
	r.stories.forget(key)
	if kind, name, ok := injector.ParseWorkload(key.Name); ok {
		so := injector.ScaledObjectName(api.Workload{Kind: kind.Kind, Name: name})
		delete(r.wrote, types.NamespacedName{Namespace: key.Namespace, Name: so})
	}
}

func longest(settings []injector.Settings) time.Duration {
	var d time.Duration
	for _, s := range settings {
		d = max(d, s.Cooldown)
	}
	return d
}
