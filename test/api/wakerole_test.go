// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/controller"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	interceptorkube "github.com/scale-to-zero/scale-to-zero/interceptor/kube"
	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
)

const wakeRole = "scale-to-zero-wakes-00"

// wakes is an interceptor with the account of the chart, and its rights.
func wakes(t *testing.T) *interceptorkube.Cluster {
	t.Helper()
	c, err := interceptorkube.New(as(interceptorAccount), interceptorkube.Options{Namespace: ours, PodName: "one", Log: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func deploymentNamed(name string) api.Workload {
	return api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: name}
}

// noRight returns nil if that is what the interceptor is told.
func noRight(scaled bool, err error) error {
	if refused, ok := errors.AsType[*scaler.RefusedError](err); !ok || !refused.NoRight {
		return fmt.Errorf("want a refusal, got %t, %w", scaled, err)
	}
	return nil
}

// rolesLeft says which Roles of ours there are in the app's namespace.
func (a *app) rolesLeft() error {
	var roles rbacv1.RoleList
	var bindings rbacv1.RoleBindingList
	ours := client.MatchingLabels{injector.ManagedByLabel: injector.ManagedBy}
	if err := errors.Join(kube.List(a.t.Context(), &roles, client.InNamespace(a.ns), ours),
		kube.List(a.t.Context(), &bindings, client.InNamespace(a.ns), ours)); err != nil {
		return err
	}
	if len(roles.Items)+len(bindings.Items) > 0 {
		return fmt.Errorf("%d Roles and %d RoleBindings", len(roles.Items), len(bindings.Items))
	}
	return nil
}

// TestInterceptorsWakeOurWorkloads: an interceptor's token wakes the workload of an injected Service, and nothing else of anybody.
func TestInterceptorsWakeOurWorkloads(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a, stranger := newApp(t, 1), newApp(t, 0)
	other := a.deployment("other", 0)
	other.Spec.Selector.MatchLabels, other.Spec.Template.Labels = map[string]string{"app": "other"}, map[string]string{"app": "other"}
	create(t, other)
	i := wakes(t)
	if err := noRight(i.Scale(t.Context(), a.ns, deploymentNamed("web"), 1)); err != nil {
		t.Errorf("before the opt-in: %v", err)
	}
	a.injected()
	a.scaledSeen(0)
	eventually(t, "the app is woken", func() error {
		scaled, err := i.Scale(t.Context(), a.ns, deploymentNamed("web"), 2)
		if err == nil && !scaled {
			return errors.New("it was awake")
		}
		return err
	})
	if n := a.replicas(); n != 2 {
		t.Errorf("it has %d replicas", n)
	}
	for what, attempt := range map[string]func() (bool, error){
		"another workload of the namespace": func() (bool, error) { return i.Scale(t.Context(), a.ns, deploymentNamed("other"), 1) },
		"the same name elsewhere":           func() (bool, error) { return i.Scale(t.Context(), stranger.ns, deploymentNamed("web"), 1) },
		"the same name, another kind": func() (bool, error) {
			return i.Scale(t.Context(), a.ns, api.Workload{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "web"}, 1)
		},
		"a look at another": func() (bool, error) {
			_, err := i.Replicas(t.Context(), stranger.ns, deploymentNamed("web"))
			return false, err
		},
	} {
		if scaled, err := attempt(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %t, %v", what, scaled, err)
		}
	}
	c, err := client.New(as(interceptorAccount), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	d := func() *appsv1.Deployment {
		return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "web"}}
	}
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"replicas":0}}`))
	eventually(t, "the policy takes effect", func() error {
		err := c.SubResource("scale").Patch(t.Context(), d(), patch, client.DryRunAll)
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "from 0 replicas to more") {
			return fmt.Errorf("putting to sleep: %w", err)
		}
		return nil
	})
	if err := c.Patch(t.Context(), d(), patch); !apierrors.IsForbidden(err) {
		t.Errorf("the workload itself: %v", err)
	}
	a.label("null")
	a.nativeSlice(true)
	eventually(t, "the route is withdrawn", func() error { return a.gone("web-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{}) })
	eventually(t, "the rights go", a.rolesLeft)
	eventually(t, "the rights are gone", func() error {
		if _, err := i.Replicas(t.Context(), a.ns, deploymentNamed("web")); !apierrors.IsForbidden(err) {
			return fmt.Errorf("want a refusal, got %w", err)
		}
		return nil
	})
}

// TestWakeRoleOfCustomResource: the chart's value customWorkloads lets the controllers grant the right to wake a custom resource, too.
func TestWakeRoleOfCustomResource(t *testing.T) {
	installGalleries(t)
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	gallery := a.gallery(1)
	if err := kube.Delete(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "web"}}); err != nil {
		t.Fatal(err)
	}
	if err := a.patch(`{"metadata":{"labels":{"scale-to-zero":"true"},` +
		`"annotations":{"scale-to-zero/workload":"Gallery.example.com/web"}}}`); err != nil {
		t.Fatal(err)
	}
	a.followInjection()
	a.scaleGallery(gallery, 0)
	w := api.Workload{APIVersion: "example.com/v1beta1", Kind: "Gallery", Name: "web", Resource: "galleries"}
	eventually(t, "it is woken", func() error {
		scaled, err := wakes(t).Scale(t.Context(), a.ns, w, 3)
		if err == nil && !scaled {
			return errors.New("it was awake")
		}
		return err
	})
	if err := a.galleryHas(gallery, 3); err != nil {
		t.Error(err)
	}
}

// TestWakeRoleIsPutBack: whatever the owner of the namespace does to our Roles is undone, or told.
func TestWakeRoleIsPutBack(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.injected()
	meta := metav1.ObjectMeta{Namespace: a.ns, Name: wakeRole}
	was := &rbacv1.Role{}
	a.get(wakeRole, was)
	bound := &rbacv1.RoleBinding{}
	a.get(wakeRole, bound)
	asBefore := func() error {
		role, binding := &rbacv1.Role{}, &rbacv1.RoleBinding{}
		key := client.ObjectKey{Namespace: a.ns, Name: wakeRole}
		if err := errors.Join(kube.Get(t.Context(), key, role), kube.Get(t.Context(), key, binding)); err != nil {
			return err
		}
		if fmt.Sprint(role.Rules) != fmt.Sprint(was.Rules) || binding.RoleRef != bound.RoleRef ||
			!slices.Equal(binding.Subjects, bound.Subjects) {
			return fmt.Errorf("%v, %v", role.Rules, binding.Subjects)
		}
		if role.ResourceVersion == was.ResourceVersion && binding.ResourceVersion == bound.ResourceVersion {
			return errors.New("nothing has changed")
		}
		return nil
	}
	for what, change := range map[string]func() error{
		"a name": func() error {
			return kube.Patch(t.Context(), &rbacv1.Role{ObjectMeta: meta}, client.RawPatch("application/merge-patch+json", []byte(
				`{"rules":[{"apiGroups":["apps"],"resources":["deployments/scale"],"resourceNames":["other"],"verbs":["get","patch"]}]}`)))
		},
		"a subject": func() error {
			return kube.Patch(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta}, client.RawPatch("application/merge-patch+json", []byte(
				`{"subjects":[{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"eve"}]}`)))
		},
		"the Role":        func() error { return kube.Delete(t.Context(), &rbacv1.Role{ObjectMeta: meta}) },
		"the RoleBinding": func() error { return kube.Delete(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta}) },
		"the RoleBinding, for another Role": func() error {
			other := &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: wakeRole, Labels: bound.Labels},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"}, Subjects: bound.Subjects,
			}
			err := kube.Delete(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta})
			if created := kube.Create(t.Context(), other); created != nil && !apierrors.IsAlreadyExists(created) {
				return created
			}
			return err
		},
	} {
		a.get(wakeRole, was)
		a.get(wakeRole, bound)
		if err := change(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		eventually(t, what+" is put back", asBefore)
	}
	if err := kube.Patch(t.Context(), &rbacv1.Role{ObjectMeta: meta}, client.RawPatch("application/merge-patch+json", []byte(
		`{"metadata":{"labels":null}}`))); err != nil {
		t.Fatal(err)
	}
	a.told("Service", "web", "WakeNotGranted: This Service stays redirected, but the interceptors cannot be given the right to wake "+
		"deployments/web: creating Role scale-to-zero-wakes-00 is refused: there is one of that name")
	if err := kube.Delete(t.Context(), &rbacv1.Role{ObjectMeta: meta}); err != nil {
		t.Fatal(err)
	}
	a.told("Service", "web", "WriteAccepted: The interceptors may wake Deployment/web now")
}

// TestWakeRoleIsRefused: an app whose Role a policy or a quota refuses is not injected, and told why.
func TestWakeRoleIsRefused(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	allow := a.deny(rbacv1.GroupName, "v1", "roles", "false", &rbacv1.Role{})
	a.label(`"true"`)
	a.directMade()
	a.told("Service", "web", "InjectionSkipped: Not injected: the interceptors cannot be given the right to wake deployments/web: "+
		"creating Role scale-to-zero-wakes-00 is refused: ")
	if injector.Intercepted(a.live()) {
		t.Error("it is injected")
	}
	allow()
	eventually(t, "the Service is intercepted", a.intercepted)
}

// TestControllersGrantNothingElse: the controllers' own token grants no right but to wake by name, to nobody but the interceptors, and
// leaves the Roles of others alone.
func TestControllersGrantNothingElse(t *testing.T) {
	a := newApp(t, 0)
	c, err := client.New(as(controllerAccount), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]string{injector.ManagedByLabel: injector.ManagedBy}
	role := func(name string, labels map[string]string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: name, Labels: labels}, Rules: rules}
	}
	binding := func(kind, to string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: wakeRole, Labels: ours},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: to}, Subjects: subjects,
		}
	}
	wake := rbacv1.PolicyRule{
		APIGroups: []string{"apps"}, Resources: []string{"deployments/scale"}, ResourceNames: []string{"web"}, Verbs: []string{"get", "patch"},
	}
	interceptors := rbacv1.Subject{Kind: "ServiceAccount", Namespace: "scale-to-zero", Name: "scale-to-zero-interceptor"}
	eventually(t, "the policy takes effect", func() error {
		if err := c.Create(t.Context(), role("admin", ours, wake), client.DryRunAll); !apierrors.IsForbidden(err) {
			return fmt.Errorf("not refused: %w", err)
		}
		return nil
	})
	create(t, role("mine", nil, wake))
	create(t, role("scale-to-zero-wakes-07", nil, wake))
	if err := c.Create(t.Context(), role(wakeRole, ours, wake)); err != nil {
		t.Errorf("its own: %v", err)
	}
	for what, o := range map[string]client.Object{
		"a Role of another name":         role("admin", ours, wake),
		"one without our label":          role("scale-to-zero-wakes-03", nil, wake),
		"a name that is not ours":        role("scale-to-zero-wakes-99x", ours, wake),
		"all names":                      role("scale-to-zero-wakes-03", ours, rule("apps", "deployments/scale", "patch")),
		"a right that we have":           role("scale-to-zero-wakes-03", ours, rule("apps", "deployments", "patch", "web")),
		"a verb that we have not":        role("scale-to-zero-wakes-03", ours, rule("apps", "deployments/scale", "update", "web")),
		"Secrets":                        role("scale-to-zero-wakes-03", ours, rule("", "secrets", "get", "token")),
		"everything":                     role("scale-to-zero-wakes-03", ours, rule("*", "*", "*")),
		"the scale of a kind not listed": role("scale-to-zero-wakes-03", ours, rule("argoproj.io", "rollouts/scale", "get", "web")),
		"a ClusterRole":                  binding("ClusterRole", "view", interceptors),
		"another Role":                   binding("Role", "mine", interceptors),
		"another account":                binding("Role", wakeRole, rbacv1.Subject{Kind: "ServiceAccount", Namespace: a.ns, Name: "default"}),
		"somebody else, too": binding("Role", wakeRole, interceptors,
			rbacv1.Subject{Kind: "Group", APIGroup: rbacv1.GroupName, Name: "system:authenticated"}),
	} {
		if err := c.Create(t.Context(), o); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"taking over a Role":        c.Update(t.Context(), role("scale-to-zero-wakes-07", ours, wake)),
		"deleting somebody's Role":  c.Delete(t.Context(), role("mine", nil)),
		"deleting one of that name": c.Delete(t.Context(), role("scale-to-zero-wakes-07", nil)),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := c.Create(t.Context(), binding("Role", wakeRole, interceptors)); err != nil {
		t.Errorf("its own: %v", err)
	}
}

// TestWakeRolesGoWithTheInstallation: the uninstallation deletes Roles that nobody would delete any more, as its own account.
func TestWakeRolesGoWithTheInstallation(t *testing.T) {
	a := newApp(t, 1)
	ours := map[string]string{injector.ManagedByLabel: injector.ManagedBy}
	meta := metav1.ObjectMeta{Namespace: a.ns, Name: wakeRole, Labels: ours}
	create(t, &rbacv1.Role{ObjectMeta: meta})
	create(t, &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: wakeRole}})
	c, err := client.New(as(restoreAccount), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing else is left", func() error {
		return controller.RestoreAll(t.Context(), c, controller.RestoreOptions{
			Namespace: "scale-to-zero", Deployment: "scale-to-zero-controller", Lease: "scale-to-zero-controller",
			Secret: "scale-to-zero-webhook-cert", Log: logr.Discard(),
		})
	})
	if err := a.rolesLeft(); err != nil {
		t.Error(err)
	}
}
