// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

const startupCPU = injector.Prefix + "startup-cpu"

// newHungryApp makes an app that is injected, sleeps, and asks for 2 CPUs while it starts.
func newHungryApp(t *testing.T) *app {
	t.Helper()
	a := newApp(t, 1)
	if err := a.patch(fmt.Sprintf(`{"metadata":{"annotations":{%q:"2"}}}`, startupCPU)); err != nil {
		t.Fatal(err)
	}
	a.injected()
	a.sleeps()
	return a
}

// wakesOn wakes the app and creates its pod on a node. Before it resizes a pod, the API server looks whether the node has room.
func (a *app) wakesOn(name string) *corev1.Pod {
	a.t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-of-" + a.ns}}
	create(a.t, node)
	node.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourcePods: resource.MustParse("10")}
	if err := kube.Status().Update(a.t.Context(), node); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		if err := kube.Delete(context.Background(), node); err != nil {
			a.t.Error(err)
		}
	})
	a.scale(1)
	cpu := func(request, limit string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(request)},
			Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(limit)},
		}
	}
	owner := replicaSet()
	owner.Controller = new(true)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: a.ns, Name: name, OwnerReferences: []metav1.OwnerReference{owner},
			Labels: map[string]string{"app": "web", appsv1.DefaultDeploymentUniqueLabelKey: "1"},
		},
		Spec: corev1.PodSpec{
			NodeName: node.Name,
			InitContainers: []corev1.Container{
				{Name: "migrate", Image: "web:2", Resources: cpu("50m", "100m")},
				{
					Name: "proxy", Image: "proxy", Resources: cpu("50m", "250m"),
					RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
				},
			},
			Containers: []corev1.Container{{Name: "web", Image: "web:2", Resources: cpu("50m", "500m")}},
		},
	}
	create(a.t, pod)
	return pod
}

// podIsReady writes the status of the pod and of its Deployment. The kubelet is one that can resize.
func (a *app) podIsReady(pod *corev1.Pod) {
	a.t.Helper()
	a.get(pod.Name, pod)
	running := corev1.ContainerStatus{
		Name: "web", Started: new(true), Resources: &corev1.ResourceRequirements{},
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
	}
	a.become(pod, corev1.PodStatus{
		Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{running},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	})
	a.ready(1)
}

// hasCPU waits until the pod has these CPU limits, and the mark if they are raised.
func (a *app) hasCPU(name, want string, marked bool) {
	a.t.Helper()
	eventually(a.t, "the pod has "+want, func() error {
		pod := &corev1.Pod{}
		a.get(name, pod)
		var limits []string
		for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
			if got := c.Resources.Requests.Cpu().String(); got != "50m" || pod.Status.QOSClass != corev1.PodQOSBurstable {
				a.t.Fatalf("container %s requests %s, and the pod is %s", c.Name, got, pod.Status.QOSClass)
			}
			limits = append(limits, c.Name+"="+c.Resources.Limits.Cpu().String())
		}
		_, label := pod.Labels[injector.RaisedCPU]
		_, annotation := pod.Annotations[injector.RaisedCPU]
		if got := strings.Join(limits, " "); got != want || label != marked || annotation != marked {
			return fmt.Errorf("it has %s, labels %v, annotations %v; events:\n%s", got, pod.Labels, pod.Annotations,
				events(a.t, a.ns, "Service", "web"))
		}
		return nil
	})
}

func (a *app) deletePod(pod *corev1.Pod) {
	a.t.Helper()
	if err := kube.Delete(a.t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		a.t.Fatal(err)
	}
}

// TestStartupCPU resizes pods in a real API server: from the wake until the pod is ready, whether or not the controller that raised the
// limits is still there.
func TestStartupCPU(t *testing.T) {
	const before, raised = "migrate=100m proxy=250m web=500m", "migrate=100m proxy=2 web=2"
	listInterceptors(t, "198.18.0.2")
	control := planeOptions{interceptors: &interceptors{}, startupCPU: true}
	p := start(t, control)
	for name, meanwhile := range map[string]func(a *app, pod *corev1.Pod){
		"the same controller": func(a *app, pod *corev1.Pod) {
			a.podIsReady(pod)
		},
		"another controller": func(a *app, pod *corev1.Pod) {
			p.stop()
			a.podIsReady(pod)
			p = start(t, control)
		},
		"the annotation is removed in between": func(a *app, _ *corev1.Pod) {
			p.stop()
			if err := a.patch(fmt.Sprintf(`{"metadata":{"annotations":{%q:null}}}`, startupCPU)); err != nil {
				t.Fatal(err)
			}
			p = start(t, control)
		},
		"the label is removed": func(a *app, _ *corev1.Pod) {
			a.label("null")
		},
		"the workload is gone in between": func(a *app, _ *corev1.Pod) {
			p.stop()
			if err := kube.Delete(t.Context(), a.deployment("web", 0)); err != nil {
				t.Fatal(err)
			}
			p = start(t, control)
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newHungryApp(t)
			pod := a.wakesOn("web-1-a")
			a.hasCPU(pod.Name, raised, true)
			meanwhile(a, pod)
			a.hasCPU(pod.Name, before, false)
			if got := events(t, a.ns, "Service", "web"); strings.Contains(got, injector.ReasonStartupCPU) {
				t.Errorf("events %s", got)
			}
			a.deletePod(pod)
		})
	}
}

// TestStartupCPUIsRefused by a LimitRange. The start goes on, and one event has the API server's reason.
func TestStartupCPUIsRefused(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}, startupCPU: true})
	a := newHungryApp(t)
	create(t, &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "small"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")},
		}}},
	})
	pod := a.wakesOn("web-1-a")
	a.told("Service", "web", "StartupCPURefused: Deployment/web does not get all the CPU that annotation scale-to-zero/startup-cpu asks for: ")
	a.told("Service", "web", "maximum cpu usage per Container is 1, but limit is 2")
	a.hasCPU(pod.Name, "migrate=100m proxy=250m web=500m", false)
	a.podIsReady(pod)
	a.told("Service", "web", "Awake: ")
	if got := events(t, a.ns, "Service", "web"); strings.Count(got, injector.ReasonStartupCPU) != 1 {
		t.Errorf("events %s", got)
	}
}

// TestStartupCPUWithoutResize tests which of the API server's errors mean that it cannot resize.
func TestStartupCPUWithoutResize(t *testing.T) {
	a := newApp(t, 1)
	pod := a.wakesOn("web-1-a")
	patch := client.RawPatch("application/strategic-merge-patch+json", []byte(`{}`))
	if err := kube.SubResource("no-such-thing").Patch(t.Context(), pod, patch); !injector.ResizeRefused(err) {
		t.Errorf("a subresource that does not exist is no refusal: %v", err)
	}
	a.deletePod(pod)
	if err := kube.SubResource("resize").Patch(t.Context(), pod, patch); err == nil || injector.ResizeRefused(err) {
		t.Errorf("a pod that is gone is a refusal: %v", err)
	}
}
