// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// redirected injects the app.
func redirected(w *world) {
	w.t.Helper()
	if p := w.run(); p.Phase != PhaseRedirected {
		w.t.Fatalf("not injected: %s; events %v", describe(p), w.events)
	}
	w.events = nil
}

func optOut(w *world) {
	if len(w.ingresses) > 0 {
		delete(w.ingresses[0].Labels, OptInLabel)
		return
	}
	// This is what admission does in the write that removes the label.
	old := w.service.DeepCopy()
	delete(w.service.Labels, OptInLabel)
	if w.admission {
		_ = Admit(w.service, old, false)
	}
}

// TestPhases tests the rows of Phase's table.
func TestPhases(t *testing.T) {
	const made = "create web-direct, create web-scale-to-zero-ipv4(0)"
	late := func(w *world) { w.now = w.now.Add(time.Hour) }
	deaf := func(w *world) { w.deaf["198.18.0.2"], w.deaf["198.18.0.3"] = true, true }
	for name, tc := range map[string]struct {
		world []func(*world)
		want  string
	}{
		"wanted, and nobody listens": {[]func(*world){deaf}, "Listening: " + made + ", soon"},
		"wanted, and no interceptor": {
			[]func(*world){func(w *world) { w.addresses = nil }},
			"Listening: " + made + ", soon",
		},
		"all listen, and the direct Service has no slice yet": {nil, "Proving: " + made + ", soon"},
		"all listen, and the way is blocked": {
			[]func(*world){func(w *world) { w.reconcile(); w.blocked = true }},
			"Proving: soon",
		},
		"all listen, and nobody can be asked": {
			[]func(*world){func(w *world) { w.reconcile(); w.unasked = "Unavailable" }},
			"Proving: soon",
		},
		"all is proven": {
			[]func(*world){func(w *world) { w.reconcile() }},
			"Redirecting: try web-deployment, update web-scale-to-zero-ipv4(2), ask web route=ready",
		},
		"asleep, so that nothing can be proven": {
			[]func(*world){asleep, func(w *world) { w.reconcile() }},
			"Redirecting: try web-deployment, update web-scale-to-zero-ipv4(2), ask web route=ready",
		},
		"without KEDA": {
			[]func(*world){func(w *world) { w.keda = false; w.reconcile() }},
			"Redirecting: update web-scale-to-zero-ipv4(2), ask web route=ready",
		},
		"admission did not answer": {
			[]func(*world){func(w *world) { w.admission = false; w.reconcile(); w.reconcile() }},
			"Redirecting: ask web route=ready",
		},
		"redirected": {[]func(*world){redirected}, "Redirected: "},
		"redirected, and an interceptor comes that does not listen": {[]func(*world){redirected, func(w *world) {
			w.addresses = append(w.addresses, "198.18.0.4")
			w.deaf["198.18.0.4"] = true
		}}, "Redirected: after 5s"},
		"redirected, and an interceptor comes": {
			[]func(*world){redirected, func(w *world) { w.addresses = append(w.addresses, "198.18.0.4") }},
			"Redirected: update web-scale-to-zero-ipv4(3)",
		},
		"redirected, and no interceptor is ready": {
			[]func(*world){redirected, func(w *world) { w.addresses = nil }},
			"FailedOpen: update web-scale-to-zero-ipv4(1), report NoInterceptor",
		},
		"asleep, and no interceptor is ready": {
			[]func(*world){redirected, asleep, func(w *world) { w.addresses = nil }},
			"FailedOpen: report NoInterceptor",
		},
		"failed open, and an interceptor is ready that does not listen": {[]func(*world){redirected, func(w *world) {
			w.addresses = nil
			w.reconcile()
			w.addresses, w.deaf["198.18.0.4"] = []string{"198.18.0.4"}, true
		}}, "FailedOpen: soon"},
		"failed open, and an interceptor is back": {[]func(*world){redirected, func(w *world) {
			w.addresses = nil
			w.reconcile()
			w.addresses = []string{"198.18.0.2"}
		}}, "Redirected: update web-scale-to-zero-ipv4(1), report Injected"},
		"redirected asleep, and the way is open": {
			[]func(*world){asleep, redirected, func(w *world) { w.workload.Replicas, w.workload.ReadyReplicas = 1, 1 }},
			"Redirected: update web-scale-to-zero-ipv4(2)",
		},
		"redirected asleep, and the way is blocked": {[]func(*world){asleep, redirected, func(w *world) {
			w.workload.Replicas, w.workload.ReadyReplicas, w.blocked = 1, 1, true
		}}, "Redirected: after 1s"},
		"redirected asleep, and the way stays blocked": {[]func(*world){asleep, redirected, func(w *world) {
			w.workload.Replicas, w.workload.ReadyReplicas, w.blocked = 1, 1, true
			w.reconcile()
			w.now = w.now.Add(blockedFor)
		}}, "Redirected: update web-scale-to-zero-ipv4(2)"},
		"redirected, and new interceptors do not listen": {[]func(*world){redirected, func(w *world) {
			w.addresses, w.deaf["198.18.0.9"] = []string{"198.18.0.9"}, true
		}}, "Redirected: update web-scale-to-zero-ipv4(0), soon"},

		"not wanted, and nothing is left": {[]func(*world){optOut}, "Absent: "},
		"not wanted any more":             {[]func(*world){redirected, optOut}, "Restoring: update web-scale-to-zero-ipv4(2), soon"},
		"not wanted, and admission was away": {
			[]func(*world){redirected, func(w *world) { w.admission = false }, optOut},
			"Restoring: update web-scale-to-zero-ipv4(2), ask web route=, soon",
		},
		"not wanted, and no pod is ready yet": {[]func(*world){redirected, asleep, optOut, func(w *world) { w.reconcile() }}, "Restoring: soon"},
		"not wanted, and no pod comes": {
			[]func(*world){redirected, asleep, optOut, func(w *world) { w.reconcile() }, late},
			"Absent: delete web-scale-to-zero-ipv4, delete web-direct, free web",
		},
		"not wanted, and a pod is ready": {
			[]func(*world){redirected, optOut, func(w *world) { w.reconcile(); w.kubernetes() }},
			"Absent: delete web-scale-to-zero-ipv4, delete web-direct, free web",
		},
		"not wanted, and another Service keeps the workload": {
			[]func(*world){redirected, optOut, func(w *world) { w.reconcile(); w.native, w.kept = true, true }},
			"Absent: delete web-scale-to-zero-ipv4, delete web-direct, free web",
		},
		"the workload is gone":             {[]func(*world){redirected, lost}, "Redirected: after 1s"},
		"the workload is replaced in time": {[]func(*world){redirected, lost, func(w *world) { w.reconcile() }, found}, "Redirected: "},
		"the workload is gone for good": {
			[]func(*world){redirected, lost, func(w *world) { w.reconcile() }, lateBy(goneFor)},
			"Restoring: update web-scale-to-zero-ipv4(2), ask web route=, soon",
		},
		"the workload may not be read": {
			[]func(*world){redirected, optOut, func(w *world) { w.forbidden = "no right" }},
			"Restoring: update web-scale-to-zero-ipv4(2), report Restoring, after 10s",
		},
		"everything is restored": {[]func(*world){func(w *world) { w.restoringFor = time.Minute }}, "Absent: after 1m0s"},
		"a name is taken":        {[]func(*world){func(w *world) { w.foreign = "web-direct" }}, "Absent: report InjectionSkipped"},
		"no workload":            {[]func(*world){func(w *world) { w.skip = "no Deployment has its pods" }}, "Absent: report InjectionSkipped"},
		"no workload yet": {[]func(*world){func(w *world) {
			w.skip, w.service.CreationTimestamp = "no Deployment has its pods", metav1.NewTime(w.now.Add(-time.Second))
		}}, "Absent: after 4s"},

		"by an Ingress": {
			[]func(*world){byIngress},
			"Proving: create web-direct, create web-scale-to-zero, create web-scale-to-zero-scale-to-zero-ipv4(0), soon",
		},
		"by an Ingress, proven": {
			[]func(*world){byIngress, func(w *world) { w.reconcile() }},
			"Redirecting: try web-deployment, update web-scale-to-zero-scale-to-zero-ipv4(2), ask front aliases=web=web-scale-to-zero",
		},
		"by an Ingress, redirected": {[]func(*world){byIngress, redirected}, "Redirected: "},
		"by an Ingress, not wanted": {
			[]func(*world){byIngress, redirected, optOut},
			"Restoring: update web-scale-to-zero-scale-to-zero-ipv4(2), soon",
		},
		"by an Ingress, pods back": {
			[]func(*world){byIngress, redirected, optOut, func(w *world) { w.reconcile(); w.kubernetes() }},
			"Restoring: ask front aliases=, soon",
		},
		"by an Ingress, turned back": {
			[]func(*world){byIngress, redirected, optOut, func(w *world) { w.reconcile(); w.kubernetes(); w.reconcile() }},
			"Lingering: update web-scale-to-zero, after 30s",
		},
		"by an Ingress, unused for long": {[]func(*world){byIngress, redirected, optOut, func(w *world) {
			w.reconcile()
			w.kubernetes()
			w.reconcile()
			w.reconcile()
		}, late}, "Absent: delete web-scale-to-zero-scale-to-zero-ipv4, delete web-scale-to-zero, delete web-direct, free web-scale-to-zero"},
		"the Service in place of its Ingress": {
			[]func(*world){byIngress, redirected, optOut, func(w *world) { w.service.Labels[OptInLabel] = "true" }},
			"Redirecting: try web-deployment, create web-scale-to-zero-ipv4(2), ask web route=ready",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.world...)
			if got := strings.TrimSpace(describe(w.plan())); got != strings.TrimSpace(tc.want) {
				t.Errorf("\n got %s\nwant %s", got, tc.want)
			}
		})
	}
}

