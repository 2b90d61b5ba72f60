// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

func TestInjection(t *testing.T) {
	fake := &interceptors{deaf: true}
	listInterceptors(t, "198.18.0.2", "198.18.0.3")
	start(t, planeOptions{interceptors: fake})
	a := newApp(t, 2)
	a.label(`"true"`)
	eventually(t, "an interceptor is dialed", func() error {
		fake.mu.Lock()
		defer fake.mu.Unlock()
		if len(fake.dialed) == 0 {
			return errors.New("none was")
		}
		return kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: "web-scale-to-zero-ipv4"}, &discoveryv1.EndpointSlice{})
	})
	slice, routes := a.routeSlice()
	if len(slice.Endpoints) != 0 || a.intercepted() == nil {
		t.Fatalf("published before an interceptor listened: %v", slice.Endpoints)
	}
	fake.setDeaf(false)
	fake.nextDial(t)
	fake.nextDial(t) // it has answered before
	if slice, _ := a.routeSlice(); len(slice.Endpoints) != 0 || a.intercepted() == nil {
		t.Fatalf("published before the pods were listed: %v", slice.Endpoints)
	}
	a.directMade()
	eventually(t, "the route is published", func() error {
		if slice, _ := a.routeSlice(); len(slice.Endpoints) != 2 || *slice.Ports[0].Port != routes.Ports[0].Listen {
			return fmt.Errorf("ports %v, endpoints %v", slice.Ports, slice.Endpoints)
		}
		return nil
	})
	eventually(t, "the Service is intercepted", a.intercepted)
	so := &keda.ScaledObject{}
	eventually(t, "the ScaledObject is made", func() error {
		return kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: "web-deployment"}, so)
	})
	if so.Spec.Idle() != 0 || so.Spec.Woken() != 2 || *so.Spec.MaxReplicaCount != 2 || injector.Remembered(so.Annotations) != 2 {
		t.Errorf("ScaledObject from %d to %d, remembers %d; want 0 to 2, 2", so.Spec.Idle(), *so.Spec.MaxReplicaCount,
			injector.Remembered(so.Annotations))
	}
	eventually(t, "an event says so", func() error {
		for _, of := range [][2]string{{"Service", "web"}, {"Deployment", "web"}} {
			if got := events(t, a.ns, of[0], of[1]); strings.Count(got, "Injected: ") != 1 {
				return fmt.Errorf("events of %s: %q", of[0], got)
			}
		}
		return nil
	})
	for _, m := range a.live().ManagedFields {
		if m.Manager == injector.ManagedBy && strings.Contains(m.FieldsV1.GetRawString(), "f:selector") {
			t.Errorf("scale-to-zero owns the selector: %s", m.FieldsV1.GetRawString())
		}
	}
}

