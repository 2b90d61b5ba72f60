// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestInjection follows an app from its label to its sleep and back.
func TestInjection(t *testing.T) {
	c := newCluster(t, webDeployment(2), webService())
	result, err := c.reconcileService()
	if err != nil || result.RequeueAfter != retryMin {
		t.Fatalf("%+v, %v", result, err)
	}
	if get(c, "web-direct", &corev1.Service{}) == nil || len(c.routeSlice().Endpoints) != 0 || injector.Intercepted(c.service()) {
		t.Fatal("it begins with companions and slices that list nobody")
	}
	if result, err = c.reconcileService(); err != nil || result.RequeueAfter != 2*retryMin {
		t.Errorf("the pauses do not grow: %+v, %v", result, err)
	}
	c.injected()
	c.told("Injected on Service/web: Requests to Service web (port 80) now go through scale-to-zero")
	c.told("Injected on Deployment/web: ")
	so := c.scaledObject()
	if so == nil || *so.Spec.MaxReplicaCount != 2 || injector.Remembered(c.deployment().Annotations) != 2 {
		t.Fatalf("ScaledObject %+v", so)
	}
	if result, err = c.reconcileService(); err != nil || !result.IsZero() && result.RequeueAfter < time.Minute {
		t.Errorf("it goes on: %+v, %v", result, err)
	}

	c.ready(0, 0)
	c.directSlice(false)
	c.both(2)
	c.told("Asleep on Deployment/web: Deployment/web ")
	c.now = c.now.Add(time.Minute)
	s := c.service()
	delete(s.Labels, injector.OptInLabel)
	c.update(s)
	c.both(2)
	if d := c.deployment(); *d.Spec.Replicas != 2 {
		t.Fatalf("%d replicas", *d.Spec.Replicas)
	}
	if injector.Intercepted(c.service()) || c.routeSlice() == nil {
		t.Error("requests have nowhere to wait")
	}
	c.ready(2, 2)
	c.directSlice(true)
	c.podsBack()
	c.both(3)
	if c.routeSlice() != nil || get(c, "web-direct", &corev1.Service{}) != nil || c.scaledObject() != nil ||
		injector.Remembered(c.deployment().Annotations) != 0 {
		t.Errorf("something is left; events %s", c.events())
	}
	c.told("Restored on Service/web: Requests to Service web go to its pods again, without scale-to-zero: it is no longer opted in. " +
		"Deployment/web has 2 replicas")
	if len(c.natives.followed) != 0 {
		t.Errorf("still follows %v", c.natives.followed)
	}
}

// TestInjectionByIngress tests that only the Ingress is redirected.
func TestInjectionByIngress(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService(func(s *corev1.Service) { s.Labels = nil }), webIngress())
	c.both(1)
	c.directSlice(true)
	c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
	c.both(2)
	backend := func() string { return get(c, "front", &networkingv1.Ingress{}).Spec.DefaultBackend.Service.Name }
	if backend() != "web-scale-to-zero" || injector.Intercepted(c.service()) {
		t.Fatalf("it leads to %s; events %s", backend(), c.events())
	}
	if c.scaledObject() == nil {
		t.Error("it is not scaled")
	}
	i := get(c, "front", &networkingv1.Ingress{})
	delete(i.Labels, injector.OptInLabel)
	c.update(i)
	c.nativeSlice(true)
	c.both(4)
	if backend() != "web" || get(c, "web-scale-to-zero", &corev1.Service{}) == nil {
		t.Errorf("it leads to %s; events %s", backend(), c.events())
	}
	c.now = c.now.Add(time.Minute)
	c.both(2)
	if get(c, "web-scale-to-zero", &corev1.Service{}) != nil || c.scaledObject() != nil {
		t.Errorf("something is left; events %s", c.events())
	}
}

