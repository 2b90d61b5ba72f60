// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// injectedByIngress returns a cluster in which an Ingress sends its traffic through the interceptors.
func injectedByIngress(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t, webDeployment(1), webService(func(s *corev1.Service) { s.Labels = nil }), webIngress())
	c.both(1)
	c.directSlice(true)
	c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
	c.both(2)
	if i := get(c, "front", webIngress()); i.Spec.DefaultBackend.Service.Name != "web-scale-to-zero" {
		t.Fatalf("the Ingress leads to %s", i.Spec.DefaultBackend.Service.Name)
	}
	return c
}

// TestAsks tests what a workload's plan learns from the route slices that name it.
func TestAsks(t *testing.T) {
	injected := func(change ...func(*corev1.Service)) func(*testing.T) *cluster {
		return func(t *testing.T) *cluster {
			t.Helper()
			c := newCluster(t, webDeployment(1), webService(change...))
			c.injected()
			return c
		}
	}
	early := func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true }
	remove := func(c *cluster) {
		if err := c.Delete(c.t.Context(), c.service()); err != nil {
			c.t.Fatal(err)
		}
	}
	second := func(backend string) func(*cluster) {
		return func(c *cluster) {
			i := webIngress()
			i.Name, i.Spec.DefaultBackend.Service.Name = "second", backend
			c.create(i)
		}
	}
	nothing := func(*cluster) {}
	for name, tc := range map[string]struct {
		world func(*testing.T) *cluster
		then  func(*cluster)
		want  string // the slices; then rewritten or not, and whether pods are listed
	}{
		"of a Service":         {injected(), nothing, "web-scale-to-zero-ipv4 false false"},
		"its Service is gone":  {injected(), remove, ""},
		"its Service is a new": {injected(), func(c *cluster) { remove(c); c.create(webService()) }, ""},
		"its pods are taken early": {
			injected(early), nothing, "web-scale-to-zero-ipv4 false true",
		},
		"its pods are taken early, and none is listed": {
			injected(early), func(c *cluster) { c.directSlice(false) }, "web-scale-to-zero-ipv4 false false",
		},
		"of an Ingress": {injectedByIngress, nothing, "web-scale-to-zero-scale-to-zero-ipv4 true false"},
		"of an Ingress, and another comes": {
			injectedByIngress, second("web"), "web-scale-to-zero-scale-to-zero-ipv4 false false",
		},
		"of an Ingress, and another's comes": {
			injectedByIngress, second("api"), "web-scale-to-zero-scale-to-zero-ipv4 true false",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := tc.world(t)
			tc.then(c)
			w, _ := injector.NewWorkload(c.deployment())
			asks, err := c.scaling.observer.asks(t.Context(), w)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range asks {
				got = append(got, fmt.Sprint(a.Slice.Name, " ", a.Rewritten, " ", a.PodsListed))
				if a.Service.Name != "web" || a.Routes.Service != "web" {
					t.Errorf("of Service %s: %+v", a.Service.Name, a.Routes)
				}
			}
			if text := strings.Join(got, ", "); text != tc.want {
				t.Errorf("got %s, want %s", text, tc.want)
			}
		})
	}
}

// TestHPAOfKEDA tests which HPA counts as KEDA's, and what it holds.
func TestHPAOfKEDA(t *testing.T) {
	hpa := func(namespace, name string, least *int32) *autoscalingv2.HorizontalPodAutoscaler {
		return &autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec:       autoscalingv2.HorizontalPodAutoscalerSpec{MinReplicas: least, MaxReplicas: 4},
		}
	}
	for name, tc := range map[string]struct {
		hpa  *autoscalingv2.HorizontalPodAutoscaler
		want injector.HPAAnswer
	}{
		"KEDA's":                  {hpa("apps", "keda-hpa-web-deployment", new(int32(2))), injector.HPAAnswer{Exists: true, Min: 2, Max: 4}},
		"KEDA's, without a min":   {hpa("apps", "keda-hpa-web-deployment", nil), injector.HPAAnswer{Exists: true, Max: 4}},
		"of another name":         {hpa("apps", "web", new(int32(2))), injector.HPAAnswer{}},
		"of another namespace":    {hpa("shop", "keda-hpa-web-deployment", new(int32(2))), injector.HPAAnswer{}},
		"of another's workload's": {hpa("apps", "keda-hpa-web-statefulset", new(int32(2))), injector.HPAAnswer{}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, webDeployment(1), tc.hpa)
			w, _ := injector.NewWorkload(c.deployment())
			o := &injector.WorkloadObservation{
				Workload: w, ScaledObject: &keda.ScaledObject{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "web-deployment"}},
			}
			if err := c.scaling.observer.answer(t.Context(), o, injector.AskHPA, injector.Starting{}); err != nil || *o.Answers.HPA != tc.want {
				t.Errorf("got %+v, %v", o.Answers.HPA, err)
			}
			c.refuses = func(string, runtime.Object) error { return errors.New("away") }
			if err := c.scaling.observer.answer(t.Context(), o, injector.AskHPA, injector.Starting{}); err == nil {
				t.Error("an HPA that cannot be read is taken for none")
			}
		})
	}
}

