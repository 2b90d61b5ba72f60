// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/controller"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// nothingLeft lists our objects and changes that are still around the app.
func (a *app) nothingLeft() error {
	s := a.live()
	if injector.Intercepted(s) || s.Annotations[injector.RedirectAnnotation] != "" {
		return fmt.Errorf("selector %v, annotations %v", s.Spec.Selector, s.Annotations)
	}
	return errors.Join(
		a.gone("web-direct", &corev1.Service{}),
		a.gone("web-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{}),
		a.gone("web-deployment", &keda.ScaledObject{}),
		a.rolesLeft(),
	)
}

func TestOptOutWhileAsleep(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 3)
	a.injected()
	a.scale(0)
	a.ready(0)
	a.directSlice(false)
	eventually(t, "an event says that it is asleep", func() error {
		if got := events(t, a.ns, "Deployment", "web"); !strings.Contains(got, "Asleep: ") {
			return fmt.Errorf("events: %q", got)
		}
		return nil
	})
	a.label("null")
	if s := a.live(); injector.Intercepted(s) || s.Annotations[injector.RedirectAnnotation] != "" {
		t.Errorf("admission left selector %v, annotations %v", s.Spec.Selector, s.Annotations)
	}
	eventually(t, "the old replica count is back", func() error {
		if n := a.replicas(); n != 3 {
			return fmt.Errorf("it is %d", n)
		}
		return nil
	})
	if slice, routes := a.routeSlice(); len(slice.Endpoints) != 1 || !routes.Retiring {
		t.Fatalf("requests have nowhere to wait: endpoints %v, retiring %t", slice.Endpoints, routes.Retiring)
	}
	a.ready(3)
	a.nativeSlice(true)
	// Held requests cannot be forwarded yet.
	a.staysRouted()
	a.directSlice(true)
	eventually(t, "nothing of ours is left", a.nothingLeft)
	if n := a.replicas(); n != 3 {
		t.Errorf("replicas %d, want 3", n)
	}
	eventually(t, "the events are there", func() error {
		got := events(t, a.ns, "Service", "web")
		if strings.Count(got, "Restored: ") != 1 {
			return fmt.Errorf("events: %q", got)
		}
		return nil
	})
}

// staysRouted fails if the route slice is deleted within five reconciles.
func (a *app) staysRouted() {
	a.t.Helper()
	gone := time.NewTimer(500 * time.Millisecond)
	defer gone.Stop()
	for {
		a.routeSlice()
		select {
		case <-gone.C:
			return
		case <-a.t.Context().Done():
			return
		default:
		}
	}
}