// TestEveryCallMayFail tests that the failure of any call to the API server is an error, and loses nothing.
func TestEveryCallMayFail(t *testing.T) {
	optOut := func(c *cluster) {
		s := c.service()
		delete(s.Labels, injector.OptInLabel)
		c.update(s)
	}
	byNamespace := func(s *corev1.Service) {
		s.Labels, s.Spec.Type = map[string]string{"app.kubernetes.io/instance": "r"}, corev1.ServiceTypeNodePort
	}
	for name, tc := range map[string]struct {
		objects []client.Object
		before  func(c *cluster)
		want    func(c *cluster) bool
	}{
		"it begins": {nil, func(*cluster) {}, func(c *cluster) bool { return c.routeSlice() != nil }},
		"it is published": {nil, func(c *cluster) {
			c.both(1)
			c.directSlice(true)
		}, func(c *cluster) bool { return injector.Intercepted(c.service()) && c.scaledObject() != nil }},
		"it stays": {nil, func(c *cluster) { c.injected() }, func(c *cluster) bool { return injector.Intercepted(c.service()) }},
		"it goes": {nil, func(c *cluster) {
			c.injected()
			optOut(c)
		}, func(c *cluster) bool { return !injector.Intercepted(c.service()) }},
		"it is gone": {nil, func(c *cluster) {
			c.injected()
			optOut(c)
			c.both(3)
			c.podsBack()
		}, func(c *cluster) bool { return c.routeSlice() == nil && c.scaledObject() == nil }},
		"by an Ingress": {[]client.Object{webIngress()}, func(c *cluster) {
			s := c.service()
			s.Labels = nil
			c.update(s)
			c.both(1)
			c.directSlice(true)
		}, func(c *cluster) bool {
			return get(c, "front", &networkingv1.Ingress{}).Spec.DefaultBackend.Service.Name == "web-scale-to-zero"
		}},
		"by its Namespace": {[]client.Object{webIngress()}, func(c *cluster) {
			namespace := &corev1.Namespace{}
			if err := c.Get(c.t.Context(), client.ObjectKey{Name: "apps"}, namespace); err != nil {
				c.t.Fatal(err)
			}
			namespace.Labels = map[string]string{injector.OptInLabel: "true"}
			c.update(namespace)
			s := c.service()
			byNamespace(s)
			c.update(s)
			c.injected()
			c.now = c.now.Add(3 * time.Minute)
		}, func(c *cluster) bool { return injector.Intercepted(c.service()) }},
		"the Service is deleted": {nil, func(c *cluster) {
			c.injected()
			if err := c.Delete(c.t.Context(), c.service()); err != nil {
				c.t.Fatal(err)
			}
		}, func(c *cluster) bool { return c.routeSlice() == nil }},
		"without KEDA, it is scaled up": {nil, func(c *cluster) {
			c.keda.remove()
			s := c.service()
			s.Annotations = map[string]string{"scale-to-zero/max-replicas": "4", "scale-to-zero/target-pending-requests": "10"}
			c.update(s)
			c.injected()
			c.counts.active, c.counts.pending = true, 35
		}, func(c *cluster) bool { return *c.deployment().Spec.Replicas == 4 }},
		"it starts": {nil, func(c *cluster) {
			c.injected()
			c.ready(0, 0)
			c.both(1)
			c.ready(1, 0)
			c.both(1)
			c.now = c.now.Add(time.Second)
		}, func(c *cluster) bool { return c.routeSlice().Annotations[api.ProgressAnnotation] != "" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			for n := 1; ; n++ {
				c := newCluster(t, append([]client.Object{webDeployment(1), webService()}, tc.objects...)...)
				c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
				tc.before(c)
				c.failAt = n
				_, err := c.reconcileService()
				if err == nil {
					_, err = c.reconcileWorkload()
				}
				if c.failAt > 0 {
					break
				}
				calls++
				if err == nil {
					t.Errorf("%s fails, and that is no error", c.failed)
				}
				c.both(6)
				if !tc.want(c) {
					t.Errorf("after %s had failed, it does not get there; events %s", c.failed, c.events())
				}
			}
			if calls < 5 {
				t.Errorf("only %d calls were tried", calls)
			}
		})
	}
}

