// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/scale"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// cluster fakes an API server: a client that keeps objects, with admission and a scale subresource. Interceptors listen as the test
// says.
type cluster struct {
	client.WithWatch

	t        *testing.T
	now      time.Time
	services *serviceReconciler
	scaling  *workloadReconciler
	requests *requests
	natives  *natives
	counts   *fakeCounts
	learned  *learned
	keda     kedaState

	noAdmission bool
	deaf        bool
	reach       []injector.PortReach
	reachErr    error
	ownsErr     error
	// robbed and deafAt are interceptors that do not have the routes' ports: another Service has them, or nobody.
	robbed, deafAt string
	refuses        func(verb string, o runtime.Object) error
	uids           int
	// failAt counts down to the call that fails. failed is set once a call has failed.
	failAt int
	failed string
}

// fakeCounts return what the test sets.
type fakeCounts struct {
	active  bool
	pending int64
	rate    float64
	use     injector.Use
	err     error
}

func (c *fakeCounts) Count(context.Context, string, api.Workload) (injector.CountAnswer, error) {
	if c.err != nil {
		return injector.CountAnswer{}, c.err
	}
	return injector.CountAnswer{Known: true, Active: c.active, Pending: c.pending, Rate: c.rate}, nil
}

func (c *fakeCounts) Use(context.Context, string, api.Workload) (injector.Use, error) {
	return c.use, c.err
}

// noRoutes is a cluster without the Gateway API.
type noRoutes struct{}

func (noRoutes) routesTo(context.Context, string, ...string) ([]injector.GatewayRoute, error) {
	return nil, nil
}

// testScheme has only the groups that the controllers use: the fake client makes a mapper of all kinds for each write.
func testScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, autoscalingv2.AddToScheme, coordinationv1.AddToScheme, discoveryv1.AddToScheme,
		networkingv1.AddToScheme, rbacv1.AddToScheme, keda.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return scheme
}

// newCluster returns a cluster with namespace apps, two interceptors that listen, KEDA and these objects.
func newCluster(t *testing.T, objects ...client.Object) *cluster {
	t.Helper()
	c := &cluster{t: t, now: time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC), counts: &fakeCounts{use: injector.Use{
		Idle:    time.Hour,
		Counted: time.Hour,
	}}}
	c.keda.install(&injector.Scaler{Address: "interceptors:9090"})
	builder := fake.NewClientBuilder().WithScheme(testScheme(t)).WithStatusSubresource(&appsv1.Deployment{}).WithReturnManagedFields().
		WithTypeConverters(managedfields.NewDeducedTypeConverter())
	for _, i := range append(indexes(), index{&keda.ScaledObject{}, byTarget, scaledObjectTarget}) {
		builder = builder.WithIndex(i.object, i.field, i.values)
	}
	builder = builder.WithIndex(&corev1.Event{}, "involvedObject.uid",
		func(o client.Object) []string { return []string{string(o.(*corev1.Event).InvolvedObject.UID)} }).
		WithIndex(&corev1.Event{}, "reason", func(o client.Object) []string { return []string{o.(*corev1.Event).Reason} })
	c.WithWatch = builder.WithInterceptorFuncs(c.funcs()).Build()
	for _, o := range append([]client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "apps"}}, interceptorSlice("198.18.0.2", "198.18.0.3"),
		&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: "interceptors"},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "interceptor"}},
		},
	}, objects...) {
		c.create(o.DeepCopyObject().(client.Object))
	}
	c.assemble()
	return c
}

