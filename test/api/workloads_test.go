package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// galleries is a kind of somebody else's, with a scale subresource.
func galleries() *apiextensionsv1.CustomResourceDefinition {
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "galleries.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "galleries", Kind: "Gallery", ListKind: "GalleryList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1beta1", Served: true, Storage: true,
				Subresources: &apiextensionsv1.CustomResourceSubresources{
					Status: &apiextensionsv1.CustomResourceSubresourceStatus{},
					Scale:  &apiextensionsv1.CustomResourceSubresourceScale{SpecReplicasPath: ".spec.replicas", StatusReplicasPath: ".status.replicas"},
				},
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: new(true),
				}},
			}},
		},
	}
}

// TestCustomResource takes a Service over whose pods belong to a kind that nobody here knows.
func TestCustomResource(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	if err := kube.Delete(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "web"}}); err != nil {
		t.Fatal(err)
	}
	if err := a.patch(`{"metadata":{"labels":{"scale-to-zero":"true"},"annotations":{"scale-to-zero/workload":"Gallery.example.com/web"}}}`); err != nil {
		t.Fatal(err)
	}
	a.told("Service", "web", "the API server knows no kind Gallery.example.com")
	if _, err := envtest.InstallCRDs(env.Config, envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{galleries()}}); err != nil {
		t.Fatal(err)
	}
	gallery := &unstructured.Unstructured{}
	gallery.SetGroupVersionKind(schema.GroupVersionKind{Group: "example.com", Version: "v1beta1", Kind: "Gallery"})
	gallery.SetNamespace(a.ns)
	gallery.SetName("web")
	gallery.Object["spec"] = map[string]any{"replicas": int64(3)}
	create(t, gallery)
	a.followTakeover()
	so := &keda.ScaledObject{}
	eventually(t, "the ScaledObject is made", func() error {
		return kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: "web-gallery"}, so)
	})
	if got := so.Spec.ScaleTargetRef; got.APIVersion != "example.com/v1beta1" || got.Kind != "Gallery" || got.Name != "web" {
		t.Errorf("KEDA is to scale %+v", got)
	}
	if _, routes := a.routeSlice(); routes.Workload.String() != "Gallery.example.com/web" || routes.Workload.Resource != "galleries" {
		t.Errorf("the interceptors are told of %+v", routes.Workload)
	}
	replicas := func() int64 {
		t.Helper()
		a.get("web", gallery)
		n, _, _ := unstructured.NestedInt64(gallery.Object, "spec", "replicas")
		return n
	}
	replicas()
	scaleTo := func(n int64) {
		t.Helper()
		scale := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"replicas": n}}}
		scale.SetAPIVersion("autoscaling/v1")
		scale.SetKind("Scale")
		if err := kube.SubResource("scale").Update(t.Context(), gallery, client.WithSubResourceBody(scale)); err != nil {
			t.Fatal(err)
		}
	}
	scaleTo(0)
	a.told("Gallery", "web", "Asleep: ")
	a.pod("web-1", metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Painting", Name: "web", UID: "1"}, corev1.PodStatus{ContainerStatuses: crashing()})
	scaleTo(1)
	a.told("Gallery", "web", "StartFailed: Gallery.example.com/web cannot start: container web has ended 3 times")
	replicas()
	a.label("null")
	eventually(t, "the old replica count is back", func() error {
		if n := replicas(); n != 3 {
			return fmt.Errorf("it is %d", n)
		}
		return nil
	})
	a.nativeSlice(true)
	eventually(t, "nothing of ours is left", func() error {
		if err := a.gone("web-gallery", &keda.ScaledObject{}); err != nil {
			return err
		}
		if replicas(); gallery.GetAnnotations()[injector.ReplicasAnnotation] != "" {
			return fmt.Errorf("annotations %v", gallery.GetAnnotations())
		}
		return a.nothingLeft()
	})
}

