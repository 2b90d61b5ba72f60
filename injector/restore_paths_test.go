// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// once reconciles a single time, without the work of Kubernetes' controllers.
func once(w *world) { w.reconcile() }

// settles reconciles, with the work of Kubernetes' controllers, until the restoration needs no more than time.
func settles(w *world) {
	for range 4 {
		w.reconcile()
		w.kubernetes()
	}
}

// noRoutes deletes the route slices, as somebody might by hand.
func noRoutes(w *world) { clear(w.slices) }

// TestRestoreFromAnywhere tests how a Service is restored whose objects, pods or selector have changed meanwhile.
func TestRestoreFromAnywhere(t *testing.T) {
	external := func(w *world) {
		w.service.Spec.Type, w.service.Spec.ExternalName = corev1.ServiceTypeExternalName, "shop.example.com"
	}
	unselective := func(w *world) { w.service.Spec.Selector = nil }
	unlisted := func(w *world) { w.listed = false }
	native := func(w *world) { w.native = true }
	remembered := func(w *world) { w.workload.Annotations = map[string]string{ReplicasAnnotation: "1"} }
	noAlias := func(w *world) { delete(w.companions, "web-scale-to-zero") }
	bare := func(w *world) { w.companions["web-scale-to-zero"].Annotations = nil }
	for name, tc := range map[string]struct {
		world []func(*world)
		want  string
	}{
		"its selector is gone": {
			[]func(*world){redirected, asleep, optOut, unselective},
			"Absent: delete web-scale-to-zero-ipv4, delete web-direct, free web",
		},
		"it has become a name": {
			[]func(*world){redirected, asleep, optOut, external},
			"Absent: delete web-scale-to-zero-ipv4, delete web-direct, free web",
		},
		"Kubernetes lists its pods, and has no slice of the direct Service": {
			[]func(*world){redirected, optOut, once, unlisted, native, func(w *world) { w.workload.Annotations = nil }},
			"Absent: delete web-scale-to-zero-ipv4, delete web-direct, free web",
		},
		"Kubernetes lists its pods, and the direct Service has none": {
			[]func(*world){redirected, asleep, optOut, once, native, func(w *world) { w.workload.Annotations = nil }}, "Restoring: soon",
		},
		"its pods are listed, and their count is not restored": {[]func(*world){redirected, optOut, once, native, remembered}, "Restoring: soon"},
		"the slices are gone, and the route is not": {
			[]func(*world){redirected, func(w *world) { w.admission = false }, optOut, noRoutes}, "Restoring: ask web route=, soon",
		},
		"the slices and the annotation are gone": {
			[]func(*world){redirected, func(w *world) { w.admission = false }, optOut, noRoutes, func(w *world) {
				delete(w.service.Annotations, RedirectAnnotation)
			}}, "Restoring: ask web route=, soon",
		},
		"an Ingress leads to an alias that is gone": {
			[]func(*world){byIngress, redirected, optOut, noRoutes, noAlias}, "Restoring: ask front aliases=, soon",
		},
		"the alias alone is left": {
			[]func(*world){byIngress, redirected, optOut, settles, noRoutes, func(w *world) { w.now = w.now.Add(time.Hour) }},
			"Absent: delete web-scale-to-zero, delete web-direct, free web-scale-to-zero",
		},
		"somebody deletes the alias": {
			[]func(*world){byIngress, redirected, optOut, once, func(w *world) { w.kubernetes() }, once, noAlias},
			"Absent: delete web-scale-to-zero-scale-to-zero-ipv4, delete web-direct, free web-scale-to-zero",
		},
		"the alias has no annotations": {
			[]func(*world){byIngress, redirected, optOut, once, func(w *world) { w.kubernetes() }, once, bare},
			"Lingering: update web-scale-to-zero, after 30s",
		},
		"the alias has another's annotation": {
			[]func(*world){byIngress, redirected, optOut, settles, func(w *world) {
				w.companions["web-scale-to-zero"].Annotations[UnusedAnnotation] = "a while ago"
			}}, "Lingering: update web-scale-to-zero, after 30s",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.world...)
			if got := strings.TrimSpace(describe(w.plan())); got != tc.want {
				t.Errorf("\n got %s\nwant %s", got, tc.want)
			}
		})
	}
}

// TestAliasGoesUnread tests that an Ingress's redirection ends once its Service is redirected itself, although nobody may read the
// workload any more: the Service's own route slices wake it.
func TestAliasGoesUnread(t *testing.T) {
	w := newWorld(t, func(w *world) { annotated(Prefix+"workload", "Deployment/web")(w.service) }, byIngress, redirected, optOut)
	w.service.Labels[OptInLabel] = "true"
	for w.memory.Phase != PhaseRedirected || !Intercepted(w.service) {
		w.reconcile()
		w.kubernetes()
	}
	if len(w.slicesOf("web-scale-to-zero")) == 0 {
		t.Fatal("the alias has gone before its time")
	}
	w.forbidden = "no right"
	for range 6 {
		w.reconcile()
		w.kubernetes()
		w.now = w.now.Add(time.Minute)
	}
	if len(w.slicesOf("web-scale-to-zero")) > 0 || w.companions["web-scale-to-zero"] != nil || len(w.slicesOf("web")) == 0 {
		t.Errorf("the alias stays:\n%s", w.state())
	}
	if Aliased(&w.ingresses[0], "web") || w.companions["web-direct"] == nil {
		t.Errorf("the Ingress, or the direct Service, is wrong:\n%s", w.state())
	}
}