// TestLeftovers tests that objects of a deleted Service with the same name are deleted.
func TestLeftovers(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	c.injected()
	old := c.service()
	if err := c.Delete(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	c.create(webService(func(s *corev1.Service) { s.UID = "another" }))
	if _, err := c.reconcileService(); err != nil {
		t.Fatal(err)
	}
	for _, o := range []client.Object{c.routeSlice(), get(c, "web-direct", &corev1.Service{})} {
		if len(o.GetOwnerReferences()) == 0 || o.GetOwnerReferences()[0].UID != "another" {
			t.Errorf("%T %s belongs to %v", o, o.GetName(), o.GetOwnerReferences())
		}
	}
}

// TestIgnored tests that our own Services, and those that are being deleted, are not touched.
func TestIgnored(t *testing.T) {
	for name, change := range map[string]func(*corev1.Service){
		"ours": func(s *corev1.Service) { s.Labels[injector.ManagedByLabel] = injector.ManagedBy },
		"deleted": func(s *corev1.Service) {
			s.DeletionTimestamp, s.Finalizers = &metav1.Time{Time: time.Now()}, []string{"example.com/x"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := webService(change)
			deleting := s.DeletionTimestamp != nil
			s.DeletionTimestamp = nil
			c := newCluster(t, webDeployment(1), s)
			if deleting {
				if err := c.Delete(t.Context(), c.service()); err != nil {
					t.Fatal(err)
				}
			}
			if result, err := c.reconcileService(); err != nil || !result.IsZero() || c.routeSlice() != nil {
				t.Errorf("%+v, %v", result, err)
			}
		})
	}
}

// TestNoAdmission tests that without admission nothing is redirected, and that one event says so.
func TestNoAdmission(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	c.noAdmission = true
	c.both(1)
	c.directSlice(true)
	c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
	c.both(3)
	if injector.Intercepted(c.service()) || c.scaledObject() != nil {
		t.Error("it is injected")
	}
	if got := c.events(); strings.Count(got, "admission webhook did not answer") != 1 {
		t.Errorf("events %s", got)
	}
}

// TestRefused tests that one event reports a write that the API server refuses, and another one that the write is accepted later.
func TestRefused(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	quota := apierrors.NewForbidden(schema.GroupResource{Resource: "services"}, "web-direct", errors.New("exceeded quota: few"))
	c.refuses = func(verb string, o runtime.Object) error {
		if s, ok := o.(*corev1.Service); ok && verb == "create" && s.Name == "web-direct" {
			return quota
		}
		return nil
	}
	for range 2 {
		result, err := c.reconcileService()
		if err != nil || result.RequeueAfter < refusedMin {
			t.Fatalf("%+v, %v", result, err)
		}
	}
	c.told("InjectionSkipped on Service/web: Not injected: creating Service web-direct is refused: ")
	c.refuses = nil
	if _, err := c.reconcileService(); err != nil {
		t.Fatal(err)
	}
	c.told("WriteAccepted on Service/web: Creating Service web-direct is accepted now")
	if got := c.events(); strings.Count(got, "is refused") != 1 {
		t.Errorf("events %s", got)
	}
	c.injected()
	c.refuses = func(verb string, o runtime.Object) error {
		if _, ok := o.(*corev1.Service); ok && verb == "update" {
			return quota
		}
		return nil
	}
	s := c.service()
	c.refuses = nil
	s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "admin", Port: 81})
	c.update(s)
	c.refuses = func(verb string, o runtime.Object) error {
		if _, ok := o.(*corev1.Service); ok && verb == "update" {
			return quota
		}
		return nil
	}
	if _, err := c.reconcileService(); err != nil {
		t.Fatal(err)
	}
	c.told("WriteRefused on Service/web: It stays as it is: updating Service web-direct is refused: ")
}

// TestTriedScaledObject tests that an app whose ScaledObject is refused is not injected. If the dry run gives no answer, the app is
// injected.
func TestTriedScaledObject(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"refused": {apierrors.NewForbidden(schema.GroupResource{Resource: "scaledobjects"}, "web-deployment",
			errors.New("denied")), false},
		"it is there":           {apierrors.NewAlreadyExists(schema.GroupResource{Resource: "scaledobjects"}, "web-deployment"), true},
		"a webhook cannot":      {apierrors.NewBadRequest("admission webhook does not support dry run"), true},
		"the API server is off": {errors.New("connection refused"), false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, webDeployment(1), webService())
			c.both(1)
			c.directSlice(true)
			c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
			c.refuses = func(verb string, o runtime.Object) error {
				if _, ok := o.(*keda.ScaledObject); ok && verb == "create" {
					return tc.err
				}
				return nil
			}
			_, _ = c.reconcileService()
			if got := injector.Intercepted(c.service()); got != tc.want {
				t.Errorf("injected: %t", got)
			}
		})
	}
}

