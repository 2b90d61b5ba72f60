// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// rule is a right in the namespace of an app.
func rule(group, resource, verb string, names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{verb}, ResourceNames: names}
}

// user returns the client of somebody with these rights in the app's namespace, and the right to write its Services and Ingresses.
func (a *app) user(name string, rules ...rbacv1.PolicyRule) client.Client {
	a.t.Helper()
	name += "-" + a.ns
	for _, resource := range []string{"services", "ingresses"} {
		for _, verb := range []string{"get", "create", "update", "patch", "delete"} {
			rules = append(rules, rule(map[string]string{"ingresses": "networking.k8s.io"}[resource], resource, verb))
		}
	}
	create(a.t, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: name}, Rules: rules})
	create(a.t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name}},
	})
	c, err := client.New(as(name), client.Options{Scheme: scheme})
	if err != nil {
		a.t.Fatal(err)
	}
	eventually(a.t, "the role takes effect", func() error {
		return c.Get(a.t.Context(), client.ObjectKey{Namespace: a.ns, Name: "web"}, &corev1.Service{})
	})
	return c
}

// optIn lets somebody opt the Service in with annotations, and then puts it back.
func (a *app) optIn(c client.Client, annotations string) error {
	patch := fmt.Sprintf(`{"metadata":{"labels":{"scale-to-zero":"true"},"annotations":{%s}}}`, annotations)
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "web"}}
	err := c.Patch(a.t.Context(), s, client.RawPatch(types.MergePatchType, []byte(patch)))
	if err == nil {
		if back := a.patch(`{"metadata":{"labels":{"scale-to-zero":null},"annotations":{"scale-to-zero/workload":null}}}`); back != nil {
			a.t.Fatal(back)
		}
	}
	return err
}

// Whoever opts a Service in has to have the right to scale what is put to sleep.
func TestOptInTakesTheRightToScale(t *testing.T) {
	a := newApp(t, 1)
	named := func(workload string) string { return fmt.Sprintf(`"scale-to-zero/workload":%q`, workload) }
	general := []rbacv1.PolicyRule{rule("apps", "deployments", "patch"), rule("apps", "statefulsets", "update")}
	for i, tc := range []struct {
		name     string
		rules    []rbacv1.PolicyRule
		workload string
		allowed  bool
	}{
		{"nothing", nil, "", false},
		{"nothing, named", nil, "Deployment/web", false},
		{"to read", []rbacv1.PolicyRule{rule("apps", "deployments", "get"), rule("apps", "statefulsets", "list")}, "", false},
		{"to create", []rbacv1.PolicyRule{rule("apps", "deployments", "create")}, "Deployment/web", false},
		{"of another group", []rbacv1.PolicyRule{rule("example.com", "deployments", "patch")}, "Deployment/web", false},
		{"the status", []rbacv1.PolicyRule{rule("apps", "deployments/status", "patch")}, "Deployment/web", false},
		{"both kinds", general, "", true},
		{"both kinds, named", general, "Deployment/web", true},
		{"Deployments alone", general[:1], "", false},
		{"Deployments alone, named", general[:1], "Deployment/web", true},
		{"Deployments alone, a StatefulSet", general[:1], "StatefulSet/web", false},
		{"the scale", []rbacv1.PolicyRule{rule("apps", "deployments/scale", "update")}, "Deployment/web", true},
		{"one name", []rbacv1.PolicyRule{rule("apps", "deployments", "patch", "web")}, "Deployment/web", true},
		{"one name, unnamed", []rbacv1.PolicyRule{rule("apps", "deployments", "patch", "web")}, "", false},
		{"another name", []rbacv1.PolicyRule{rule("apps", "deployments/scale", "patch", "web2")}, "Deployment/web", false},
		{"a custom resource", general, "Gallery.example.com/web", false},
		{"its own right", []rbacv1.PolicyRule{rule("example.com", "galleries/scale", "patch", "web")}, "Gallery.example.com/web", true},
	} {
		c := a.user(fmt.Sprintf("user%d", i), tc.rules...)
		annotations := ""
		if tc.workload != "" {
			annotations = named(tc.workload)
		}
		switch err := a.optIn(c, annotations); {
		case tc.allowed && err != nil:
			t.Errorf("%s: %v", tc.name, err)
		case !tc.allowed && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "may not put an app to sleep here")):
			t.Errorf("%s: want a denial, got %v", tc.name, err)
		}
	}
	nobody := a.user("nobody")
	err := a.optIn(nobody, named("Deployment/web"))
	for _, want := range []string{"nobody-" + a.ns, "patch or update deployments/web", "namespace " + a.ns, "authorization.trustedAccounts"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the message lacks %q: %v", want, err)
		}
	}
}

