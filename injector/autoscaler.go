// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// Autoscaler is what the workload's owner has set up to scale it. It stays in charge, and gets no ScaledObject of ours beside it:
//
//	an HPA leaves a workload without replicas alone, so it scales from 1 up, and we scale between 0 and what it had
//	a ScaledObject gets our trigger, so KEDA wakes the workload for requests, and puts it to sleep when no trigger is active
type Autoscaler struct {
	HPA          *autoscalingv2.HorizontalPodAutoscaler
	ScaledObject *keda.ScaledObject
}

// none reports whether there is no autoscaler.
func (a Autoscaler) none() bool { return a.HPA == nil && a.ScaledObject == nil }

// String returns the autoscaler as the value of AutoscalerAnnotation; empty if there is none.
func (a Autoscaler) String() string {
	switch {
	case a.HPA != nil:
		return "HorizontalPodAutoscaler/" + a.HPA.Name
	case a.ScaledObject != nil:
		return "ScaledObject/" + a.ScaledObject.Name
	default:
		return ""
	}
}

// within returns the count nearest to n that the autoscaler allows for a workload that is awake.
func (a Autoscaler) within(n int32) int32 {
	switch {
	case a.HPA != nil:
		return max(1, hpaMin(a.HPA), min(n, a.HPA.Spec.MaxReplicas))
	case a.ScaledObject != nil:
		return max(a.ScaledObject.Spec.Woken(), min(n, a.ScaledObject.Spec.Max()))
	default:
		return n
	}
}

func hpaMin(hpa *autoscalingv2.HorizontalPodAutoscaler) int32 { return replicas(hpa.Spec.MinReplicas) }

// FindAutoscaler returns what scales the workload besides us. hpas and scaledObjects are those of the workload, plus the ScaledObject
// that has the name of ours. The Skip says why the workload cannot be put to sleep beside them.
func FindAutoscaler(w Workload, hpas []autoscalingv2.HorizontalPodAutoscaler, scaledObjects []keda.ScaledObject) (Autoscaler, Skip) {
	var found Autoscaler
	var names []string
	taken, mislabelled := "", ""
	for i := range scaledObjects {
		switch so := &scaledObjects[i]; {
		case OwnScaledObject(so, w):
		case so.Labels[ManagedByLabel] == ManagedBy:
			mislabelled = so.Name
		case so.Spec.ScaleTargetRef.Name == w.Name && so.Spec.ScaleTargetRef.TargetKind() == w.Kind:
			found.ScaledObject = so
			names = append(names, "ScaledObject "+so.Name)
		case so.Name == ScaledObjectName(w.Ref()):
			taken = so.Name
		}
	}
	for i := range hpas {
		if hpa := &hpas[i]; hpa.Spec.ScaleTargetRef.Name == w.Name && hpa.Spec.ScaleTargetRef.Kind == w.Kind && !byKEDA(w, hpa) {
			found.HPA = hpa
			names = append(names, "HorizontalPodAutoscaler "+hpa.Name)
		}
	}
	slices.Sort(names)
	switch {
	case mislabelled != "":
		return found, Skip(fmt.Sprintf("label %s=%s of ScaledObject %s marks what scale-to-zero makes, and this one is somebody else's; "+
			"give the label another value, or delete the ScaledObject", ManagedByLabel, ManagedBy, mislabelled))
	case len(names) > 1:
		return found, Skip(fmt.Sprintf("%s scale %s and undo each other's changes; delete all but one", strings.Join(names, " and "), w.Ref()))
	case found.HPA != nil && hpaMin(found.HPA) == 0:
		return found, Skip(fmt.Sprintf("HorizontalPodAutoscaler %s puts %s to sleep itself (minReplicas 0), whatever its requests; "+
			"set minReplicas to 1, and it scales from 1 up while scale-to-zero puts the app to sleep and wakes it", found.HPA.Name, w.Ref()))
	case found.ScaledObject != nil:
		return found, judgeScaledObject(w, found.ScaledObject)
	case found.none() && taken != "":
		return found, Skip(fmt.Sprintf("there is a ScaledObject %s that is not scale-to-zero's; rename or delete it", taken))
	}
	return found, ""
}