func TestServiceDeletedWhileAsleep(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 2)
	a.injected()
	a.scale(0)
	if err := kube.Delete(t.Context(), a.service()); err != nil {
		t.Fatal(err)
	}
	// There is no garbage collector here, and clients are held until the slice goes.
	eventually(t, "the route slice goes", func() error { return a.gone("web-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{}) })
	eventually(t, "the workload is not left at zero", func() error {
		if n := a.replicas(); n != 2 {
			return fmt.Errorf("it has %d replicas", n)
		}
		return a.gone("web-deployment", &keda.ScaledObject{})
	})
}

func TestRestoreAll(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	own := (&app{t: t, ns: ours}).deployment("controller", 2)
	create(t, own)
	t.Cleanup(func() { _ = kube.Delete(context.Background(), own) })
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ours, Name: "controller-1", Labels: own.Spec.Template.Labels},
		Spec:       corev1.PodSpec{NodeName: "node1", Containers: own.Spec.Template.Spec.Containers},
	}
	create(t, pod)
	p := start(t, planeOptions{interceptors: &interceptors{}, deployment: "controller"})
	a := newApp(t, 2)
	a.injected()
	a.scale(0)
	front := newApp(t, 1)
	front.ingress("front")
	front.patchIngress("front", label)
	front.directMade()
	front.led("front", "other", "web-scale-to-zero")
	restore := func(ctx context.Context) error {
		return controller.RestoreAll(ctx, kube, controller.RestoreOptions{
			Namespace: ours, Deployment: "controller", Lease: "lease", Secret: "certificate",
			Until: time.Now().Add(time.Hour), Log: logr.Discard(),
		})
	}
	// An interrupted restore reports what it could not do, and the next one continues.
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := restore(short); err == nil || !strings.Contains(err.Error(), "service "+a.ns+"/web") {
		t.Errorf("an interrupted run: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- restore(t.Context()) }()
	eventually(t, "the old replica count is back", func() error {
		if n := a.replicas(); n != 2 {
			return fmt.Errorf("it is %d", n)
		}
		return nil
	})
	a.ready(2)
	a.nativeSlice(true)
	eventually(t, "the controllers are to stop", func() error {
		if err := kube.Get(t.Context(), client.ObjectKeyFromObject(own), own); err != nil || *own.Spec.Replicas != 0 {
			return fmt.Errorf("%w; %d replicas", err, *own.Spec.Replicas)
		}
		return nil
	})
	// The Deployment's status says at once that it has no pod. The pod takes its time, and may still write its Lease.
	own.Status.ObservedGeneration = own.Generation
	if err := kube.Status().Update(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: ours, Name: "lease"}}
	select {
	case err := <-done:
		t.Fatalf("it ended before the controllers did: %v", err)
	case <-time.After(time.Second): // several reconciles
	}
	create(t, lease)
	p.stop()
	if err := kube.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := kube.Get(t.Context(), client.ObjectKeyFromObject(lease), lease); !apierrors.IsNotFound(err) {
		t.Errorf("the Lease is left: %v", err)
	}
	if err := kube.Delete(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	if err := restore(t.Context()); err != nil {
		t.Errorf("a second run, when the chart is half gone: %v", err)
	}
	if got := front.backendsOf("front"); !slices.Equal(got, []string{"other", "web"}) {
		t.Errorf("the backends of the Ingress are %v", got)
	}
	if err := a.nothingLeft(); err != nil {
		t.Error(err)
	}
	if a.live().Labels[injector.OptInLabel] != "true" {
		t.Error("the label is the user's, and it was removed")
	}
}

// TestEarlierVersion starts with the objects of an earlier version: its route slices say nothing about scaling, and only
// its ScaledObjects remember a replica count. Nothing is disturbed, and restoring works as before.
func TestEarlierVersion(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	p := start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 3)
	a.injected()
	a.scale(0)
	p.stop()
	slice, before := a.routeSlice()
	delete(slice.Annotations, injector.ScalingAnnotation)
	if err := kube.Update(t.Context(), slice); err != nil {
		t.Fatal(err)
	}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "web"}}
	forget := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"annotations":{%q:null}}}`,
		injector.ReplicasAnnotation))
	if err := kube.Patch(t.Context(), d, forget, client.FieldOwner(injector.ManagedBy)); err != nil {
		t.Fatal(err)
	}
	start(t, planeOptions{interceptors: &interceptors{}})
	eventually(t, "the workload remembers", func() error {
		a.get("web", d)
		if n := injector.Remembered(d.Annotations); n != 3 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	if slice, after := a.routeSlice(); len(slice.Endpoints) != 1 || after.Ports[0] != before.Ports[0] {
		t.Errorf("the route changed from %+v to %+v, endpoints %v", before, after, slice.Endpoints)
	}
	so := &keda.ScaledObject{}
	if a.get("web-deployment", so); *so.Spec.MaxReplicaCount != 3 || so.Spec.Idle() != 0 || a.replicas() != 0 {
		t.Errorf("KEDA may scale from %d to %d, and it has %d", so.Spec.Idle(), *so.Spec.MaxReplicaCount, a.replicas())
	}
	a.label("null")
	a.nativeSlice(true)
	eventually(t, "nothing of ours is left", a.nothingLeft)
	if n := a.replicas(); n != 3 {
		t.Errorf("%d replicas", n)
	}
}