// assemble makes the reconcilers, as Add does.
func (c *cluster) assemble() {
	o := Options{
		Namespace: "ours", InterceptorService: "interceptors", ScalerAddress: "interceptors:9090", Deployment: "controller", Counts: c.counts,
		StartupCPU: true,
		Now: func() time.Time {
			c.now = c.now.Add(time.Microsecond) // so that events have different names
			return c.now
		},
		Dial: func(_ context.Context, address string) error {
			if host, _, _ := net.SplitHostPort(address); c.deaf || host == c.deafAt {
				return errors.New("connection refused")
			}
			return nil
		},
		Owns: func(_ context.Context, at string, _ types.NamespacedName, routes api.Routes) (map[string]bool, error) {
			owned := map[string]bool{}
			for _, p := range routes.Ports {
				owned[p.Name] = at != c.robbed
			}
			return owned, c.ownsErr
		},
		Reach: func(context.Context, string, types.NamespacedName) ([]injector.PortReach, error) {
			return c.reach, c.reachErr
		},
	}
	o.setDefaults()
	events := newRecorder(c, o.Now)
	writes := writer{c, c, events}
	ws := &workloadClient{client: c, mapper: c.RESTMapper(), scales: scales{c}, watchKind: func(schema.GroupVersionKind) error { return nil }}
	ctx, stop := context.WithCancel(c.t.Context())
	c.natives = newNatives(ctx, c)
	c.t.Cleanup(func() {
		stop()
		c.natives.end()
	})
	c.learned = newLearned(nil, c)
	c.services = &serviceReconciler{
		client: writes, events: events, now: o.Now, retries: newRetries(), memories: map[types.NamespacedName]injector.Memory{},
		observer: &serviceObserver{
			Options: o, client: c, workloads: ws, keda: &c.keda, routes: noRoutes{}, natives: c.natives, learned: c.learned,
			extensions: noExtensions{}, ports: &portBook{client: c, low: o.PortLow, high: o.PortHigh},
		},
	}
	c.scaling = &workloadReconciler{
		client: writes, events: events, now: o.Now, retries: newRetries(), memories: map[types.NamespacedName]injector.WorkloadMemory{},
		observer: &workloadObserver{Options: o, client: c, live: c, workloads: ws, keda: &c.keda, learned: c.learned},
	}
	c.requests = &requests{client: c, namespace: "ours", deployment: "controller", workloads: ws}
}

// fail returns an error if this call has to fail.
func (c *cluster) fail(verb string, o runtime.Object) error {
	if _, event := o.(*corev1.Event); event && verb == "create" {
		return nil // a failure is only logged
	}
	if c.refuses != nil {
		if err := c.refuses(verb, o); err != nil {
			return err
		}
	}
	if c.failAt == 0 {
		return nil
	}
	if c.failAt--; c.failAt > 0 {
		return nil
	}
	c.failed = fmt.Sprintf("%s %T", verb, o)
	return errors.New("the API server is away: " + c.failed)
}

func (c *cluster) funcs() interceptor.Funcs {
	return interceptor.Funcs{
		Get: func(ctx context.Context, in client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if err := c.fail("get", o); err != nil {
				return err
			}
			return in.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, in client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if err := c.fail("list", list); err != nil {
				return err
			}
			return in.List(ctx, list, opts...)
		},
		Create: func(ctx context.Context, in client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if err := c.fail("create", o); err != nil {
				return err
			}
			if c.uids++; o.GetUID() == "" {
				o.SetUID(types.UID(fmt.Sprint("uid-", c.uids)))
			}
			if at := o.GetCreationTimestamp(); at.IsZero() {
				o.SetCreationTimestamp(metav1.NewTime(c.now))
			}
			return in.Create(ctx, o, opts...)
		},
		Update: func(ctx context.Context, in client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			if err := c.fail("update", o); err != nil {
				return err
			}
			have := o.DeepCopyObject().(client.Object)
			if err := in.Get(ctx, client.ObjectKeyFromObject(o), have); err == nil { // the API server keeps these fields
				o.SetCreationTimestamp(have.GetCreationTimestamp())
				o.SetUID(have.GetUID())
			}
			return in.Update(ctx, o, opts...)
		},
		Delete: func(ctx context.Context, in client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			if err := c.fail("delete", o); err != nil {
				return err
			}
			return in.Delete(ctx, o, opts...)
		},
		Patch: func(ctx context.Context, in client.WithWatch, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
			if err := c.fail("patch", o); err != nil {
				return err
			}
			return c.patch(ctx, in, o, patch, opts...)
		},
		// A Deployment and its Scale have the count in the same place. So have a pod and its resize the limits.
		SubResourcePatch: func(ctx context.Context, _ client.Client, subResource string, o client.Object, patch client.Patch,
			_ ...client.SubResourcePatchOption,
		) error {
			if subResource == "resize" {
				if err := c.fail(subResource, o); err != nil {
					return err
				}
			}
			return c.Patch(ctx, o, patch)
		},
		// The client's watch ignores labels.
		Watch: func(ctx context.Context, in client.WithWatch, list client.ObjectList, opts ...client.ListOption) (watch.Interface, error) {
			if err := c.fail("watch", list); err != nil {
				return nil, err
			}
			w, err := in.Watch(ctx, list, opts...)
			if err != nil {
				return nil, err
			}
			options := (&client.ListOptions{}).ApplyOptions(opts)
			return watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
				a, err := meta.Accessor(e.Object)
				return e, err != nil || options.LabelSelector.Matches(labelSet(a.GetLabels()))
			}), nil
		},
	}
}

type labelSet map[string]string

func (s labelSet) Has(key string) bool   { _, ok := s[key]; return ok }
func (s labelSet) Get(key string) string { return s[key] }
func (s labelSet) Lookup(key string) (string, bool) {
	value, ok := s[key]
	return value, ok
}