// TestSkips tests that the reasons come from what the observer reads.
func TestSkips(t *testing.T) {
	target := func(name string) autoscalingv2.HorizontalPodAutoscalerSpec {
		return autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{
			APIVersion: "apps/v1",
			Kind:       "Deployment", Name: name,
		}}
	}
	scaledObject := func(name, of string) *keda.ScaledObject {
		return &keda.ScaledObject{
			ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name},
			Spec:       keda.ScaledObjectSpec{ScaleTargetRef: keda.ScaleTarget{Name: of}},
		}
	}
	fromZero := func(spec autoscalingv2.HorizontalPodAutoscalerSpec) autoscalingv2.HorizontalPodAutoscalerSpec {
		spec.MinReplicas = new(int32)
		return spec
	}
	neverIdle := func(so *keda.ScaledObject) *keda.ScaledObject {
		so.Spec.MinReplicaCount = new(int32(1))
		return so
	}
	other := webDeployment(1)
	other.Name = "other"
	daemons := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "daemons"},
		Spec:       appsv1.DaemonSetSpec{Template: webDeployment(1).Spec.Template},
	}
	workloadIs := func(name string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Annotations = map[string]string{"scale-to-zero/workload": name} }
	}
	for name, tc := range map[string]struct {
		objects []client.Object
		want    string
	}{
		"no workload": {[]client.Object{webService()}, "no Deployment or StatefulSet has pods that its selector app=web matches"},
		"two workloads": {
			[]client.Object{webService(), webDeployment(1), other},
			"its selector matches the pods of Deployment/other and Deployment/web",
		},
		"a DaemonSet": {[]client.Object{webService(), daemons}, "its pods are those of DaemonSet/daemons"},
		"an HPA": {
			[]client.Object{
				webService(), webDeployment(1),
				&autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "mine"}, Spec: target("web")},
			},
			"",
		},
		"an HPA that puts it to sleep itself": {
			[]client.Object{
				webService(), webDeployment(1),
				&autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "mine"}, Spec: fromZero(target("web"))},
			},
			"HorizontalPodAutoscaler mine puts Deployment/web to sleep itself (minReplicas 0)",
		},
		"another's HPA": {
			[]client.Object{
				webService(), webDeployment(1),
				&autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "mine"}, Spec: target("other")},
			},
			"",
		},
		"a ScaledObject": {
			[]client.Object{webService(), webDeployment(1), scaledObject("mine", "web")},
			"",
		},
		"a ScaledObject that never sleeps": {
			[]client.Object{webService(), webDeployment(1), neverIdle(scaledObject("mine", "web"))},
			"ScaledObject mine never puts Deployment/web to sleep (minReplicaCount 1)",
		},
		"one of our name": {
			[]client.Object{webService(), webDeployment(1), scaledObject("web-deployment", "other")},
			"there is a ScaledObject web-deployment that is not scale-to-zero's",
		},
		"a name of ours": {
			[]client.Object{webService(), webDeployment(1), webService(func(s *corev1.Service) { s.Name = "web-direct" })},
			"needs the Service name web-direct, which another Service has",
		},
		"no such workload": {
			[]client.Object{webService(workloadIs("Deployment/api")), webDeployment(1)},
			"there is no Deployment/api, which annotation scale-to-zero/workload names",
		},
		"a named one": {[]client.Object{webService(workloadIs("Deployment/web")), webDeployment(1), other}, ""},
		"a kind of nobody": {
			[]client.Object{webService(workloadIs("Gallery.example.com/web"))},
			"the API server knows no kind Gallery.example.com",
		},
		"a StatefulSet":     {[]client.Object{webService(workloadIs("StatefulSet/web"))}, "there is no StatefulSet/web"},
		"without selectors": {[]client.Object{webService(func(s *corev1.Service) { s.Spec.Selector = nil })}, "it has no selector"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, tc.objects...)
			if _, err := c.reconcileService(); err != nil {
				t.Fatal(err)
			}
			if got := c.events(); tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
				t.Errorf("events %q, want %q", got, tc.want)
			}
			if (c.routeSlice() == nil) != (tc.want != "") {
				t.Errorf("its route slice: %v", c.routeSlice())
			}
		})
	}
}

