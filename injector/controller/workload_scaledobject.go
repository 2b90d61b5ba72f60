// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// written is what we wrote to a ScaledObject last.
type written struct {
	spec keda.ScaledObjectSpec
	undo string // what was told last of a change that was undone
}

// applyScaledObject makes the ScaledObject what it is to be. What it undoes of somebody else's change it tells.
func (r *WorkloadReconciler) applyScaledObject(ctx context.Context, w workload, d demand, so, want *keda.ScaledObject) error {
	if so == nil {
		// One that is there already has not reached the cache, and comes back here when it does.
		err := r.client.Create(ctx, want, client.FieldOwner(injector.ManagedBy))
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating scaledobject %s: %w", client.ObjectKeyFromObject(want), err)
		}
		if err == nil {
			r.remembers(client.ObjectKeyFromObject(want), want.Spec)
		}
		return nil
	}
	key := client.ObjectKeyFromObject(so)
	if equality.Semantic.DeepEqual(so.Spec, want.Spec) && equality.Semantic.DeepEqual(so.OwnerReferences, want.OwnerReferences) &&
		so.Annotations[injector.ReplicasAnnotation] == want.Annotations[injector.ReplicasAnnotation] {
		r.remembers(key, so.Spec)
		return nil
	}
	r.mu.Lock()
	before, known := r.wrote[key]
	r.mu.Unlock()
	changed := injector.ChangedFields(before.spec, so.Spec)
	updated := so.DeepCopy()
	updated.Spec, updated.OwnerReferences = want.Spec, want.OwnerReferences
	if updated.Annotations == nil {
		updated.Annotations = map[string]string{}
	}
	updated.Annotations[injector.ReplicasAnnotation] = want.Annotations[injector.ReplicasAnnotation]
	delete(updated.Annotations, injector.SinceAnnotation)
	// That this succeeds says that so is what there was: otherwise it is an older one, of our own.
	if err := r.update(ctx, so, updated); err != nil || !known || len(changed) == 0 {
		return err
	}
	return r.tellUndone(ctx, w, d, so, changed)
}

// tellUndone tells the owner of a ScaledObject's change that it was undone; of the same change again, as a deployment tool
// makes it at each sync, it does not.
func (r *WorkloadReconciler) tellUndone(ctx context.Context, w workload, d demand, so *keda.ScaledObject, changed []string) error {
	note := injector.UndoneNote(so.Name, changed)
	key := client.ObjectKeyFromObject(so)
	r.mu.Lock()
	last := r.wrote[key]
	told := last.undo == note
	last.undo = note
	r.wrote[key] = last
	r.mu.Unlock()
	if !told {
		r.stories.tell(ctx, corev1.EventTypeWarning, reasonUndone, note, append(d.objects(w), so)...)
	}
	return nil
}

// remembers keeps what a ScaledObject of ours holds by our own doing.
func (r *WorkloadReconciler) remembers(key types.NamespacedName, spec keda.ScaledObjectSpec) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.wrote[key]
	last.spec = spec
	r.wrote[key] = last
}

// update patches what differs: KEDA's part of the ScaledObject, which our type does not know, stays as it is.
func (r *WorkloadReconciler) update(ctx context.Context, from, to *keda.ScaledObject) error {
	patch := client.MergeFromWithOptions(from, client.MergeFromWithOptimisticLock{})
	if err := r.client.Patch(ctx, to, patch, client.FieldOwner(injector.ManagedBy)); err != nil {
		return fmt.Errorf("updating scaledobject %s: %w", client.ObjectKeyFromObject(to), err)
	}
	r.remembers(client.ObjectKeyFromObject(to), to.Spec)
	return nil
}
