// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// grants makes a cluster give the interceptors their rights.
func (c *cluster) grants() *wakeRoleReconciler {
	o := &c.services.observer.Options
	o.InterceptorAccount = "interceptor"
	r := newWakeRoles(*o, c, c)
	c.services.observer.wakeRoles = r
	return r
}

// granting carries out the rounds that were asked for, and returns how many.
func (c *cluster) granting(r *wakeRoleReconciler) (rounds int) {
	c.t.Helper()
	for _, req := range r.namespaces.take() {
		if _, err := r.Reconcile(c.t.Context(), req); err != nil {
			c.t.Fatal(err)
		}
		rounds++
	}
	return rounds
}

// round reconciles namespace apps, as a watch makes it.
func round(c *cluster, r *wakeRoleReconciler) (ctrl.Result, error) {
	return r.Reconcile(c.t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "apps"}})
}

// mayWake describes what the interceptors may wake in namespace apps, by whose account.
func (c *cluster) mayWake() string {
	c.t.Helper()
	var bindings rbacv1.RoleBindingList
	var roles rbacv1.RoleList
	if err := errors.Join(c.List(c.t.Context(), &bindings), c.List(c.t.Context(), &roles)); err != nil {
		c.t.Fatal(err)
	}
	var out []string
	for _, r := range roles.Items {
		who := "nobody"
		for _, b := range bindings.Items {
			if b.RoleRef.Name == r.Name && b.Namespace == r.Namespace {
				who = b.Subjects[0].Namespace + "/" + b.Subjects[0].Name
			}
		}
		for _, rule := range r.Rules {
			out = append(out, fmt.Sprintf("%s may %v %v/%v in %s", who, rule.Verbs, rule.Resources, rule.ResourceNames, r.Namespace))
		}
	}
	if len(out) == 0 && len(bindings.Items)+len(roles.Items) > 0 {
		return "something"
	}
	return strings.Join(out, "; ")
}

const mayWakeWeb = "ours/interceptor may [get patch] [deployments/scale]/[web] in apps"

