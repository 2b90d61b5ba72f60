// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// each reconciles these Services and the workload, n times.
func (c *cluster) each(n int, services ...string) {
	c.t.Helper()
	for range n {
		for _, name := range services {
			key := types.NamespacedName{Namespace: "apps", Name: name}
			if _, err := c.services.Reconcile(c.t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
				c.t.Fatal(err)
			}
		}
		if _, err := c.reconcileWorkload(); err != nil {
			c.t.Fatal(err)
		}
	}
}

// opt sets the label of a Service, or removes it, as admission has it.
func (c *cluster) opt(name string, in bool) {
	c.t.Helper()
	s := get(c, name, &corev1.Service{})
	old := s.DeepCopy()
	delete(s.Labels, injector.OptInLabel)
	if in {
		s.Labels = map[string]string{injector.OptInLabel: "true"}
	}
	if err := injector.Admit(s, old, false); err != nil {
		c.t.Fatal(err)
	}
	c.update(s)
}

// TestTwoServicesOfOneWorkload: one of them is restored, and the other keeps the workload. It is awake until the pods of the
// first have their traffic back, and sleeps again after that.
func TestTwoServicesOfOneWorkload(t *testing.T) {
	labelled := func(s *corev1.Service) { s.Labels = map[string]string{injector.OptInLabel: "true"} }
	c := newCluster(t, webDeployment(2), webService(), serviceNamed("web2", map[string]string{"app": "web"}, labelled))
	direct := func(ready bool) {
		c.directSlice(ready)
		c.slice("web2-direct", map[string]string{api.RoleLabel: api.RoleDirect, injector.ServiceLabel: "web2"}, ready)
	}
	c.each(1, "web", "web2")
	direct(true)
	c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
	c.each(3, "web", "web2")
	second := func() *corev1.Service { return get(c, "web2", &corev1.Service{}) }
	if !injector.Intercepted(c.service()) || !injector.Intercepted(second()) || c.scaledObject() == nil {
		t.Fatalf("not injected; events %s", c.events())
	}
	if got := c.events(); strings.Contains(got, "ServiceNotOptedIn") {
		t.Errorf("both are opted in; events %s", got)
	}
	c.nativeSlice(false)
	c.ready(0, 0)
	direct(false)
	c.each(1, "web", "web2")
	c.told("Asleep on Service/web: ")
	c.told("Asleep on Service/web2: ")

	c.opt("web", false)
	c.each(2, "web", "web2")
	if n := *c.deployment().Spec.Replicas; n != 2 {
		t.Fatalf("it has %d replicas while a Service without interceptors leads to it", n)
	}
	if so := c.scaledObject(); so.Spec.Idle() != 2 {
		t.Errorf("KEDA may put it to sleep: %+v", so.Spec)
	}
	c.ready(2, 2)
	direct(true)
	c.podsBack()
	c.each(3, "web", "web2")
	slice := get(c, "web2-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{})
	if c.routeSlice() != nil || slice == nil || !injector.Intercepted(second()) || injector.Intercepted(c.service()) {
		t.Errorf("the first is not restored, or the second is; events %s", c.events())
	}
	c.told("Restored on Service/web: ")
	c.told("ServiceNotOptedIn on Service/web2: Deployment/web also serves Service web, ")
	if injector.Remembered(c.deployment().Annotations) != 2 {
		t.Error("how many replicas it had is forgotten")
	}
	c.now = c.now.Add(time.Hour)
	c.each(1, "web2")
	if so := c.scaledObject(); so == nil || so.Spec.Idle() != 0 {
		t.Errorf("it cannot sleep any more: %+v", so)
	}

	c.opt("web2", false)
	c.each(2, "web2")
	c.slice("web2", nil, true)
	<-c.natives.changed
	c.each(4, "web2")
	if n := *c.deployment().Spec.Replicas; n != 2 || c.scaledObject() != nil || injector.Remembered(c.deployment().Annotations) != 0 {
		t.Errorf("with the last one restored it has %d replicas; events %s", n, c.events())
	}
}

// TestMindsChange: the label is taken off and set again while an injection or a restoring is under way, at each step.
func TestMindsChange(t *testing.T) {
	for steps := range 5 {
		for again := range 4 {
			t.Run(fmt.Sprintf("off after %d steps, on after %d", steps, again), func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, webDeployment(1), webService())
				c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
				reconcile := func(n int) {
					for range n {
						c.both(1)
						if get(c, "web-direct", &corev1.Service{}) != nil {
							c.directSlice(true)
						}
						c.nativeSlice(!injector.Intercepted(c.service()))
						if injector.Intercepted(c.service()) && c.routeSlice() == nil {
							t.Fatal("its traffic goes to nobody")
						}
					}
				}
				drained := make(chan struct{})
				go func() { // who would reconcile then
					defer close(drained)
					for {
						select {
						case <-c.natives.changed:
						case <-c.natives.ctx.Done():
							return
						}
					}
				}()
				defer func() {
					c.natives.end()
					<-drained
				}()
				reconcile(steps)
				c.opt("web", false)
				reconcile(again)
				c.opt("web", true)
				reconcile(8)
				if !injector.Intercepted(c.service()) || c.scaledObject() == nil || injector.Remembered(c.deployment().Annotations) != 1 {
					t.Errorf("it is not injected; events %s", c.events())
				}
				routes, ok := routesOf(c.routeSlice())
				if !ok || routes.Retiring || len(c.routeSlice().Endpoints) != 2 {
					t.Errorf("its slices: %+v", routes)
				}
				c.opt("web", false)
				reconcile(12)
				if c.routeSlice() != nil || c.scaledObject() != nil || get(c, "web-direct", &corev1.Service{}) != nil {
					t.Errorf("something is left; events %s", c.events())
				}
			})
		}
	}
}

