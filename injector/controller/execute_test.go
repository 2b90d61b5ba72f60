// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// writes records the writes from now on, as "VERB KIND".
func (c *cluster) writes() *[]string {
	var log []string
	c.refuses = func(verb string, o runtime.Object) error {
		if !slices.Contains([]string{"get", "list", "watch"}, verb) {
			_, kind, _ := strings.Cut(fmt.Sprintf("%T", o), ".")
			log = append(log, verb+" "+kind)
		}
		return nil
	}
	return &log
}

// workloadPlan returns what is planned for the workload now.
func (c *cluster) workloadPlan(t *testing.T) (injector.WorkloadObservation, injector.WorkloadPlan) {
	t.Helper()
	w, _ := injector.NewWorkload(c.deployment())
	o, p, err := c.scaling.observer.plan(t.Context(), injector.Target{Workload: w, Object: c.deployment()}, injector.WorkloadMemory{})
	if err != nil {
		t.Fatal(err)
	}
	return o, p
}

// TestWritesInOrder tests that interceptors are told first, and that a workload's count is remembered before anything scales it.
func TestWritesInOrder(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	c.injected()
	so := c.scaledObject()
	o, p := c.workloadPlan(t)
	changed := so.DeepCopy()
	changed.Spec.MaxReplicaCount = new(int32(7))
	p.Progress, p.Slices = `{"stage":"scheduling"}`, []*discoveryv1.EndpointSlice{c.routeSlice()}
	p.Remember, p.Scale, p.Delete, p.Disown = new(int32(5)), new(int32(3)), so, true
	p.ScaledObject = &injector.ScaledObjectWrite{From: so, To: changed}
	p.Story = []injector.Report{{Type: "Normal", Reason: "Story", Note: "of it", Objects: []injector.Object{c.service()}}}
	log := c.writes()
	key := types.NamespacedName{Namespace: "apps", Name: "Deployment/web"}
	if err := c.scaling.execute(t.Context(), key, o, p); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(slices.Compact(*log), ", ")
	want := "patch EndpointSlice, patch Deployment, patch ScaledObject, scale Deployment, patch Deployment, delete ScaledObject"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	d := c.deployment()
	if *d.Spec.Replicas != 3 || d.Annotations[injector.ReplicasAnnotation] != "5" || c.scaledObject() != nil ||
		c.routeSlice().Annotations[api.ProgressAnnotation] != p.Progress {
		t.Errorf("%d replicas, annotations %v; progress %s", *d.Spec.Replicas, d.Annotations, c.routeSlice().Annotations[api.ProgressAnnotation])
	}
}

