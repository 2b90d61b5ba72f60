// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

func (a *app) patchNamespace(patch string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: a.ns}}
	return kube.Patch(a.t.Context(), ns, client.RawPatch("application/merge-patch+json", []byte(patch)), client.FieldOwner("kubectl-label"))
}

// reachable gives the Service a port that visitors reach.
func (a *app) reachable() {
	a.t.Helper()
	if err := a.patch(`{"spec":{"type":"NodePort"}}`); err != nil {
		a.t.Fatal(err)
	}
}

func TestNamespace(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 2)
	database := a.service()
	database.Name, database.Spec.Ports[0].Name, database.Spec.Selector = "db", "postgres", map[string]string{"app": "db"}
	create(t, database)
	a.reachable()
	out := a.service()
	out.Name, out.Labels[injector.OptInLabel] = "out", "false"
	create(t, out)
	if err := a.patchNamespace(`{"metadata":{"labels":{"scale-to-zero":"true"},"annotations":{"scale-to-zero/cooldown":"7m",` +
		`"scale-to-zero/hold-timeout":"3m"}}}`); err != nil {
		t.Fatal(err)
	}
	a.followInjection()
	eventually(t, "the ScaledObject is made", a.scaled)
	if _, routes := a.routeSlice(); routes.Cooldown.String() != "7m0s" || routes.HoldTimeout.String() != "3m0s" {
		t.Errorf("the namespace's annotations are no defaults: cool-down %s, hold time-out %s", routes.Cooldown, routes.HoldTimeout)
	}
	a.told("Service", "db", "Not injected: only its namespace opts it in, and its port postgres (80) is that of PostgreSQL")
	a.told("Service", "web", "also serves Service out")
	if got := events(t, a.ns, "Service", "out"); got != "" {
		t.Errorf("a Service that opted out hears: %s", got)
	}
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"9m"}}}`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Service's own annotation counts more", func() error {
		if _, routes := a.routeSlice(); routes.Cooldown.String() != "9m0s" || routes.HoldTimeout.String() != "3m0s" {
			return fmt.Errorf("cool-down %s, hold time-out %s", routes.Cooldown, routes.HoldTimeout)
		}
		return nil
	})
	// The chart is applied again, by somebody who knows nothing of labels.
	replaced := a.live()
	replaced.Annotations, replaced.Spec.Selector = nil, map[string]string{"app": "web"}
	if err := kube.Update(t.Context(), replaced); err != nil {
		t.Fatal(err)
	}
	if err := a.intercepted(); err != nil {
		t.Errorf("after a replace: %v", err)
	}
	if err := a.patchNamespace(`{"metadata":{"labels":{"scale-to-zero":null}}}`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the sentinel goes", func() error {
		if a.intercepted() == nil {
			return fmt.Errorf("selector %v", a.live().Spec.Selector)
		}
		return nil
	})
	a.nativeSlice(true)
	eventually(t, "nothing of ours is left", a.nothingLeft)
}

func TestNamespaceWithOneOptedOut(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.reachable()
	if err := a.patchNamespace(`{"metadata":{"labels":{"scale-to-zero":"true"}}}`); err != nil {
		t.Fatal(err)
	}
	a.followInjection()
	late := a.service()
	late.Name = "late"
	create(t, late)
	eventually(t, "a later Service is injected too", func() error {
		return kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: "late-direct"}, &corev1.Service{})
	})
	if err := kube.Delete(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	a.label(`"false"`)
	if a.intercepted() == nil {
		t.Error("the write that opts out does not remove the sentinel")
	}
	a.nativeSlice(true)
	eventually(t, "nothing of ours is left", a.nothingLeft)
	a.label("null")
	a.followInjection()
}

func TestBadNamespaceSettingsAreDenied(t *testing.T) {
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	for patch, want := range map[string]string{
		`{"metadata":{"labels":{"scale-to-zero":"yes"}}}`:                          `"true" or "false"`,
		`{"metadata":{"annotations":{"scale-to-zero/cooldown":"5"}}}`:              "30s, 5m or 1h30m",
		`{"metadata":{"annotations":{"scale-to-zero/workload":"Deployment/web"}}}`: "set it on that Service",
	} {
		if err := a.patchNamespace(patch); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want an error with %q", patch, err, want)
		}
	}
}