// TestInjectionEnds tests that an injection ends, after any sequence of events, once everything works again: the app is injected if
// it is opted in, and restored otherwise. world checks that no step comes before the one that it needs.
func TestInjectionEnds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 1))
			w := newWorld(t)
			alias := random.IntN(2) == 0
			if alias {
				byIngress(w)
			}
			for range 40 {
				happens(w, random)
				w.reconcile()
			}
			w.admission, w.blocked, w.unasked, w.forbidden, w.skip, w.gone, w.fails = true, false, "", "", "", false, 0
			w.addresses, w.deaf, w.restoringFor, w.kept = []string{"198.18.0.2", "198.18.0.3"}, map[string]bool{}, 0, false
			w.workload.Replicas, w.workload.ReadyReplicas = 1, 1
			w.kubernetes()
			p := w.run()
			wanted := w.service.Labels[OptInLabel] == "true" || alias && w.ingresses[0].Labels[OptInLabel] == "true"
			switch {
			case wanted && p.Phase != PhaseRedirected:
				t.Fatalf("not injected: %s", describe(p))
			case !wanted && (p.Phase != PhaseAbsent || len(w.slices)+len(w.companions) > 0 || w.service.Annotations[RedirectAnnotation] != "" ||
				Intercepted(w.service)):
				t.Fatalf("not restored: %s\n%s", describe(p), w.state())
			}
			before := w.state()
			w.events = nil
			again := w.reconcile()
			if len(again.Apply)+len(again.Ask)+len(again.Delete)+len(again.Reports) > 0 || w.state() != before {
				t.Errorf("planning it again plans %s", describe(again))
			}
		})
	}
}