// TestCountsAsked tests that what the interceptors say reaches the plan, and that their silence is no count of zero.
func TestCountsAsked(t *testing.T) {
	c := newCluster(t, webDeployment(1))
	w, _ := injector.NewWorkload(c.deployment())
	o := &injector.WorkloadObservation{Workload: w}
	ask := func() {
		t.Helper()
		for _, q := range []injector.WorkloadQuestion{injector.AskUse, injector.AskCount} {
			if err := c.scaling.observer.answer(t.Context(), o, q, injector.Starting{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.counts.active, c.counts.pending, c.counts.rate = true, 7, 2.5
	c.counts.use = injector.Use{Pending: 7, Idle: time.Second, Counted: time.Minute}
	ask()
	if got := *o.Answers.Count; got != (injector.CountAnswer{Known: true, Active: true, Pending: 7, Rate: 2.5}) {
		t.Errorf("counts %+v", got)
	}
	if got := o.Answers.Use.Use; got == nil || *got != c.counts.use {
		t.Errorf("use %+v", got)
	}
	c.counts.err = errors.New("unavailable")
	ask()
	if o.Answers.Count.Known || o.Answers.Use.Use != nil {
		t.Errorf("nobody answers: %+v, %+v", o.Answers.Count, o.Answers.Use)
	}
}

// TestEventsOfStarts tests which events say why a workload of another kind than a Deployment has no pod.
func TestEventsOfStarts(t *testing.T) {
	waiting := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		kind    string
		at      time.Duration // since it waits
		waiting time.Time
		uid     string
		reason  string
		want    bool
	}{
		"just now":                    {"StatefulSet", 0, waiting, "", "FailedCreate", true},
		"a little before":             {"StatefulSet", -eventSlack, waiting, "", "FailedCreate", true},
		"long before":                 {"StatefulSet", -eventSlack - time.Second, waiting, "", "FailedCreate", false},
		"of a Deployment":             {"Deployment", 0, waiting, "", "FailedCreate", false},
		"of another object":           {"StatefulSet", 0, waiting, "another", "FailedCreate", false},
		"of another reason":           {"StatefulSet", 0, waiting, "", "SuccessfulCreate", false},
		"before anybody waits for it": {"StatefulSet", 0, time.Time{}, "", "FailedCreate", false},
		"of a custom resource":        {"Gallery", time.Minute, waiting, "", "FailedCreate", true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, webDeployment(1))
			d := c.deployment()
			w, _ := injector.NewWorkload(d)
			w.Kind = tc.kind
			e := &corev1.Event{
				ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "e"}, Reason: tc.reason, Message: "exceeded quota: few",
				InvolvedObject: corev1.ObjectReference{UID: d.UID}, LastTimestamp: metav1.NewTime(waiting.Add(tc.at)),
			}
			if tc.uid != "" {
				e.InvolvedObject.UID = "another"
			}
			c.create(e)
			o := &injector.WorkloadObservation{Now: waiting.Add(time.Minute), Workload: w, Object: d}
			err := c.scaling.observer.answer(t.Context(), o, injector.AskPods, injector.Starting{Waiting: tc.waiting})
			want := ""
			if tc.want {
				want = "Kubernetes refuses its pod: exceeded quota: few"
			}
			if err != nil || o.Answers.Pods.Failing != want || !tc.want && !o.Answers.Pods.None {
				t.Errorf("got %+v, %v", o.Answers.Pods, err)
			}
		})
	}
}

