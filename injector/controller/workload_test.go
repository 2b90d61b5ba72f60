// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestRestoreWithKEDA tests that KEDA and its HPA get the old count, and are deleted when they hold it.
func TestRestoreWithKEDA(t *testing.T) {
	c := newCluster(t, webDeployment(2), webService())
	c.injected()
	hpa := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "keda-hpa-web-deployment"},
		Spec:       autoscalingv2.HorizontalPodAutoscalerSpec{MinReplicas: new(int32(1)), MaxReplicas: 2},
	}
	c.create(hpa)
	s := c.service()
	delete(s.Labels, injector.OptInLabel)
	c.update(s)
	c.both(3)
	if so := c.scaledObject(); so == nil || *so.Spec.MinReplicaCount != 2 || so.Annotations[injector.SinceAnnotation] == "" {
		t.Fatalf("ScaledObject %+v", so)
	}
	result, err := c.reconcileWorkload()
	if err != nil || result.RequeueAfter == 0 || result.RequeueAfter > retryMax {
		t.Errorf("%+v, %v", result, err)
	}
	hpa.Spec.MinReplicas = new(int32(2))
	c.update(hpa)
	c.both(2)
	if c.scaledObject() != nil || injector.Remembered(c.deployment().Annotations) != 0 {
		t.Errorf("ScaledObject %+v, annotations %v", c.scaledObject(), c.deployment().Annotations)
	}
}

// TestScaledObjectReset tests that a change by somebody else is undone, and is reported once.
func TestScaledObjectReset(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	c.injected()
	for range 2 {
		so := c.scaledObject()
		so.Spec.MaxReplicaCount = new(int32(7))
		c.update(so)
		c.both(1)
		if got := *c.scaledObject().Spec.MaxReplicaCount; got != 1 {
			t.Errorf("it may have %d replicas", got)
		}
	}
	c.told("ScaledObjectReset on ScaledObject/web-deployment: scale-to-zero owns ScaledObject web-deployment and has undone a change " +
		"of spec.maxReplicaCount.")
	if got := c.events(); strings.Count(got, "ScaledObjectReset on Service/web") != 1 {
		t.Errorf("events %s", got)
	}
}

// TestDisown tests that those who scaled a workload do not own its replica count.
func TestDisown(t *testing.T) {
	d := webDeployment(1)
	d.ManagedFields = []metav1.ManagedFieldsEntry{
		{
			Manager: "helm", Operation: metav1.ManagedFieldsOperationApply, APIVersion: "apps/v1", FieldsType: "FieldsV1",
			FieldsV1: metav1.NewFieldsV1(`{"f:spec":{}}`),
		},
		{
			Manager: "keda", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "apps/v1", FieldsType: "FieldsV1",
			FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:replicas":{}}}`), Subresource: "scale",
		},
	}
	c := newCluster(t, d, webService())
	if err := c.scaling.disown(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.deployment().ManagedFields {
		if m.Subresource == "scale" {
			t.Errorf("%s owns %s", m.Manager, m.FieldsV1.GetRawString())
		}
	}
	c.refuses = func(verb string, _ runtime.Object) error {
		if verb == "patch" {
			return apierrors.NewConflict(schema.GroupResource{Resource: "deployments"}, "web", errors.New("changed"))
		}
		return nil
	}
	if err := c.scaling.disown(t.Context(), d); err != nil {
		t.Errorf("a conflict: %v", err)
	}
	c.refuses = nil
	gone := webDeployment(1)
	gone.Name = "gone"
	if err := c.scaling.disown(t.Context(), gone); err != nil {
		t.Errorf("one that is gone: %v", err)
	}
}

// TestWorkloadIsGone tests that nothing is done for a workload that is gone or may not be read, and that what was remembered is
// forgotten.
func TestWorkloadIsGone(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	c.injected()
	if err := c.Delete(t.Context(), c.deployment()); err != nil {
		t.Fatal(err)
	}
	if result, err := c.reconcileWorkload(); err != nil || !result.IsZero() || len(c.scaling.memories) != 0 {
		t.Errorf("%+v, %v; remembers %v", result, err, c.scaling.memories)
	}
}

// TestScaleIsRefused tests that a workload that cannot be scaled causes an event on it and its Services.
func TestScaleIsRefused(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	c.injected()
	c.keda.remove()
	c.counts.active, c.counts.pending = false, 0
	c.now = c.now.Add(time.Hour)
	c.refuses = func(verb string, _ runtime.Object) error {
		if verb == "scale" {
			return apierrors.NewForbidden(schema.GroupResource{Group: "apps", Resource: "deployments/scale"}, "web", errors.New("no"))
		}
		return nil
	}
	if _, err := c.reconcileWorkload(); err != nil {
		t.Fatal(err)
	}
	for _, on := range []string{"Service/web", "Deployment/web"} {
		c.told("WriteRefused on " + on + ": Deployment/web is not scaled as it should be: scaling Deployment web is refused: ")
	}
	c.refuses = nil
	if _, err := c.reconcileWorkload(); err != nil {
		t.Fatal(err)
	}
	c.told("WriteAccepted on Service/web: Scaling Deployment web is accepted now")
	if n := *c.deployment().Spec.Replicas; n != 0 {
		t.Errorf("%d replicas", n)
	}
}

// TestCountsAreAway tests that nothing changes while nobody knows the interceptors' counts.
func TestCountsAreAway(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	c.injected()
	c.keda.remove()
	c.counts.err = errors.New("unavailable")
	c.now = c.now.Add(time.Hour)
	c.both(1)
	if n := *c.deployment().Spec.Replicas; n != 1 {
		t.Errorf("%d replicas", n)
	}
	c.ready(0, 0)
	c.both(1)
	c.told("Asleep on Service/web: Deployment/web has gone to zero replicas")
}

// pod creates a pod of Deployment web.
func (c *cluster) pod(name string, status corev1.PodStatus) *corev1.Pod {
	c.t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "apps", Name: name, Labels: map[string]string{"app": "web", appsv1.DefaultDeploymentUniqueLabelKey: "1"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-1", UID: "1", Controller: new(true)}},
		},
		Spec: corev1.PodSpec{NodeName: "node1", Containers: []corev1.Container{{Name: "web", Image: "web:2"}}}, Status: status,
	}
	if len(status.ContainerStatuses) == 0 {
		p.Spec.NodeName = ""
	}
	c.create(p)
	return p
}