// happens makes a random change to the world.
func happens(w *world, random *rand.Rand) {
	coin := func() bool { return random.IntN(2) == 0 }
	switch random.IntN(14) {
	case 0:
		w.addresses = []string{"198.18.0.2", "198.18.0.3", "198.18.0.4"}[:random.IntN(4)]
	case 1:
		w.deaf = map[string]bool{"198.18.0.2": coin(), "198.18.0.3": coin(), "198.18.0.4": coin()}
	case 2:
		w.admission = coin()
	case 3:
		w.blocked = coin()
	case 4:
		w.workload.Replicas, w.workload.ReadyReplicas = int32(random.IntN(2)), 0
	case 5:
		w.workload.Replicas, w.workload.ReadyReplicas = 1, 1
	case 6:
		optOut(w)
	case 7:
		if len(w.ingresses) > 0 && coin() {
			w.ingresses[0].Labels = map[string]string{OptInLabel: "true"}
		} else {
			w.service.Labels[OptInLabel] = "true"
		}
	case 8:
		w.fails = 1 + random.IntN(4)
	case 9:
		w.forbidden = Skip([]string{"", "no right"}[random.IntN(2)])
	case 10:
		w.memory = Memory{} // another controller takes over
	case 11:
		w.unasked = []string{"", "Unavailable"}[random.IntN(2)]
	case 12:
		w.restoringFor = time.Duration(random.IntN(2)) * time.Minute
	case 13:
		w.kubernetes()
	}
	w.now = w.now.Add(time.Duration(random.IntN(20)) * time.Second)
}