// TestRestoringAll tests that an annotation of the controllers' Deployment makes everything be restored until the given time.
func TestRestoringAll(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	c.injected()
	own := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: "controller"}}
	c.create(own)
	own.Annotations = map[string]string{injector.RestoringAnnotation: c.now.Add(time.Hour).Format(time.RFC3339)}
	c.update(own)
	c.both(2)
	if injector.Intercepted(c.service()) {
		t.Error("it is still redirected")
	}
	own.Annotations[injector.RestoringAnnotation] = c.now.Add(-time.Hour).Format(time.RFC3339)
	c.update(own)
	c.both(4)
	if !injector.Intercepted(c.service()) {
		t.Errorf("it is not injected again; events %s", c.events())
	}
}

// TestWayOfAllInterceptors tests what interceptors say about whether they can reach the pods, and what happens if they cannot be
// asked.
func TestWayOfAllInterceptors(t *testing.T) {
	for name, tc := range map[string]struct {
		reach []injector.PortReach
		err   error
		want  string
	}{
		"blocked": {
			[]injector.PortReach{{Name: "http", Ready: 1, Port: "8080", Error: "i/o timeout"}},
			nil,
			"allow ingress from pods app=interceptor in namespace ours",
		},
		"they do not say":   {nil, nil, ""},
		"nobody can be ask": {nil, errors.New("unavailable"), "cannot ask its interceptors over gRPC whether they reach the pods (Unknown)"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, webDeployment(1), webService())
			c.both(1)
			c.directSlice(true)
			c.reach, c.reachErr = tc.reach, tc.err
			c.both(1)
			c.now = c.now.Add(time.Minute)
			c.both(1)
			if got := c.events(); !strings.Contains(got, tc.want) || injector.Intercepted(c.service()) != (tc.want == "") {
				t.Errorf("events %s", got)
			}
		})
	}
}

// TestServing tests that the questions and dials for a Service with many ports run in parallel, up to a limit, and without a race, and
// that a port is dialed only if it is the Service's.
func TestServing(t *testing.T) {
	const deaf, robbed, silent = "10.0.0.2:10049", "10.0.0.3:10048", "10.0.0.1"
	var running, most, dials atomic.Int64
	full := make(chan struct{})
	b := &serviceObserver{Options: Options{Owns: func(_ context.Context, interceptor string, _ types.NamespacedName, routes api.Routes) (
		map[string]bool, error,
	) {
		owned := map[string]bool{}
		for _, p := range routes.Ports {
			owned[p.Name] = fmt.Sprintf("%s:%d", interceptor, p.Listen) != robbed
		}
		if interceptor == silent {
			return nil, status.Error(codes.Unavailable, "nobody")
		}
		return owned, nil
	}, Dial: func(_ context.Context, address string) error {
		n := running.Add(1)
		defer running.Add(-1)
		for before := most.Load(); n > before && !most.CompareAndSwap(before, n); before = most.Load() {
		}
		if dials.Add(1) == maxDials {
			close(full)
		}
		<-full // the first dials wait until the limit is reached
		if address == robbed || strings.HasPrefix(address, silent+":") {
			t.Errorf("dials %s", address)
		}
		if address == deaf {
			return errors.New("connection refused")
		}
		return nil
	}}}
	var addresses []string
	var routes api.Routes
	for port := range injector.MaxPorts {
		routes.Ports = append(routes.Ports, api.Port{Name: fmt.Sprint("p", port), Listen: int32(10000 + port)})
		for i := range 3 {
			addresses = append(addresses, fmt.Sprintf("10.0.0.%d:%d", i+1, 10000+port))
		}
	}
	got := b.serving(t.Context(), client.ObjectKey{Namespace: "apps", Name: "web"}, routes, addresses)
	if got.At[deaf] || got.At[robbed] || got.At["10.0.0.1:10000"] || !got.At["10.0.0.2:10048"] || !got.At["10.0.0.3:10049"] {
		t.Errorf("got %+v", got)
	}
	if got.Failed != "Unavailable" || got.Old {
		t.Errorf("failed with %q, old %t", got.Failed, got.Old)
	}
	if most.Load() != maxDials {
		t.Errorf("%d dials ran at a time, want %d", most.Load(), maxDials)
	}
}