// patch applies a patch through admission.
func (c *cluster) patch(ctx context.Context, in client.WithWatch, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
	before := o.DeepCopyObject().(client.Object)
	_ = in.Get(ctx, client.ObjectKeyFromObject(o), before)
	if err := in.Patch(ctx, o, patch, opts...); err != nil || c.noAdmission {
		return err
	}
	var err error
	switch o := o.(type) {
	case *corev1.Service:
		err = injector.Admit(o, before.(*corev1.Service), true)
	case *networkingv1.Ingress:
		err = injector.AdmitIngress(o, before.(*networkingv1.Ingress), true)
	case *keda.ScaledObject:
		injector.AdmitScaledObject(o, before.(*keda.ScaledObject), true)
	default:
		return nil
	}
	return errors.Join(err, in.Update(ctx, o))
}

// scales is the scale subresource of Deployments.
type scales struct{ c *cluster }

func (s scales) Scales(namespace string) scale.ScaleInterface { return scalesOf{s.c, namespace} }

type scalesOf struct {
	c         *cluster
	namespace string
}

func (s scalesOf) Get(ctx context.Context, _ schema.GroupResource, name string, _ metav1.GetOptions) (*autoscalingv1.Scale, error) {
	d := &appsv1.Deployment{}
	if err := s.c.Get(ctx, types.NamespacedName{Namespace: s.namespace, Name: name}, d); err != nil {
		return nil, err
	}
	return &autoscalingv1.Scale{
		Spec:   autoscalingv1.ScaleSpec{Replicas: *d.Spec.Replicas},
		Status: autoscalingv1.ScaleStatus{Selector: "app=" + name},
	}, nil
}

func (s scalesOf) Update(context.Context, schema.GroupResource, *autoscalingv1.Scale, metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	return nil, errors.New("nobody updates a Scale")
}

func (s scalesOf) Patch(ctx context.Context, gvr schema.GroupVersionResource, name string, _ types.PatchType, data []byte,
	o metav1.PatchOptions,
) (*autoscalingv1.Scale, error) {
	d := &appsv1.Deployment{}
	if gvr.Resource != "deployments" || o.FieldManager != injector.ManagedBy {
		return nil, fmt.Errorf("scaling %s as %s", gvr, o.FieldManager)
	}
	if err := s.c.fail("scale", d); err != nil {
		return nil, err
	}
	if err := s.c.Get(ctx, types.NamespacedName{Namespace: s.namespace, Name: name}, d); err != nil {
		return nil, err
	}
	return nil, s.c.Patch(ctx, d, client.RawPatch(types.MergePatchType, data))
}

func (c *cluster) create(o client.Object) {
	c.t.Helper()
	if err := c.Create(c.t.Context(), o); err != nil {
		c.t.Fatalf("creating %T %s: %v", o, o.GetName(), err)
	}
}

func (c *cluster) update(o client.Object) {
	c.t.Helper()
	if err := c.Update(c.t.Context(), o); err != nil {
		c.t.Fatalf("updating %T %s: %v", o, o.GetName(), err)
	}
}

// get reads an object of namespace apps. It returns nil if the object does not exist.
func get[T client.Object](c *cluster, name string, o T) T {
	c.t.Helper()
	err := c.Get(c.t.Context(), types.NamespacedName{Namespace: "apps", Name: name}, o)
	if client.IgnoreNotFound(err) != nil {
		c.t.Fatal(err)
	}
	if err != nil {
		var none T
		return none
	}
	return o
}

func (c *cluster) service() *corev1.Service { return get(c, "web", &corev1.Service{}) }

func (c *cluster) deployment() *appsv1.Deployment { return get(c, "web", &appsv1.Deployment{}) }

func (c *cluster) routeSlice() *discoveryv1.EndpointSlice {
	return get(c, "web-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{})
}

func (c *cluster) scaledObject() *keda.ScaledObject {
	return get(c, "web-deployment", &keda.ScaledObject{})
}

func interceptorSlice(addresses ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: "interceptors-1", Labels: map[string]string{
			discoveryv1.LabelServiceName: "interceptors", api.RoleLabel: api.RoleInterceptor,
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{a},
			Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
		})
	}
	return s
}

// sliceLikeOurs returns a route slice of a Service.
func sliceLikeOurs(namespace, service string, uid types.UID, routes string) *discoveryv1.EndpointSlice {
	owner := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: service, UID: uid}}
	owner.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	s := injector.RouteSlices(owner, owner, api.Routes{}, injector.DefaultSettings(), injector.Published{})[0]
	s.Annotations[api.RoutesAnnotation] = routes
	return &s
}

