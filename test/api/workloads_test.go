// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestReplicaGuard applies the chart's replica count again while the app sleeps.
func TestReplicaGuard(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 2)
	a.injected()
	a.scale(0)
	apply := func(replicas int32, change func(*appsv1.Deployment)) {
		t.Helper()
		d := a.deployment("web", replicas)
		d.ManagedFields = nil
		change(d)
		//nolint:staticcheck // untyped objects have no apply configurations
		if err := kube.Patch(t.Context(), d, client.Apply, client.FieldOwner("helm"), client.ForceOwnership); err != nil {
			t.Fatal(err)
		}
	}
	same := func(*appsv1.Deployment) {}
	replicas := func(want int32, when string) {
		t.Helper()
		if n := a.replicas(); n != want {
			t.Errorf("%s: %d replicas, want %d", when, n, want)
		}
	}
	apply(2, same)
	replicas(0, "the chart again")
	apply(2, func(d *appsv1.Deployment) { d.Spec.Template.Annotations = map[string]string{"rev": "2"} })
	replicas(0, "the chart with another template")
	d := &appsv1.Deployment{}
	a.get("web", d)
	if d.Spec.Template.Annotations["rev"] != "2" {
		t.Error("the other template was lost with the count")
	}
	replaced := a.deployment("web", 2)
	if err := kube.Update(t.Context(), replaced); err != nil {
		t.Fatal(err)
	}
	replicas(0, "a replace without annotations")
	if a.get("web", d); d.Annotations[injector.ReplicasAnnotation] != "2" {
		t.Errorf("after a replace it remembers %q", d.Annotations[injector.ReplicasAnnotation])
	}
	a.scale(1)
	replicas(1, "KEDA")
	apply(2, same)
	replicas(1, "the chart again, awake")
	apply(3, same)
	replicas(3, "a real change")
	a.scale(0)
	apply(3, same)
	replicas(0, "the changed chart again")
	eventually(t, "the new count is remembered", func() error {
		so := &keda.ScaledObject{}
		a.get("web-deployment", so)
		if n := injector.Remembered(so.Annotations); n != 3 {
			return fmt.Errorf("the ScaledObject has %d", n)
		}
		return nil
	})
	a.label("null")
	eventually(t, "it is restored with the new count", func() error {
		if n := a.replicas(); n != 3 {
			return fmt.Errorf("it has %d", n)
		}
		return nil
	})
	a.nativeSlice(true)
	eventually(t, "nothing of ours is left", a.nothingLeft)
	apply(1, same)
	replicas(1, "no longer ours")
}

// TestTwoServicesShareOneScaledObject and restore the workload only together.
func TestTwoServicesShareOneScaledObject(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 2)
	second := a.service()
	second.Name, second.Annotations = "web2", map[string]string{"scale-to-zero/cooldown": "1h"}
	create(t, second)
	a.injected()
	a.told("Service", "web", "also serves Service web2")
	second.Labels[injector.OptInLabel] = "true"
	if err := kube.Update(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	initial := func() int32 {
		so := &keda.ScaledObject{}
		a.get("web-deployment", so)
		return *so.Spec.InitialCooldownPeriod - *so.Spec.CooldownPeriod
	}
	eventually(t, "the direct Service of the second is made", func() error {
		s := second.DeepCopy()
		return kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: "web2-direct"}, s)
	})
	a.slice("web2-direct-native", "web2-direct", map[string]string{
		discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io", injector.ServiceLabel: "web2", api.RoleLabel: api.RoleDirect,
	}, true)
	eventually(t, "the longer cool-down counts", func() error {
		if n := initial(); n != 3600 {
			return fmt.Errorf("it is %d s", n)
		}
		return nil
	})
	var list keda.ScaledObjectList
	if err := kube.List(t.Context(), &list, client.InNamespace(a.ns)); err != nil || len(list.Items) != 1 {
		t.Errorf("%v; %d ScaledObjects", err, len(list.Items))
	}
	a.label("null")
	a.nativeSlice(true)
	eventually(t, "the first is restored", func() error {
		return a.gone("web-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{})
	})
	if err := a.scaled(); err != nil {
		t.Errorf("the second has no ScaledObject any more: %v", err)
	}
}

