// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
)

// TestInstallation tests what the controllers know of their own installation, in particular until when every app is restored.
func TestInstallation(t *testing.T) {
	for name, tc := range map[string]struct {
		deployment string
		annotation func(now time.Time) string
		want       time.Duration
	}{
		"nothing is said":            {"controller", func(time.Time) string { return "" }, 0},
		"for another hour":           {"controller", func(now time.Time) string { return now.Add(time.Hour).Format(time.RFC3339) }, time.Hour},
		"until an hour ago":          {"controller", func(now time.Time) string { return now.Add(-time.Hour).Format(time.RFC3339) }, 0},
		"what nobody can read":       {"controller", func(time.Time) string { return "soon" }, 0},
		"the Deployment has no name": {"", func(now time.Time) string { return now.Add(time.Hour).Format(time.RFC3339) }, 0},
		"the Deployment is gone":     {"gone", func(now time.Time) string { return now.Add(time.Hour).Format(time.RFC3339) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			own := ownDeployment()
			c := newCluster(t)
			own.Annotations = map[string]string{injector.RestoringAnnotation: tc.annotation(c.now)}
			c.create(own)
			c.services.observer.Deployment = tc.deployment
			got, err := c.services.observer.install(t.Context())
			if err != nil || got.RestoringFor.Round(time.Second) != tc.want || !got.KEDA || got.Namespace != "ours" ||
				got.Scaler != (injector.Scaler{Address: "interceptors:9090"}) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// TestCompanionsAsFound tests which Services with the names of our companions are ours, somebody else's, or left over.
func TestCompanionsAsFound(t *testing.T) {
	ours := func(service string, owner types.UID) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Labels = map[string]string{injector.ManagedByLabel: injector.ManagedBy, injector.ServiceLabel: service}
			s.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: service, UID: owner, Controller: new(true)}}
		}
	}
	for name, tc := range map[string]struct {
		change func(*corev1.Service)
		want   string
	}{
		"ours": {ours("web", "uid-web"), "ours"},
		"of a Service of its name that was deleted": {ours("web", "uid-before"), "left over"},
		"without an owner":                          {func(s *corev1.Service) { ours("web", "")(s); s.OwnerReferences = nil }, "foreign"},
		"of another Service":                        {ours("web-2", "uid-web-2"), "foreign"},
		"of a Deployment": {func(s *corev1.Service) {
			ours("web", "uid-web")(s)
			s.OwnerReferences[0].APIVersion, s.OwnerReferences[0].Kind = "apps/v1", "Deployment"
		}, "foreign"},
		"of an owner that does not control it": {func(s *corev1.Service) {
			ours("web", "uid-web")(s)
			s.OwnerReferences[0].Controller = nil
		}, "foreign"},
		"whose label names another Service": {func(s *corev1.Service) {
			ours("web", "uid-web")(s)
			s.Labels[injector.ServiceLabel] = "x"
		}, "ours"},
		"somebody else's": {
			func(s *corev1.Service) { s.Labels = map[string]string{injector.ServiceLabel: "web"} }, "foreign",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, serviceNamed("web-direct", nil, tc.change))
			o := &injector.Observation{Service: webService(func(s *corev1.Service) { s.UID = "uid-web" })}
			got, err := c.services.observer.companion(t.Context(), o, "web-direct")
			if err != nil {
				t.Fatal(err)
			}
			text := "none"
			switch {
			case got.Foreign:
				text = "foreign"
			case got.Service != nil:
				text = "ours"
			case len(o.Leftovers) == 1:
				text = "left over"
			}
			if text != tc.want {
				t.Errorf("got %s: %+v", text, got)
			}
			if got, err := c.services.observer.companion(t.Context(), o, "web-scale-to-zero"); err != nil || got != (injector.Companion{}) {
				t.Errorf("one that there is not: %+v, %v", got, err)
			}
		})
	}
}