func webDeployment(replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": "web"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}},
		},
		Status: appsv1.DeploymentStatus{Replicas: replicas, ReadyReplicas: replicas},
	}
}

func webService(change ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "apps", Name: "web", Labels: map[string]string{injector.OptInLabel: "true"},
			CreationTimestamp: metav1.NewTime(time.Date(2026, 8, 1, 11, 0, 0, 0, time.UTC)),
		},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.0.0.7", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
		},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

func webIngress() *networkingv1.Ingress {
	return &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "front", Labels: map[string]string{injector.OptInLabel: "true"}},
		Spec: networkingv1.IngressSpec{DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
			Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80},
		}}},
	}
}

// slice writes an EndpointSlice as Kubernetes does for a Service.
func (c *cluster) slice(service string, labels map[string]string, ready bool) {
	c.t.Helper()
	all := map[string]string{discoveryv1.LabelServiceName: service, discoveryv1.LabelManagedBy: nativeSlices}
	maps.Copy(all, labels)
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: service + "-native", Labels: all}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}},
	}
	if ready {
		s.Endpoints = []discoveryv1.Endpoint{{
			Addresses: []string{"10.1.0.9"}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "apps", Name: "web-1"},
		}}
	}
	have := &discoveryv1.EndpointSlice{}
	if err := c.Get(c.t.Context(), client.ObjectKeyFromObject(s), have); err != nil {
		c.create(s)
		return
	}
	have.Endpoints, have.Labels = s.Endpoints, s.Labels
	c.update(have)
}

// directSlice writes the slice of the direct Service.
func (c *cluster) directSlice(ready bool) {
	c.t.Helper()
	c.slice("web-direct", map[string]string{api.RoleLabel: api.RoleDirect, injector.ServiceLabel: "web"}, ready)
}

// nativeSlice writes the slice of the Service itself.
func (c *cluster) nativeSlice(ready bool) {
	c.t.Helper()
	c.slice("web", nil, ready)
}

// podsBack makes Kubernetes list a pod for the Service, which is watched, and waits until that is noticed.
func (c *cluster) podsBack() {
	c.t.Helper()
	c.nativeSlice(true)
	select {
	case e := <-c.natives.changed:
		if e.Object.Name != "web" {
			c.t.Errorf("an event about %s", e.Object.Name)
		}
	case <-time.After(30 * time.Second):
		c.t.Fatal("that the pods are back is not noticed")
	}
}

// ready writes a Deployment's status and its count.
func (c *cluster) ready(replicas, ready int32) {
	c.t.Helper()
	d := c.deployment()
	d.Spec.Replicas = &replicas
	if err := c.Update(c.t.Context(), d, client.FieldOwner(injector.ManagedBy)); err != nil {
		c.t.Fatal(err)
	}
	d.Status.ReadyReplicas = ready
	if err := c.Status().Update(c.t.Context(), d); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) reconcileService() (ctrl.Result, error) {
	return c.services.Reconcile(c.t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "apps", Name: "web"}})
}

func (c *cluster) reconcileWorkload() (ctrl.Result, error) {
	return c.scaling.Reconcile(c.t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "apps", Name: "Deployment/web"}})
}

// both runs both reconcilers, n times.
func (c *cluster) both(n int) {
	c.t.Helper()
	for range n {
		if _, err := c.reconcileService(); err != nil {
			c.t.Fatal(err)
		}
		if _, err := c.reconcileWorkload(); err != nil {
			c.t.Fatal(err)
		}
	}
}

// injected labels the app and waits until it is injected.
func (c *cluster) injected() {
	c.t.Helper()
	c.both(1)
	c.directSlice(true)
	c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
	c.both(2)
	if s := c.service(); !injector.Intercepted(s) {
		c.t.Fatalf("selector %v, events %s", s.Spec.Selector, c.events())
	}
	c.nativeSlice(false)
}

// events returns the reasons and notes of all events, without repetitions on several objects.
func (c *cluster) events() string {
	c.t.Helper()
	var list corev1.EventList
	if err := c.List(c.t.Context(), &list); err != nil {
		c.t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range list.Items {
		fmt.Fprintf(&b, "%s on %s/%s: %s\n", e.Reason, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Message)
	}
	return b.String()
}

// told fails the test unless an event begins with want.
func (c *cluster) told(want string) {
	c.t.Helper()
	if got := c.events(); !strings.Contains(got, want) {
		c.t.Errorf("no event %q in\n%s", want, got)
	}
}

// noExtensions is an API server that calls no Service.
type noExtensions struct{}

func (noExtensions) served(context.Context, types.NamespacedName) ([]string, error) { return nil, nil }