// TestReports tests that each event of an app is reported once, with what its owner needs to know.
func TestReports(t *testing.T) {
	for name, tc := range map[string]struct {
		world []func(*world)
		want  []string // how the events begin
	}{
		"injected": {[]func(*world){func(w *world) { w.run() }}, []string{
			"Injected: Requests to Service web (port 80) now go through scale-to-zero; Deployment/web sleeps after 5m without one and wakes " +
				"on the next. kubectl port-forward, logs and exec find no pods behind service/web now: use deployment/web. Undo: kubectl label " +
				"service -n apps web scale-to-zero-",
		}},
		"injected by an Ingress": {[]func(*world){byIngress, func(w *world) { w.run() }}, []string{
			"Injected: Requests through Ingress front to Service web (port 80) now go through scale-to-zero; Deployment/web sleeps after 5m " +
				"without one and wakes on the next. Clients that call the Service directly do not wake it. Undo: kubectl label ingress -n apps " +
				"front scale-to-zero-",
		}},
		"an Ingress that would keep it": {[]func(*world){byIngress, func(w *world) { w.service.Labels[OptInLabel] = "true"; w.run() }}, []string{
			"Injected: Requests to Service web (port 80) now go through scale-to-zero; Deployment/web sleeps after 5m without one and wakes " +
				"on the next. kubectl port-forward, logs and exec find no pods behind service/web now: use deployment/web. Undo: kubectl label " +
				"service -n apps web scale-to-zero- && kubectl label ingress -n apps front scale-to-zero-",
		}},
		"restored": {[]func(*world){redirected, optOut, func(w *world) { w.run() }}, []string{
			"Restored: Requests to Service web go to its pods again, without scale-to-zero: it is no longer opted in. Deployment/web has 1 replica",
		}},
		"the workload is gone": {
			[]func(*world){redirected, lost, func(w *world) { w.run() }},
			[]string{
				"Restored: Service web is as it was before scale-to-zero: Deployment/web does not exist any more",
				"InjectionSkipped: Not injected: no Deployment has its pods",
			},
		},
		"no pod came back": {[]func(*world){redirected, asleep, optOut, func(w *world) {
			w.reconcile()
			w.now = w.now.Add(time.Hour)
			w.reconcile()
		}}, []string{
			"Restored: Requests to Service web go to its pods again, without scale-to-zero: it is no longer opted in. Deployment/web was " +
				"scaled to 0 replicas; none is ready yet",
		}},
		"the app starts while it is restored": {[]func(*world){redirected, asleep, optOut, func(w *world) {
			w.reconcile()
			w.now = w.now.Add(time.Second)
			w.reconcile()
			w.reconcile()
			if len(w.events) > 0 {
				w.t.Errorf("too early: %q", w.events)
			}
			w.now = w.now.Add(reportAfter)
			w.reconcile()
			w.reconcile()
		}}, []string{"Restoring: Not restored yet: Deployment/web has no ready pod; requests are held until it has one. After 5m the Service " +
			"goes without scale-to-zero in any case"}},
		"the app cannot start while it is restored": {[]func(*world){redirected, asleep, optOut, func(w *world) {
			w.reconcile()
			w.reconcile()
			for _, s := range w.slices {
				s.Annotations[api.ProgressAnnotation] = `{"stage":"pulling","failing":"its image cannot be pulled","reason":"ErrImagePull"}`
			}
			w.now = w.now.Add(reportAfter)
			w.reconcile()
			w.reconcile()
		}}, []string{"Restoring: Not restored yet: Deployment/web cannot start: its image cannot be pulled. Requests get 503. " +
			"After 5m the Service goes without scale-to-zero in any case"}},
		"restored, and another Service keeps the workload": {[]func(*world){redirected, optOut, func(w *world) {
			w.reconcile()
			w.native, w.kept = true, true
			w.reconcile()
		}}, []string{"Restored: Requests to Service web go to its pods again, without scale-to-zero: it is no longer opted in. Deployment/web " +
			"has 1 replica. It still sleeps when nobody uses its other Services, and requests to this one do not wake it"}},
		"admission is away": {[]func(*world){func(w *world) {
			w.admission = false
			for range 4 {
				w.reconcile()
			}
		}}, []string{"InjectionSkipped: Not injected yet: scale-to-zero's admission webhook did not answer."}},
		"admission is away on the way back": {[]func(*world){redirected, func(w *world) { w.admission = false }, optOut, func(w *world) {
			w.reconcile()
			w.reconcile()
		}}, []string{"Restoring: Not restored yet: scale-to-zero's admission webhook did not answer,"}},
		"no interceptor is ready": {[]func(*world){func(w *world) {
			w.addresses = nil
			w.reconcile()
			w.now = w.now.Add(reportAfter)
			w.reconcile()
			w.reconcile()
		}}, []string{"InjectionSkipped: Not injected: no interceptor of scale-to-zero is ready"}},
		"no interceptor answers": {[]func(*world){func(w *world) {
			w.deaf["198.18.0.2"], w.deaf["198.18.0.3"] = true, true
			w.reconcile()
			w.now = w.now.Add(reportAfter)
			w.reconcile()
		}}, []string{"InjectionSkipped: Not injected: no interceptor answers scale-to-zero's controller on port 10000 over IPv4 yet; " +
			"does a NetworkPolicy forbid it?"}},
		"no interceptor of its IP family": {[]func(*world){func(w *world) {
			w.service.Spec.IPFamilies = append(w.service.Spec.IPFamilies, corev1.IPv6Protocol)
			w.reconcile()
			w.now = w.now.Add(reportAfter)
			w.reconcile()
		}}, []string{"InjectionSkipped: Not injected: it has an IPv6 address, and no interceptor of scale-to-zero with one is ready"}},
		"an IP family without interceptors": {[]func(*world){redirected, func(w *world) {
			w.service.Spec.IPFamilies = append(w.service.Spec.IPFamilies, corev1.IPv6Protocol)
			w.reconcile()
			w.now = w.now.Add(reportAfter)
			w.reconcile()
			w.service.Spec.IPFamilies = w.service.Spec.IPFamilies[:1]
			w.reconcile()
		}}, []string{
			"NoInterceptor: No interceptor of scale-to-zero can be reached over IPv6; requests over it fail until one can, others succeed",
			"Injected: Requests to Service web go through scale-to-zero again: an interceptor is ready",
		}},
		"nobody can be asked about the way": {[]func(*world){func(w *world) {
			w.unasked = "Unavailable"
			w.reconcile()
			w.reconcile()
			w.now = w.now.Add(reportAfter)
			w.reconcile()
		}}, []string{"InjectionSkipped: Not injected: scale-to-zero's controller cannot ask its interceptors over gRPC whether they " +
			"reach the pods (Unavailable)"}},
		"the way is blocked, and stays so without a pod": {[]func(*world){func(w *world) {
			w.reconcile()
			w.blocked = true
			w.reconcile()
			w.now = w.now.Add(reportAfter)
			w.reconcile()
			asleep(w)
			w.reconcile()
		}}, []string{"InjectionSkipped: Not injected: the interceptors cannot connect to its pods on port 8080 (i/o timeout)."}},
		"ready pods that are not behind the Service": {[]func(*world){func(w *world) {
			w.reconcile()
			w.workload.ReadyReplicas = 0
			w.reconcile()
		}}, []string{"Injected: "}},
		"a sibling": {[]func(*world){func(w *world) {
			w.siblings = []corev1.Service{*service(called("other"), unlabelled)}
			w.run()
		}}, []string{"Injected: ", "ServiceNotOptedIn: Deployment/web also serves Service other, whose requests are neither counted nor " +
			"wake it"}},
		"an annotation that names the Service": {[]func(*world){byIngress, func(w *world) {
			w.ingresses[0].Annotations = map[string]string{"nginx.ingress.kubernetes.io/auth-url": "http://web/auth"}
			w.run()
		}}, []string{"Injected: ", "AnnotationNotRewritten: Not rewritten: nginx.ingress.kubernetes.io/auth-url of Ingress front. " +
			"Service web seems to be named there, and the Ingress now reaches it as web-scale-to-zero. To send these requests through " +
			"scale-to-zero too, opt in the Service instead of the Ingress: kubectl label service -n apps web scale-to-zero=true"}},
		"traffic of the node alone": {[]func(*world){func(w *world) {
			w.service.Spec.Type, w.service.Spec.ExternalTrafficPolicy = corev1.ServiceTypeNodePort, corev1.ServiceExternalTrafficPolicyLocal
			w.run()
			w.service.Spec.ExternalTrafficPolicy = ""
			w.run()
		}}, []string{"Injected: ", "ClientAddress: externalTrafficPolicy is Local."}},
		"a workload that may not be read any more": {[]func(*world){func(w *world) {
			annotated(Prefix+"workload", "Deployment/web")(w.service)
			w.run()
			w.forbidden = "no right"
			w.reconcile()
			w.reconcile()
		}}, []string{"Injected: ", "WorkloadForbidden: This Service stays redirected as it is: no right"}},
		"its namespace opts it in, and it is a database": {[]func(*world){func(w *world) {
			delete(w.service.Labels, OptInLabel)
			w.namespace.Labels = map[string]string{OptInLabel: "true"}
			w.service.Spec.Ports[0].Port = 5432
			w.reconcile()
		}}, []string{"InjectionSkipped: Not injected: only its namespace opts it in, and its port http (5432) is that of PostgreSQL"}},
		"a label that says nothing": {[]func(*world){func(w *world) {
			w.service.Labels[OptInLabel] = "yes"
			w.reconcile()
		}}, []string{`InjectionSkipped: Not injected: label scale-to-zero: "yes" is not allowed`}},
		"its namespace's label says nothing": {[]func(*world){func(w *world) {
			delete(w.service.Labels, OptInLabel)
			w.namespace.Labels = map[string]string{OptInLabel: "yes"}
			w.reconcile()
		}}, []string{`InjectionSkipped: Not injected: namespace apps: label scale-to-zero: "yes" is not allowed`}},
		"a setting that cannot be used": {[]func(*world){func(w *world) {
			annotated(Prefix+"cooldown", "soon")(w.service)
			w.reconcile()
		}}, []string{`InjectionSkipped: Not injected: annotation scale-to-zero/cooldown: "soon" is not allowed`}},
		"a headless Service, and an Ingress": {[]func(*world){func(w *world) {
			byIngress(w)
			w.ingresses[0].Labels = nil
			w.service.Labels[OptInLabel], w.service.Spec.ClusterIP = "true", corev1.ClusterIPNone
			w.reconcile()
		}}, []string{"InjectionSkipped: Not injected: it is headless: its clients connect to pods by themselves. Visitors come through " +
			"an Ingress: kubectl label ingress -n apps front scale-to-zero=true"}},
		"the alias has a foreign name": {[]func(*world){byIngress, func(w *world) { w.foreign = "web-scale-to-zero"; w.reconcile() }}, []string{
			"InjectionSkipped: Not injected: scale-to-zero needs the Service name web-scale-to-zero, which another Service has",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.world...)
			if len(w.events) != len(tc.want) {
				t.Fatalf("events:\n%s\nwant %d", strings.Join(w.events, "\n"), len(tc.want))
			}
			for i, want := range tc.want {
				if !strings.HasPrefix(w.events[i], want) {
					t.Errorf("event\n%s\nwant\n%s", w.events[i], want)
				}
			}
		})
	}
}

