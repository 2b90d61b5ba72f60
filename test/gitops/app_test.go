// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// app is the test chart in a namespace of its own.
type app struct {
	t       *testing.T
	ns      string
	command command

	rendered map[values]map[string]string // the chart's objects by kind
}

// newApp makes the namespace, and removes the interceptors, so that what is applied next is not injected yet.
func newApp(t *testing.T) *app {
	t.Helper()
	listInterceptors(t)
	waitForAdmission(t, true)
	// The cool-down is short, since the app stays awake for one after its traffic bypassed the interceptors.
	ns := &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "app-", Annotations: map[string]string{"scale-to-zero/cooldown": "1s"}},
	}
	if err := kube.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	a := &app{t: t, ns: ns.Name, command: command{home: t.TempDir(), namespace: ns.Name}, rendered: map[values]map[string]string{}}
	t.Cleanup(func() {
		for _, kind := range []string{"Service", "Deployment"} {
			o := a.object(kind)
			o.SetNamespace(a.ns)
			o.SetName("web")
			if err := client.IgnoreNotFound(kube.Delete(context.Background(), o)); err != nil {
				t.Error(err)
			}
		}
	})
	return a
}

// object returns an empty object of one of the chart's kinds.
func (a *app) object(kind string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(map[string]schema.GroupVersionKind{
		"Deployment":   {Group: "apps", Version: "v1", Kind: "Deployment"},
		"Service":      {Version: "v1", Kind: "Service"},
		"Ingress":      {Group: "networking.k8s.io", Version: "v1", Kind: "Ingress"},
		"ScaledObject": keda.GroupVersion().WithKind("ScaledObject"),
	}[kind])
	return u
}

func (a *app) get(name string, o client.Object) error {
	return kube.Get(a.t.Context(), client.ObjectKey{Namespace: a.ns, Name: name}, o)
}

func (a *app) exists() error { return a.get("web", &corev1.Service{}) }

func (a *app) service() *corev1.Service {
	a.t.Helper()
	s := &corev1.Service{}
	if err := a.get("web", s); err != nil {
		a.t.Fatal(err)
	}
	return s
}

func (a *app) deployment() *appsv1.Deployment {
	a.t.Helper()
	d := &appsv1.Deployment{}
	if err := a.get("web", d); err != nil {
		a.t.Fatal(err)
	}
	return d
}

func (a *app) intercepted() error {
	if s := a.service(); !injector.Intercepted(s) || s.Annotations[injector.RedirectAnnotation] != injector.RedirectReady {
		return fmt.Errorf("selector %v, annotations %v", s.Spec.Selector, s.Annotations)
	}
	return nil
}

// injected lists an interceptor and waits until the app is injected and KEDA has its ScaledObject.
func (a *app) injected() {
	a.t.Helper()
	listInterceptors(a.t, "198.18.0.2")
	eventually(a.t, "the Service is intercepted", a.intercepted)
	eventually(a.t, "KEDA has its ScaledObject", func() error { return a.get("web-deployment", &keda.ScaledObject{}) })
}

// floor checks the replica count below which the app may not go.
func (a *app) floor(want int32) func() error {
	return func() error {
		so := &keda.ScaledObject{}
		if err := a.get("web-deployment", so); err != nil {
			return err
		}
		if got := *so.Spec.MinReplicaCount; got != want {
			return fmt.Errorf("at least %d replicas, want %d", got, want)
		}
		return nil
	}
}

// scaled writes the replica count as KEDA does, and waits until every controller has seen it.
func (a *app) scaled(n int32) {
	a.t.Helper()
	s := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: n}}
	if err := kube.SubResource("scale").Update(a.t.Context(), a.deployment(), client.WithSubResourceBody(s),
		client.FieldOwner("keda-operator")); err != nil {
		a.t.Fatal(err)
	}
	eventually(a.t, fmt.Sprintf("it has %d replicas, which nobody owns", n), func() error {
		d := a.deployment()
		if d.Status.ReadyReplicas != n || d.Status.ObservedGeneration != d.Generation {
			return fmt.Errorf("status %+v", d.Status)
		}
		for _, m := range d.ManagedFields {
			if m.Subresource == "scale" {
				return fmt.Errorf("%s owns %s", m.Manager, m.FieldsV1.GetRawString())
			}
		}
		return nil
	})
}

