// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// texts returns requests as namespace/name, sorted.
func texts(requests []reconcile.Request) string {
	var out []string
	for _, r := range requests {
		out = append(out, r.String())
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " ")
}

func serviceNamed(name string, selector map[string]string, change ...func(*corev1.Service)) *corev1.Service {
	return webService(append([]func(*corev1.Service){func(s *corev1.Service) { s.Name, s.Spec.Selector, s.Labels = name, selector, nil }},
		change...)...)
}

// manyServices returns a namespace in which each object concerns only some Services.
func manyServices(t *testing.T) *cluster {
	t.Helper()
	web := map[string]string{"app": "web"}
	c := newCluster(t, webDeployment(1), webService(), webIngress(),
		serviceNamed("web2", map[string]string{"app": "web", "tier": "front"}), serviceNamed("api", map[string]string{"app": "api"}),
		serviceNamed("named", nil, func(s *corev1.Service) { s.Annotations = map[string]string{workloadIs: "Deployment/web"} }),
		serviceNamed("ours", web, func(s *corev1.Service) { s.Labels = map[string]string{injector.ManagedByLabel: injector.ManagedBy} }),
	)
	c.injected()
	return c
}

func (c *cluster) optInNamespace() {
	c.t.Helper()
	namespace := &corev1.Namespace{}
	if err := c.Get(c.t.Context(), client.ObjectKey{Name: "apps"}, namespace); err != nil {
		c.t.Fatal(err)
	}
	namespace.Labels = map[string]string{injector.OptInLabel: "true"}
	c.update(namespace)
}