// lost deletes the workload, and found creates it again.
func lost(w *world)  { w.gone, w.skip = true, "no Deployment has its pods" }
func found(w *world) { w.gone, w.skip = false, "" }

func lateBy(d time.Duration) func(*world) { return func(w *world) { w.now = w.now.Add(d) } }

// TestGone tests that requests held for a workload that no longer exists get the reason, after the workload has had a moment to come
// back.
func TestGone(t *testing.T) {
	w := newWorld(t, byIngress, redirected, lost)
	w.reconcile()
	lateBy(goneFor)(w)
	w.reconcile()
	for _, s := range w.slices {
		routes, err := api.DecodeRoutes(s.Annotations[api.RoutesAnnotation])
		if err != nil || routes.Gone != "Deployment/web does not exist any more" || !routes.Retiring {
			t.Errorf("routes %+v, %v", routes, err)
		}
	}
	if got := describe(w.plan()); got != "Lingering: update web-scale-to-zero, after 30s" {
		t.Errorf("then %s", got)
	}
}

// TestGoneFirst tests that interceptors get the reason before the slices of a Service without a workload are deleted.
func TestGoneFirst(t *testing.T) {
	w := newWorld(t, redirected, lost)
	told := false
	for range 6 {
		w.reconcile()
		lateBy(goneFor)(w)
		for _, s := range w.slices {
			routes, err := api.DecodeRoutes(s.Annotations[api.RoutesAnnotation])
			told = told || err == nil && routes.Gone == "Deployment/web does not exist any more"
		}
	}
	if !told || len(w.slices) > 0 {
		t.Errorf("told: %v, and there are %d slices", told, len(w.slices))
	}
}

