// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// app is one app in a namespace of its own, with the objects that the controller-manager would make.
type app struct {
	t  *testing.T
	ns string
}

// newApp makes a namespace with Deployment and Service web. The Service is not labelled.
func newApp(t *testing.T, replicas int32) *app {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "app-"}}
	create(t, ns)
	a := &app{t: t, ns: ns.Name}
	t.Cleanup(a.remove)
	create(t, a.deployment("web", replicas))
	create(t, a.service())
	a.ready(replicas)
	a.nativeSlice(true)
	return a
}

// remove leaves nothing that the next test's controllers would have to restore. There is no garbage collector here.
func (a *app) remove() {
	for _, o := range []client.Object{
		&networkingv1.Ingress{}, &corev1.Service{}, &discoveryv1.EndpointSlice{}, &keda.ScaledObject{}, &appsv1.Deployment{},
		&appsv1.StatefulSet{}, &rbacv1.Role{}, &rbacv1.RoleBinding{},
	} {
		if err := kube.DeleteAllOf(context.Background(), o, client.InNamespace(a.ns)); client.IgnoreNotFound(err) != nil &&
			!meta.IsNoMatchError(err) {
			a.t.Error(err)
		}
	}
}

func create(t *testing.T, o client.Object) {
	t.Helper()
	if err := kube.Create(t.Context(), o); err != nil {
		t.Fatalf("creating %T %s: %v", o, o.GetName(), err)
	}
}

func (a *app) deployment(name string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": "web"}
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web"}}},
			},
		},
	}
}

func (a *app) service() *corev1.Service {
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "web", Labels: map[string]string{"app": "web"}},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080), Protocol: corev1.ProtocolTCP}},
		},
	}
}

// ready writes the status of Deployment web, as its controller would.
func (a *app) ready(n int32) {
	a.t.Helper()
	d := &appsv1.Deployment{}
	a.get("web", d)
	before := client.MergeFrom(d.DeepCopy())
	d.Status.Replicas, d.Status.ReadyReplicas, d.Status.AvailableReplicas = n, n, n
	if err := kube.Status().Patch(a.t.Context(), d, before); err != nil {
		a.t.Fatal(err)
	}
}

// nativeSlice writes the Service's own EndpointSlice, as its controller would: with a ready pod or with none.
func (a *app) nativeSlice(ready bool) {
	a.t.Helper()
	a.slice("web-native", "web", map[string]string{}, ready)
}

// directSlice writes the EndpointSlice of the direct Service.
func (a *app) directSlice(ready bool) {
	a.t.Helper()
	var direct corev1.Service
	a.get("web-direct", &direct)
	a.slice("web-direct-native", "web-direct", direct.Labels, ready)
}

func (a *app) slice(name, service string, labels map[string]string, ready bool) {
	a.t.Helper()
	labels[discoveryv1.LabelServiceName], labels[discoveryv1.LabelManagedBy] = service, "endpointslice-controller.k8s.io"
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: name, Labels: labels}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)}},
	}
	if ready {
		s.Endpoints = []discoveryv1.Endpoint{{
			Addresses: []string{"198.18.0.9"}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: a.ns, Name: "web-1"},
		}}
	}
	err := kube.Create(a.t.Context(), s)
	if apierrors.IsAlreadyExists(err) {
		have := &discoveryv1.EndpointSlice{}
		a.get(name, have)
		have.Endpoints, have.Labels = s.Endpoints, labels
		err = kube.Update(a.t.Context(), have)
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

func (a *app) get(name string, o client.Object) {
	a.t.Helper()
	if err := kube.Get(a.t.Context(), client.ObjectKey{Namespace: a.ns, Name: name}, o); err != nil {
		a.t.Fatalf("getting %T %s: %v", o, name, err)
	}
}

func (a *app) gone(name string, o client.Object) error {
	err := kube.Get(a.t.Context(), client.ObjectKey{Namespace: a.ns, Name: name}, o)
	if err == nil {
		return fmt.Errorf("%T %s is there", o, name)
	}
	return client.IgnoreNotFound(err)
}

// patch merges into the Service, as `kubectl label` and `kubectl annotate` do.
func (a *app) patch(patch string) error {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "web"}}
	return kube.Patch(a.t.Context(), s, client.RawPatch("application/merge-patch+json", []byte(patch)), client.FieldOwner("kubectl-label"))
}

func (a *app) label(value string) {
	a.t.Helper()
	if err := a.patch(fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, injector.OptInLabel, value)); err != nil {
		a.t.Fatal(err)
	}
}

func (a *app) live() *corev1.Service {
	a.t.Helper()
	s := &corev1.Service{}
	a.get("web", s)
	return s
}

