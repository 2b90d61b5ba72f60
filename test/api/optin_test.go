// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

const (
	enable   = `{"metadata":{"annotations":{"scale-to-zero/enabled":"true"}}}`
	unenable = `{"metadata":{"annotations":{"scale-to-zero/enabled":null}}}`
)

// TestEnabledAnnotation: the annotation does what the label does, on a Service, an Ingress and a Namespace.
func TestEnabledAnnotation(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	if err := a.patch(enable); err != nil {
		t.Fatal(err)
	}
	a.followInjection()
	a.told("Service", "web", fmt.Sprintf("Undo: kubectl annotate service -n %s web scale-to-zero/enabled-", a.ns))
	a.told("Service", "web", "kubectl port-forward, logs and exec find no pods behind service/web now: use deployment/web.")
	for patch, want := range map[string]string{
		`{"metadata":{"labels":{"scale-to-zero":"false"}}}`: `annotation scale-to-zero/enabled: "true" is not allowed: ` +
			`label scale-to-zero is "false", and both have to agree`,
		`{"metadata":{"annotations":{"scale-to-zero/enabled":"1"}}}`: `annotation scale-to-zero/enabled: "1" is not allowed: ` +
			`allowed is "true" or "false"`,
	} {
		if err := a.patch(patch); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", patch, err, want)
		}
	}
	if err := a.patch(unenable); err != nil {
		t.Fatal(err)
	}
	if a.intercepted() == nil {
		t.Error("the write that removes the annotation does not remove the sentinel")
	}
	a.nativeSlice(true)
	eventually(t, "nothing of ours is left", a.nothingLeft)

	a.ingress("front")
	a.patchIngress("front", enable)
	a.directMade()
	a.led("front", "other", "web-scale-to-zero")
	a.told("Ingress", "front", fmt.Sprintf("Undo: kubectl annotate ingress -n %s front scale-to-zero/enabled-", a.ns))
	a.patchIngress("front", unenable)
	a.led("front", "other", "web")
	eventually(t, "nothing of ours is left", a.nothingLeft)

	a.reachable()
	if err := a.patchNamespace(enable); err != nil {
		t.Fatal(err)
	}
	a.followInjection()
	a.told("Service", "web", fmt.Sprintf("Undo: kubectl label service -n %s web scale-to-zero=false", a.ns))
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/enabled":"false"}}}`); err != nil {
		t.Fatal(err)
	}
	a.nativeSlice(true)
	eventually(t, "nothing of ours is left", a.nothingLeft)
}

// TestHeadlessByItsIngress: the event of an opted-in headless Service names the Ingress to label. It ends once that is
// labelled.
func TestHeadlessByItsIngress(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	if err := kube.Delete(t.Context(), a.live()); err != nil {
		t.Fatal(err)
	}
	s := a.service()
	s.Spec.ClusterIP, s.Labels[injector.OptInLabel] = corev1.ClusterIPNone, "true"
	create(t, s)
	a.told("Service", "web",
		"it is headless: its clients connect to pods by themselves. If visitors come through an Ingress, label the Ingress instead")
	a.ingress("front")
	a.told("Service", "web", fmt.Sprintf("Visitors come through an Ingress: kubectl label ingress -n %s front scale-to-zero=true", a.ns))
	a.patchIngress("front", label)
	a.directMade()
	a.led("front", "other", "web-scale-to-zero")
}

// warner collects the warnings of the API server.
type warner struct {
	mu   sync.Mutex // protects said
	said []string
}

func (w *warner) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, text)
}

func (w *warner) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.said = nil }()
	return strings.Join(w.said, "\n")
}

func TestAdmissionWarnings(t *testing.T) {
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.ingress("front")
	w := &warner{}
	config := rest.CopyConfig(env.Config)
	config.WarningHandler = w
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	ingress := &networkingv1.Ingress{}
	a.get("front", ingress)
	ns := &corev1.Namespace{}
	ns.Name = a.ns
	for _, tc := range []struct {
		o           client.Object
		patch, want string
	}{
		{
			a.live(), `{"metadata":{"annotations":{"scale-to-zero/cooldown":"1m"}}}`,
			"scale-to-zero/cooldown: no effect unless the Service, its Namespace or an Ingress to it is opted in",
		},
		{a.live(), `{"metadata":{"annotations":{"scale-to-zero":"true"}}}`, "annotation scale-to-zero does nothing"},
		{a.live(), `{"metadata":{"annotations":{"scale-to-zero":null,"scale-to-zero/enabled":"false"}}}`, ""},
		{ingress, `{"metadata":{"annotations":{"scale-to-zero/cooldown":"1m"}}}`, "no effect unless the Ingress itself is opted in"},
		{ingress, `{"metadata":{"labels":{"scale-to-zero":"true"}}}`, ""},
		{
			ingress, `{"metadata":{"annotations":{"nginx.ingress.kubernetes.io/auth-url":"http://web/auth"}}}`,
			"annotation nginx.ingress.kubernetes.io/auth-url seems to name backend Service web",
		},
		{ns, `{"metadata":{"annotations":{"scale-to-zero/cooldown":"1m"}}}`, ""},
		{
			ns, `{"metadata":{"annotations":{"scale-to-zero/internal-services":"true"}}}`,
			"scale-to-zero/internal-services: no effect unless the Namespace is opted in",
		},
	} {
		if err := c.Patch(t.Context(), tc.o, client.RawPatch("application/merge-patch+json", []byte(tc.patch))); err != nil {
			t.Fatalf("%s: %v", tc.patch, err)
		}
		if got := w.take(); (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%T %s: warnings %q, want something with %q", tc.o, tc.patch, got, tc.want)
		}
	}
}

