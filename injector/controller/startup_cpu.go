// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// podResizer changes the CPU limits of pods, without a restart. The chart grants its rights only with startupCPU.enabled.
//
// +kubebuilder:rbac:groups="",resources=pods;pods/resize,verbs=patch
type podResizer struct {
	client client.Client
}

// resize carries one change out. It returns whether the pod may have the mark now. Every write demands the pod as it was observed, so
// that none undoes what somebody else has just changed.
func (z podResizer) resize(ctx context.Context, r injector.PodResize) (marked bool, err error) {
	pod := r.Pod.DeepCopy()
	if r.Mark != "" {
		if err := z.mark(ctx, pod, &r.Mark); err != nil {
			_, refused := injector.RefusalOf(err)
			return !refused, err
		}
	}
	if err := z.limit(ctx, pod, r.Limits); err != nil {
		if injector.ResizeRefused(err) && !r.Unmark {
			return z.mark(ctx, pod, nil) != nil, err // if it stays now, it is removed at the end of the start
		}
		return true, err
	}
	if r.Unmark {
		if err := z.mark(ctx, pod, nil); err != nil {
			return true, err
		}
	}
	return !r.Unmark, nil
}

// mark writes label and annotation of a pod, or removes them.
func (z podResizer) mark(ctx context.Context, pod *corev1.Pod, text *string) error {
	var label *string
	if text != nil {
		label = new("true")
	}
	patch, _ := json.Marshal(map[string]any{"metadata": map[string]any{ // it cannot fail: these are strings
		"resourceVersion": pod.ResourceVersion,
		"labels":          map[string]*string{injector.RaisedCPU: label},
		"annotations":     map[string]*string{injector.RaisedCPU: text},
	}})
	if err := z.client.Patch(ctx, pod, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(injector.ManagedBy)); err != nil {
		return fmt.Errorf("marking pod %s: %w", client.ObjectKeyFromObject(pod), err)
	}
	return nil
}

// limit sets CPU limits through the subresource resize.
func (z podResizer) limit(ctx context.Context, pod *corev1.Pod, limits []injector.CPULimit) error {
	if len(limits) == 0 {
		return nil
	}
	spec := map[string][]any{}
	for _, l := range limits {
		list := "containers"
		if l.Init {
			list = "initContainers"
		}
		spec[list] = append(spec[list], map[string]any{
			"name": l.Container, "resources": map[string]any{"limits": map[corev1.ResourceName]string{corev1.ResourceCPU: l.Value.String()}},
		})
	}
	text, _ := json.Marshal(map[string]any{ // it cannot fail: these are strings
		"metadata": map[string]string{"resourceVersion": pod.ResourceVersion}, "spec": spec,
	})
	patch := client.RawPatch(types.StrategicMergePatchType, text) // it merges containers by their names
	if err := z.client.SubResource("resize").Patch(ctx, pod, patch, client.FieldOwner(injector.ManagedBy)); err != nil {
		return fmt.Errorf("resizing pod %s: %w", client.ObjectKeyFromObject(pod), err)
	}
	return nil
}

// resize tries the resizes of a plan, and notes in the plan what has become of them.
func (r *workloadReconciler) resize(ctx context.Context, o injector.WorkloadObservation, p *injector.WorkloadPlan) {
	for _, one := range p.Resizes {
		marked, err := podResizer{r.client}.resize(ctx, one)
		if err != nil {
			log.FromContext(ctx).Info("A pod is not resized", "pod", one.Pod.Name, "error", err.Error())
		}
		p.Resized(o, one, marked, err)
	}
}

// abandon puts the limits back of pods whose workload is gone: they may have been orphaned on purpose.
func (r *workloadReconciler) abandon(ctx context.Context, workload types.NamespacedName) (ctrl.Result, error) {
	if r.memory(workload).CPU.Marked {
		pods, err := markedPods(ctx, r.observer.live, workload.Namespace, workload.Name)
		if err != nil {
			return ctrl.Result{}, err
		}
		for _, one := range injector.PutBack(pods) {
			if _, err := (podResizer{r.client}).resize(ctx, one); client.IgnoreNotFound(err) != nil {
				return ctrl.Result{}, err
			}
		}
	}
	r.forget(workload)
	return ctrl.Result{}, nil
}

// recovered makes a workload's next plan look for marked pods.
func (r *workloadReconciler) recovered(workload types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.marked == nil {
		r.marked = map[types.NamespacedName]bool{}
	}
	r.marked[workload] = true
}

// markedPods returns the pods with the mark of a workload, which is named in the format of api.Workload.String. If that is empty, it
// returns those of all workloads, and an empty namespace means all namespaces.
func markedPods(ctx context.Context, c client.Reader, namespace, workload string) ([]corev1.Pod, error) {
	var list corev1.PodList
	if err := c.List(ctx, &list, client.InNamespace(namespace), client.HasLabels{injector.RaisedCPU}); err != nil {
		return nil, fmt.Errorf("listing pods with label %s: %w", injector.RaisedCPU, err)
	}
	var out []corev1.Pod
	for i := range list.Items {
		if of, ok := injector.MarkedFor(&list.Items[i]); ok && (workload == "" || of == workload) {
			out = append(out, list.Items[i])
		}
	}
	return out, nil
}

// recovery finds the pods that an earlier leader has left with raised limits, once this one leads. Their workloads are reconciled,
// whether or not a Service still routes to them.
type recovery struct {
	live      client.Reader
	recovered func(workload types.NamespacedName)
	changed   chan event.TypedGenericEvent[types.NamespacedName]
	retry     time.Duration // the pause after a list that has failed
}

// Start implements manager.Runnable.
func (v *recovery) Start(ctx context.Context) error {
	_ = wait.PollUntilContextCancel(ctx, v.retry, true, func(ctx context.Context) (bool, error) { // it ends with the manager
		pods, err := markedPods(ctx, v.live, "", "")
		if err != nil {
			log.FromContext(ctx).Error(err, "Finding pods whose CPU limits an earlier controller has raised")
			return false, nil
		}
		for i := range pods {
			name, _ := injector.MarkedFor(&pods[i])
			workload := types.NamespacedName{Namespace: pods[i].Namespace, Name: name}
			v.recovered(workload)
			select {
			case v.changed <- event.TypedGenericEvent[types.NamespacedName]{Object: workload}:
			case <-ctx.Done():
			}
		}
		return true, nil
	})
	return nil
}