// TestIngressOfTwo: an Ingress that somebody else writes at the same moment is left as they have written it, and redirected with
// the next look.
func TestIngressOfTwo(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService(func(s *corev1.Service) { s.Labels = nil }), webIngress())
	c.both(1)
	c.directSlice(true)
	c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
	raced := false
	c.refuses = func(verb string, o runtime.Object) error {
		if _, ok := o.(*networkingv1.Ingress); ok && verb == "patch" && !raced {
			raced = true
			theirs := get(c, "front", &networkingv1.Ingress{})
			theirs.Annotations = map[string]string{"example.com/theirs": "yes", injector.AliasesAnnotation: "api=api-scale-to-zero"}
			c.update(theirs)
		}
		return nil
	}
	if _, err := c.reconcileService(); !apierrors.IsConflict(err) {
		t.Fatalf("got %v, want a conflict; raced: %t", err, raced)
	}
	if got := get(c, "front", &networkingv1.Ingress{}).Spec.DefaultBackend.Service.Name; got != "web" {
		t.Errorf("it leads to %s at once", got)
	}
	if got := c.events(); strings.Contains(got, "Injected") {
		t.Errorf("events %s", got)
	}
	c.both(2)
	i := get(c, "front", &networkingv1.Ingress{})
	if i.Spec.DefaultBackend.Service.Name != "web-scale-to-zero" || i.Annotations["example.com/theirs"] != "yes" ||
		injector.Aliases(i)["api"] != "api-scale-to-zero" {
		t.Errorf("it leads to %s, with annotations %v", i.Spec.DefaultBackend.Service.Name, i.Annotations)
	}
}