// attempt is one of somebody who may only write Services and Ingresses, after what an admin has set up.
type attempt struct {
	setup   string // of the Service web, by an admin
	ns      string // patch of the Namespace
	ingress bool   // an opted-in Ingress leads to the Service
	do      func(ctx context.Context, a *app, c client.Client) error
	allowed bool
}

func patching(patch string) func(context.Context, *app, client.Client) error {
	return func(ctx context.Context, a *app, c client.Client) error {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "web"}}
		return c.Patch(ctx, s, client.RawPatch(types.MergePatchType, []byte(patch)))
	}
}

func creating(name string, selector map[string]string, labels map[string]string) func(context.Context, *app, client.Client) error {
	return func(ctx context.Context, a *app, c client.Client) error {
		s := a.service()
		s.Name, s.Spec.Selector, s.Labels = name, selector, labels
		return c.Create(ctx, s)
	}
}

// An editor of Services and Ingresses alone makes nothing sleep, whichever way, and is not hindered otherwise.
func TestServiceEditorPutsNothingToSleep(t *testing.T) {
	const label, unlabel = `{"metadata":{"labels":{"scale-to-zero":"true"}}}`, `{"metadata":{"labels":{"scale-to-zero":null}}}`
	on := map[string]string{injector.OptInLabel: "true"}
	web, worker := map[string]string{"app": "web"}, map[string]string{"app": "worker"}
	ingress := func(labels, annotations map[string]string) func(context.Context, *app, client.Client) error {
		return func(ctx context.Context, a *app, c client.Client) error {
			return c.Create(ctx, editorsIngress(a, "other", labels, annotations))
		}
	}
	for name, tc := range map[string]attempt{
		"the label":               {do: patching(label)},
		"the annotation":          {do: patching(`{"metadata":{"annotations":{"scale-to-zero/enabled":"true"}}}`)},
		"a new Service":           {do: creating("new", worker, on)},
		"the selector of one":     {setup: label, do: patching(`{"spec":{"selector":{"app":"worker"}}}`)},
		"one selector key more":   {setup: label, do: patching(`{"spec":{"selector":{"tier":"a"}}}`)},
		"the workload of one":     {setup: label, do: patching(`{"metadata":{"annotations":{"scale-to-zero/workload":"Deployment/worker"}}}`)},
		"the cool-down of one":    {setup: label, do: patching(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"1s"}}}`)},
		"asleep":                  {setup: label, do: patching(`{"metadata":{"annotations":{"scale-to-zero/asleep":"true"}}}`)},
		"the ports of one":        {setup: label, do: patching(`{"spec":{"ports":[{"name":"http","port":81}]}}`), allowed: true},
		"a label of one":          {setup: label, do: patching(`{"metadata":{"labels":{"a":"b"}}}`), allowed: true},
		"opting out":              {setup: label, do: patching(unlabel), allowed: true},
		"a plain Service":         {do: creating("new", worker, nil), allowed: true},
		"a plain selector":        {do: patching(`{"spec":{"selector":{"app":"worker"}}}`), allowed: true},
		"an Ingress":              {do: ingress(on, nil)},
		"an annotated Ingress":    {do: ingress(nil, map[string]string{"scale-to-zero/enabled": "true"})},
		"a plain Ingress":         {do: ingress(nil, nil), allowed: true},
		"behind an Ingress":       {ingress: true, do: patching(`{"spec":{"selector":{"app":"worker"}}}`)},
		"behind, a setting":       {ingress: true, do: patching(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"1s"}}}`)},
		"behind, another Service": {ingress: true, do: creating("new", worker, nil), allowed: true},
		"behind, anew": {ingress: true, do: func(ctx context.Context, a *app, c client.Client) error {
			if err := kube.Delete(ctx, a.live()); err != nil {
				return err
			}
			return creating("web", worker, nil)(ctx, a, c)
		}},
		"in a Namespace":          {ns: label, do: creating("new", web, nil)},
		"in a Namespace, no pods": {ns: label, do: creating("new", worker, nil), allowed: true},
		"in a Namespace, the selector": {
			ns: label, setup: `{"spec":{"selector":{"app":"x"}}}`, do: patching(`{"spec":{"selector":{"app":"web"}}}`),
		},
		"in a Namespace, opted out": {
			ns: label, do: creating("new", web, map[string]string{injector.OptInLabel: "false"}), allowed: true,
		},
		"in a Namespace, a label": {ns: label, do: patching(`{"metadata":{"labels":{"a":"b"}}}`), allowed: true},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, 1)
			editor := a.user("editor")
			if tc.ns != "" {
				ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: a.ns}}
				if err := kube.Patch(t.Context(), ns, client.RawPatch(types.MergePatchType, []byte(tc.ns))); err != nil {
					t.Fatal(err)
				}
			}
			if tc.setup != "" {
				if err := a.patch(tc.setup); err != nil {
					t.Fatal(err)
				}
			}
			if tc.ingress {
				create(t, editorsIngress(a, "web", on, nil))
			}
			if tc.allowed {
				if err := tc.do(t.Context(), a, editor); err != nil {
					t.Error(err)
				}
				return
			}
			eventually(t, "it is denied", func() error { // the policies see Ingresses, Namespaces and workloads a moment late
				dry := client.NewDryRunClient(editor)
				if name == "behind, anew" {
					dry = editor
				}
				const want = "may not put an app to sleep here"
				if err := tc.do(t.Context(), a, dry); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want) {
					return fmt.Errorf("want a denial, got %w", err)
				}
				return nil
			})
		})
	}
}