// TestLostAnnotation tests that an Ingress gets its author's backend back even if its annotation was lost while admission was down.
func TestLostAnnotation(t *testing.T) {
	w := newWorld(t, byIngress, redirected)
	delete(w.ingresses[0].Annotations, AliasesAnnotation)
	optOut(w)
	w.run()
	if _, now := Backends(&w.ingresses[0]); !cmp.Equal(now, []string{"web"}) {
		t.Errorf("the Ingress leads to %v", now)
	}
}

// TestInjectedOnce tests that a plan reports nothing again if the cache does not show yet that traffic is redirected, even if an
// Ingress that has been opted in meanwhile changes how to undo the injection.
func TestInjectedOnce(t *testing.T) {
	w := newWorld(t)
	before := w.service.DeepCopy()
	w.run()
	if !Intercepted(w.service) {
		t.Fatal("it is not redirected")
	}
	w.service = before
	byIngress(w)
	w.service.Labels = map[string]string{OptInLabel: "true"}
	w.run()
	injected := slices.DeleteFunc(slices.Clone(w.events), func(e string) bool { return !strings.HasPrefix(e, ReasonInjected) })
	if len(injected) != 1 || !Intercepted(w.service) {
		t.Errorf("reported %q", injected)
	}
}

// TestNotReadyAddresses tests that the interceptors know the pods of a Service that publishes addresses before they are ready.
func TestNotReadyAddresses(t *testing.T) {
	for name, tc := range map[string]struct {
		native bool
		want   Phase
	}{"Kubernetes lists them behind the Service alone": {true, PhaseProving}, "it lists none": {false, PhaseRedirecting}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(w *world) {
				w.service.Spec.PublishNotReadyAddresses = true
				w.reconcile()
				w.workload.ReadyReplicas, w.native = 0, tc.native
			})
			if p := w.plan(); p.Phase != tc.want {
				t.Errorf("got %s", describe(p))
			}
		})
	}
}

// TestReadyElsewhere tests that a workload is not injected if the Service selects none of its ready pods.
func TestReadyElsewhere(t *testing.T) {
	w := newWorld(t, func(w *world) { w.reconcile() })
	o := w.observe()
	o.DirectSlices[0].Endpoints = nil
	for range 8 {
		p, q := PlanService(o)
		if q.Kind == NoQuestion {
			if p.Phase != PhaseProving || p.Memory.Waits != "Deployment/web has ready pods, but none is behind this Service" {
				t.Errorf("%s, waits for %q", describe(p), p.Memory.Waits)
			}
			return
		}
		w.answer(&o, q)
	}
	t.Error("there is no plan")
}