// TestFinish: a write that is refused is told once, on all whom it concerns, and tried again ever more rarely.
func TestFinish(t *testing.T) {
	about := types.NamespacedName{Namespace: "apps", Name: "web"}
	const what = "creating Service web-direct"
	refused := func(what string, o client.Object) error {
		return fmt.Errorf("wrapped: %w", &refusedError{
			Refusal: injector.Refusal{Why: "exceeded quota: few.", Advice: "Raise it"}, what: what, object: o, err: errors.New("no"),
		})
	}
	const told = "WriteRefused on Service/web: Not injected: creating Service web-direct is refused: exceeded quota: few. Raise it; it is " +
		"tried again until it is accepted\n"
	finish := func(c *cluster, err error) {
		_, _ = c.services.events.finish(c.t.Context(), about, injector.ReasonRefused, "Not injected", ctrl.Result{}, err, c.service())
	}
	refuse := func(c *cluster) { finish(c, refused(what, c.service())) }
	accept := func(c *cluster) { c.services.events.accept("apps", what) }
	succeed := func(c *cluster) { finish(c, nil) }
	const accepted = "WriteAccepted on Service/web: Creating Service web-direct is accepted now\n"
	for name, tc := range map[string]struct {
		steps []func(*cluster)
		want  string
	}{
		"once":                   {[]func(*cluster){refuse}, told},
		"again":                  {[]func(*cluster){refuse, refuse, refuse}, told},
		"accepted":               {[]func(*cluster){refuse, accept, succeed}, told + accepted},
		"accepted, once":         {[]func(*cluster){refuse, accept, succeed, succeed}, told + accepted},
		"accepted, and refused":  {[]func(*cluster){refuse, accept, refuse, succeed}, told},
		"accepted, and an error": {[]func(*cluster){refuse, accept, func(c *cluster) { finish(c, errors.New("away")) }}, told},
		"not refused":            {[]func(*cluster){accept, succeed}, ""},
		"a success of something": {[]func(*cluster){refuse, succeed}, told},
		"of another namespace":   {[]func(*cluster){refuse, func(c *cluster) { c.services.events.accept("other", what) }, succeed}, told},
		"of another object":      {[]func(*cluster){refuse, func(c *cluster) { c.services.events.accept("apps", what+"2") }, succeed}, told},
		"forgotten":              {[]func(*cluster){refuse, func(c *cluster) { c.services.events.forget(about) }, accept, succeed}, told},
		"another one is refused": {
			[]func(*cluster){refuse, func(c *cluster) { finish(c, refused("updating Service x", c.service())) }, refuse},
			told + strings.Replace(told, what, "updating Service x", 1) + told,
		},
		"of a shared Ingress": {
			[]func(*cluster){func(c *cluster) { finish(c, refused(what, webIngress())) }},
			told + strings.Replace(told, "Service/web", "Ingress/front", 1),
		},
		"another error": {[]func(*cluster){func(c *cluster) { finish(c, errors.New("away")) }}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, webService())
			for _, step := range tc.steps {
				step(c)
			}
			if diff := cmp.Diff(sortedLines(tc.want), sortedLines(c.events())); diff != "" {
				t.Error(diff)
			}
		})
	}
	c := newCluster(t, webService())
	for _, tc := range []struct{ waited, low, high time.Duration }{
		{0, 5 * time.Second, 6 * time.Second},
		{10 * time.Second, 5 * time.Second, 6 * time.Second},
		{40 * time.Second, 20 * time.Second, 24 * time.Second},
		{time.Hour, time.Minute, 72 * time.Second},
	} {
		began := c.now
		c.now = c.now.Add(tc.waited)
		result, err := c.services.events.finish(t.Context(), about, "R", "C", ctrl.Result{RequeueAfter: time.Hour}, refused(what, c.service()))
		if err != nil || result.RequeueAfter < tc.low || result.RequeueAfter > tc.high+time.Second {
			t.Errorf("refused for %s, it is tried again in %s, %v", tc.waited, result.RequeueAfter, err)
		}
		if tc.waited > 0 {
			c.now = began
		}
	}
}

// sortedLines are the lines of events, which have no order.
func sortedLines(text string) []string { return sorted(strings.Split(strings.TrimSpace(text), "\n")) }

// TestRefusedIngress: who owns the Ingress reads, too, that it cannot be redirected.
func TestRefusedIngress(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService(func(s *corev1.Service) { s.Labels = nil }), webIngress())
	c.both(1)
	c.directSlice(true)
	c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
	c.refuses = func(verb string, o runtime.Object) error {
		if _, ok := o.(*networkingv1.Ingress); ok && verb == "patch" {
			return apierrors.NewForbidden(schema.GroupResource{Group: "networking.k8s.io", Resource: "ingresses"}, "front",
				errors.New(`admission webhook "policy.example.com" denied the request`))
		}
		return nil
	}
	c.both(2)
	for _, on := range []string{"Service/web", "Ingress/front"} {
		c.told("InjectionSkipped on " + on + ": Not injected: updating Ingress front is refused: " +
			`ingresses.networking.k8s.io "front" is forbidden: admission webhook "policy.example.com" denied the request. ` +
			"Exempt objects with the label " +
			"app.kubernetes.io/managed-by=scale-to-zero from that policy, or change it; it is tried again until it is accepted")
	}
	if c.scaledObject() != nil {
		t.Error("it may sleep although nobody would wake it")
	}
}