// TestScaledBesides tests which HPAs and ScaledObjects are found to scale a Service's workload besides us.
func TestScaledBesides(t *testing.T) {
	hpa := func(name, target string) *autoscalingv2.HorizontalPodAutoscaler {
		return &autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name},
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: target},
			},
		}
	}
	so := func(name, target string) *keda.ScaledObject {
		return &keda.ScaledObject{
			ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name},
			Spec:       keda.ScaledObjectSpec{ScaleTargetRef: keda.ScaleTarget{Name: target}},
		}
	}
	c := newCluster(t, webDeployment(1), webService(), hpa("mine", "web"), hpa("others", "api"), so("cron", "web"), so("others", "api"),
		so("web-deployment", "api"))
	for _, tc := range []struct {
		name, want string
		change     func()
	}{
		{"all", "mine; cron web-deployment", func() {}},
		{"ours scales it", "mine; cron web-deployment", func() {
			own := c.scaledObject()
			own.Spec.ScaleTargetRef.Name = "web"
			c.update(own)
		}},
		{"there is none of our name", "mine; cron", func() {
			if err := c.Delete(t.Context(), so("web-deployment", "")); err != nil {
				t.Fatal(err)
			}
		}},
		{"KEDA is not installed", "mine; ", func() { c.keda.remove() }},
	} {
		tc.change()
		found, err := c.services.observer.target(t.Context(), &injector.Observation{Service: c.service()}, injector.Settings{})
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		var hpas, sos []string
		for _, h := range found.HPAs {
			hpas = append(hpas, h.Name)
		}
		for _, s := range found.ScaledObjects {
			sos = append(sos, s.Name)
		}
		if got := strings.Join(hpas, " ") + "; " + strings.Join(sos, " "); got != tc.want || found.Workload.Name != "web" {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestKeptByOthers tests when another Service keeps a workload, so that it is not restored with this one.
func TestKeptByOthers(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	c.injected()
	w, _ := injector.NewWorkload(c.deployment())
	kept := func() bool {
		t.Helper()
		got, err := c.services.observer.kept(t.Context(), types.NamespacedName{Namespace: "apps", Name: "web"}, w)
		if err != nil {
			t.Fatal(err)
		}
		return *got
	}
	if kept() {
		t.Error("its own slice keeps it")
	}
	other := c.routeSlice()
	routes, _ := routesOf(other)
	write := func(change func(*api.Routes)) {
		t.Helper()
		change(&routes)
		routes.Direct = injector.DirectServiceName(routes.Service)
		text, err := routes.Encode()
		if err != nil {
			t.Fatal(err)
		}
		s := sliceLikeOurs("apps", "api", "api-uid", text)
		_ = c.Delete(t.Context(), s.DeepCopy())
		c.create(s)
	}
	write(func(r *api.Routes) { r.Service, r.ServiceUID = "api", "api-uid" })
	if kept() {
		t.Error("a Service that does not exist keeps it")
	}
	c.create(serviceNamed("api", nil, func(s *corev1.Service) { s.UID = "api-uid" }))
	if !kept() {
		t.Error("another Service does not keep it")
	}
	write(func(r *api.Routes) { r.Retiring = true })
	if kept() {
		t.Error("a Service that retires keeps it")
	}
	write(func(r *api.Routes) { r.Retiring, r.Workload.Name = false, "api" })
	if kept() {
		t.Error("the Service of another workload keeps it")
	}
}

// TestStackOfServices tests which Services that are to wake together count as injected.
func TestStackOfServices(t *testing.T) {
	c := injectedByIngress(t)
	at := func(name string, change ...func(*corev1.Service)) {
		c.create(webService(append([]func(*corev1.Service){func(s *corev1.Service) {
			s.Name, s.Labels = name, map[string]string{}
		}}, change...)...))
	}
	at("db", func(s *corev1.Service) { s.Spec.Selector[injector.SentinelKey] = injector.SentinelValue })
	at("plain")
	at("copied")
	at("copied-scale-to-zero")
	got, err := c.services.observer.stack(t.Context(), "apps", []string{"web", "db", "plain", "copied", "none"})
	want := map[string]bool{"web": true, "db": true, "plain": false, "copied": false}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := c.services.observer.stack(t.Context(), "shop", []string{"web"}); err != nil || len(got) > 0 {
		t.Errorf("of another namespace: %v, %v", got, err)
	}
	for n := 1; n <= 2; n++ {
		c.failAt = n
		if got, err := c.services.observer.stack(t.Context(), "apps", []string{"web"}); err == nil {
			t.Errorf("%s fails, and it says %v", c.failed, got)
		}
	}
}

// TestWakeWithIsReported tests that the owner of a Service reads which Services of its stack cannot wake with it.
func TestWakeWithIsReported(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService(func(s *corev1.Service) {
		s.Annotations = map[string]string{injector.Prefix + "wake-with": "db,worker"}
	}), serviceNamed("db", map[string]string{"app": "db"}, func(s *corev1.Service) { s.Labels = nil }))
	c.injected()
	c.told("WakeWithIncomplete on Service/web: Annotation scale-to-zero/wake-with names Services that cannot wake with web: there is no " +
		"Service worker; label scale-to-zero=true is missing, or has had no effect, on Service db")
}