// TestReplicaGuard applies the chart's replica count again while the app sleeps.
func TestReplicaGuard(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 2)
	a.takenOver()
	a.scale(0)
	apply := func(replicas int32, change func(*appsv1.Deployment)) {
		t.Helper()
		d := a.deployment("web", replicas)
		d.ManagedFields = nil
		change(d)
		if err := kube.Patch(t.Context(), d, client.Apply, client.FieldOwner("helm"), client.ForceOwnership); err != nil { //nolint:staticcheck // there are no apply configurations for what is not typed
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
	eventually(t, "it is given back with the new count", func() error {
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

// TestTwoServicesShareOneScaledObject and give the workload back only together.
func TestTwoServicesShareOneScaledObject(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 2)
	second := a.service()
	second.Name, second.Annotations = "web2", map[string]string{"scale-to-zero/cooldown": "1h"}
	create(t, second)
	a.takenOver()
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
	a.slice("web2-direct-native", "web2-direct", map[string]string{discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io", injector.ServiceLabel: "web2", api.RoleLabel: api.RoleDirect}, true)
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
	eventually(t, "the first is given back", func() error {
		return a.gone("web-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{})
	})
	if err := a.scaled(); err != nil {
		t.Errorf("the second has no ScaledObject any more: %v", err)
	}
}

// counts are pretended ones.
type counts struct {
	mu      sync.Mutex // protects what follows
	active  bool
	pending int64
	err     error
}

func (c *counts) Count(context.Context, string, api.Workload) (bool, int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active, c.pending, c.err
}

func (c *counts) set(active bool, pending int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active, c.pending, c.err = active, pending, err
}

func installKEDA(t *testing.T) {
	t.Helper()
	if _, err := envtest.InstallCRDs(env.Config, envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{scaledObjects()}}); err != nil {
		t.Error(err)
	}
}

func uninstallKEDA(t *testing.T) {
	t.Helper()
	if err := envtest.UninstallCRDs(env.Config, envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{scaledObjects()}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "KEDA's API is gone", func() error {
		err := kube.List(t.Context(), &keda.ScaledObjectList{})
		if err == nil {
			return errors.New("ScaledObjects can be listed")
		}
		if !meta.IsNoMatchError(err) && !strings.Contains(err.Error(), "could not find the requested resource") {
			return err
		}
		return nil
	})
}

// TestWithoutKEDA: scaling goes by the interceptors' counts; KEDA takes it over when it is installed, and leaves it again.
func TestWithoutKEDA(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	t.Cleanup(func() { installKEDA(t) })
	uninstallKEDA(t)
	c := &counts{err: errors.New("nobody answers")}
	start(t, planeOptions{interceptors: &interceptors{}, counts: c})
	a := newApp(t, 1)
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"1s","scale-to-zero/max-replicas":"3","scale-to-zero/target-pending-requests":"10"}}}`); err != nil {
		t.Fatal(err)
	}
	a.label(`"true"`)
	a.followTakeover()
	c.set(true, 25, nil)
	a.has(3)
	c.set(false, 0, nil)
	a.has(0)
	a.told("Deployment", "web", "Asleep: ")
	installKEDA(t)
	eventually(t, "KEDA takes over", a.scaled)
	so := &keda.ScaledObject{}
	a.get("web-deployment", so)
	if n := injector.Remembered(so.Annotations); n != 1 {
		t.Errorf("made while asleep, the ScaledObject remembers %d", n)
	}
	if err := kube.Delete(t.Context(), so); err != nil {
		t.Fatal(err)
	}
	uninstallKEDA(t)
	a.scale(2)
	a.has(0) // again by the counts
	a.label("null")
	a.has(1)
	a.ready("web", 1)
	a.nativeSlice(true)
	eventually(t, "nothing of ours is left", func() error {
		d := &appsv1.Deployment{}
		if a.get("web", d); d.Annotations[injector.ReplicasAnnotation] != "" {
			return fmt.Errorf("annotations %v", d.Annotations)
		}
		return a.gone("web-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{})
	})
}

// TestLimitFalls: the replicas that load was worth under the old limit are nobody's wish, also while they stay for a while.
func TestLimitFalls(t *testing.T) {
	for name, withKEDA := range map[string]bool{"without KEDA": false, "with KEDA": true} {
		t.Run(name, func(t *testing.T) {
			listInterceptors(t, "198.18.0.2")
			if !withKEDA {
				t.Cleanup(func() { installKEDA(t) })
				uninstallKEDA(t)
			}
			start(t, planeOptions{interceptors: &interceptors{}, counts: &counts{err: errors.New("nobody answers")}})
			a := newApp(t, 1)
			if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/max-replicas":"5"}}}`); err != nil {
				t.Fatal(err)
			}
			a.label(`"true"`)
			a.followTakeover()
			remembers := func(want int32) {
				t.Helper()
				eventually(t, fmt.Sprintf("it remembers %d", want), func() error {
					d := &appsv1.Deployment{}
					if a.get("web", d); injector.Remembered(d.Annotations) != want {
						return fmt.Errorf("annotations %v", d.Annotations)
					}
					return nil
				})
			}
			remembers(1)
			a.scaledSeen(5) // KEDA's HPA, or we
			if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/max-replicas":null}}}`); err != nil {
				t.Fatal(err)
			}
			eventually(t, "its route slice asks for no more", func() error {
				if s, _ := a.routeSlice(); strings.Contains(s.Annotations[injector.ScalingAnnotation], "maxReplicas") {
					return fmt.Errorf("annotations %v", s.Annotations)
				}
				return nil
			})
			if withKEDA {
				eventually(t, "KEDA's most is 1", func() error {
					so := &keda.ScaledObject{}
					if a.get("web-deployment", so); *so.Spec.MaxReplicaCount != 1 {
						return fmt.Errorf("it is %d", *so.Spec.MaxReplicaCount)
					}
					return nil
				})
			}
			a.ready("web", 5)
			a.scaledSeen(3)
			remembers(1)
			a.scale(4) // which is more than it was
			remembers(4)
		})
	}
}