// TestRightComesFirst: the interceptors listen for an app only after they may wake it, and may until its route is gone.
func TestRightComesFirst(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	r := c.grants()
	c.both(1)
	c.directSlice(true)
	c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
	for range 3 {
		c.both(1)
		if c.routeSlice() != nil {
			t.Fatal("interceptors listen before they may wake the app")
		}
	}
	if got := c.mayWake(); got != "" {
		t.Fatal(got)
	}
	if n := c.granting(r); n != 1 {
		t.Fatalf("%d rounds", n)
	}
	if got := r.services.take(); len(got) != 1 || got[0].Name != "web" || got[0].Namespace != "apps" {
		t.Errorf("it tells %v", got)
	}
	c.both(3)
	if s := c.service(); !injector.Intercepted(s) || c.mayWake() != mayWakeWeb {
		t.Fatalf("not injected: %s; %s", c.events(), c.mayWake())
	}
	for range 2 {
		if _, err := round(c, r); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(r.spaces["apps"].pending); n != 0 {
		t.Errorf("%d still pending", n)
	}
	s := c.service()
	delete(s.Labels, injector.OptInLabel)
	c.update(s)
	c.both(2)
	if _, err := round(c, r); err != nil || c.mayWake() != mayWakeWeb {
		t.Errorf("while it is restored: %v, %s", err, c.mayWake())
	}
	c.podsBack()
	c.both(3)
	if c.routeSlice() != nil {
		t.Fatalf("it is not restored: %s", c.events())
	}
	if _, err := round(c, r); err != nil || c.mayWake() != "" || len(r.spaces) != 0 {
		t.Errorf("afterwards: %v, %s, %v", err, c.mayWake(), r.spaces)
	}
}

// TestRightIsPutBack: an edited or deleted Role is put back, whoever did it, and a restarted controller goes on with the Roles there are.
func TestRightIsPutBack(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	r := c.grants()
	c.both(1)
	c.granting(r)
	c.injected()
	role := func() *rbacv1.Role { return get(c, "scale-to-zero-wakes-00", &rbacv1.Role{}) }
	binding := func() *rbacv1.RoleBinding { return get(c, "scale-to-zero-wakes-00", &rbacv1.RoleBinding{}) }
	for name, change := range map[string]func() error{
		"another name": func() error {
			o := role()
			o.Rules[0].ResourceNames = []string{"db"}
			return c.Update(t.Context(), o)
		},
		"the Role is gone":    func() error { return c.Delete(t.Context(), role()) },
		"the binding is gone": func() error { return c.Delete(t.Context(), binding()) },
		"another account": func() error {
			o := binding()
			o.Subjects[0].Name = "eve"
			return c.Update(t.Context(), o)
		},
		"another account of ours": func() error {
			r.rules.Account.Name = "interceptor"
			o := binding()
			o.Subjects[0].Name = "old-interceptor"
			return c.Update(t.Context(), o)
		},
		"a restart": func() error {
			r = c.grants()
			return nil
		},
	} {
		if err := change(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := round(c, r); err != nil || c.mayWake() != mayWakeWeb {
			t.Errorf("%s: %v, %s", name, err, c.mayWake())
		}
	}
}

// TestRightIsRefused: an app whose Role the API server refuses is skipped with the reason and the advice, and injected once the Role is
// accepted. Other failures are retried.
func TestRightIsRefused(t *testing.T) {
	resource := schema.GroupResource{Group: rbacv1.GroupName, Resource: "roles"}
	deny := func(text string) error {
		return apierrors.NewForbidden(resource, "scale-to-zero-wakes-00", errors.New(text))
	}
	for name, tc := range map[string]struct {
		what string // of which a write fails
		err  error
		told string
		soon bool // it is an error of the round
	}{
		"a quota": {
			"create *v1.Role", deny("exceeded quota: roles, requested: count/roles.rbac.authorization.k8s.io=1"),
			"creating Role scale-to-zero-wakes-00 is refused: roles.rbac.authorization.k8s.io \"scale-to-zero-wakes-00\" is forbidden: exceeded " +
				"quota: roles, requested: count/roles.rbac.authorization.k8s.io=1. Raise that ResourceQuota, or free some of it", false,
		},
		"a policy, of bindings": {
			"create *v1.RoleBinding", deny("ValidatingAdmissionPolicy 'x' denied request: no"),
			"creating RoleBinding scale-to-zero-wakes-00 is refused: ", false,
		},
		"a kind that may not be granted": {
			"create *v1.Role", deny(`user "x" is attempting to grant RBAC permissions not currently held`),
			"List the kind in the chart's value customWorkloads", false,
		},
		"no answer": {"create *v1.Role", errors.New("connection refused"), "the interceptors may not wake deployments/web yet", true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, webDeployment(1), webService())
			r := c.grants()
			c.refuses = func(verb string, o runtime.Object) error {
				if fmt.Sprintf("%s %T", verb, o) == tc.what {
					return tc.err
				}
				return nil
			}
			c.both(1)
			c.directSlice(true)
			c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
			for range 3 {
				result, err := round(c, r)
				if (err != nil) != tc.soon || err == nil && (result.RequeueAfter < refusedMin || result.RequeueAfter > 2*refusedMax) {
					t.Fatalf("it is tried again after %v, %v", result, err)
				}
				c.both(1)
				c.now = c.now.Add(10 * time.Second)
			}
			if injector.Intercepted(c.service()) || c.routeSlice() != nil {
				t.Fatal("it is injected")
			}
			if got := c.events(); !strings.Contains(got, "InjectionSkipped on Service/web: Not injected: ") || !strings.Contains(got, tc.told) {
				t.Errorf("events: %s", got)
			}
			c.refuses = nil
			if _, err := round(c, r); err != nil {
				t.Fatal(err)
			}
			if got := r.services.take(); len(got) != 1 {
				t.Errorf("it tells %v", got)
			}
			c.both(4)
			if !injector.Intercepted(c.service()) || c.mayWake() != mayWakeWeb {
				t.Errorf("not injected in the end: %s, %s", c.events(), c.mayWake())
			}
		})
	}
}

// TestRightOfTerminatingNamespace: Kubernetes deletes the Roles of a namespace that goes, and takes no new ones. That is no error.
func TestRightOfTerminatingNamespace(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	r := c.grants()
	c.both(1)
	c.granting(r)
	c.injected()
	if err := errors.Join(
		c.Delete(t.Context(), get(c, "scale-to-zero-wakes-00", &rbacv1.RoleBinding{})),
		c.Delete(t.Context(), get(c, "scale-to-zero-wakes-00", &rbacv1.Role{})),
	); err != nil {
		t.Fatal(err)
	}
	c.refuses = func(verb string, o runtime.Object) error {
		if _, ok := o.(*rbacv1.Role); !ok || verb != "create" {
			return nil
		}
		err := apierrors.NewForbidden(schema.GroupResource{Resource: "roles"}, "x", errors.New("it is being terminated"))
		err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
		return err
	}
	if result, err := round(c, r); err != nil || result.RequeueAfter != 0 {
		t.Errorf("%v, %v", result, err)
	}
	c.both(1)
	if got := c.events(); strings.Contains(got, injector.ReasonNotGranted) {
		t.Errorf("events: %s", got)
	}
}