// TestReapply writes an injected Service in every way in which charts are applied.
func TestReapply(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	apply := func() error {
		s := a.service()
		s.Labels[injector.OptInLabel] = "true"
		//nolint:staticcheck // typed apply configurations say the same in more words
		return kube.Patch(t.Context(), s, client.Apply, client.FieldOwner("helm"))
	}
	if err := kube.Delete(t.Context(), a.service()); err != nil {
		t.Fatal(err)
	}
	if err := apply(); err != nil {
		t.Fatal(err)
	}
	a.injected()
	original := map[string]string{"app": "web", injector.SentinelKey: injector.SentinelValue}
	ways := map[string]func() error{
		"server-side apply": apply,
		"server-side apply, dry run": func() error {
			s := a.service()
			return kube.Patch(t.Context(), s, client.Apply, client.FieldOwner("helm"), client.DryRunAll) //nolint:staticcheck // see above
		},
		"an annotation of somebody else": func() error { return a.patch(`{"metadata":{"annotations":{"team":"a"}}}`) },
		"our annotation taken off":       func() error { return a.patch(`{"metadata":{"annotations":{"scale-to-zero/route":null}}}`) },
	}
	for range 2 {
		for name, write := range ways {
			if err := write(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if d := cmp.Diff(original, a.live().Spec.Selector); d != "" {
				t.Errorf("%s: selector (-want +got):\n%s", name, d)
			}
		}
	}
	for _, m := range a.live().ManagedFields {
		if m.Manager != "helm" && strings.Contains(m.FieldsV1.GetRawString(), "f:selector") {
			t.Errorf("%s owns the selector: %s", m.Manager, m.FieldsV1.GetRawString())
		}
	}
	// These two ways make the selector theirs, so a server-side apply is not tested after them.
	for name, write := range map[string]func() error{
		"replace": func() error {
			s := a.service()
			s.Labels[injector.OptInLabel] = "true"
			live := a.live()
			s.ResourceVersion, s.Spec.ClusterIP, s.Spec.ClusterIPs = live.ResourceVersion, live.Spec.ClusterIP, live.Spec.ClusterIPs
			return kube.Update(t.Context(), s)
		},
		"the sentinel taken out": func() error { return a.patch(`{"spec":{"selector":{"scale-to-zero/intercepted":null}}}`) },
	} {
		if err := write(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := a.intercepted(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBadSettingsAreDenied(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.label(`"true"`)
	err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"soon"}}}`)
	if !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
		t.Fatalf("got %v, want it denied", err)
	}
	for _, want := range []string{"scale-to-zero/cooldown", `"soon"`, "30s, 5m or 1h30m"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %s", err, want)
		}
	}
}

// TestSettingsTakeEffect edits an injected Service's annotations.
func TestSettingsTakeEffect(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.injected()
	_, before := a.routeSlice()
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"20s","scale-to-zero/max-replicas":"4",` +
		`"scale-to-zero/ignore-paths":"/ping, /static/*"}}}`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "they reach interceptors and KEDA", func() error {
		so := &keda.ScaledObject{}
		a.get("web-deployment", so)
		_, routes := a.routeSlice()
		if *so.Spec.MaxReplicaCount != 4 || so.Spec.Triggers[0].Metadata["inactiveAfter"] != "15s" || routes.Cooldown.String() != "20s" ||
			len(routes.IgnorePaths) != 2 || routes.IgnorePaths[1] != "/static/*" {
			return fmt.Errorf("routes %+v, ScaledObject %+v", routes, so.Spec)
		}
		if routes.Ports[0] != before.Ports[0] {
			return fmt.Errorf("the port changed from %v to %v", before.Ports, routes.Ports)
		}
		return nil
	})
}

func TestSkipsSayWhyAndFollow(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	hpa := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "mine"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			MinReplicas:    new(int32), MaxReplicas: 3,
			Metrics: []autoscalingv2.MetricSpec{{
				Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
					Metric: autoscalingv2.MetricIdentifier{Name: "jobs"},
					Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: new(resource.MustParse("1"))},
				},
			}},
		},
	}
	create(t, hpa)
	a.label(`"true"`)
	eventually(t, "the event names the HPA", func() error {
		if got := events(t, a.ns, "Service", "web"); !strings.Contains(got, "InjectionSkipped: Not injected: HorizontalPodAutoscaler mine") {
			return fmt.Errorf("events: %q", got)
		}
		return nil
	})
	eventually(t, "the next labelling gets an event again", func() error {
		a.label("null") // the controller may see none of it, if it reads too late
		a.label(`"true"`)
		if got := events(t, a.ns, "Service", "web"); strings.Count(got, "InjectionSkipped: ") < 2 {
			return fmt.Errorf("events: %q", got)
		}
		return nil
	})
	if err := a.gone("web-direct", &corev1.Service{}); err != nil {
		t.Error(err)
	}
	if err := kube.Delete(t.Context(), hpa); err != nil {
		t.Fatal(err)
	}
	a.injected()
}

// TestWorkloadAfterService is the order in which Helm creates a chart's objects.
func TestWorkloadAfterService(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	if err := kube.Delete(t.Context(), a.deployment("web", 1)); err != nil {
		t.Fatal(err)
	}
	a.label(`"true"`)
	eventually(t, "the event says what is missing", func() error {
		if got := events(t, a.ns, "Service", "web"); !strings.Contains(got,
			"no Deployment or StatefulSet has pods that its selector app=web matches") {
			return fmt.Errorf("events: %q", got)
		}
		return nil
	})
	create(t, a.deployment("web", 1))
	a.ready(1)
	a.injected()
}

// TestWithoutAdmission: a Service that admission did not touch keeps working, and the app is not put to sleep.
func TestWithoutAdmission(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	p := start(t, planeOptions{interceptors: &interceptors{}, noAdmission: true})
	a := newApp(t, 1)
	a.label(`"true"`)
	eventually(t, "the direct Service is made", func() error {
		return kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: "web-direct"}, &corev1.Service{})
	})
	a.directSlice(true)
	eventually(t, "the event says that admission is away", func() error {
		if got := events(t, a.ns, "Service", "web"); !strings.Contains(got, "admission webhook did not answer") {
			return fmt.Errorf("events: %q", got)
		}
		return nil
	})
	if a.intercepted() == nil {
		t.Error("intercepted without admission")
	}
	if err := a.gone("web-deployment", &keda.ScaledObject{}); err != nil {
		t.Error(err)
	}
	p.stop()
	start(t, planeOptions{interceptors: &interceptors{}})
	eventually(t, "it is injected once admission is back", a.intercepted)
}

