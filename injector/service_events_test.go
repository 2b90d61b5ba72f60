// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// said reconciles once, and returns the events as `kubectl get events` lists them: type, reason, objects and all of the note.
func (w *world) said() []string {
	w.t.Helper()
	out, ok := w.execute(w.plan())
	if !ok {
		return nil
	}
	w.memory = out.Memory
	var lines []string
	for _, r := range out.Reports {
		lines = append(lines, reportText(r))
	}
	return lines
}

func reportText(r Report) string {
	on := make([]string, len(r.Objects))
	for i, o := range r.Objects {
		on[i] = strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T/%s", o, o.GetName()), "*v1."), "*v1beta1.")
	}
	lasting := ""
	if r.Lasting {
		lasting = " (lasting)"
	}
	return fmt.Sprintf("%s %s on %s%s: %s", r.Type, r.Reason, strings.Join(on, ", "), lasting, r.Note)
}

// saidIn reconciles that often, with a while between.
func saidIn(n int, pause time.Duration) func(*world) []string {
	return func(w *world) []string {
		w.t.Helper()
		var lines []string
		for range n {
			lines = append(lines, w.said()...)
			w.kubernetes()
			w.now = w.now.Add(pause)
		}
		return lines
	}
}

// TestEventsOfServices has all of each event about a Service, as its owner reads it: who changes a word of them sees it here.
func TestEventsOfServices(t *testing.T) {
	const (
		injected = "Normal Injected on Service/web, Deployment/web: Requests to Service web (port 80) now go through scale-to-zero; " +
			"Deployment/web sleeps after 5m without one and wakes on the next. kubectl port-forward, logs and exec find no pods behind " +
			"service/web now: use deployment/web. Undo: kubectl label service -n apps web scale-to-zero-"
		injectedByIngress = "Normal Injected on Service/web, Ingress/front, Deployment/web: Requests through Ingress front to Service web " +
			"(port 80) now go through scale-to-zero; Deployment/web sleeps after 5m without one and wakes on the next. Clients that call the " +
			"Service directly do not wake it. Undo: kubectl label ingress -n apps front scale-to-zero-"
		skipped = "Warning InjectionSkipped on Service/web: Not injected: "
	)
	few := saidIn(4, time.Second)
	later := func(w *world) []string {
		w.t.Helper()
		w.said()
		w.now = w.now.Add(reportAfter)
		return append(w.said(), w.said()...)
	}
	then := func(change func(*world)) func(*world) []string {
		return func(w *world) []string {
			w.t.Helper()
			redirected(w)
			change(w)
			return few(w)
		}
	}
	twoPorts := func(w *world) {
		w.service.Spec.Ports = append(w.service.Spec.Ports, corev1.ServicePort{Name: "admin", Port: 81})
	}
	sibling := func(names ...string) func(*world) {
		return func(w *world) {
			for _, name := range names {
				w.siblings = append(w.siblings, *service(called(name), unlabelled))
			}
		}
	}
	for name, tc := range map[string]struct {
		world []func(*world)
		says  func(*world) []string
		want  []string
	}{
		"injected":               {nil, few, []string{injected}},
		"injected by an Ingress": {[]func(*world){byIngress}, few, []string{injectedByIngress}},
		"injected, two ports and another cool-down": {
			[]func(*world){twoPorts, func(w *world) { annotated(Prefix+"cooldown", "90s")(w.service) }},
			few,
			[]string{strings.NewReplacer("(port 80)", "(ports 80, 81)", "after 5m", "after 1m30s").Replace(injected)},
		},
		"injected, a StatefulSet": {
			[]func(*world){func(w *world) { w.workload.Kind = "StatefulSet" }},
			few,
			[]string{strings.NewReplacer("; Deployment/", "; StatefulSet/", "use deployment/", "use statefulset/").Replace(injected)},
		},
		"a Service beside it": {[]func(*world){sibling("api")}, few, []string{
			injected,
			"Warning ServiceNotOptedIn on Service/web: Deployment/web also serves Service api, whose requests are neither counted nor wake it: " +
				"while it sleeps, they find no pod. Label that scale-to-zero=true too, or send its clients here",
		}},
		"two Services beside it": {[]func(*world){sibling("metrics", "api")}, few, []string{
			injected,
			"Warning ServiceNotOptedIn on Service/web: Deployment/web also serves Service api, metrics, whose requests are neither counted nor " +
				"wake it: while it sleeps, they find no pod. Label that scale-to-zero=true too, or send its clients here",
		}},
		"annotations that name the Service": {[]func(*world){byIngress, func(w *world) {
			w.ingresses[0].Annotations = map[string]string{
				"nginx.ingress.kubernetes.io/auth-url":    "http://web/auth",
				"nginx.ingress.kubernetes.io/auth-signin": "http://web/in",
			}
		}}, few, []string{
			injectedByIngress,
			"Warning AnnotationNotRewritten on Service/web, Ingress/front: Not rewritten: nginx.ingress.kubernetes.io/auth-signin, " +
				"nginx.ingress.kubernetes.io/auth-url of Ingress front. Service web seems to be named there, and the Ingress now reaches " +
				"it as web-scale-to-zero. To send these requests through scale-to-zero too, opt in the Service instead of the Ingress: " +
				"kubectl label service -n apps web scale-to-zero=true",
		}},
		"the client's address, of HTTP": {[]func(*world){func(w *world) {
			w.service.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			w.service.Spec.Ports[0].AppProtocol = new("http")
		}}, few, []string{
			injected,
			"Normal ClientAddress on Service/web (lasting): externalTrafficPolicy is Local. HTTP requests carry the client's address in " +
				"X-Forwarded-For. From outside the cluster the Service answers on nodes that run an interceptor.",
		}},
		"the client's address, of anything": {[]func(*world){func(w *world) {
			w.service.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			annotated(Prefix+"protocol", "auto")(w.service)
		}}, few, []string{
			injected,
			"Warning ClientAddress on Service/web (lasting): externalTrafficPolicy is Local. HTTP requests carry the client's address in " +
				"X-Forwarded-For. Other connections to port 80 reach the pods with an interceptor's address; if the app reads the PROXY " +
				`protocol, set annotation scale-to-zero/proxy-protocol: "2". From outside the cluster the Service answers on nodes that run ` +
				"an interceptor.",
		}},
		"traffic kept close": {[]func(*world){func(w *world) { w.service.Spec.TrafficDistribution = new("PreferSameNode") }}, few, []string{
			injected,
			"Normal TrafficDistribution on Service/web (lasting): trafficDistribution is PreferSameNode. Clients reach an interceptor on their " +
				"node if there is one, and that forwards to any ready pod of Deployment/web.",
		}},
		"traffic no longer kept close": {[]func(*world){func(w *world) {
			annotated("service.kubernetes.io/topology-mode", "Auto")(w.service)
		}}, few, []string{
			injected,
			"Warning TrafficDistribution on Service/web (lasting): Annotation service.kubernetes.io/topology-mode has no effect while requests " +
				"go through scale-to-zero. To let clients reach an interceptor in their zone if there is one, set the Service's " +
				"trafficDistribution to PreferSameZone, or to PreferClose before Kubernetes 1.34",
		}},
		"an affinity that is lost": {[]func(*world){func(w *world) {
			w.workload.Replicas = 2
			annotated("traefik.ingress.kubernetes.io/service.sticky.cookie", "true")(w.service)
		}}, few, []string{
			injected,
			"Warning AffinityLost on Service/web (lasting): Service web (traefik.ingress.kubernetes.io/service.sticky.cookie: true) keeps each " +
				"client at one endpoint, which is now an interceptor and not a pod of Deployment/web: clients move between pods. To keep a " +
				"client at one pod, set annotation scale-to-zero/affinity-cookie to the name of the app's session cookie, or to auto if it " +
				"has none",
		}},

		"no interceptor": {
			[]func(*world){func(w *world) { w.addresses = nil }},
			later,
			[]string{skipped + "no interceptor of scale-to-zero is ready"},
		},
		"no interceptor answers": {[]func(*world){twoPorts, func(w *world) {
			w.deaf["198.18.0.2"], w.deaf["198.18.0.3"] = true, true
		}}, later, []string{skipped + "no interceptor answers scale-to-zero's controller on ports 10000, 10001 over IPv4 yet; does a " +
			"NetworkPolicy forbid it?"}},
		"no interceptor can be asked": {[]func(*world){func(w *world) { w.reconcile(); w.unasked = "DeadlineExceeded" }}, later, []string{
			skipped + "scale-to-zero's controller cannot ask its interceptors over gRPC whether they reach the pods (DeadlineExceeded); " +
				"does a NetworkPolicy in namespace scale-to-zero forbid it?",
		}},
		"the way is blocked": {[]func(*world){func(w *world) { w.reconcile(); w.blocked = true }}, later, []string{
			skipped + "the interceptors cannot connect to its pods on port 8080 (i/o timeout). If a NetworkPolicy restricts them, allow " +
				"ingress from US; if a service mesh requires mTLS, exempt these ports or have the interceptors join the mesh. " +
				"It is injected once they can",
		}},
		"Kubernetes lists nothing": {
			[]func(*world){func(w *world) { w.reconcile(); w.listed = false }},
			later,
			[]string{skipped + "Kubernetes has not made an EndpointSlice for Service web-direct yet"},
		},
		"pods that take requests before they are ready": {[]func(*world){func(w *world) {
			w.service.Spec.PublishNotReadyAddresses = true
			w.reconcile()
			w.workload.ReadyReplicas = 0
		}}, later, []string{
			skipped + "Kubernetes has not listed the pods of Service web-direct yet, which take requests before they are ready",
		}},
		"admission is away": {[]func(*world){func(w *world) { w.admission = false }}, few, []string{
			"Warning InjectionSkipped on Service/web: Not injected yet: scale-to-zero's admission webhook did not answer. Requests still go " +
				"straight to the pods and the app stays awake; trying again",
		}},
		"by its own label, without a workload": {
			[]func(*world){func(w *world) { w.skip = "there is none" }}, few, []string{skipped + "there is none"},
		},
		"by its Namespace's, without a workload": {
			[]func(*world){internalNamespace, func(w *world) { w.skip = "there is none" }},
			few,
			[]string{"Normal InjectionSkipped on Service/web: Not injected: there is none"},
		},
		"by its Ingress's, without a workload": {
			[]func(*world){byIngress, func(w *world) { w.skip = "there is none" }}, few, []string{skipped + "there is none"},
		},
		"a name of ours is taken": {[]func(*world){func(w *world) { w.foreign = "web-direct" }}, few, []string{
			skipped + "scale-to-zero needs the Service name web-direct, which another Service has; rename or delete that one",
		}},

		"all interceptors go": {nil, then(func(w *world) { w.addresses = nil }), []string{
			"Warning NoInterceptor on Service/web: No interceptor of scale-to-zero is ready; requests go to the pods of Deployment/web directly, " +
				"and it stays awake until one is",
		}},
		"all interceptors go, asleep": {nil, then(func(w *world) { asleep(w); w.addresses = nil }), []string{
			"Warning NoInterceptor on Service/web: No interceptor of scale-to-zero is ready; Deployment/web stays asleep, and requests to it " +
				"fail until one is",
		}},
		"and one comes back": {nil, then(func(w *world) {
			w.addresses = nil
			w.said()
			w.addresses = []string{"198.18.0.2"}
		}), []string{
			"Normal Injected on Service/web, Deployment/web: Requests to Service web go through scale-to-zero again: an interceptor is ready",
		}},
		"one comes back, and another controller looks": {nil, then(func(w *world) {
			w.addresses = nil
			w.said()
			w.memory, w.addresses = Memory{}, []string{"198.18.0.2"}
		}), []string{
			"Normal Injected on Service/web, Deployment/web: Requests to Service web go through scale-to-zero again: an interceptor is ready",
		}},
		"a workload that may not be read any more": {
			[]func(*world){func(w *world) { annotated(Prefix+"workload", "Deployment/web")(w.service) }},
			then(func(w *world) { w.forbidden = "no right" }),
			[]string{"Warning WorkloadForbidden on Service/web: This Service stays redirected as it is: no right"},
		},
		"nobody visits it": {
			[]func(*world){internalNamespace, func(w *world) { w.use = &Use{Idle: time.Hour, Counted: time.Hour} }},
			func(w *world) []string {
				few(w)
				w.now = w.now.Add(3 * time.Minute)
				return few(w)
			},
			[]string{
				"Warning NoVisitorYet on Service/web: Service web has had no request recently, and no Ingress, Gateway API route, load " +
					"balancer or node port exposes it. It was opted in together with others. Unless a request comes, Deployment/web sleeps " +
					"after 5m, and then only a request wakes it. If it works without requests, as a worker or a scheduler does, keep it awake: " +
					"kubectl annotate service -n apps web scale-to-zero/min-replicas=1",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.says(newWorld(t, tc.world...))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestReportedAgain: what was reported is reported again when it begins anew, and not before.
func TestReportedAgain(t *testing.T) {
	count := func(w *world, reason string) int {
		n := 0
		for _, e := range w.events {
			if strings.HasPrefix(e, reason+": ") {
				n++
			}
		}
		return n
	}
	for name, tc := range map[string]struct {
		reason string
		happen func(w *world) // each time
		times  int
		want   int
	}{
		"all interceptors go, and come": {ReasonNoInterceptor, func(w *world) {
			w.addresses = nil
			w.reconcile()
			w.reconcile()
			w.addresses = []string{"198.18.0.2"}
			w.reconcile()
		}, 3, 3},
		"and come": {ReasonInjected, func(w *world) {
			w.addresses = nil
			w.reconcile()
			w.addresses = []string{"198.18.0.2"}
			w.reconcile()
			w.reconcile()
		}, 3, 3},
		"it is opted out, and in": {ReasonInjected, func(w *world) {
			optOut(w)
			w.run()
			w.service.Labels[OptInLabel] = "true"
			w.run()
		}, 3, 3},
		"it is skipped, opted out, and skipped for the same reason": {ReasonSkipped, func(w *world) {
			w.skip = "there is none"
			w.run()
			w.run()
			optOut(w)
			w.run()
			w.service.Labels[OptInLabel] = "true"
			w.run()
		}, 1, 2},
		"the same is skipped twice in a row": {ReasonSkipped, func(w *world) { w.skip = "there is none"; w.run() }, 3, 1},
		"a workload that cannot be read now and then": {ReasonForbidden, func(w *world) {
			w.forbidden = "no right"
			w.reconcile()
			w.reconcile()
			w.forbidden = ""
			w.reconcile()
		}, 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(w *world) { annotated(Prefix+"workload", "Deployment/web")(w.service) }, redirected)
			for range tc.times {
				tc.happen(w)
			}
			if got := count(w, tc.reason); got != tc.want {
				t.Errorf("%d times, want %d:\n%s", got, tc.want, strings.Join(w.events, "\n"))
			}
		})
	}
}

// TestMinds: whatever is opted in at last counts, from whatever point on the way its owner has changed his mind.
func TestMinds(t *testing.T) {
	label := func(w *world) { w.service.Labels[OptInLabel] = "true" }
	unlabel := func(w *world) {
		old := w.service.DeepCopy()
		delete(w.service.Labels, OptInLabel)
		if err := Admit(w.service, old, false); err != nil {
			w.t.Fatal(err)
		}
	}
	labelIngress := func(w *world) { w.ingresses[0].Labels = map[string]string{OptInLabel: "true"} }
	unlabelIngress := func(w *world) { w.ingresses[0].Labels = nil }
	for name, tc := range map[string]struct {
		minds []func(*world)
		want  string // what takes the traffic
	}{
		"on":                            {[]func(*world){label}, "Service"},
		"on, off":                       {[]func(*world){label, unlabel}, ""},
		"on, off, on":                   {[]func(*world){label, unlabel, label}, "Service"},
		"the Ingress":                   {[]func(*world){labelIngress}, "Ingress"},
		"the Ingress, not":              {[]func(*world){labelIngress, unlabelIngress}, ""},
		"the Ingress, not, but":         {[]func(*world){labelIngress, unlabelIngress, labelIngress}, "Ingress"},
		"the Ingress, then the Service": {[]func(*world){labelIngress, label, unlabelIngress}, "Service"},
		"the Service, then the Ingress": {[]func(*world){label, labelIngress, unlabel}, "Ingress"},
		"both, the Service counts":      {[]func(*world){labelIngress, label}, "Service"},
		"both, and neither":             {[]func(*world){labelIngress, label, unlabelIngress, unlabel}, ""},
		"to and fro, and the Ingress":   {[]func(*world){label, labelIngress, unlabel, label, unlabel}, "Ingress"},
		"everything is restored, and not": {
			[]func(*world){label, func(w *world) { w.restoringFor = time.Minute }, func(w *world) { w.restoringFor = 0 }}, "Service",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for steps := range 6 { // between two changes of mind
				w := newWorld(t, byIngress)
				unlabelIngress(w)
				w.service.Labels = map[string]string{}
				for _, change := range tc.minds {
					change(w)
					for range steps {
						w.reconcile()
						w.kubernetes()
						w.now = w.now.Add(7 * time.Second)
					}
				}
				for range 3 { // an alias Service lingers
					w.run()
					w.now = w.now.Add(time.Minute)
				}
				_, now := Backends(&w.ingresses[0])
				got := ""
				switch {
				case Intercepted(w.service) && now[0] == "web":
					got = "Service"
				case !Intercepted(w.service) && now[0] == "web-scale-to-zero":
					got = "Ingress"
				case Intercepted(w.service) || now[0] != "web":
					got = "both"
				}
				left := map[string][2]bool{"": {}, "Service": {true, false}, "Ingress": {false, true}}[tc.want]
				slices := [2]bool{len(w.slicesOf("web")) > 0, len(w.slicesOf("web-scale-to-zero")) > 0}
				alias := w.companions["web-scale-to-zero"] != nil
				if got != tc.want || slices != left || alias != (tc.want == "Ingress") || (w.companions["web-direct"] != nil) != (tc.want != "") {
					t.Errorf("after %d steps each, the traffic is taken of %q; slices of the two %v, companions %d\n%s", steps, got, slices,
						len(w.companions), w.state())
				}
			}
		})
	}
}

// TestTwoIngresses: an injection of Ingresses is complete when all that are opted in lead to the alias Service, and none else does.
func TestTwoIngresses(t *testing.T) {
	w := newWorld(t, byIngress, func(w *world) {
		for i, name := range []string{"second", "not-ours"} {
			other := w.ingresses[0].DeepCopy()
			other.Name = name
			if i == 1 {
				other.Labels = nil
			}
			w.ingresses = append(w.ingresses, *other)
		}
	})
	leads := func() string {
		var to []string
		for _, i := range w.ingresses {
			_, now := Backends(&i)
			to = append(to, now...)
		}
		return strings.Join(to, " ")
	}
	w.run()
	if got := leads(); got != "web-scale-to-zero web-scale-to-zero web" {
		t.Errorf("they lead to %s", got)
	}
	want := "Injected: Requests through Ingress front, Ingress second to Service web (port 80) now go through scale-to-zero; "
	if len(w.events) != 1 || !strings.HasPrefix(w.events[0], want) {
		t.Errorf("events %q", w.events)
	}
	w.ingresses[2].Labels = map[string]string{OptInLabel: "true"}
	w.run()
	w.ingresses[0].Labels = nil
	w.run()
	if got := leads(); !strings.HasSuffix(got, "web-scale-to-zero web-scale-to-zero") {
		t.Errorf("with one more, they lead to %s", got)
	}
	for i := range w.ingresses {
		w.ingresses[i].Labels = nil
	}
	w.run()
	if got := leads(); got != "web web web" || len(w.slices)+len(w.companions) > 0 {
		t.Errorf("restored, they lead to %s; %d slices and %d companions are left", got, len(w.slices), len(w.companions))
	}
}