// TestRestoredAtLast has what the owner of an app reads whose restoration ends without a pod, or beside another Service.
func TestRestoredAtLast(t *testing.T) {
	late := func(w *world) { w.now = w.now.Add(time.Hour) }
	const went = "Restored: Requests to Service web go to its pods again, without scale-to-zero: "
	const others = ". It still sleeps when nobody uses its other Services, and requests to this one do not wake it"
	for name, tc := range map[string]struct {
		world []func(*world)
		want  string
	}{
		"pods are listed, and their count is not restored": {
			[]func(*world){redirected, optOut, once, func(w *world) { w.native = true }, late},
			went + "it is no longer opted in. Deployment/web was scaled to 1 replica; none is ready yet",
		},
		"everything is restored": {
			[]func(*world){redirected, once, func(w *world) { w.native, w.restoringFor = true, time.Minute }},
			went + "scale-to-zero is being uninstalled. Deployment/web has 1 replica",
		},
		"another Service keeps the workload": {
			[]func(*world){redirected, optOut, once, func(w *world) { w.native, w.kept = true, true }},
			went + "it is no longer opted in. Deployment/web has 1 replica" + others,
		},
		"another Service keeps it, and it has two replicas": {
			[]func(*world){redirected, optOut, once, func(w *world) { w.native, w.kept, w.workload.Replicas = true, true, 2 }},
			went + "it is no longer opted in. Deployment/web has 2 replicas" + others,
		},
		"it cannot be injected any more": {
			[]func(*world){redirected, func(w *world) { headless(w.service) }},
			went + "it is headless: its clients connect to pods by themselves. If visitors come through an Ingress, label the Ingress instead; " +
				"otherwise label a Service with a cluster IP. Deployment/web has 1 replica",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.world...)
			for range 4 {
				w.reconcile()
				w.kubernetes()
			}
			i := slices.IndexFunc(w.events, func(e string) bool { return strings.HasPrefix(e, ReasonRestored) })
			if i < 0 || w.events[i] != tc.want || len(w.slices) > 0 {
				t.Errorf("events %q\nwant %q", w.events, tc.want)
			}
		})
	}
}

// TestAliasLingers tests for how long an alias Service stays that no Ingress uses: until the linger time is certainly over, although
// its annotation has only whole seconds.
func TestAliasLingers(t *testing.T) {
	for name, tc := range map[string]struct {
		after time.Duration
		gone  bool
	}{
		"at once":                     {0, false},
		"for nearly all of that time": {30*time.Second - 1, false},
		"for all of it":               {30 * time.Second, false},
		"for nearly a second more":    {31*time.Second - 1, false},
		"for a second more":           {31 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, byIngress, redirected, optOut, settles)
			since, err := time.Parse(time.RFC3339, w.companions["web-scale-to-zero"].Annotations[UnusedAnnotation])
			if err != nil {
				t.Fatal(err)
			}
			w.now = since.Add(tc.after)
			p := w.plan()
			if gone := p.Phase == PhaseAbsent; gone != tc.gone || !gone && p.After != 31*time.Second-tc.after {
				t.Errorf("got %s", describe(p))
			}
		})
	}
}

// TestRetiringIsSaidOnce tests that route slices name the moment at which the restoration began, and keep it.
func TestRetiringIsSaidOnce(t *testing.T) {
	w := newWorld(t, redirected, asleep, optOut)
	began := w.now.UTC().Format(time.RFC3339)
	for range 3 {
		w.reconcile()
		w.now = w.now.Add(7 * time.Second)
		for name, s := range w.slices {
			routes, err := api.DecodeRoutes(s.Annotations[api.RoutesAnnotation])
			if err != nil || !routes.Retiring || s.Annotations[SinceAnnotation] != began || routes.Workload.Name != "web" {
				t.Fatalf("slice %s: since %s, %+v, %v", name, s.Annotations[SinceAnnotation], routes, err)
			}
		}
	}
	w.service.Labels[OptInLabel] = "true"
	for range 4 {
		w.reconcile()
	}
	for name, s := range w.slices {
		routes, err := api.DecodeRoutes(s.Annotations[api.RoutesAnnotation])
		if err != nil || routes.Retiring || s.Annotations[SinceAnnotation] != "" {
			t.Errorf("slice %s, opted in again: since %s, %+v, %v", name, s.Annotations[SinceAnnotation], routes, err)
		}
	}
}