// TestScalersOwnNoField: a chart that says `replicas: 3` can be applied server-side after KEDA has woken the workload
// with one replica. (A count of 0 is no field of a Scale, so nobody owns it, and asleep there is no conflict anyway.)
func TestScalersOwnNoField(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 3)
	if err := kube.Delete(t.Context(), a.deployment("web", 3)); err != nil {
		t.Fatal(err)
	}
	apply := func() error {
		return kube.Patch(t.Context(), a.deployment("web", 3), client.Apply, client.FieldOwner("helm")) //nolint:staticcheck // see TestReapply
	}
	if err := apply(); err != nil {
		t.Fatal(err)
	}
	a.ready(3)
	a.scale(1)
	if err := apply(); !apierrors.IsConflict(err) {
		t.Fatalf("without us: got %v; the test stands on a conflict here", err)
	}
	a.injected()
	for _, n := range []int32{0, 1} {
		a.scale(n)
		eventually(t, "no manager owns replicas", func() error {
			d := &appsv1.Deployment{}
			a.get("web", d)
			for _, m := range d.ManagedFields {
				if m.Subresource == "scale" {
					return fmt.Errorf("%s owns %s", m.Manager, m.FieldsV1.GetRawString())
				}
			}
			return nil
		})
		if err := apply(); err != nil {
			t.Errorf("a chart's upgrade at %d replicas: %v", n, err)
		}
	}
}

// TestPortsOutliveTheController: another controller gives the same ports to the same routes.
func TestPortsOutliveTheController(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	p := start(t, planeOptions{interceptors: &interceptors{}})
	a, b := newApp(t, 1), newApp(t, 1)
	a.injected()
	b.injected()
	_, before := a.routeSlice()
	if _, other := b.routeSlice(); other.Ports[0].Listen == before.Ports[0].Listen {
		t.Fatalf("two Services share port %d", other.Ports[0].Listen)
	}
	p.stop()
	start(t, planeOptions{interceptors: &interceptors{}})
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"20s"}}}`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new controller has reconciled it", func() error {
		_, routes := a.routeSlice()
		if routes.Cooldown.String() != "20s" {
			return fmt.Errorf("cool-down is %s", routes.Cooldown)
		}
		if routes.Ports[0] != before.Ports[0] {
			t.Fatalf("the port changed from %v to %v", before.Ports[0], routes.Ports[0])
		}
		return nil
	})
}

// TestInterceptorsComeAndGo: the route slice lists the interceptors that are ready and listen.
func TestInterceptorsComeAndGo(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.injected()
	published := func(want ...string) func() error {
		return func() error {
			slice, _ := a.routeSlice()
			var got []string
			for _, e := range slice.Endpoints {
				got = append(got, e.Addresses...)
			}
			if d := cmp.Diff(want, got); d != "" {
				return errors.New(d)
			}
			return nil
		}
	}
	eventually(t, "the first is published", published("198.18.0.2"))
	listInterceptors(t, "198.18.0.2", "198.18.0.3")
	eventually(t, "the second too", published("198.18.0.2", "198.18.0.3"))
	listInterceptors(t, "198.18.0.3")
	eventually(t, "the first is gone", published("198.18.0.3"))
}

// TestLateInterceptor: an interceptor that becomes ready or listens after the others is published then.
func TestLateInterceptor(t *testing.T) {
	listInterceptors(t, "198.18.0.2", "198.18.0.3")
	fake := &interceptors{deafAt: "198.18.0.3"}
	start(t, planeOptions{interceptors: fake})
	a := newApp(t, 1)
	a.injected()
	if err := a.publishes("ipv4", 1)(); err != nil {
		t.Fatal(err)
	}
	fake.setDeaf(false)
	eventually(t, "the other is published", a.publishes("ipv4", 2))
}

// TestForeignDirectService: a foreign Service with the direct Service's name is left alone.
func TestForeignDirectService(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	foreign := a.service()
	foreign.Name = "web-direct"
	create(t, foreign)
	a.label(`"true"`)
	eventually(t, "the event names it", func() error {
		if got := events(t, a.ns, "Service", "web"); !strings.Contains(got, "needs the Service name web-direct, which another Service has") {
			return fmt.Errorf("events: %q", got)
		}
		return nil
	})
	a.get("web-direct", foreign)
	if foreign.Spec.ClusterIP == corev1.ClusterIPNone {
		t.Error("the foreign Service was changed")
	}
	var list discoveryv1.EndpointSliceList
	if err := kube.List(t.Context(), &list, client.InNamespace(a.ns)); err != nil || len(list.Items) != 1 {
		t.Errorf("%v; %d slices, want the native one alone", err, len(list.Items))
	}
}