// TestGivenBackBesideAnother: a Service is given back while another one keeps the workload, which sleeps and which only we
// can wake.
func TestGivenBackBesideAnother(t *testing.T) {
	for name, withKEDA := range map[string]bool{"without KEDA": false, "KEDA down": true} {
		t.Run(name, func(t *testing.T) {
			listInterceptors(t, "198.18.0.2")
			if !withKEDA {
				t.Cleanup(func() { installKEDA(t) })
				uninstallKEDA(t)
			}
			c := &counts{err: errors.New("nobody answers")}
			start(t, planeOptions{interceptors: &interceptors{}, counts: c})
			a := newApp(t, 1)
			second := a.service()
			second.Name, second.Labels[injector.OptInLabel] = "web2", "true"
			second.Annotations = map[string]string{"scale-to-zero/cooldown": "1s"}
			create(t, second)
			eventually(t, "the direct Service of the second is made", func() error {
				return kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: "web2-direct"}, &corev1.Service{})
			})
			a.slice("web2-direct-native", "web2-direct", map[string]string{discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io", injector.ServiceLabel: "web2", api.RoleLabel: api.RoleDirect}, true)
			if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"1s"}}}`); err != nil {
				t.Fatal(err)
			}
			a.label(`"true"`)
			a.followTakeover()
			eventually(t, "the second is intercepted", func() error {
				got := &corev1.Service{}
				if a.get("web2", got); !injector.Intercepted(got) {
					return fmt.Errorf("selector %v", got.Spec.Selector)
				}
				return nil
			})
			a.scale(0)
			a.told("Deployment", "web", "Asleep: ")
			a.ready("web", 0)
			a.directSlice(false)

			a.label("null")
			a.has(1)
			c.set(false, 0, nil) // what it is woken for is not theirs to count
			a.ready("web", 1)
			a.directSlice(true)
			a.nativeSlice(true)
			eventually(t, "the first is given back", func() error {
				return a.gone("web-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{})
			})
			if !withKEDA {
				a.has(0) // for the second it may sleep again
				return
			}
			eventually(t, "KEDA may put it to sleep again", func() error {
				so := &keda.ScaledObject{}
				if a.get("web-deployment", so); *so.Spec.MinReplicaCount != 0 {
					return fmt.Errorf("its least is %d", *so.Spec.MinReplicaCount)
				}
				return nil
			})
		})
	}
}

// TestKEDAIsGone: its API is there and its operator is not, which leaves a ScaledObject's finalizer to us.
func TestKEDAIsGone(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 2)
	a.takenOver()
	so := &keda.ScaledObject{}
	a.get("web-deployment", so)
	so.Finalizers = []string{keda.Finalizer}
	if err := kube.Update(t.Context(), so); err != nil {
		t.Fatal(err)
	}
	a.scale(0)
	a.label("null")
	eventually(t, "the old replica count is back", func() error {
		if n := a.replicas(); n != 2 {
			return fmt.Errorf("it is %d", n)
		}
		return nil
	})
	a.ready("web", 2)
	a.nativeSlice(true)
	eventually(t, "nothing of ours is left", a.nothingLeft)
}

// TestNoInterceptor: an app that is awake is led to its pods and stays awake; one that sleeps stays asleep.
func TestNoInterceptor(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	fake := &interceptors{}
	start(t, planeOptions{interceptors: fake})
	awake, asleep := newApp(t, 1), newApp(t, 1)
	awake.takenOver()
	asleep.takenOver()
	asleep.scale(0)
	asleep.ready("web", 0)
	asleep.directSlice(false)
	leads := func(a *app, to string, port int32) {
		t.Helper()
		eventually(t, "it leads to "+to, func() error {
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
			if n := *so.Spec.MinReplicaCount; n != want {
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
	// One is ready, and does not listen yet: the pods are better than nobody.
	listInterceptors(t, "198.18.0.3")
	leads(awake, "198.18.0.9", 8080)
	fake.setDeaf(false)
	leads(awake, "198.18.0.3", 0)
	leads(asleep, "198.18.0.3", 0)
	for _, a := range []*app{awake, asleep} {
		a.told("Service", "web", "go through scale-to-zero again")
	}
	// Nobody has counted its visitors meanwhile: it may sleep when its cool-down has passed since.
	so := &keda.ScaledObject{}
	if awake.get("web-deployment", so); *so.Spec.MinReplicaCount != 1 {
		t.Error("KEDA may put it to sleep at once")
	}
	if err := awake.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"1s"}}}`); err != nil {
		t.Fatal(err)
	}
	least(0)
}

// statefulSet puts one in the Deployment's place.
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

// TestStatefulSet takes the other built-in kind there and back.
func TestStatefulSet(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	set := a.statefulSet(2)
	a.label(`"true"`)
	a.followTakeover()
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