// TestWritesThatAreLost tests what of a workload's plan is kept if one of its writes fails, and which failures are none.
func TestWritesThatAreLost(t *testing.T) {
	away := errors.New("the API server is away")
	notFound := apierrors.NewNotFound(schema.GroupResource{Resource: "x"}, "web")
	exists := apierrors.NewAlreadyExists(schema.GroupResource{Resource: "scaledobjects"}, "web-deployment")
	const all = "life, memory, reports"
	for name, tc := range map[string]struct {
		fails string // VERB KIND
		err   error
		want  string // what is kept; then the error
	}{
		"nothing fails":                      {"", nil, all},
		"the progress":                       {"patch EndpointSlice", away, "life; annotating route slice apps/web-scale-to-zero-ipv4: "},
		"the progress, of a slice that went": {"patch EndpointSlice", notFound, all},
		"the count":                          {"patch Deployment", away, "life; annotating Deployment/web of namespace apps: "},
		"the count, of a workload that went": {"patch Deployment", notFound, all},
		"the ScaledObject":                   {"create ScaledObject", away, "life; creating scaledobject apps/web-deployment: "},
		"the ScaledObject, that exists":      {"create ScaledObject", exists, all},
		"the scaling":                        {"scale Deployment", away, "life; scaling Deployment/web of namespace apps to 3: "},
		"a ScaledObject's deletion":          {"delete ScaledObject", away, "life; deleting scaledobject apps/web-deployment: "},
		"a deletion of one that went":        {"delete ScaledObject", notFound, all},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, webDeployment(1), webService())
			c.injected()
			so := c.scaledObject()
			o, p := c.workloadPlan(t)
			p.Progress, p.Slices, p.Remember, p.Scale, p.Delete = `{"stage":"pulling"}`, []*discoveryv1.EndpointSlice{c.routeSlice()},
				new(int32(5)), new(int32(3)), so
			p.ScaledObject, p.Story = nil, nil
			if strings.HasPrefix(tc.fails, "create") {
				fresh := so.DeepCopy()
				fresh.ResourceVersion, p.Delete = "", nil
				p.ScaledObject = &injector.ScaledObjectWrite{To: fresh}
			}
			if tc.fails == "patch Deployment" {
				p.Scale = nil // it patches the Deployment too
			}
			p.Life.Hand, p.Memory.Exceeded = 9, "noted"
			p.Memory.Life = p.Life
			p.Reports = []injector.Report{{Type: "Normal", Reason: "Told", Note: "of it", Objects: []injector.Object{c.service()}}}
			c.refuses = func(verb string, o runtime.Object) error {
				if _, kind, _ := strings.Cut(fmt.Sprintf("%T", o), "."); verb+" "+kind == tc.fails {
					return tc.err
				}
				return nil
			}
			key := types.NamespacedName{Namespace: "apps", Name: "Deployment/web"}
			err := c.scaling.execute(t.Context(), key, o, p)
			var kept []string
			memory := c.scaling.memory(key)
			if memory.Life.Hand == 9 {
				kept = append(kept, "life")
			}
			if memory.Exceeded == "noted" {
				kept = append(kept, "memory")
			}
			if strings.Contains(c.events(), "Told on Service/web: of it") {
				kept = append(kept, "reports")
			}
			got := strings.Join(kept, ", ")
			if err != nil {
				got += "; " + err.Error()
			}
			if tc.want == all && got != all || !strings.HasPrefix(got, tc.want) {
				t.Errorf("got %s\nwant %s", got, tc.want)
			}
		})
	}
}

// TestForgetsWorkloads tests when nothing has to be remembered of a workload any more.
func TestForgetsWorkloads(t *testing.T) {
	key := types.NamespacedName{Namespace: "apps", Name: "Deployment/web"}
	known := func(c *cluster) bool {
		c.scaling.mu.Lock()
		defer c.scaling.mu.Unlock()
		_, ok := c.scaling.memories[key]
		return ok
	}
	c := newCluster(t, webDeployment(1), webService())
	c.injected()
	if !known(c) {
		t.Fatal("nothing is remembered of a workload that is scaled")
	}
	if err := c.Delete(t.Context(), webDeployment(1)); err != nil {
		t.Fatal(err)
	}
	if result, err := c.reconcileWorkload(); err != nil || result != (ctrl.Result{}) || known(c) {
		t.Errorf("it is gone: %+v, %v; remembered: %t", result, err, known(c))
	}
	c = newCluster(t, webDeployment(1))
	if result, err := c.reconcileWorkload(); err != nil || result != (ctrl.Result{}) || known(c) {
		t.Errorf("nothing leads to it: %+v, %v; remembered: %t", result, err, known(c))
	}
	ref := ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "apps", Name: "Job/web"}}
	if result, err := c.scaling.Reconcile(t.Context(), ref); err != nil || result != (ctrl.Result{}) {
		t.Errorf("of no kind: %+v, %v", result, err)
	}
}

// TestDeletesWhatWasRead tests that an object is deleted only if it is still the one that was read, and that only route slices count
// as a restoration.
func TestDeletesWhatWasRead(t *testing.T) {
	slice := func(uid types.UID) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "web-1", UID: uid}}
	}
	c := newCluster(t, slice("one"), webService())
	s := c.service()
	another := apierrors.NewConflict(schema.GroupResource{}, "web-1", errors.New("uid"))
	for _, tc := range []struct {
		name    string
		objects []injector.Object
		fails   error
		want    bool
		err     string
	}{
		{"none", nil, nil, false, ""},
		{"a Service", []injector.Object{s}, nil, false, ""},
		{"a Service that is gone", []injector.Object{s}, nil, false, ""},
		{"a slice of that name", []injector.Object{slice("other")}, another, false, ""},
		{"the slice, and no API server", []injector.Object{slice("one")}, errors.New("away"), false, "deleting apps/web-1: away"},
		{"the slice", []injector.Object{slice("one"), slice("gone")}, nil, true, ""},
		{"the slice, once more", []injector.Object{slice("one")}, nil, false, ""},
	} {
		c.refuses = func(verb string, _ runtime.Object) error {
			if verb == "delete" {
				return tc.fails
			}
			return nil
		}
		deleted, err := c.services.deleteAll(t.Context(), tc.objects)
		if deleted != tc.want || (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err {
			t.Errorf("%s: deleted %t, %v", tc.name, deleted, err)
		}
	}
}