func editorsIngress(a *app, name string, labels, annotations map[string]string) *networkingv1.Ingress {
	return &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: name, Labels: labels, Annotations: annotations},
		Spec: networkingv1.IngressSpec{DefaultBackend: &networkingv1.IngressBackend{
			Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}},
		}},
	}
}

// A deployment tool that the values trust needs no right to scale.
func TestTrustedAccountOptsIn(t *testing.T) {
	a := newApp(t, 1)
	create(t, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "deployer"}, Rules: []rbacv1.PolicyRule{
		rule("", "services", "get"), rule("", "services", "patch"),
	}})
	create(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "deployer"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "deployer"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: trusted}},
	})
	c, err := client.New(as(trusted), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it opts in", func() error { return a.optIn(c, "") })
}

// A workload that a Service names stays up if the Service does not select its pods.
func TestUnrelatedWorkloadStaysUp(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	worker := a.deployment("worker", 1)
	worker.Spec.Selector.MatchLabels = map[string]string{"app": "worker"}
	worker.Spec.Template.Labels = map[string]string{"app": "worker"}
	create(t, worker)
	if err := a.patch(`{"metadata":{"labels":{"scale-to-zero":"true"},` +
		`"annotations":{"scale-to-zero/workload":"Deployment/worker"}}}`); err != nil {
		t.Fatal(err)
	}
	a.told("Service", "web", "annotation scale-to-zero/workload names Deployment/worker, whose pods its selector app=web does not match")
	d := &appsv1.Deployment{}
	if a.get("worker", d); d.Annotations[injector.ReplicasAnnotation] != "" || *d.Spec.Replicas != 1 {
		t.Errorf("it is scaled: %v, %d replicas", d.Annotations, *d.Spec.Replicas)
	}
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/workload":"Deployment/web"}}}`); err != nil {
		t.Fatal(err)
	}
	a.followInjection()
}