// TestServiceResult tests that the pauses between looks at something that no watch reports grow, and start again from the beginning
// afterwards.
func TestServiceResult(t *testing.T) {
	c := newCluster(t)
	key := client.ObjectKey{Namespace: "apps", Name: "web"}
	soon := injector.Outcome{Soon: true}
	var last time.Duration
	for range 12 {
		got := c.services.result(key, soon).RequeueAfter
		if got < last || got > retryMax {
			t.Fatalf("%s after %s", got, last)
		}
		last = got
	}
	if last != retryMax {
		t.Errorf("in the end it is %s", last)
	}
	if got := c.services.result(key, injector.Outcome{Soon: true, After: time.Second}).RequeueAfter; got != time.Second {
		t.Errorf("not at the time that was asked for, but in %s", got)
	}
	if got := c.services.result(key, injector.Outcome{}); got != (ctrl.Result{}) {
		t.Errorf("%+v", got)
	}
	if got := c.services.result(key, soon).RequeueAfter; got != retryMin {
		t.Errorf("it begins with %s", got)
	}
	for range 20 {
		if got := c.services.result(key, injector.Outcome{After: 10 * time.Second, Spread: true}).RequeueAfter; got < 10*time.Second ||
			got > 12*time.Second {
			t.Errorf("spread to %s", got)
		}
	}
}

// TestPortBook tests that ports survive a change of controllers, are freed, and belong to one owner only.
func TestPortBook(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	c.injected()
	routes, ok := routesOf(c.routeSlice())
	if !ok {
		t.Fatal("no routes")
	}
	web := client.ObjectKey{Namespace: "apps", Name: "web"}
	b := &portBook{client: c, low: 10000, high: 29999}
	b.free(web, c.now) // the book knows nothing yet
	got, _, err := b.get(t.Context(), web, c.now, []string{"http"})
	if err != nil || got["http"] != routes.Ports[0].Listen {
		t.Errorf("got %v, %v; want %d", got, err, routes.Ports[0].Listen)
	}
	b.free(web, c.now)
	narrow := &portBook{client: newCluster(t), low: 10000, high: 10000}
	if _, _, err := narrow.get(t.Context(), web, c.now, []string{"a", "b"}); err == nil {
		t.Error("one port for two")
	}
	claim := func(service string, uid types.UID, age time.Duration) {
		t.Helper()
		mine := routes
		mine.Service, mine.ServiceUID, mine.Direct = service, string(uid), injector.DirectServiceName(service)
		text, err := mine.Encode()
		if err != nil {
			t.Fatal(err)
		}
		s := sliceLikeOurs("apps", service, uid, text)
		s.CreationTimestamp = metav1.NewTime(c.now.Add(-age))
		c.create(s)
	}
	c.create(serviceNamed("twin", nil, func(s *corev1.Service) { s.UID = "twin-uid" }))
	claim("twin", "twin-uid", -time.Hour)
	c.create(serviceNamed("old", nil, func(s *corev1.Service) { s.UID = "old-uid" }))
	claim("old", "another-uid", 1000*time.Hour) // the Service of that UID does not exist
	claim("none", "none-uid", 1000*time.Hour)   // nor does this one
	b = &portBook{client: c, low: 10000, high: 29999}
	both := map[string]int32{}
	for _, name := range []string{"twin", "web"} {
		got, _, err := b.get(t.Context(), client.ObjectKey{Namespace: "apps", Name: name}, c.now, []string{"http"})
		if err != nil {
			t.Fatal(err)
		}
		both[name] = got["http"]
	}
	if both["web"] != routes.Ports[0].Listen || both["twin"] == both["web"] {
		t.Errorf("got %v", both)
	}
}

// TestLearned tests that what interceptors learn reaches the Services with these ports, once.
func TestLearned(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService(func(s *corev1.Service) { s.Spec.Ports[0].Name = "x" }))
	c.reach = []injector.PortReach{{Name: "x", Ready: 1, Reached: true}}
	c.injected()
	routes, _ := routesOf(c.routeSlice())
	port := routes.Ports[0].Listen
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.learned.note(t.Context(), Lesson{ServerFirst: []int32{port, 29999}})
		c.learned.note(t.Context(), Lesson{ServerFirst: []int32{port}, HTTP: []int32{29998}})
	}()
	e := <-c.learned.changed
	<-done
	if e.Object.Name != "web-scale-to-zero-ipv4" {
		t.Errorf("an event about %s", e.Object.Name)
	}
	c.both(1)
	if routes, _ := routesOf(c.routeSlice()); !routes.Ports[0].ServerFirst {
		t.Errorf("routes %+v", routes.Ports)
	}
}