// TestGone tests that the route slices of a deleted Service go at once, and that its ports rest and may be had again by it alone.
func TestGone(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	c.injected()
	web := types.NamespacedName{Namespace: "apps", Name: "web"}
	routes, _ := routesOf(c.routeSlice())
	had := routes.Ports[0].Listen
	if err := c.Delete(t.Context(), c.service()); err != nil {
		t.Fatal(err)
	}
	c.failAt = 2
	if _, err := c.reconcileService(); err == nil {
		t.Error("its slices cannot be listed, and that is no error")
	}
	if result, err := c.reconcileService(); err != nil || result != (ctrl.Result{}) || c.routeSlice() != nil {
		t.Errorf("%+v, %v; its slice is left: %t", result, err, c.routeSlice() != nil)
	}
	c.services.mu.Lock()
	_, known := c.services.memories[web]
	c.services.mu.Unlock()
	if known {
		t.Error("it is still remembered")
	}
	got, _, err := c.services.observer.ports.get(t.Context(), web, c.now, []string{"http"})
	if err != nil || got["http"] != had {
		t.Errorf("a Service of its name gets port %d, and it had %d: %v", got["http"], had, err)
	}
}

// kedaIsStuck deletes a ScaledObject of ours whose finalizer KEDA does not remove: it is waited for, but not for ever.
func kedaIsStuck(t *testing.T, c *cluster) {
	t.Helper()
	so := &keda.ScaledObject{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "stuck", Labels: map[string]string{injector.ManagedByLabel: injector.ManagedBy},
		Finalizers: []string{"finalizer.keda.sh"},
	}}
	c.create(so)
	if err := c.Delete(t.Context(), so); err != nil {
		t.Fatal(err)
	}
	for wait, want := range map[time.Duration]bool{0: true, finalizing + 2*time.Second: false} {
		left, err := remaining(t.Context(), c, time.Now().Add(wait))
		if err != nil || slices.Contains(left, "scaledobject shop/stuck") != want {
			t.Errorf("after %s: %v, %v", wait, left, err)
		}
	}
}

// TestRemaining tests what an uninstallation still waits for, and how it names that.
func TestRemaining(t *testing.T) {
	ours := map[string]string{injector.ManagedByLabel: injector.ManagedBy}
	of := func(name, service string) map[string]string {
		return map[string]string{injector.ManagedByLabel: injector.ManagedBy, injector.ServiceLabel: service, api.RoleLabel: name}
	}
	c := newCluster(t,
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-direct", Labels: of(api.RoleDirect, "web")}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: "webhook", Labels: ours}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "other", Labels: map[string]string{injector.ServiceLabel: "x"}}},
		sliceLikeOurs("shop", "web", "u", ""), sliceLikeOurs("blog", "web", "u", ""),
		&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "forged", Labels: of(api.RoleRoute, "forged")}},
		&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "c", Labels: of(api.RoleDirect, "api")}},
		&keda.ScaledObject{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-deployment", Labels: ours}},
		&keda.ScaledObject{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cron"}},
	)
	got, err := remaining(t.Context(), c, c.now)
	if want := []string{"scaledobject shop/web-deployment", "service blog/web", "service shop/web"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	kedaIsStuck(t, c)
	c.refuses = func(_ string, o runtime.Object) error {
		if _, ok := o.(*keda.ScaledObjectList); ok {
			return &meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: "keda.sh", Kind: "ScaledObject"}}
		}
		return nil
	}
	if got, err := remaining(t.Context(), c, c.now); err != nil || slices.Contains(got, "scaledobject shop/web-deployment") || len(got) != 2 {
		t.Errorf("without KEDA: %v, %v", got, err)
	}
	for n := 1; n <= 3; n++ {
		c.refuses, c.failAt = nil, n
		if got, err := remaining(t.Context(), c, c.now); err == nil {
			t.Errorf("%s fails, and what is left is %v", c.failed, got)
		}
	}
}