// TestIngressAnnotations: known annotations that name the backend are rewritten with it; the others are reported.
func TestIngressAnnotations(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	if err := a.patch(`{"metadata":{"annotations":{"prometheus.io/scrape":"true",` +
		`"traefik.ingress.kubernetes.io/service.serversscheme":"h2c"}}}`); err != nil {
		t.Fatal(err)
	}
	a.ingress("front")
	const author = `"nginx.org/rewrites":"serviceName=web rewrite=/","nginx.org/websocket-services":"web,other",` +
		`"nginx.ingress.kubernetes.io/auth-url":"http://web/auth"`
	a.patchIngress("front", `{"metadata":{"labels":{"scale-to-zero":"true"},"annotations":{`+author+`}}}`)
	a.directMade()
	a.led("front", "other", "web-scale-to-zero")
	check := func(rewrites, services string) {
		t.Helper()
		i := &networkingv1.Ingress{}
		a.get("front", i)
		if got := i.Annotations; got["nginx.org/rewrites"] != rewrites || got["nginx.org/websocket-services"] != services {
			t.Errorf("annotations %v, want %q and %q", got, rewrites, services)
		}
	}
	check("serviceName=web-scale-to-zero rewrite=/", "web-scale-to-zero,other")
	for _, of := range []string{"Service", "Ingress"} {
		name := map[string]string{"Service": "web", "Ingress": "front"}[of]
		a.told(of, name,
			"AnnotationNotRewritten: Not rewritten: nginx.ingress.kubernetes.io/auth-url of Ingress front. Service web seems to be named "+
				"there, and the Ingress now reaches it as web-scale-to-zero")
	}
	alias := &corev1.Service{}
	a.get("web-scale-to-zero", alias)
	if _, scraped := alias.Annotations["prometheus.io/scrape"]; scraped ||
		alias.Annotations["traefik.ingress.kubernetes.io/service.serversscheme"] != "h2c" {
		t.Errorf("the alias has annotations %v", alias.Annotations)
	}
	a.patchIngress("front", `{"metadata":{"annotations":{`+author+`}}}`) // the chart is applied again
	check("serviceName=web-scale-to-zero rewrite=/", "web-scale-to-zero,other")
	a.patchIngress("front", unlabel)
	a.led("front", "other", "web")
	check("serviceName=web rewrite=/", "web,other")
}

// TestNoVisitorYet: an app that was opted in with its whole chart gets a warning before its first sleep if nothing
// exposes it and it gets no request. The chart's web server, which an Ingress exposes, gets none.
func TestNoVisitorYet(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}, counts: &counts{use: &injector.Use{Idle: time.Hour, Counted: time.Hour}}})
	a := newApp(t, 1)
	front := a.deployment("front", 1)
	front.Spec.Selector.MatchLabels, front.Spec.Template.Labels = map[string]string{"app": "front"}, map[string]string{"app": "front"}
	create(t, front)
	visited := a.service()
	visited.Name, visited.Spec.Selector, visited.Spec.Type = "front", map[string]string{"app": "front"}, corev1.ServiceTypeNodePort
	visited.Labels = map[string]string{"app.kubernetes.io/instance": "release", "scale-to-zero": "true"}
	visited.Annotations = map[string]string{"scale-to-zero/cooldown": "4s"}
	create(t, visited)
	if err := a.patch(`{"metadata":{"labels":{"scale-to-zero":"true","app.kubernetes.io/instance":"release"},` +
		`"annotations":{"scale-to-zero/cooldown":"4s"}}}`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the direct Service of front is made", func() error {
		return kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: "front-direct"}, &corev1.Service{})
	})
	direct := &corev1.Service{}
	a.get("front-direct", direct)
	a.slice("front-direct-native", "front-direct", direct.Labels, true)
	a.followInjection()
	a.told("Service", "front", "Injected: ")
	a.told("Service", "web", "NoVisitorYet: Service web has had no request recently, and no Ingress")
	a.told("Service", "web",
		fmt.Sprintf("then only a request wakes it. If it works without requests, as a worker or a scheduler does, keep it awake: "+
			"kubectl annotate service -n %s web scale-to-zero/min-replicas=1",
			a.ns))
	made := direct.CreationTimestamp.Time
	eventually(t, "the time for warnings is over", func() error {
		if left := time.Until(made.Add(6 * time.Second)); left > 0 {
			return fmt.Errorf("%s are left", left)
		}
		return nil
	})
	if got := events(t, a.ns, "Service", "front"); strings.Contains(got, "NoVisitorYet") {
		t.Errorf("events of the Service that visitors reach: %s", got)
	}
	if got := events(t, a.ns, "Service", "web"); strings.Count(got, "NoVisitorYet") != 1 {
		t.Errorf("events: %s", got)
	}
}

// eventTypes returns the types of an object's events with that reason.
func eventTypes(t *testing.T, namespace, name, reason string) []string {
	t.Helper()
	var list corev1.EventList
	if err := kube.List(context.Background(), &list, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list.Items {
		if e.InvolvedObject.Name == name && e.Reason == reason && !slices.Contains(out, e.Type) {
			out = append(out, e.Type)
		}
	}
	return out
}