// TestStartFails tests that the reason of a failed start reaches the interceptors and an event.
func TestStartFails(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	c.injected()
	c.ready(0, 0)
	c.both(1)
	c.ready(1, 0)
	c.pod("web-1-a", corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
		Name: "web",
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
			Reason: "ImagePullBackOff", Message: `Back-off pulling image "web:2": ErrImagePull: web:2: not found`,
		}},
	}}})
	c.both(1)
	c.now = c.now.Add(time.Second)
	c.both(1)
	c.told("StartFailed on Service/web: Deployment/web cannot start: its image web:2 cannot be pulled: there is no such image.")
	p, err := api.DecodeProgress(c.routeSlice().Annotations[api.ProgressAnnotation])
	if err != nil || p.Reason != "ImagePullBackOff" {
		t.Errorf("progress %+v, %v", p, err)
	}
	c.ready(1, 1)
	c.both(1)
	c.told("Awake on Service/web: ")
	if got := c.routeSlice().Annotations[api.ProgressAnnotation]; got != "" {
		t.Errorf("progress %s", got)
	}
}

// TestLook tests what pods, events and the workload's own status say about a start.
func TestLook(t *testing.T) {
	unschedulable := func(c *cluster) *corev1.Pod {
		return c.pod("web-1-a", corev1.PodStatus{Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
			Message:            "0/1 nodes are available: 1 Insufficient memory.",
			LastTransitionTime: metav1.NewTime(c.now.Add(-time.Minute)),
		}}})
	}
	for name, tc := range map[string]struct {
		before func(c *cluster, o *injector.WorkloadObservation)
		want   string // Failing
	}{
		"no pod yet": {func(*cluster, *injector.WorkloadObservation) {}, ""},
		"its status says why": {func(_ *cluster, o *injector.WorkloadObservation) {
			o.Workload.Refused = `pods "web-1-a" is forbidden: exceeded quota: none`
		}, "Kubernetes refuses its pod: exceeded quota: none"},
		"an event of a StatefulSet says why": {func(c *cluster, o *injector.WorkloadObservation) {
			o.Workload.Kind = "StatefulSet"
			c.create(newEvent("FailedCreate", "create Pod web-0 failed error: pods is forbidden: exceeded quota: none", o.Object, c.now))
		}, "Kubernetes refuses its pod: exceeded quota: none"},
		"an old event": {func(c *cluster, o *injector.WorkloadObservation) {
			o.Workload.Kind = "StatefulSet"
			c.create(newEvent("FailedCreate", "exceeded quota", o.Object, c.now.Add(-time.Hour)))
		}, ""},
		"no node": {func(c *cluster, _ *injector.WorkloadObservation) { unschedulable(c) }, "no node can take its pod: 0/1 nodes are available"},
		"a node that is coming": {func(c *cluster, _ *injector.WorkloadObservation) {
			c.create(newEvent("TriggeredScaleUp", "", unschedulable(c), c.now))
		}, ""},
		"a node that Karpenter makes": {func(c *cluster, _ *injector.WorkloadObservation) {
			c.create(newEvent("Nominated", "", unschedulable(c), c.now))
		}, ""},
		"a selector of the Service": {func(c *cluster, o *injector.WorkloadObservation) {
			o.Workload.Selector = ""
			unschedulable(c)
		}, "no node can take its pod"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, webDeployment(1), webService())
			d := c.deployment()
			w, _ := injector.NewWorkload(d)
			o := &injector.WorkloadObservation{Now: c.now, Workload: w, Object: d, Asks: []injector.Asking{{Service: c.service()}}}
			tc.before(c, o)
			got, err := c.scaling.observer.startOf(t.Context(), o, injector.Starting{Waiting: c.now})
			if err != nil || tc.want == "" && got.Failing != "" || !strings.Contains(got.Failing, tc.want) {
				t.Errorf("%+v, %v; want %q", got, err, tc.want)
			}
		})
	}
	// Kubernetes tells moments in whole seconds. A pod that ran at once had its images, and nobody asks for events.
	for name, tc := range map[string]struct{ ran, want time.Duration }{
		"a pod that has become ready, and had to pull two images": {4 * time.Second, 3500 * time.Millisecond},
		"a pod that has become ready at once":                     {time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			testPulled(t, tc.ran, tc.want)
		})
	}
	c := newCluster(t)
	if _, err := c.scaling.observer.startOf(t.Context(), &injector.WorkloadObservation{Workload: injector.Workload{Selector: "a=b=c"}},
		injector.Starting{}); err == nil {
		t.Error("a selector that cannot be read")
	}
}

