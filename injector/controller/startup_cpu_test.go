// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// newSleeping returns an app that sleeps and asks for 2 CPUs while it starts.
func newSleeping(t *testing.T, objects ...client.Object) *cluster {
	t.Helper()
	c := newCluster(t, append(objects, webDeployment(1), webService(func(s *corev1.Service) {
		s.Annotations = map[string]string{injector.Prefix + "startup-cpu": "2"}
	}))...)
	c.injected()
	c.ready(0, 0)
	c.both(1)
	return c
}

// startingPod creates a pod with a CPU limit of 500m, whose sidecar has one of 100m.
func (c *cluster) startingPod(name string) {
	c.t.Helper()
	c.pod(name, corev1.PodStatus{})
	p := get(c, name, &corev1.Pod{})
	limit := func(cpu string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")},
			Limits: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("1Gi"),
			},
		}
	}
	p.Spec.Containers[0].Resources = limit("500m")
	p.Spec.InitContainers = []corev1.Container{{
		Name: "proxy", RestartPolicy: new(corev1.ContainerRestartPolicyAlways), Resources: limit("100m"),
	}}
	p.Status.QOSClass = corev1.PodQOSBurstable
	c.update(p)
}

// wakes scales the app up and creates its pod.
func (c *cluster) wakes() {
	c.t.Helper()
	c.ready(1, 0)
	c.startingPod("web-1-a")
}

func (c *cluster) podIsReady() {
	c.t.Helper()
	p := get(c, "web-1-a", &corev1.Pod{})
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if err := c.Status().Update(c.t.Context(), p); err != nil {
		c.t.Fatal(err)
	}
	c.ready(1, 1)
}

// starts reconciles n times, a second apart, whether or not that succeeds.
func (c *cluster) starts(n int) {
	for range n {
		c.now = c.now.Add(time.Second)
		_, _ = c.reconcileService()
		_, _ = c.reconcileWorkload()
	}
}

// scales is starts for the workload's reconciler alone.
func (c *cluster) scales(n int) {
	for range n {
		c.now = c.now.Add(time.Second)
		_, _ = c.reconcileWorkload()
	}
}

// hasCPU fails the test unless the pod has these CPU limits, and the mark only if they are raised. All else is as it was.
func (c *cluster) hasCPU(web, proxy string, marked bool) {
	c.t.Helper()
	p := get(c, "web-1-a", &corev1.Pod{})
	for want, r := range map[string]corev1.ResourceRequirements{
		"web " + web: p.Spec.Containers[0].Resources, "proxy " + proxy: p.Spec.InitContainers[0].Resources,
	} {
		name, limit, _ := strings.Cut(want, " ")
		if got := r.Limits.Cpu().String(); got != limit || r.Limits.Memory().String() != "1Gi" || r.Requests.Cpu().String() != "100m" {
			c.t.Errorf("container %s has a CPU limit of %s, want %s; all: %v", name, got, limit, r)
		}
	}
	_, label := p.Labels[injector.RaisedCPU]
	_, annotation := p.Annotations[injector.RaisedCPU]
	if label != marked || annotation != marked || p.Labels["app"] != "web" {
		c.t.Errorf("labels %v, annotations %v", p.Labels, p.Annotations)
	}
}

// restarts replaces the reconcilers, as a new leader would, and finds the marked pods.
func (c *cluster) restarts() {
	c.t.Helper()
	c.assemble()
	c.recovers(1)
}

// recovers runs the recovery, and returns the workloads that it makes be reconciled.
func (c *cluster) recovers(most int) []types.NamespacedName {
	c.t.Helper()
	r := &recovery{
		live: c, recovered: c.scaling.recovered, changed: make(chan event.TypedGenericEvent[types.NamespacedName], most), retry: time.Millisecond,
	}
	if err := r.Start(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	var out []types.NamespacedName
	for len(r.changed) > 0 {
		out = append(out, (<-r.changed).Object)
	}
	return out
}

// TestStartupCPU tests that the first pod has more CPU until it is ready.
func TestStartupCPU(t *testing.T) {
	c := newSleeping(t)
	c.wakes()
	c.both(1)
	c.hasCPU("2", "2", true)
	c.podIsReady()
	c.both(2)
	c.hasCPU("500m", "100m", false)
	if m := c.scaling.memories[types.NamespacedName{Namespace: "apps", Name: "Deployment/web"}].CPU; m.Marked {
		t.Errorf("remembers %+v", m)
	}
}

// TestStartupCPUWhateverFails lets each call of the workload's reconciler fail once, before the pod is ready or after that, and lets
// another controller take over there or not. The limits are raised, and put back.
func TestStartupCPUWhateverFails(t *testing.T) {
	for name, takeOver := range map[string]bool{"the same controller": false, "another controller": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := map[string]bool{}
			for _, ready := range []bool{false, true} {
				for n := 1; ; n++ {
					c := newSleeping(t)
					c.wakes()
					if ready {
						c.scales(2)
						c.podIsReady()
					}
					c.failAt = n
					c.scales(2)
					reached := c.failAt == 0
					if c.failAt = 0; takeOver {
						c.restarts()
					}
					if failed[c.failed] = true; !ready {
						c.scales(2)
						c.hasCPU("2", "2", true)
						c.podIsReady()
					}
					c.scales(3)
					c.hasCPU("500m", "100m", false)
					if t.Failed() {
						t.Fatalf("call %d failed: %s; the pod was ready before: %t", n, c.failed, ready)
					}
					if !reached {
						break
					}
				}
			}
			for _, call := range []string{"list *v1.PodList", "patch *v1.Pod", "resize *v1.Pod"} {
				if !failed[call] {
					t.Errorf("no %s has failed: %v", call, failed)
				}
			}
		})
	}
}