func (a *app) intercepted() error {
	if s := a.live(); !injector.Intercepted(s) {
		return fmt.Errorf("selector %v, annotations %v; events:\n%s", s.Spec.Selector, s.Annotations, events(a.t, a.ns, "Service", "web"))
	}
	return nil
}

// injected labels the Service and plays the endpoint slice controller until the Service is injected.
func (a *app) injected() {
	a.t.Helper()
	a.label(`"true"`)
	a.followInjection()
	eventually(a.t, "the ScaledObject is made", a.scaled)
}

// followInjection plays the endpoint slice controller until the Service is injected.
func (a *app) followInjection() {
	a.t.Helper()
	a.directMade()
	eventually(a.t, "the Service is intercepted", a.intercepted)
	a.nativeSlice(false) // the sentinel does that
}

// directMade waits for the direct Service and lists a pod behind it.
func (a *app) directMade() {
	a.t.Helper()
	eventually(a.t, "the direct Service is made", func() error {
		return kube.Get(a.t.Context(), client.ObjectKey{Namespace: a.ns, Name: "web-direct"}, &corev1.Service{})
	})
	a.directSlice(true)
}

// scaled reports why the workload has no ScaledObject of ours.
func (a *app) scaled() error {
	return kube.Get(a.t.Context(), client.ObjectKey{Namespace: a.ns, Name: "web-deployment"}, &keda.ScaledObject{})
}

// told waits for an event with that text on an object.
func (a *app) told(kind, name, text string) {
	a.t.Helper()
	eventually(a.t, "the event is there: "+text, func() error {
		if got := events(a.t, a.ns, kind, name); !strings.Contains(got, text) {
			return fmt.Errorf("events: %q", got)
		}
		return nil
	})
}

// scale writes the replica count as KEDA does.
func (a *app) scale(n int32) {
	a.t.Helper()
	a.scaleAs("keda", n)
}

// scaleAs writes the replica count through the scale subresource, as a field manager.
func (a *app) scaleAs(manager string, n int32) {
	a.t.Helper()
	d := &appsv1.Deployment{}
	a.get("web", d)
	s := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: n}}
	if err := kube.SubResource("scale").Update(a.t.Context(), d, client.WithSubResourceBody(s), client.FieldOwner(manager)); err != nil {
		a.t.Fatal(err)
	}
}

func (a *app) replicas() int32 {
	a.t.Helper()
	d := &appsv1.Deployment{}
	a.get("web", d)
	return *d.Spec.Replicas
}

// scaledSeen scales, and waits until the controllers have seen it: they disown what a scaler has written.
func (a *app) scaledSeen(n int32) {
	a.t.Helper()
	a.scale(n)
	eventually(a.t, "the scaling is seen", func() error {
		d := &appsv1.Deployment{}
		a.get("web", d)
		for _, m := range d.ManagedFields {
			if m.Subresource == "scale" {
				return fmt.Errorf("%s has written it", m.Manager)
			}
		}
		return nil
	})
}

// has waits until the workload has that many replicas.
func (a *app) has(want int32) {
	a.t.Helper()
	eventually(a.t, fmt.Sprintf("it has %d replicas", want), func() error {
		if n := a.replicas(); n != want {
			return fmt.Errorf("it has %d", n)
		}
		return nil
	})
}

func (a *app) routeSlice() (*discoveryv1.EndpointSlice, api.Routes) {
	a.t.Helper()
	s := &discoveryv1.EndpointSlice{}
	a.get("web-scale-to-zero-ipv4", s)
	routes, err := api.DecodeRoutes(s.Annotations[api.RoutesAnnotation])
	if err != nil {
		a.t.Fatal(err)
	}
	return s, routes
}

// listInterceptors writes the slice of the interceptors' own Service, and removes that of its other IP family.
func listInterceptors(t *testing.T, addresses ...string) {
	t.Helper()
	listFamily(t, discoveryv1.AddressTypeIPv6)
	listFamily(t, discoveryv1.AddressTypeIPv4, addresses...)
}

// listFamily writes the interceptors' slice of one IP family.
func listFamily(t *testing.T, family discoveryv1.AddressType, addresses ...string) {
	t.Helper()
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: ours, Name: "interceptors-" + strings.ToLower(string(family)), Labels: map[string]string{
			discoveryv1.LabelServiceName: "interceptors", api.RoleLabel: api.RoleInterceptor,
		}},
		AddressType: family,
	}
	for _, address := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
		})
	}
	if err := client.IgnoreNotFound(kube.Delete(context.Background(), s.DeepCopy())); err != nil {
		t.Fatal(err)
	}
	create(t, s)
}