// newEvent returns an event about an object.
func newEvent(reason, message string, about client.Object, at time.Time) *corev1.Event {
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: fmt.Sprint(reason, at.Unix())}, Reason: reason, Message: message,
		InvolvedObject: corev1.ObjectReference{UID: about.GetUID()}, LastTimestamp: metav1.NewTime(at),
	}
}

// testPulled tests how long the images of a pod took to pull that ran a while after it was scheduled, and has two events about it.
func testPulled(t *testing.T, ran, want time.Duration) {
	t.Helper()
	c := newCluster(t, webDeployment(1), webService())
	pod := c.pod("web-1-a", corev1.PodStatus{
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue},
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(c.now)},
		},
		ContainerStatuses: []corev1.ContainerStatus{{
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.now.Add(ran))}},
		}},
	})
	for i, took := range []string{"1.5s", "2s"} {
		message := `Successfully pulled image "web" in 1s (` + took + ` including waiting). Image size: 1 bytes.`
		c.create(newEvent("Pulled", message, pod, c.now.Add(time.Duration(i)*time.Second)))
	}
	w, _ := injector.NewWorkload(c.deployment())
	o := &injector.WorkloadObservation{Now: c.now, Workload: w, Asks: []injector.Asking{{Service: c.service()}}}
	got, err := c.scaling.observer.startOf(t.Context(), o, injector.Starting{})
	if err != nil || !got.Ready || got.Stages.Pulled != want {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestScaledObjectOfOthers tests that somebody else's ScaledObject with the name of ours is not touched.
func TestScaledObjectOfOthers(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService(), &keda.ScaledObject{ObjectMeta: metav1.ObjectMeta{
		Namespace: "apps",
		Name:      "web-deployment",
	}})
	w, _ := injector.NewWorkload(c.deployment())
	_, all, err := scalersOf(t.Context(), c, w, true)
	if so := ownScaledObject(all, w); so != nil || err != nil || len(all) != 1 {
		t.Errorf("%+v, of %d, %v", so, len(all), err)
	}
}