func TestServiceRequests(t *testing.T) {
	c := manyServices(t)
	r, ctx := c.requests, t.Context()
	route := &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"namespace": "apps", "name": "route"},
		"spec":     map[string]any{"rules": []any{map[string]any{"backendRefs": []any{map[string]any{"name": "web", "port": int64(80)}}}}},
	}}
	hpa := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "mine"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
		},
	}
	so := func(name, of string) *keda.ScaledObject {
		return &keda.ScaledObject{
			ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name},
			Spec:       keda.ScaledObjectSpec{ScaleTargetRef: keda.ScaleTarget{Name: of}},
		}
	}
	other := webDeployment(1)
	other.Name, other.Spec.Template.Labels = "other", map[string]string{"app": "other"}
	own := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: "controller"}}
	interceptors := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: "interceptors"}}
	byIngress := webIngress()
	byIngress.Name, byIngress.Annotations = "named", map[string]string{workloadIs: "Gallery.example.com/web"}
	c.create(byIngress)
	gallery := &metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{APIVersion: "example.com/v1", Kind: "Gallery"}, ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "web"},
	}
	for name, tc := range map[string]struct {
		got  func() []reconcile.Request
		want string
	}{
		"a route slice":    {func() []reconcile.Request { return r.servicesOfSlice(ctx, c.routeSlice()) }, "apps/web"},
		"the interceptors": {func() []reconcile.Request { return r.servicesOfSlice(ctx, interceptorSlice()) }, "apps/web"},
		"an Ingress":       {func() []reconcile.Request { return r.servicesOfIngress(ctx, webIngress()) }, "apps/web"},
		"not an Ingress":   {func() []reconcile.Request { return r.servicesOfIngress(ctx, own) }, ""},
		"a route":          {func() []reconcile.Request { return r.servicesOfRoute(ctx, route) }, "apps/web"},
		"not a route":      {func() []reconcile.Request { return r.servicesOfRoute(ctx, own) }, ""},
		"a Service":        {func() []reconcile.Request { return r.servicesBeside(ctx, c.service()) }, ""},
		"a Namespace": {func() []reconcile.Request {
			return r.servicesOfNamespace(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "apps"}})
		}, "apps/api apps/named apps/ours apps/web apps/web-direct apps/web2"},
		"a workload": {
			func() []reconcile.Request { return r.servicesOfWorkload(ctx, c.deployment()) },
			"apps/named apps/web apps/web2",
		},
		"a workload of nobody":  {func() []reconcile.Request { return r.servicesOfWorkload(ctx, other) }, ""},
		"a custom resource":     {func() []reconcile.Request { return r.servicesOfWorkload(ctx, gallery) }, "apps/web"},
		"our own Deployment":    {func() []reconcile.Request { return r.servicesOfWorkload(ctx, own) }, "apps/web"},
		"the interceptors' own": {func() []reconcile.Request { return r.servicesOfWorkload(ctx, interceptors) }, ""},
		"a policy of ingress":   {func() []reconcile.Request { return r.servicesOfPolicy(ctx, policyOf("Ingress", "others")) }, ""},
		"one beside":            {func() []reconcile.Request { return r.servicesOfPolicy(ctx, policyOf("Ingress", "apps")) }, "apps/web"},
		"a policy of egress":    {func() []reconcile.Request { return r.servicesOfPolicy(ctx, policyOf("Egress", "others")) }, "apps/web"},
		"an HPA":                {func() []reconcile.Request { return r.servicesOfHPA(ctx, hpa) }, "apps/named apps/web apps/web2"},
		"not an HPA":            {func() []reconcile.Request { return r.servicesOfHPA(ctx, own) }, ""},
		"a ScaledObject": {
			func() []reconcile.Request { return r.servicesOfScaledObject(ctx, so("mine", "web")) },
			"apps/named apps/web apps/web2",
		},
		"one with the name of ours": {
			func() []reconcile.Request { return r.servicesOfScaledObject(ctx, so("web-deployment", "other")) },
			"apps/named apps/web apps/web2",
		},
		"one of nobody": {func() []reconcile.Request { return r.servicesOfScaledObject(ctx, so("mine", "other")) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := texts(tc.got()); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
	c.optInNamespace()
	for name, got := range map[string][]reconcile.Request{
		"an Ingress": r.servicesOfIngress(ctx, webIngress()), "a route": r.servicesOfRoute(ctx, route), "a Service": r.servicesBeside(ctx,
			c.service()),
	} {
		if texts(got) != "apps/web apps/web2" {
			t.Errorf("%s of an opted-in Namespace: %s", name, texts(got))
		}
	}
	if got := r.servicesBeside(ctx, own); got != nil {
		t.Errorf("what is no Service: %v", got)
	}
}

func TestWorkloadRequests(t *testing.T) {
	c := manyServices(t)
	r, ctx := c.requests, t.Context()
	direct := get(c, "web-direct-native", &discoveryv1.EndpointSlice{})
	const web = "apps/Deployment/web"
	for name, tc := range map[string]struct {
		got  []reconcile.Request
		want string
	}{
		"itself":              {itself(ctx, c.deployment()), web},
		"a route slice":       {r.workloadsOfSlice(ctx, c.routeSlice()), web},
		"another slice":       {r.workloadsOfSlice(ctx, interceptorSlice()), ""},
		"a direct slice":      {r.workloadsOfSlice(ctx, direct), ""},
		"a Service":           {r.workloadsOfService(ctx, c.service()), web},
		"an Ingress":          {r.workloadsOfIngress(ctx, webIngress()), web},
		"a Service of nobody": {r.workloadsOfService(ctx, serviceNamed("api", nil)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := texts(tc.got); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
	s := c.service()
	s.Spec.PublishNotReadyAddresses = true
	c.update(s)
	if got := texts(r.workloadsOfSlice(ctx, direct)); got != web {
		t.Errorf("a direct slice of pods that take requests before they are ready: %s", got)
	}
}

// TestRequestsWithoutCache tests that failed reads only omit requests.
func TestRequestsWithoutCache(t *testing.T) {
	c := manyServices(t)
	c.refuses = func(string, runtime.Object) error { return errors.New("no cache") }
	r, ctx := c.requests, t.Context()
	for name, got := range map[string][]reconcile.Request{
		"interceptors": r.servicesOfSlice(ctx, interceptorSlice()), "Namespace": r.servicesOfNamespace(ctx, &corev1.Namespace{}),
		"workload": r.servicesOfWorkload(ctx, webDeployment(1)), "Service": r.workloadsOfService(ctx, webService()),
		"HPA": r.servicesOfHPA(ctx, &autoscalingv2.HorizontalPodAutoscaler{Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "web"},
		}}),
	} {
		if len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := r.selecting(ctx, webService()); len(got) > 0 {
		t.Errorf("%v", got)
	}
	if got := texts(r.servicesOfIngress(ctx, webIngress())); got != "apps/web" {
		t.Errorf("an Ingress: %s", got)
	}
}

// TestPredicates tests that a changed replica count reaches no Service.
func TestPredicates(t *testing.T) {
	update := func(p predicate.Predicate, old, now client.Object) bool {
		return p.Update(event.UpdateEvent{ObjectOld: old, ObjectNew: now})
	}
	deployment := func(change func(*appsv1.Deployment)) *appsv1.Deployment {
		d := webDeployment(1)
		change(d)
		return d
	}
	for name, tc := range map[string]struct {
		change func(*appsv1.Deployment)
		want   bool
	}{
		"replicas":    {func(d *appsv1.Deployment) { d.Generation, d.Spec.Replicas = 2, new(int32(0)) }, false},
		"status":      {func(d *appsv1.Deployment) { d.Status.ReadyReplicas = 0 }, false},
		"pod labels":  {func(d *appsv1.Deployment) { d.Spec.Template.Labels = map[string]string{"app": "api"} }, true},
		"annotations": {func(d *appsv1.Deployment) { d.Annotations = map[string]string{"a": "b"} }, true},
		"deletion":    {func(d *appsv1.Deployment) { d.DeletionTimestamp = &metav1.Time{Time: d.CreationTimestamp.Add(1)} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := update(relabelled(), webDeployment(1), deployment(tc.change)); got != tc.want {
				t.Errorf("passes: %t", got)
			}
		})
	}
	if !relabelled().Create(event.CreateEvent{Object: webDeployment(1)}) || !relabelled().Delete(event.DeleteEvent{Object: webDeployment(1)}) {
		t.Error("a workload that comes or goes does not pass")
	}
	services := reselected()
	for name, tc := range map[string]struct {
		now  *corev1.Service
		want bool
	}{
		"nothing":  {webService(), false},
		"type":     {webService(func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }), true},
		"selector": {webService(func(s *corev1.Service) { s.Spec.Selector["a"] = "b" }), true},
		"sentinel": {webService(func(s *corev1.Service) { s.Spec.Selector[injector.SentinelKey] = injector.SentinelValue }), false},
		"opt-out":  {webService(func(s *corev1.Service) { s.Labels[injector.OptInLabel] = "false" }), true},
		"ours": {webService(func(s *corev1.Service) {
			s.Labels[injector.ManagedByLabel], s.Spec.Type = injector.ManagedBy, corev1.ServiceTypeNodePort
		}), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := update(services, webService(), tc.now); got != tc.want {
				t.Errorf("passes: %t", got)
			}
		})
	}
	if services.Create(event.CreateEvent{Object: webService(), IsInInitialList: true}) ||
		!services.Create(event.CreateEvent{Object: webService()}) {
		t.Error("Services that were there pass, or new ones do not")
	}
	hpa := &autoscalingv2.HorizontalPodAutoscaler{}
	retarget := hpa.DeepCopy()
	retarget.Spec.ScaleTargetRef.Name = "web"
	if update(retargeted(), hpa, hpa.DeepCopy()) || !update(retargeted(), hpa, retarget) {
		t.Error("an HPA's status passes, or its new target does not")
	}
}

// TestIndexes tests the values under which objects are found.
func TestIndexes(t *testing.T) {
	ingress := webIngress()
	ingress.Annotations = map[string]string{injector.AliasesAnnotation: "web=web-scale-to-zero"}
	ingress.Spec.DefaultBackend.Service.Name = "web-scale-to-zero"
	slice := sliceLikeOurs("apps", "web", "u", "")
	forged := slice.DeepCopy()
	forged.OwnerReferences = nil
	broken := slice.DeepCopy()
	broken.Annotations = map[string]string{api.RoutesAnnotation: "{"}
	for name, tc := range map[string]struct {
		got, want []string
	}{
		"an Ingress": {ingressBackends(ingress), []string{"web", "web-scale-to-zero"}},
		"a Service's selector": {pairs(selectorOf(webService(func(s *corev1.Service) { s.Spec.Selector["a"] = "b" }))), []string{
			"a=b",
			"app=web",
		}},
		"our Service's selector": {pairs(selectorOf(serviceNamed("x", map[string]string{"a": "b"},
			func(s *corev1.Service) { s.Labels = map[string]string{injector.ManagedByLabel: injector.ManagedBy} }))), []string{}},
		"what is no Service": {pairs(selectorOf(ingress)), []string{}},
		"a release": {
			serviceRelease(serviceNamed("x", nil, func(s *corev1.Service) { s.Labels = map[string]string{"release": "r"} })), []string{"r"},
		},
		"no release":          {serviceRelease(webService()), nil},
		"no release at all":   {serviceRelease(ingress), nil},
		"a workload":          {podLabels(webDeployment(1)), []string{"app=web"}},
		"what is no workload": {podLabels(ingress), []string{}},
		"an HPA of nothing":   {hpaTarget(ingress), nil},
		"a ScaledObject": {
			scaledObjectTarget(&keda.ScaledObject{Spec: keda.ScaledObjectSpec{ScaleTargetRef: keda.ScaleTarget{Name: "web"}}}),
			[]string{"Deployment/web"},
		},
		"a ScaledObject of nothing": {scaledObjectTarget(ingress), nil},
		"a slice":                   {sliceService(slice), []string{"route/web"}},
		"somebody's slice":          {sliceService(forged), nil},
		"a slice without routes":    {routedWorkload(broken), nil},
		"a slice without ports":     {routedPorts(broken), []string{}},
		"an annotation":             {annotation(ingress, injector.AliasesAnnotation), []string{"web=web-scale-to-zero"}},
		"no annotation":             {annotation(ingress, "other"), nil},
		"no Ingress":                {ingressBackends(slice), nil},
		"no route":                  {routeBackends(slice), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, tc.got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// failingIndexer cannot index.
type failingIndexer struct{ client.FieldIndexer }

func (failingIndexer) IndexField(context.Context, client.Object, string, client.IndexerFunc) error {
	return errors.New("no cache")
}

func TestAddIndexes(t *testing.T) {
	if err := addIndexes(t.Context(), failingIndexer{}, indexes()...); err == nil || !strings.Contains(err.Error(),
		"indexing *v1.Ingress by scale-to-zero.backend") {
		t.Errorf("%v", err)
	}
}

// TestReadsByIndex tests that reconciling a Service does not read the many other Services of its namespace. The client counts the
// objects that it returns.
func TestReadsByIndex(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	for i := range 30 {
		name := "other-" + string(rune('a'+i%26)) + string(rune('a'+i/26))
		d := webDeployment(1)
		d.Name, d.Spec.Template.Labels = name, map[string]string{"app": name}
		c.create(d)
		c.create(serviceNamed(name, map[string]string{"app": name}))
		ingress := webIngress()
		ingress.Name, ingress.Spec.DefaultBackend.Service.Name = name, name
		c.create(ingress)
	}
	c.injected()
	reader := &countingReader{Reader: c}
	c.services.observer.client, c.services.observer.workloads.client, c.scaling.observer.client = reader, reader, reader
	c.both(1)
	if reader.returned > 20 {
		t.Errorf("one reconcile of each read %d objects by lists: %v", reader.returned, reader.lists)
	}
}

// countingReader counts the objects that lists return.
type countingReader struct {
	client.Reader

	returned int
	lists    map[string]int
}

func (r *countingReader) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	err := r.Reader.List(ctx, list, opts...)
	n := 0
	switch l := list.(type) {
	case *corev1.ServiceList:
		n = len(l.Items)
	case *networkingv1.IngressList:
		n = len(l.Items)
	case *appsv1.DeploymentList:
		n = len(l.Items)
	case *discoveryv1.EndpointSliceList:
		n = len(l.Items)
	}
	r.returned += n
	return err
}

// policyOf is a NetworkPolicy of a type.
func policyOf(policyType networkingv1.PolicyType, namespace string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "p"},
		Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{policyType}},
	}
}