// TestWorkloadsAsFound tests which workload is found behind a Service, by its selector and by name.
func TestWorkloadsAsFound(t *testing.T) {
	named := func(name string) *appsv1.Deployment {
		d := webDeployment(1)
		d.Name = name
		return d
	}
	ending := named("ending")
	ending.Finalizers = []string{"example.com/x"}
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "db"}}
	set.Spec.Template.Labels = map[string]string{"app": "db"}
	c := newCluster(t, named("web"), ending, set)
	if err := c.Delete(t.Context(), named("ending")); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		selector map[string]string
		workload string
		want     string // the workload, or how the Skip begins
	}{
		"one, and one that is being deleted": {map[string]string{"app": "web"}, "", "Deployment/web"},
		"a StatefulSet":                      {map[string]string{"app": "db"}, "", "StatefulSet/db"},
		"with the sentinel": {
			map[string]string{"app": "db", injector.SentinelKey: injector.SentinelValue}, "", "StatefulSet/db",
		},
		"none": {
			map[string]string{"app": "web", "tier": "front"}, "", "no Deployment or StatefulSet has pods that its selector app=web,tier=front ",
		},
		"no selector": {nil, "", "no Deployment or StatefulSet has pods that its selector  matches"},
		"by name":     {nil, "StatefulSet/db", "StatefulSet/db"},
		"by the name of one that is being deleted": {
			nil, "Deployment/ending", "there is no Deployment/ending, which annotation scale-to-zero/workload names",
		},
		"by a name that there is not": {nil, "StatefulSet/web", "there is no StatefulSet/web, which annotation scale-to-zero/workload names"},
	} {
		t.Run(name, func(t *testing.T) {
			s := webService(func(s *corev1.Service) { s.Spec.Selector = tc.selector })
			got, err := c.scaling.observer.workloads.find(t.Context(), s, injector.Settings{Workload: tc.workload})
			if err != nil {
				t.Fatal(err)
			}
			text := string(got.Skip)
			if got.Object != nil {
				text = got.Workload.Ref().String()
			}
			if !strings.HasPrefix(text, tc.want) || got.Forbidden != "" {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestForbiddenWorkload tests that a workload that may not be read is left as it is, and looked at again.
func TestForbiddenWorkload(t *testing.T) {
	resource := schema.GroupResource{Group: "example.com", Resource: "galleries"}
	c := newCluster(t)
	c.scaling.observer.workloads = newGalleries(&galleries{get: apierrors.NewForbidden(resource, "web", nil)}, nil)
	key := types.NamespacedName{Namespace: "apps", Name: "Gallery.example.com/web"}
	c.scaling.remember(key, injector.WorkloadMemory{Exceeded: "noted"})
	result, err := c.scaling.Reconcile(t.Context(), ctrl.Request{NamespacedName: key})
	if err != nil || result != (ctrl.Result{RequeueAfter: injector.KindRetry}) || c.scaling.memory(key).Exceeded != "noted" {
		t.Errorf("%+v, %v; remembers %+v", result, err, c.scaling.memory(key))
	}
	found, err := c.scaling.observer.workloads.find(t.Context(), webService(), injector.Settings{Workload: key.Name})
	if err != nil || found.Forbidden == "" || found.Skip != "" {
		t.Errorf("behind a Service: %+v, %v", found, err)
	}
}

// TestServicesOfScaledObjects tests which Services a ScaledObject concerns: of the workload that it scales, and of the one whose own
// it would be by its name.
func TestServicesOfScaledObjects(t *testing.T) {
	c := manyServices(t)
	for name, tc := range map[string]struct {
		name string
		ref  keda.ScaleTarget
		want string
	}{
		"of the Deployment":            {"cron", keda.ScaleTarget{Kind: "Deployment", Name: "web"}, "apps/named apps/web apps/web2"},
		"without a kind":               {"cron", keda.ScaleTarget{Name: "web"}, "apps/named apps/web apps/web2"},
		"of nothing that there is":     {"cron", keda.ScaleTarget{Name: "none"}, ""},
		"of a StatefulSet of its name": {"cron", keda.ScaleTarget{Kind: "StatefulSet", Name: "web"}, ""},
		"of a custom resource":         {"cron", keda.ScaleTarget{APIVersion: "example.com/v1", Kind: "Gallery", Name: "web"}, ""},
		"by its name alone":            {"web-deployment", keda.ScaleTarget{Name: "none"}, "apps/named apps/web apps/web2"},
		"by half of its name":          {"web-statefulset", keda.ScaleTarget{Name: "none"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			so := &keda.ScaledObject{
				ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: tc.name}, Spec: keda.ScaledObjectSpec{ScaleTargetRef: tc.ref},
			}
			if got := texts(c.requests.servicesOfScaledObject(t.Context(), so)); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// TestKindsThatCannotBeRead tests which failures mean that a kind is not to be used yet, and which are errors.
func TestKindsThatCannotBeRead(t *testing.T) {
	group := schema.GroupResource{Group: injector.GatewayGroup, Resource: "httproutes"}
	for name, tc := range map[string]struct {
		err              error
		readable, failed bool
	}{
		"it can be read":      {nil, true, false},
		"it may not":          {apierrors.NewForbidden(group, "", errors.New("no right")), false, false},
		"it is not ready yet": {apierrors.NewNotFound(group, ""), false, false},
		"it is not known yet": {&meta.NoKindMatchError{GroupKind: schema.GroupKind{Kind: "HTTPRoute"}}, false, false},
		"nobody answers":      {errors.New("connection refused"), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			k, _ := newOptional(&fakeDiscovery{}, &fakeLive{err: tc.err})
			readable, err := k.readable(t.Context(), schema.GroupVersionKind{Group: injector.GatewayGroup, Version: "v1", Kind: "HTTPRoute"})
			if readable != tc.readable || (err != nil) != tc.failed {
				t.Errorf("readable %t, %v", readable, err)
			}
		})
	}
}

// countingScaler answers as an interceptor that has three pending requests, and records what it is asked.
type countingScaler struct {
	pb.UnimplementedExternalScalerServer

	mu    sync.Mutex // protects asked
	asked []string
}

func (s *countingScaler) note(what string, r *pb.ScaledObjectRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, fmt.Sprintf("%s of %s/%s, %s", what, r.GetNamespace(), r.GetName(), r.GetScalerMetadata()[api.MetadataWorkload]))
}

func (s *countingScaler) IsActive(_ context.Context, r *pb.ScaledObjectRef) (*pb.IsActiveResponse, error) {
	s.note("activity", r)
	return &pb.IsActiveResponse{Result: true}, nil
}

func (s *countingScaler) GetMetrics(_ context.Context, r *pb.GetMetricsRequest) (*pb.GetMetricsResponse, error) {
	s.note(r.GetMetricName(), r.GetScaledObjectRef())
	return &pb.GetMetricsResponse{MetricValues: []*pb.MetricValue{
		{MetricName: api.MetricPendingRequests, MetricValue: 3}, {MetricName: api.MetricRequestRate, MetricValue: 2, MetricValueFloat: 2.5},
	}}, nil
}

// TestCountsOfInterceptors tests that the interceptors are asked about the right workload, and that their answer is what counts.
func TestCountsOfInterceptors(t *testing.T) {
	t.Parallel()
	scaler := &countingScaler{}
	port := interceptorWith(t, func(s *grpc.Server) { pb.RegisterExternalScalerServer(s, scaler) })
	c := &scalerClient{address: net.JoinHostPort("127.0.0.1", port)}
	t.Cleanup(func() { _ = c.Close() })
	got, err := c.Count(t.Context(), "shop", api.Workload{APIVersion: "example.com/v1", Kind: "Gallery", Name: "web"})
	if want := (injector.CountAnswer{Known: true, Active: true, Pending: 3, Rate: 2.5}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	const about = " of shop/web, Gallery.example.com/web"
	if got, want := strings.Join(scaler.asked, "; "), "activity"+about+"; "+api.MetricUse+about; got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
}

// TestExtensionsAsFound tests what is found, and kept in the cache, of the objects that make the API server call a Service.
func TestExtensionsAsFound(t *testing.T) {
	webhook := func(services ...any) map[string]any {
		var webhooks []any
		for _, s := range services {
			webhooks = append(webhooks, map[string]any{"clientConfig": s, "rules": []any{}})
		}
		return map[string]any{"webhooks": webhooks}
	}
	service := func(namespace, name string) map[string]any {
		return map[string]any{"service": map[string]any{"namespace": namespace, "name": name}}
	}
	for name, tc := range map[string]struct {
		object map[string]any
		want   []string
	}{
		"nothing":   {map[string]any{}, nil},
		"a webhook": {webhook(service("shop", "web")), []string{"shop/web"}},
		"two and a URL": {
			webhook(service("shop", "web"), map[string]any{"url": "https://x"}, service("a", "b"), service("shop", "web")),
			[]string{"a/b", "shop/web"},
		},
		"half a name":   {webhook(service("", "web"), service("shop", "")), nil},
		"garbage":       {map[string]any{"webhooks": []any{"x", int64(1), nil}, "spec": "y"}, nil},
		"an APIService": {map[string]any{"spec": service("shop", "metrics")}, []string{"shop/metrics"}},
		"a local one":   {map[string]any{"spec": map[string]any{"service": nil}}, nil},
		"a CRD": {
			map[string]any{"spec": map[string]any{"conversion": map[string]any{
				"webhook": map[string]any{"clientConfig": service("shop", "web")},
			}}},
			[]string{"shop/web"},
		},
		"a CRD of no such": {map[string]any{"spec": map[string]any{"conversion": map[string]any{"strategy": "None"}}}, nil},
	} {
		tc.object["apiVersion"], tc.object["kind"] = "v1", "Any"
		tc.object["metadata"] = map[string]any{"name": "x", "resourceVersion": "7", "annotations": map[string]any{"a": "b"}}
		o := &unstructured.Unstructured{Object: tc.object}
		if got := calledServices(o); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
		for range 2 { // the cache may transform an object again
			kept, err := calledOnly(o)
			if err != nil {
				t.Fatal(err)
			}
			o = kept.(*unstructured.Unstructured)
			if got := calledServices(o); !slices.Equal(got, tc.want) || o.GetResourceVersion() != "7" || o.GetAnnotations() != nil {
				t.Errorf("%s: kept %v: %v", name, got, o)
			}
		}
		if got := servicesOfExtension(t.Context(), o); len(got) != len(tc.want) {
			t.Errorf("%s: reconciles %v", name, got)
		}
	}
	if got := calledServices(&corev1.Service{}); got != nil {
		t.Errorf("of a Service: %v", got)
	}
}

// TestPodsAsOwned tests by which pods a custom resource is known to be behind a Service.
func TestPodsAsOwned(t *testing.T) {
	gallery := injector.Workload{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-gallery"}, APIVersion: "example.com/v1", Kind: "Gallery",
		Resource: "galleries",
	}
	owner := func(version, kind, name string, uid types.UID) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: version, Kind: kind, Name: name, UID: uid, Controller: new(true)}}
	}
	of := func(o client.Object, uid types.UID) client.Object {
		o.SetNamespace("shop")
		o.SetOwnerReferences(owner("example.com/v1", "Gallery", "web", uid))
		return o
	}
	pod := func(owners []metav1.OwnerReference, labels map[string]string) client.Object {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1", Labels: labels, OwnerReferences: owners}}
	}
	web, db := map[string]string{"app": "web"}, map[string]string{"app": "db"}
	set, dep := metav1.ObjectMeta{Name: "set"}, metav1.ObjectMeta{Name: "dep"}
	hashed := map[string]string{"app": "web", "pod-template-hash": "abc"}
	for name, tc := range map[string]struct {
		objects []client.Object
		want    bool
	}{
		"no pod":                {nil, false},
		"its own":               {[]client.Object{pod(owner("example.com/v1", "Gallery", "web", "uid-gallery"), web)}, true},
		"another's":             {[]client.Object{pod(owner("example.com/v1", "Gallery", "web", "uid-other"), web)}, false},
		"nobody's":              {[]client.Object{pod(nil, web)}, false},
		"one that is unselect.": {[]client.Object{pod(owner("example.com/v1", "Gallery", "web", "uid-gallery"), db)}, false},
		"its StatefulSet's": {[]client.Object{
			pod(owner("apps/v1", "StatefulSet", "set", "1"), web),
			of(&appsv1.StatefulSet{ObjectMeta: set}, "uid-gallery"),
		}, true},
		"another's StatefulSet's": {[]client.Object{
			pod(owner("apps/v1", "StatefulSet", "set", "1"), web), of(&appsv1.StatefulSet{ObjectMeta: set}, "uid-other"),
		}, false},
		"its Deployment's": {[]client.Object{
			pod(owner("apps/v1", "ReplicaSet", "dep-abc", "1"), hashed), of(&appsv1.Deployment{ObjectMeta: dep}, "uid-gallery"),
		}, true},
		"a lost Deployment's": {[]client.Object{pod(owner("apps/v1", "ReplicaSet", "dep-abc", "1"), hashed)}, false},
		"another group's": {[]client.Object{
			pod(owner("example.com/v1", "StatefulSet", "set", "1"), web), of(&appsv1.StatefulSet{ObjectMeta: set}, "uid-gallery"),
		}, false},
	} {
		c := newCluster(t, tc.objects...)
		ws := c.services.observer.workloads
		ws.live = c
		got, err := ws.owns(t.Context(), webService(func(s *corev1.Service) { s.Namespace = "shop"; s.Spec.Selector = web }), gallery)
		if err != nil || got != tc.want {
			t.Errorf("%s: got %t, %v", name, got, err)
		}
	}
}
