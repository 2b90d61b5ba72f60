// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"slices"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// autoscaler returns an HPA of Deployment/web from 2 to 5.
func autoscaler() *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "web"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			MinReplicas:    new(int32(2)), MaxReplicas: 5,
		},
	}
}

// theirs returns a ScaledObject of Deployment/web that its owner made.
func theirs() *keda.ScaledObject {
	return &keda.ScaledObject{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "mine"},
		Spec: keda.ScaledObjectSpec{
			ScaleTargetRef: keda.ScaleTarget{Name: "web"},
			Triggers:       []keda.Trigger{{Type: "cron", Metadata: map[string]string{"start": "0 8 * * *"}}},
		},
	}
}

// TestBesideHPA follows an app with an HPA through a sleep, a wake and its restoration: there is no ScaledObject of ours, and the HPA
// stays as it is.
func TestBesideHPA(t *testing.T) {
	c := newCluster(t, webDeployment(2), webService(), autoscaler())
	before := get(c, "web", &autoscalingv2.HorizontalPodAutoscaler{})
	c.injected()
	c.both(2)
	c.told("Autoscaler on Service/web: HorizontalPodAutoscaler web stays in charge of Deployment/web while it is awake, from 2 to 5")
	if so := c.scaledObject(); so != nil {
		t.Fatalf("a second autoscaler beside the HPA: %+v", so)
	}
	c.ready(4, 4) // by the HPA
	c.both(1)
	c.now = c.now.Add(time.Hour)
	c.both(2)
	d := c.deployment()
	if *d.Spec.Replicas != 0 || d.Annotations[injector.ReplicasAnnotation] != "4" {
		t.Fatalf("idle for an hour, it has %d replicas, and is to get %q back", *d.Spec.Replicas, d.Annotations[injector.ReplicasAnnotation])
	}
	c.opt("web", false)
	c.both(3)
	d = c.deployment()
	if *d.Spec.Replicas != 4 {
		t.Errorf("restored to %d replicas, want the 4 that it had", *d.Spec.Replicas)
	}
	c.both(2)
	if d = c.deployment(); d.Annotations[injector.ReplicasAnnotation]+d.Annotations[injector.AutoscalerAnnotation] != "" {
		t.Errorf("left behind: %v", d.Annotations)
	}
	if after := get(c, "web", &autoscalingv2.HorizontalPodAutoscaler{}); after.ResourceVersion != before.ResourceVersion {
		t.Errorf("the HPA was written: %+v", after)
	}
}

// TestBesideScaledObject follows an app with its owner's ScaledObject: it gets our trigger, keeps it when a chart is applied again, and
// loses it with the label. What RestoreAll waits for includes the trigger.
func TestBesideScaledObject(t *testing.T) {
	c := newCluster(t, webDeployment(2), webService(), theirs())
	mine := func() *keda.ScaledObject { return get(c, "mine", &keda.ScaledObject{}) }
	c.injected()
	c.both(2)
	if so := mine(); len(so.Spec.Triggers) != 2 || !injector.IsOurTrigger(so.Spec.Triggers[1]) || c.scaledObject() != nil {
		t.Fatalf("triggers %+v, and a ScaledObject of ours: %v", so.Spec.Triggers, c.scaledObject())
	}
	c.told("Autoscaler on Service/web: ScaledObject mine stays in charge of Deployment/web and has a trigger of scale-to-zero")
	if left, err := remaining(t.Context(), c, c.now); err != nil || !slices.Contains(left, "scaledobject apps/mine") {
		t.Errorf("left for an uninstallation: %q, %v", left, err)
	}
	c.noAdmission = true
	so := mine()
	so.Spec.Triggers = so.Spec.Triggers[:1]
	c.update(so)
	c.both(1)
	c.told("Autoscaler on Service/web: ScaledObject mine has no trigger of scale-to-zero yet")
	c.noAdmission = false
	c.both(1)
	if so := mine(); len(so.Spec.Triggers) != 2 {
		t.Errorf("admission is back, and the trigger is not: %+v", so.Spec.Triggers)
	}
	c.opt("web", false)
	c.both(2)
	c.podsBack()
	c.both(4)
	if so := mine(); len(so.Spec.Triggers) != 1 || injector.Triggered(so) {
		t.Errorf("the trigger stays: %+v, %v", so.Spec.Triggers, so.Annotations)
	}
	if left, err := remaining(t.Context(), c, c.now); err != nil || len(left) > 0 {
		t.Errorf("left for an uninstallation: %q, %v", left, err)
	}
}

// TestTriggerRefused tests that a refused trigger is an event with advice, and that the app is left awake as its owner's ScaledObject
// wants it.
func TestTriggerRefused(t *testing.T) {
	c := newCluster(t, webDeployment(2), webService(), theirs())
	c.refuses = func(verb string, o runtime.Object) error {
		if _, ok := o.(*keda.ScaledObject); ok && verb == "patch" {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "scaledobjects"}, "mine", errors.New("a policy"))
		}
		return nil
	}
	c.injected()
	c.told("updating ScaledObject mine is refused")
}