// TestNoInterceptor: an awake app's traffic goes straight to its pods and it stays awake; a sleeping app stays asleep.
func TestNoInterceptor(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	fake := &interceptors{}
	start(t, planeOptions{interceptors: fake})
	awake, asleep := newApp(t, 1), newApp(t, 1)
	awake.injected()
	asleep.injected()
	asleep.scale(0)
	asleep.ready(0)
	asleep.directSlice(false)
	leads := func(a *app, to string, port int32) {
		t.Helper()
		eventually(t, "the endpoints are "+to, func() error {
			slice, _ := a.routeSlice()
			if len(slice.Endpoints) != 1 || slice.Endpoints[0].Addresses[0] != to || port != 0 && *slice.Ports[0].Port != port {
				return fmt.Errorf("ports %v, endpoints %v", slice.Ports, slice.Endpoints)
			}
			return nil
		})
	}
	least := func(want int32) {
		t.Helper()
		eventually(t, fmt.Sprintf("KEDA's least is %d", want), func() error {
			so := &keda.ScaledObject{}
			awake.get("web-deployment", so)
			if n := so.Spec.Idle(); n != want {
				return fmt.Errorf("it is %d", n)
			}
			return nil
		})
	}
	fake.setDeaf(true)
	listInterceptors(t)
	leads(awake, "198.18.0.9", 8080)
	least(1)
	awake.told("Service", "web", "NoInterceptor: No interceptor of scale-to-zero is ready; requests go to the pods of Deployment/web directly")
	asleep.told("Service", "web", "Deployment/web stays asleep")
	if n := asleep.replicas(); n != 0 {
		t.Errorf("the one that sleeps was woken to %d", n)
	}
	// One interceptor is ready, and does not listen yet: traffic stays with the pods.
	listInterceptors(t, "198.18.0.3")
	leads(awake, "198.18.0.9", 8080)
	fake.setDeaf(false)
	leads(awake, "198.18.0.3", 0)
	leads(asleep, "198.18.0.3", 0)
	for _, a := range []*app{awake, asleep} {
		a.told("Service", "web", "go through scale-to-zero again")
	}
	// No interceptor counted its requests meanwhile: it may sleep once its cool-down has passed since.
	so := &keda.ScaledObject{}
	if awake.get("web-deployment", so); so.Spec.Idle() != 1 {
		t.Error("KEDA may put it to sleep at once")
	}
	if err := awake.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"1s"}}}`); err != nil {
		t.Fatal(err)
	}
	least(0)
}

// statefulSet replaces the Deployment by a StatefulSet.
func (a *app) statefulSet(replicas int32) *appsv1.StatefulSet {
	a.t.Helper()
	template := a.deployment("web", 1)
	if err := kube.Delete(a.t.Context(), template.DeepCopy()); err != nil {
		a.t.Fatal(err)
	}
	set := &appsv1.StatefulSet{ObjectMeta: template.ObjectMeta, Spec: appsv1.StatefulSetSpec{
		Replicas: &replicas, Selector: template.Spec.Selector, Template: template.Spec.Template,
	}}
	create(a.t, set)
	return set
}

// TestStatefulSet injects and restores the other built-in kind.
func TestStatefulSet(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	set := a.statefulSet(2)
	a.label(`"true"`)
	a.followInjection()
	so := &keda.ScaledObject{}
	eventually(t, "the ScaledObject is made", func() error {
		return kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: "web-statefulset"}, so)
	})
	if got := so.Spec.ScaleTargetRef; got.Kind != "StatefulSet" || injector.Remembered(so.Annotations) != 2 {
		t.Errorf("KEDA is to scale %+v, remembering %v", got, so.Annotations)
	}
	if err := kube.SubResource("scale").Update(t.Context(), set, client.WithSubResourceBody(&autoscalingv1.Scale{})); err != nil {
		t.Fatal(err)
	}
	a.told("StatefulSet", "web", "Asleep: ")
	a.label("null")
	a.nativeSlice(true)
	eventually(t, "nothing of ours is left", func() error {
		if a.get("web", set); *set.Spec.Replicas != 2 || set.Annotations[injector.ReplicasAnnotation] != "" {
			return fmt.Errorf("%d replicas, annotations %v", *set.Spec.Replicas, set.Annotations)
		}
		return errors.Join(a.gone("web-statefulset", &keda.ScaledObject{}), a.nothingLeft())
	})
}