// TestEventObject is an event as the API server gets it.
func TestEventObject(t *testing.T) {
	c := newCluster(t, webService())
	s := c.service()
	c.services.events.emit(t.Context(), injector.Report{Type: "Warning", Reason: "Because", Note: "All of it", Objects: []injector.Object{s}})
	var list corev1.EventList
	if err := c.List(t.Context(), &list); err != nil || len(list.Items) != 1 {
		t.Fatalf("%d events, %v", len(list.Items), err)
	}
	got := list.Items[0]
	at := metav1.NewTime(c.now.Truncate(time.Second))
	got.ObjectMeta = metav1.ObjectMeta{Namespace: got.Namespace, Name: strings.SplitN(got.Name, ".", 2)[0]}
	got.FirstTimestamp, got.LastTimestamp = metav1.NewTime(got.FirstTimestamp.UTC()), metav1.NewTime(got.LastTimestamp.UTC())
	want := corev1.Event{
		TypeMeta: got.TypeMeta, ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "web"},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: "apps", Name: "web", UID: s.UID},
		Type:           "Warning", Reason: "Because", Message: "All of it", Source: corev1.EventSource{Component: "scale-to-zero"},
		FirstTimestamp: at, LastTimestamp: at, Count: 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestWhomToAllow: the event about a way that is blocked names the pods that a NetworkPolicy has to let in, as they are
// installed.
func TestWhomToAllow(t *testing.T) {
	for name, tc := range map[string]struct {
		selector map[string]string
		want     string
	}{
		"by their labels": {
			map[string]string{"app": "interceptor", "part": "x"},
			"from pods app=interceptor,part=x in namespace ours (namespaceSelector kubernetes.io/metadata.name=ours); ",
		},
		"without any of them": {nil, "from all pods in namespace ours (namespaceSelector kubernetes.io/metadata.name=ours); "},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, webDeployment(1), webService())
			own := &corev1.Service{}
			if err := c.Get(t.Context(), types.NamespacedName{Namespace: "ours", Name: "interceptors"}, own); err != nil {
				t.Fatal(err)
			}
			own.Spec.Selector = tc.selector
			c.update(own)
			c.both(1)
			c.directSlice(true)
			c.reach = []injector.PortReach{{Name: "http", Ready: 1, Port: "8080", Error: "i/o timeout"}}
			c.both(1)
			c.now = c.now.Add(10 * time.Second)
			c.both(1)
			c.told("InjectionSkipped on Service/web: Not injected: the interceptors cannot connect to its pods on port 8080 (i/o timeout). If a " +
				"NetworkPolicy restricts them, allow ingress " + tc.want)
		})
	}
}

// TestInternalServices: a Namespace's opt-in includes what only other pods call if the Namespace says so.
func TestInternalServices(t *testing.T) {
	for value, want := range map[string]bool{"true": true, "false": false, "": false} {
		t.Run("internal-services="+value, func(t *testing.T) {
			c := newCluster(t, webDeployment(1), webService(func(s *corev1.Service) { s.Labels = nil }))
			c.optInNamespace()
			namespace := &corev1.Namespace{}
			if err := c.Get(t.Context(), client.ObjectKey{Name: "apps"}, namespace); err != nil {
				t.Fatal(err)
			}
			if value != "" {
				namespace.Annotations = map[string]string{injector.InternalServicesAnnotation: value}
			}
			c.update(namespace)
			c.both(2)
			if got := c.routeSlice() != nil; got != want {
				t.Errorf("taken: %t; events %s", got, c.events())
			}
		})
	}
}

// TestNamed are requests in order, each once, and none without a name.
func TestNamed(t *testing.T) {
	names := []string{"web", "", "api", "web"}
	var got []string
	for _, r := range named("apps", names...) {
		got = append(got, r.String())
	}
	if diff := cmp.Diff([]string{"apps/api", "apps/web"}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"web", "", "api", "web"}, names); diff != "" {
		t.Errorf("the caller's own list is changed: %s", diff)
	}
}