// TestForeignRole: a Role of ours that somebody has made, or whose label is gone, is not overwritten. An event says what to do.
func TestForeignRole(t *testing.T) {
	for _, o := range []client.Object{
		&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "scale-to-zero-wakes-00"}},
		&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "scale-to-zero-wakes-00"}},
	} {
		c := newCluster(t, webDeployment(1), webService(), o)
		r := c.grants()
		for range 3 {
			c.both(1)
			if _, err := round(c, r); err != nil {
				t.Fatal(err)
			}
			c.now = c.now.Add(10 * time.Second)
		}
		kind := strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", o), "*v1."))
		for _, want := range []string{"is refused: there is one of that name", "kubectl delete " + kind + " -n apps scale-to-zero-wakes-00"} {
			if got := c.events(); !strings.Contains(got, want) {
				t.Errorf("%s: events: %s", kind, got)
			}
		}
		if err := c.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if _, err := round(c, r); err != nil || c.mayWake() != mayWakeWeb {
			t.Errorf("%s: %v, %s", kind, err, c.mayWake())
		}
	}
}

// TestRightOfForgedSlice: a slice that somebody else has written for a Service that is not its owner gives no right.
func TestRightOfForgedSlice(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	r := c.grants()
	c.both(1)
	c.granting(r)
	c.injected()
	forged := c.routeSlice().DeepCopy()
	forged.ResourceVersion, forged.UID, forged.Namespace = "", "", "theirs"
	c.create(forged)
	web := webService()
	web.Namespace = "theirs"
	c.create(web)
	if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "theirs"}}); err != nil {
		t.Fatal(err)
	}
	if got := c.mayWake(); got != mayWakeWeb {
		t.Error(got)
	}
}

// TestRightThatNobodyUses: a Service that asks for a right and never gets a route loses it: at once if it is deleted, else after a while.
func TestRightThatNobodyUses(t *testing.T) {
	for name, deleted := range map[string]bool{"deleted": true, "no longer opted in": false} {
		c := newCluster(t, webDeployment(1), webService())
		c.deaf = true
		r := c.grants()
		c.both(1)
		c.granting(r)
		if got := c.mayWake(); got != mayWakeWeb {
			t.Fatal(got)
		}
		if deleted {
			if err := c.Delete(t.Context(), c.service()); err != nil {
				t.Fatal(err)
			}
			c.both(1)
			c.granting(r)
		} else {
			c.now = c.now.Add(2 * pendingFor)
			if _, err := round(c, r); err != nil {
				t.Fatal(err)
			}
		}
		if got := c.mayWake(); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestRestoreAllRemovesRights: the restoration leaves no Role behind, of whichever namespace.
func TestRestoreAllRemovesRights(t *testing.T) {
	c := newCluster(t, ownDeployment())
	ours := map[string]string{injector.ManagedByLabel: injector.ManagedBy}
	for _, namespace := range []string{"apps", "shop"} {
		c.create(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "scale-to-zero-wakes-00", Labels: ours}})
		c.create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "scale-to-zero-wakes-00", Labels: ours}})
		c.create(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "scale-to-zero-wakes-01"}})
		c.create(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "mine", Labels: ours}})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := RestoreAll(ctx, c, restoreOptions(c)); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, list := range []client.ObjectList{&rbacv1.RoleList{}, &rbacv1.RoleBindingList{}} {
		if err := c.List(t.Context(), list); err != nil {
			t.Fatal(err)
		}
		switch l := list.(type) {
		case *rbacv1.RoleList:
			for _, o := range l.Items {
				left = append(left, o.Namespace+"/"+o.Name)
			}
		case *rbacv1.RoleBindingList:
			for _, o := range l.Items {
				left = append(left, o.Namespace+"/"+o.Name+" (binding)")
			}
		}
	}
	if want := []string{"apps/mine", "apps/scale-to-zero-wakes-01", "shop/mine", "shop/scale-to-zero-wakes-01"}; !slices.Equal(left, want) {
		t.Errorf("left: %v", left)
	}
}