// judge says why a workload cannot be put to sleep beside its autoscaler in this installation, unless something else speaks against it.
func (i Install) judge(a Autoscaler, other Skip) Skip {
	if other != "" || a.ScaledObject == nil || i.KEDA {
		return other
	}
	return Skip(fmt.Sprintf("requests can wake it beside ScaledObject %s only through KEDA, and %s", a.ScaledObject.Name, i.NoKEDA))
}

// judgeScaledObject says why a workload does not sleep beside its owner's ScaledObject.
func judgeScaledObject(w Workload, so *keda.ScaledObject) Skip {
	switch idle := so.Spec.Idle(); {
	case idle > 0:
		return Skip(fmt.Sprintf("ScaledObject %s never puts %s to sleep (minReplicaCount %d); set its minReplicaCount to 0 or, to have %d while "+
			"awake, add idleReplicaCount: 0", so.Name, w.Ref(), idle, idle))
	case so.Spec.Formula() != "":
		return Skip(fmt.Sprintf("the formula of ScaledObject %s (advanced.scalingModifiers) alone decides when %s sleeps, whatever its "+
			"requests; remove the formula", so.Name, w.Ref()))
	}
	return ""
}

// byKEDA reports whether KEDA made the HPA.
func byKEDA(w Workload, hpa *autoscalingv2.HorizontalPodAutoscaler) bool {
	return hpa.Name == "keda-hpa-"+ScaledObjectName(w.Ref()) ||
		slices.ContainsFunc(hpa.OwnerReferences, func(o metav1.OwnerReference) bool {
			return o.Kind == "ScaledObject" && strings.HasPrefix(o.APIVersion, keda.GroupVersion().Group+"/")
		})
}

// settings returns the Service's settings as they apply beside the autoscaler. Beside a ScaledObject, its owner sets the cool-down: KEDA
// first notices that requests have stopped, and then waits for the cooldownPeriod.
func (a Autoscaler) settings(s Settings) Settings {
	if a.ScaledObject != nil {
		s.Cooldown = inactiveAfter(a.ScaledObject) + a.ScaledObject.Spec.Cooldown()
	}
	return s
}

// idleSettings returns the annotations among those that have no effect beside the autoscaler.
func (a Autoscaler) idleSettings(all []Settings) []string {
	var idle []string
	add := func(key string, is func(Settings) bool) {
		if slices.ContainsFunc(all, is) {
			idle = append(idle, Prefix+key)
		}
	}
	add("max-replicas", func(s Settings) bool { return s.MaxReplicas > 0 })
	if a.ScaledObject != nil {
		add("min-replicas", func(s Settings) bool { return s.MinReplicas > 0 })
		add("wake-replicas", func(s Settings) bool { return s.WakeReplicas > 0 })
		return idle
	}
	add("target-pending-requests", func(s Settings) bool { return s.TargetPendingRequests != DefaultSettings().TargetPendingRequests })
	add("target-request-rate", func(s Settings) bool { return s.TargetRequestRate > 0 })
	return idle
}

// note says what the autoscaler does, and what we do beside it.
func (a Autoscaler) note(w Workload, all []Settings) string {
	var note string
	switch {
	case a.HPA != nil:
		note = fmt.Sprintf("HorizontalPodAutoscaler %s stays in charge of %s while it is awake, from %d to %d. scale-to-zero only puts it to "+
			"sleep and wakes it, with as many replicas as it had", a.HPA.Name, w.Ref(), hpaMin(a.HPA), a.HPA.Spec.MaxReplicas)
	case a.ScaledObject != nil:
		note = fmt.Sprintf("ScaledObject %s stays in charge of %s and has a trigger of scale-to-zero, so that requests wake it. It sleeps "+
			"when no trigger has been active for the cooldownPeriod of %s; for requests, that is %s after the last one", a.ScaledObject.Name,
			w.Ref(), Short(a.ScaledObject.Spec.Cooldown()), Short(a.settings(Settings{}).Cooldown))
	default:
		return ""
	}
	if idle := a.idleSettings(all); len(idle) > 0 {
		note += ". Without effect beside it: " + strings.Join(idle, ", ")
	}
	return note
}