// TestUnvisited tests the warning, halfway to the first sleep, about an app that may never have visitors.
func TestUnvisited(t *testing.T) {
	quiet := &Use{Idle: time.Hour, Counted: time.Hour}
	together := func(w *world) {
		w.service.Labels["app.kubernetes.io/instance"] = "release"
		w.release = []corev1.Service{*service(called("front"), func(s *corev1.Service) {
			s.Labels["app.kubernetes.io/instance"], s.Spec.Selector = "release", map[string]string{"app": "front"}
		})}
	}
	for name, tc := range map[string]struct {
		change func(*world)
		age    time.Duration
		use    *Use
		warns  bool
		after  time.Duration
	}{
		"too early":            {together, time.Minute, quiet, false, 90 * time.Second},
		"nobody came":          {together, 3 * time.Minute, quiet, true, 0},
		"somebody came":        {together, 3 * time.Minute, &Use{Idle: time.Minute, Counted: time.Hour}, false, 75 * time.Second},
		"a request is pending": {together, 3 * time.Minute, &Use{Pending: 1, Idle: time.Hour, Counted: time.Hour}, false, 75 * time.Second},
		"not counted for long": {together, 3 * time.Minute, &Use{Idle: time.Hour, Counted: time.Minute}, false, 75 * time.Second},
		"nobody can be asked":  {together, 3 * time.Minute, nil, false, 75 * time.Second},
		"too late":             {together, 6 * time.Minute, quiet, false, 0},
		"opted in by itself":   {func(*world) {}, 3 * time.Minute, quiet, false, 0},
		"a node port exposes it": {
			func(w *world) { together(w); w.service.Spec.Type = corev1.ServiceTypeNodePort }, 3 * time.Minute,
			quiet, false, 0,
		},
		"it never sleeps": {
			func(w *world) { together(w); annotated(Prefix+"min-replicas", "1")(w.service) }, 3 * time.Minute,
			quiet, false, 0,
		},
		"with all of its namespace":  {internalNamespace, 3 * time.Minute, quiet, true, 0},
		"through an Ingress, alone":  {func(w *world) { byIngress(w); together(w) }, 3 * time.Minute, quiet, false, 0},
		"warned of already, that is": {func(w *world) { together(w) }, 3 * time.Minute, quiet, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.change)
			w.use = tc.use
			for range 3 {
				w.reconcile()
				w.kubernetes()
			}
			w.events = nil
			w.now = w.now.Add(tc.age)
			p := w.reconcile()
			w.reconcile()
			warned := len(w.events) == 1 && strings.HasPrefix(w.events[0], "NoVisitorYet: Service web has had no request recently")
			if warned != tc.warns || len(w.events) > 1 || p.After != tc.after {
				t.Errorf("%s; events %q", describe(p), w.events)
			}
		})
	}
}

// internalNamespace opts in a Namespace with its internal Services.
func internalNamespace(w *world) {
	delete(w.service.Labels, OptInLabel)
	w.namespace.Labels = map[string]string{OptInLabel: "true"}
	w.namespace.Annotations = map[string]string{InternalServicesAnnotation: "true"}
	w.service.Spec.Ports[0].Name = "http"
}