// state is an app's state in which a tool compares the chart with it and applies it again.
type state struct {
	name        string
	intercepted bool
	enter       func(a *app)
}

func states() []state {
	return []state{
		{"before injection", false, func(*app) {}},
		{"injected", true, (*app).injected},
		{"asleep", true, func(a *app) { a.scaled(0) }},
		{"awake again", true, func(a *app) { a.scaled(1) }},
	}
}

// selectorOwners returns the field managers of the Service's selector.
func (a *app) selectorOwners() string {
	a.t.Helper()
	var owners []string
	for _, m := range a.service().ManagedFields {
		if strings.Contains(m.FieldsV1.GetRawString(), `"f:selector"`) {
			owners = append(owners, m.Manager)
		}
	}
	return strings.Join(owners, ", ")
}

// specs returns what a re-apply must not change: everything in the Service and the Ingress except the metadata.
func (a *app) specs() map[string]any {
	a.t.Helper()
	all := map[string]any{}
	for _, kind := range []string{"Service", "Ingress"} {
		u := a.object(kind)
		if err := a.get("web", u); err != nil {
			a.t.Fatal(err)
		}
		all[kind] = u.Object["spec"]
	}
	return all
}

// versions show whether anything has been written.
func (a *app) versions() map[string]string {
	a.t.Helper()
	all := map[string]string{}
	for _, kind := range []string{"Service", "Ingress"} {
		u := a.object(kind)
		if err := a.get("web", u); err != nil {
			a.t.Fatal(err)
		}
		all[kind] = u.GetResourceVersion()
	}
	return all
}

// noDrift checks that the tool finds nothing to change.
func (a *app) noDrift(tool tool, v values) error {
	if tool.drift == nil {
		return nil
	}
	for _, kind := range []string{"Service", "Ingress"} {
		drift, err := tool.drift(a, kind, v)
		if err != nil {
			return err
		}
		if drift != "" {
			return fmt.Errorf("the %s has drifted:\n%s", kind, drift)
		}
	}
	drift, err := tool.drift(a, "Deployment", v)
	return errors.Join(err, a.noDeploymentDrift(drift, v))
}

// noDeploymentDrift checks a tool's diff of the Deployment. Only the replica count may differ, only while the chart asks
// for another count than there is, and only if the tool does not ask admission, which guards the count. Of all tools,
// that is Argo CD, unless it includes mutation webhooks.
func (a *app) noDeploymentDrift(drift string, v values) error {
	if drift == "" {
		return nil
	}
	if !strings.Contains(drift, "side diff:") || strings.Contains(drift, "with mutation webhooks") {
		return fmt.Errorf("admission would change nothing, and yet the Deployment has drifted:\n%s", drift)
	}
	if *a.deployment().Spec.Replicas == v.replicas {
		return fmt.Errorf("the Deployment has drifted:\n%s", drift)
	}
	for line := range strings.Lines(drift) {
		changed := strings.HasPrefix(line, "+") || strings.HasPrefix(line, "-")
		for _, expected := range []string{"replicas", "generation", "+++", "---"} {
			changed = changed && !strings.Contains(line, expected)
		}
		if changed {
			return fmt.Errorf("the Deployment has drifted in more than its replicas:\n%s", drift)
		}
	}
	return nil
}

// patch changes the Service's selector as a controller without an admission webhook would.
func (a *app) patch(selector map[string]string) error {
	s := a.service()
	from := client.MergeFrom(s.DeepCopy())
	maps.Copy(s.Spec.Selector, selector)
	return kube.Patch(a.t.Context(), s, from, client.FieldOwner("somebody-else"))
}

func same(what string, want, got any) error {
	if d := cmp.Diff(want, got); d != "" {
		return fmt.Errorf("%s (-want +got):\n%s", what, d)
	}
	return nil
}

// replace replaces the Service by the chart's, and may add the route annotation.
func (a *app) replace(v values, annotated bool) error {
	all, err := a.render(v)
	if err != nil {
		return err
	}
	c := a.command
	c.stdin = all["Service"]
	if annotated {
		c.stdin = strings.Replace(c.stdin, "annotations: {", fmt.Sprintf("annotations: {%s: %s, ", injector.RedirectAnnotation,
			injector.RedirectReady), 1)
	}
	_, err = c.run("kubectl", "replace", "--namespace="+a.ns, "--filename=-")
	return err
}