// TestStartupCPUIsFoundAgain tests that a new leader puts limits back whatever has happened to the Service and the workload.
func TestStartupCPUIsFoundAgain(t *testing.T) {
	for name, meanwhile := range map[string]func(c *cluster){
		"it is ready": func(c *cluster) { c.podIsReady() },
		"the annotation is removed": func(c *cluster) {
			s := c.service()
			delete(s.Annotations, injector.Prefix+"startup-cpu")
			c.update(s)
		},
		"the Service is gone": func(c *cluster) {
			for _, o := range []client.Object{c.service(), c.routeSlice(), c.scaledObject()} {
				if err := c.Delete(c.t.Context(), o); err != nil {
					c.t.Fatal(err)
				}
			}
		},
		"its pod is orphaned": func(c *cluster) {
			if err := c.Delete(c.t.Context(), c.deployment()); err != nil {
				c.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newSleeping(t)
			c.wakes()
			c.both(1)
			c.hasCPU("2", "2", true)
			meanwhile(c)
			c.assemble()
			want := []types.NamespacedName{{Namespace: "apps", Name: "Deployment/web"}}
			if got := c.recovers(2); !slices.Equal(got, want) {
				t.Errorf("finds %v, want %v", got, want)
			}
			c.starts(3)
			c.hasCPU("500m", "100m", false)
			if got := c.recovers(2); len(got) > 0 {
				t.Errorf("still finds %v", got)
			}
		})
	}
}

// TestRecoveryIsTriedAgain tests that a new leader finds marked pods although the first list fails.
func TestRecoveryIsTriedAgain(t *testing.T) {
	c := newSleeping(t)
	c.wakes()
	c.both(1)
	lists := 0
	c.refuses = func(verb string, o runtime.Object) error {
		if _, pods := o.(*corev1.PodList); !pods || verb != "list" {
			return nil
		}
		if lists++; lists == 1 {
			return errors.New("the API server is away")
		}
		return nil
	}
	r := &recovery{
		live: c, recovered: c.scaling.recovered, changed: make(chan event.TypedGenericEvent[types.NamespacedName], 1), retry: time.Millisecond,
	}
	if err := r.Start(t.Context()); err != nil || len(r.changed) != 1 {
		t.Errorf("%v, finds %d", err, len(r.changed))
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := r.Start(ended); err != nil {
		t.Errorf("when the manager ends: %v", err)
	}
}

// TestStartupCPUIsRefused tests that a start goes on, without a mark and with one event.
func TestStartupCPUIsRefused(t *testing.T) {
	for _, what := range []string{"resize", "patch"} {
		c := newSleeping(t)
		c.wakes()
		c.refuses = func(verb string, o runtime.Object) error {
			if _, pod := o.(*corev1.Pod); pod && verb == what {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "web-1-a", errors.New("exceeded quota: cpu"))
			}
			return nil
		}
		c.both(3)
		c.hasCPU("500m", "100m", false)
		for _, on := range []string{"Service/web", "Deployment/web"} {
			note := "StartupCPURefused on " + on + ": Deployment/web does not get all the CPU that annotation " +
				"scale-to-zero/startup-cpu asks for: exceeded quota: cpu. Raise that ResourceQuota"
			if got := c.events(); strings.Count(got, note) != 1 {
				t.Errorf("%s is refused; no or several events %q in\n%s", what, note, got)
			}
		}
		c.podIsReady()
		c.both(1)
		c.told("Awake on Service/web: ")
	}
}

// TestRestoreAllPutsCPUBack tests that uninstalling leaves no pod with raised limits, whoever has marked it, and waits for a pod that
// cannot be changed.
func TestRestoreAllPutsCPUBack(t *testing.T) {
	c := newSleeping(t, ownDeployment())
	c.wakes()
	c.both(1)
	c.hasCPU("2", "2", true)
	c.refuses = func(verb string, o runtime.Object) error {
		if _, is := o.(*corev1.Pod); is && verb != "get" && verb != "list" {
			return errors.New("no")
		}
		return nil
	}
	if left, err := putCPUBack(t.Context(), c); err != nil || !slices.Equal(left, []string{"pod apps/web-1-a"}) {
		t.Errorf("a pod that cannot be changed: %v, %v", left, err)
	}
	c.refuses = nil
	if left, err := putCPUBack(t.Context(), c); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	c.hasCPU("500m", "100m", false)
}