// TestOnlyWhatDiffers tests that companions and slices are written only if they differ from their desired state.
func TestOnlyWhatDiffers(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*world)
		want   string
	}{
		"a port": {func(w *world) {
			w.service.Spec.Ports = append(w.service.Spec.Ports, corev1.ServicePort{Name: "admin", Port: 81})
		}, "Redirected: update web-direct, update web-scale-to-zero-ipv4(2)"},
		"a selector": {func(w *world) { w.service.Spec.Selector["tier"] = "front" }, "Redirected: update web-direct"},
		"a cool-down": {
			func(w *world) { annotated(Prefix+"cooldown", "1m")(w.service) },
			"Redirected: update web-scale-to-zero-ipv4(2)",
		},
		"labels of the direct one": {func(w *world) { annotated(Prefix+"direct-labels", "true")(w.service) }, "Redirected: update web-direct"},
		"a label":                  {func(w *world) { w.service.Labels["team"] = "a" }, "Redirected: "},
		"who wrote to our direct":  {func(w *world) { w.companions["web-direct"].Spec.Selector = nil }, "Redirected: update web-direct"},
		"a slice that cannot be": {
			func(w *world) { w.slices["web-scale-to-zero-ipv4"].Annotations[api.RoutesAnnotation] = "x" },
			"Redirected: update web-scale-to-zero-ipv4(2)",
		},
		"the progress of a start": {
			func(w *world) { w.slices["web-scale-to-zero-ipv4"].Annotations[api.ProgressAnnotation] = "{}" },
			"Redirected: ",
		},
		"a server that speaks first": {func(*world) {}, "Redirected: "},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, redirected)
			tc.change(w)
			if got := strings.TrimSpace(describe(w.plan())); got != strings.TrimSpace(tc.want) {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// TestKeepLearned tests that what the interceptors have learned about a port is kept, and is not carried over to another port.
func TestKeepLearned(t *testing.T) {
	marks := map[string]struct {
		of      func(*api.Port) *bool
		learned func(map[int32]bool) Spoken
	}{
		"server first": {func(p *api.Port) *bool { return &p.ServerFirst }, func(m map[int32]bool) Spoken { return Spoken{ServerFirst: m} }},
		"HTTP":         {func(p *api.Port) *bool { return &p.SpokeHTTP }, func(m map[int32]bool) Spoken { return Spoken{HTTP: m} }},
	}
	for name, tc := range map[string]struct {
		now, before api.Port
		marked      bool // before
		learned     map[int32]bool
		want        bool
	}{
		"nothing is known":   {onPort(10000, api.ProtocolAuto), onPort(10000, api.ProtocolAuto), false, nil, false},
		"it was known":       {onPort(10000, api.ProtocolAuto), onPort(10000, api.ProtocolAuto), true, nil, true},
		"it is learned":      {onPort(10000, api.ProtocolAuto), api.Port{}, false, map[int32]bool{10000: true}, true},
		"of another number":  {onPort(10001, api.ProtocolAuto), onPort(10000, api.ProtocolAuto), true, map[int32]bool{10000: true}, false},
		"it says its speech": {onPort(10000, api.ProtocolHTTP), onPort(10000, api.ProtocolAuto), true, nil, false},
	} {
		for mark, m := range marks {
			t.Run(name+", "+mark, func(t *testing.T) {
				before := tc.before
				*m.of(&before) = tc.marked
				routes := api.Routes{Ports: []api.Port{tc.now}}
				keepLearned(&routes, api.Routes{Ports: []api.Port{before}}, m.learned(tc.learned))
				want := tc.now
				*m.of(&want) = tc.want
				if diff := cmp.Diff(want, routes.Ports[0]); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func onPort(listen int32, protocol string) api.Port {
	return api.Port{Name: "http", Listen: listen, Protocol: protocol}
}

// TestLeftovers tests that objects of a deleted Service with the same name are deleted first.
func TestLeftovers(t *testing.T) {
	w := newWorld(t)
	o := w.observe()
	o.Leftovers = []Object{service(called("web-direct"))}
	for {
		p, q := PlanService(o)
		if q.Kind == NoQuestion {
			if len(p.Sweep) != 1 || p.Sweep[0].GetName() != "web-direct" {
				t.Errorf("sweeps %v", p.Sweep)
			}
			return
		}
		w.answer(&o, q)
	}
}

// TestAskDone tests that the objects show whether admission has granted a request.
func TestAskDone(t *testing.T) {
	led := ingressTo("web-scale-to-zero", networkingv1.ServiceBackendPort{Number: 80}, func(i *networkingv1.Ingress) {
		i.Annotations = map[string]string{AliasesAnnotation: "web=web-scale-to-zero"}
	})
	direct := ingressTo("web", networkingv1.ServiceBackendPort{Number: 80})
	for name, tc := range map[string]struct {
		ask  Ask
		want bool
	}{
		"a Service, redirected":       {Ask{Into: true, Service: service(sentinel)}, true},
		"a Service, not redirected":   {Ask{Into: true, Service: service()}, false},
		"a Service, restored":         {Ask{Service: service()}, true},
		"a Service, not restored":     {Ask{Service: service(sentinel)}, false},
		"an Ingress, redirected":      {Ask{Into: true, Service: service(), Ingresses: []*networkingv1.Ingress{&led}}, true},
		"an Ingress, not redirected":  {Ask{Into: true, Service: service(), Ingresses: []*networkingv1.Ingress{&led, &direct}}, false},
		"an Ingress, restored":        {Ask{Service: service(), Ingresses: []*networkingv1.Ingress{&direct}}, true},
		"an Ingress, not restored":    {Ask{Service: service(), Ingresses: []*networkingv1.Ingress{&direct, &led}}, false},
		"an Ingress of other Service": {Ask{Service: service(called("api")), Ingresses: []*networkingv1.Ingress{&led}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.ask.Done(); got != tc.want {
				t.Errorf("done: %t", got)
			}
		})
	}
}

// TestPhasesInOrder tests that, while nothing else happens, the phases come in their order, and none comes twice.
func TestPhasesInOrder(t *testing.T) {
	deafAtFirst := func(w *world) { w.deaf["198.18.0.2"], w.deaf["198.18.0.3"] = true, true }
	for name, tc := range map[string]struct {
		world []func(*world)
		taken []Phase
		back  []Phase
	}{
		"a Service": {
			[]func(*world){deafAtFirst}, []Phase{PhaseListening, PhaseProving, PhaseRedirecting, PhaseRedirected}, []Phase{
				PhaseRestoring,
				PhaseAbsent,
			},
		},
		"an Ingress": {
			[]func(*world){byIngress, deafAtFirst},
			[]Phase{PhaseListening, PhaseProving, PhaseRedirecting, PhaseRedirected},
			[]Phase{PhaseRestoring, PhaseLingering, PhaseAbsent},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, append(tc.world, func(w *world) { w.blocked = true })...)
			phases := func(n int) []Phase {
				var seen []Phase
				for i := range n {
					p := w.reconcile()
					if len(seen) == 0 || seen[len(seen)-1] != p.Phase {
						seen = append(seen, p.Phase)
					}
					if i > 1 { // the obstacles disappear one after the other
						w.blocked = w.blocked && len(w.deaf) > 0
						clear(w.deaf)
					}
					w.kubernetes()
					w.now = w.now.Add(10 * time.Second)
				}
				return seen
			}
			if got := phases(12); !cmp.Equal(got, tc.taken) {
				t.Errorf("injected by %v, want %v", got, tc.taken)
			}
			optOut(w)
			if got := phases(12); !cmp.Equal(got, tc.back) {
				t.Errorf("restored by %v, want %v", got, tc.back)
			}
		})
	}
}
