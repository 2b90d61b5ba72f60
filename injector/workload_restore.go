// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// restore gives the workload its old replica count back, deletes the ScaledObject, and forgets that the workload was ours. KEDA and
// its HPA enforce their count until they are gone. So they first get the old count, and are deleted once they hold it.
func (p *workloadPlanner) restore() WorkloadQuestion {
	o, w, so := p.o, p.o.Workload, p.o.ScaledObject
	n := rememberedCount(w, so)
	if !p.auto.none() {
		return autoscaled{p}.giveBack(n)
	}
	if n == 0 && so == nil {
		return NoWorkloadQuestion // it is already restored
	}
	n = max(1, n, w.Replicas)
	ending := so != nil && !so.DeletionTimestamp.IsZero()
	if so != nil && !ending && !holds(so, n) {
		pinned := Restoring(so, n)
		if pinned.Annotations == nil {
			pinned.Annotations = map[string]string{}
		}
		pinned.Annotations[SinceAnnotation] = o.Now.UTC().Format(time.RFC3339)
		p.patch(so, pinned)
		so = pinned
	}
	switch {
	case w.Replicas < n:
		p.scaleBack(n)
	case ending:
		p.release()
	case so != nil:
		if o.Answers.HPA == nil {
			return AskHPA
		}
		if p.Soon = true; kedaHolds(o.Now, so, *o.Answers.HPA, n) {
			p.Delete = so
		}
	default:
		p.disclaim()
		p.Forget = true
	}
	return NoWorkloadQuestion
}

// disclaim plans to remove our annotations from the workload.
func (p *workloadPlanner) disclaim() {
	p.Remember = new(int32(0))
	if p.o.Workload.Annotations[AutoscalerAnnotation] != "" {
		p.Autoscaler = new("")
	}
}

// scaleBack gives the workload n replicas because it is being restored.
func (p *workloadPlanner) scaleBack(n int32) {
	p.Scale, p.Soon = &n, true
	if len(p.o.Asks) == 0 && !p.Memory.Restored { // no Service is left whose events say so
		p.Memory.Restored = true
		p.report(corev1.EventTypeNormal, ReasonRestored, fmt.Sprintf("No Service leads to %s through scale-to-zero any more: scaling it to %s",
			p.o.Workload.Ref(), replicasText(n)))
	}
}

// holds reports whether a ScaledObject tells KEDA to keep n replicas.
func holds(so *keda.ScaledObject, n int32) bool {
	return so.Annotations[SinceAnnotation] != "" && so.Spec.Idle() == n &&
		so.Spec.MaxReplicaCount != nil && *so.Spec.MaxReplicaCount == n
}

// kedaHolds reports whether KEDA's HPA keeps n replicas, does not exist, or has had enough time.
func kedaHolds(now time.Time, so *keda.ScaledObject, hpa HPAAnswer, n int32) bool {
	if !hpa.Exists || hpa.Min == n && hpa.Max == n {
		return true
	}
	since, err := time.Parse(time.RFC3339, so.Annotations[SinceAnnotation])
	return err == nil && now.Sub(since) > kedaGrace
}

// release removes KEDA's finalizer from our deleted ScaledObject if KEDA has not done so in time: KEDA's operator may be gone for
// good. The finalizer's work is done without it: the HPA is deleted with its owner, and we restore the replica count.
func (p *workloadPlanner) release() {
	p.Soon = true
	so := p.o.ScaledObject
	if p.o.Now.Sub(so.DeletionTimestamp.Time) < kedaGrace || !slices.Contains(so.Finalizers, keda.Finalizer) {
		return
	}
	free := so.DeepCopy()
	free.Finalizers = slices.DeleteFunc(free.Finalizers, func(f string) bool { return f == keda.Finalizer })
	p.patch(so, free)
}
