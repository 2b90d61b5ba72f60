// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// questions plans, and returns what was asked, with the answers given.
func (w *world) questions() (Plan, map[QuestionKind]Question) {
	w.t.Helper()
	o, asked := w.observe(), map[QuestionKind]Question{}
	p, q := PlanService(o)
	for q.Kind != NoQuestion {
		asked[q.Kind] = q
		w.answer(&o, q)
		p, q = PlanService(o)
	}
	return p, asked
}

// soonRedirected takes the app over in no time.
func soonRedirected(w *world) {
	w.t.Helper()
	for range 4 {
		w.reconcile()
		w.kubernetes()
	}
	if w.memory.Phase != PhaseRedirected {
		w.t.Fatalf("not injected: %s", w.memory.Phase)
	}
	w.events = nil
}

// TestQuestions: a plan asks for what it needs, and dials and asks no interceptor that is known.
func TestQuestions(t *testing.T) {
	deaf := func(w *world) { w.deaf["198.18.0.3"] = true }
	for name, tc := range map[string]struct {
		world []func(*world)
		dials []string
		asks  []string // about the way to the pods
		kinds []QuestionKind
	}{
		"it begins": {
			nil,
			[]string{"198.18.0.2:10000", "198.18.0.3:10000"},
			nil,
			[]QuestionKind{AskTarget, AskPorts, AskServing},
		},
		"pods are listed": {
			[]func(*world){func(w *world) { w.reconcile() }},
			[]string{"198.18.0.2:10000", "198.18.0.3:10000"},
			[]string{"198.18.0.2", "198.18.0.3"},
			[]QuestionKind{AskTarget, AskPorts, AskServing, AskWay, AskSiblings},
		},
		"one of them does not listen": {
			[]func(*world){deaf, func(w *world) { w.reconcile() }},
			[]string{"198.18.0.2:10000", "198.18.0.3:10000"},
			[]string{"198.18.0.2"},
			[]QuestionKind{AskTarget, AskPorts, AskServing, AskWay, AskSiblings},
		},
		"redirected": {[]func(*world){soonRedirected}, nil, nil, []QuestionKind{AskTarget, AskPorts, AskSiblings}},
		"redirected, one does not listen": {
			[]func(*world){deaf, soonRedirected},
			[]string{"198.18.0.3:10000"},
			nil,
			[]QuestionKind{AskTarget, AskPorts, AskServing, AskSiblings},
		},
		"redirected, and another interceptor": {
			[]func(*world){soonRedirected, func(w *world) { w.addresses = append(w.addresses, "198.18.0.4") }},
			[]string{"198.18.0.4:10000"},
			nil,
			[]QuestionKind{AskTarget, AskPorts, AskServing, AskSiblings},
		},
		"redirected, and one has restarted": {
			[]func(*world){soonRedirected, func(w *world) { w.doubted = map[string]bool{"198.18.0.3": true} }},
			[]string{"198.18.0.3:10000"},
			nil,
			[]QuestionKind{AskTarget, AskPorts, AskServing, AskSiblings},
		},
		"redirected, and another port": {[]func(*world){soonRedirected, func(w *world) {
			w.service.Spec.Ports = append(w.service.Spec.Ports, corev1.ServicePort{Name: "admin", Port: 81})
		}}, []string{"198.18.0.2:10001", "198.18.0.3:10001"}, nil, []QuestionKind{AskTarget, AskPorts, AskServing, AskSiblings}},
		"redirected asleep": {
			[]func(*world){asleep, soonRedirected}, nil, nil, []QuestionKind{AskTarget, AskPorts, AskSiblings},
		},
		"redirected asleep, and it wakes": {
			[]func(*world){asleep, soonRedirected, func(w *world) { w.workload.Replicas, w.workload.ReadyReplicas = 1, 1 }},
			nil,
			[]string{"198.18.0.2", "198.18.0.3"},
			[]QuestionKind{AskTarget, AskPorts, AskWay, AskSiblings},
		},
		"its Namespace opts it in": {
			[]func(*world){internalNamespace},
			[]string{"198.18.0.2:10000", "198.18.0.3:10000"},
			nil,
			[]QuestionKind{AskSurroundings, AskTarget, AskPorts, AskServing},
		},
		"nobody opts it in":              {[]func(*world){func(w *world) { w.service.Labels = nil }}, nil, nil, nil},
		"everything is restored":         {[]func(*world){func(w *world) { w.restoringFor = time.Minute }}, nil, nil, nil},
		"settings that cannot be used":   {[]func(*world){func(w *world) { annotated(Prefix+"cooldown", "x")(w.service) }}, nil, nil, nil},
		"a Service that cannot be taken": {[]func(*world){func(w *world) { headless(w.service) }}, nil, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.world...)
			_, asked := w.questions()
			var kinds []QuestionKind
			for kind := range asked {
				kinds = append(kinds, kind)
			}
			slices.Sort(kinds)
			slices.Sort(tc.kinds)
			if diff := cmp.Diff(tc.kinds, kinds); diff != "" {
				t.Errorf("questions: %s", diff)
			}
			if diff := cmp.Diff(tc.dials, asked[AskServing].Addresses); diff != "" {
				t.Errorf("dials: %s", diff)
			}
			if diff := cmp.Diff(tc.asks, asked[AskWay].Addresses); diff != "" {
				t.Errorf("asks: %s", diff)
			}
		})
	}
}

// TestPauses: what is lacking is looked for soon at first, and ever more rarely; never more rarely than is bearable to whoever
// repairs it.
func TestPauses(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*world)
		waited  time.Duration
		soon    bool
		after   time.Duration
		spreads bool
	}{
		"no interceptor, at first":       {func(w *world) { w.addresses = nil }, 0, true, 0, false},
		"no interceptor, 4.9 s":          {func(w *world) { w.addresses = nil }, reportAfter - 100*time.Millisecond, true, 0, false},
		"no interceptor, 5 s":            {func(w *world) { w.addresses = nil }, reportAfter, false, 5 * time.Second, true},
		"no interceptor, for an hour":    {func(w *world) { w.addresses = nil }, time.Hour, false, 5 * time.Second, true},
		"no EndpointSlice, for an hour":  {func(w *world) { w.listed = false }, time.Hour, false, 5 * time.Second, true},
		"the way is blocked, at first":   {func(w *world) { w.blocked = true }, 0, true, 0, false},
		"the way is blocked, 5 s":        {func(w *world) { w.blocked = true }, 5 * time.Second, false, 5 * time.Second, true},
		"the way is blocked, 20 s":       {func(w *world) { w.blocked = true }, 20 * time.Second, false, 10 * time.Second, true},
		"the way is blocked, 2 minutes":  {func(w *world) { w.blocked = true }, 2 * time.Minute, false, time.Minute, true},
		"the way is blocked, for a day":  {func(w *world) { w.blocked = true }, 24 * time.Hour, false, time.Minute, true},
		"nobody can be asked, for a day": {func(w *world) { w.unasked = "Unavailable" }, 24 * time.Hour, false, time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(w *world) { w.reconcile() }, tc.change)
			w.reconcile()
			w.now = w.now.Add(tc.waited)
			p := w.reconcile()
			if p.Soon != tc.soon || p.After != tc.after || p.Spread != tc.spreads {
				t.Errorf("soon %t, after %s, spread %t", p.Soon, p.After, p.Spread)
			}
		})
	}
}

// TestWaitingBeginsAnew: a wait for something else is a new one, and so is one after a success.
func TestWaitingBeginsAnew(t *testing.T) {
	w := newWorld(t, func(w *world) { w.reconcile() })
	w.blocked = true
	w.reconcile()
	w.now = w.now.Add(time.Minute)
	w.blocked, w.unasked = false, "Unavailable"
	if p := w.reconcile(); !p.Soon {
		t.Errorf("a wait for something else: %s", describe(p))
	}
	w.unasked = ""
	redirected(w)
	if w.memory.Waits != "" {
		t.Errorf("redirected, it waits for %q", w.memory.Waits)
	}
}

// TestBlockedIsRemembered: an app whose pods were out of reach does not pass for one that is asleep while it has no pod, until
// they were reached.
func TestBlockedIsRemembered(t *testing.T) {
	block := func(w *world) { w.blocked = true; w.reconcile() }
	open := func(w *world) {
		w.blocked, w.unasked = false, ""
		w.workload.Replicas, w.workload.ReadyReplicas = 1, 1
		w.reconcile()
	}
	rollout := func(w *world) { w.workload.ReadyReplicas = 0; w.reconcile() }
	unasked := func(w *world) { w.unasked = "Unavailable"; w.reconcile() }
	noAdmission := func(w *world) { w.admission = false }
	for name, tc := range map[string]struct {
		world []func(*world)
		want  Phase
	}{
		"it has no pod":                               {[]func(*world){rollout}, PhaseRedirecting},
		"blocked, and no pod":                         {[]func(*world){block, rollout}, PhaseProving},
		"blocked, no pod, and nobody can be asked":    {[]func(*world){block, unasked, rollout}, PhaseProving},
		"blocked, open, and no pod":                   {[]func(*world){block, open, rollout}, PhaseRedirecting},
		"nobody could be asked, and no pod":           {[]func(*world){unasked, rollout}, PhaseRedirecting},
		"blocked, and another controller sees no pod": {[]func(*world){block, func(w *world) { w.memory = Memory{} }, rollout}, PhaseRedirecting},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, append([]func(*world){noAdmission, func(w *world) { w.reconcile() }}, tc.world...)...)
			if p := w.plan(); p.Phase != tc.want {
				t.Errorf("got %s, want %s", describe(p), tc.want)
			}
		})
	}
}

// TestUnproven: what was injected asleep is on trial until its first pods were reached. The slices keep that, so that another
// controller knows.
func TestUnproven(t *testing.T) {
	up := func(w *world) { w.workload.Replicas, w.workload.ReadyReplicas = 1, 1 }
	slice := func(w *world) string { return w.slices["web-scale-to-zero-ipv4"].Annotations[UnprovenAnnotation] }
	w := newWorld(t, asleep, redirected)
	if slice(w) != "yet" {
		t.Fatalf("asleep, its slices say %q", slice(w))
	}
	up(w)
	w.unasked = "Unavailable"
	if p := w.reconcile(); slice(w) != "yet" || p.Phase != PhaseRedirected || p.After != slowRetry {
		t.Errorf("nobody can be asked: %s; slices %q", describe(p), slice(w))
	}
	w.unasked, w.blocked = "", true
	w.addresses = append(w.addresses, "198.18.0.4")
	if p := w.reconcile(); slice(w) != "yet" || p.After != blockedLook || len(w.slices["web-scale-to-zero-ipv4"].Endpoints) != 3 {
		t.Errorf("it is blocked: %s; slices %q", describe(p), slice(w))
	}
	w.now = w.now.Add(blockedFor - time.Second)
	if w.reconcile(); slice(w) != "yet" {
		t.Errorf("blocked for less than %s, it says %q", blockedFor, slice(w))
	}
	w.memory = Memory{}
	if w.reconcile(); slice(w) != "yet" {
		t.Errorf("another controller believes it at once: %q", slice(w))
	}
	w.now = w.now.Add(blockedFor)
	w.reconcile()
	if !strings.HasPrefix(slice(w), "the interceptors cannot connect to its pods on port 8080 (i/o timeout). ") {
		t.Errorf("its slices say %q", slice(w))
	}
	for range 3 {
		w.reconcile()
		w.kubernetes()
	}
	if Intercepted(w.service) || len(w.slices) > 0 && slice(w) == "" {
		t.Errorf("it is not restored: %s", w.state())
	}

	w = newWorld(t, asleep, redirected, up)
	if w.reconcile(); slice(w) != "" {
		t.Errorf("it is proven, and its slices say %q", slice(w))
	}
	w.blocked = true
	if p := w.reconcile(); p.Phase != PhaseRedirected || p.After == blockedLook || w.asked[AskWay] > 0 {
		t.Errorf("what was proven once is proven again: %s", describe(p))
	}
}

// TestSlicesSay what interceptors have to know of the Service.
func TestSlicesSay(t *testing.T) {
	w := newWorld(t, byIngress, func(w *world) {
		w.service.Labels[OptInLabel] = "true"
		w.service.Spec.ClusterIPs = []string{"10.0.0.7"}
		annotated(Prefix+"protocol", "auto")(w.service)
		w.ingresses[0].Spec = networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{
			Host: "shop.example.com", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
				Paths: []networkingv1.HTTPIngressPath{{
					Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web"}},
				}},
			}},
		}}}
	}, redirected)
	routes := func() api.Routes {
		r, err := api.DecodeRoutes(w.slices["web-scale-to-zero-ipv4"].Annotations[api.RoutesAnnotation])
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := routes().Reach; r == nil || !slices.Equal(r.Hosts, []string{"shop.example.com"}) || !slices.Equal(r.Inside, []string{"10.0.0.7"}) {
		t.Errorf("browsers reach it by %+v", r)
	}
	if routes().Ports[0].ServerFirst {
		t.Error("it speaks first, which nobody has learned")
	}
	o := w.observe()
	o.Spoken = Spoken{ServerFirst: map[int32]bool{10000: true}, HTTP: map[int32]bool{}}
	p, q := PlanService(o)
	for q.Kind != NoQuestion {
		w.answer(&o, q)
		p, q = PlanService(o)
	}
	w.execute(p)
	if !routes().Ports[0].ServerFirst {
		t.Error("what the interceptors have learned is not kept")
	}
	if w.reconcile(); !routes().Ports[0].ServerFirst {
		t.Error("what was learned is lost with the controller that learned it")
	}
}

// TestCompanionChanges: a Service of ours is written when somebody has changed what matters, and keeps what the API server sets.
func TestCompanionChanges(t *testing.T) {
	want := AliasService(service(annotated("nginx.org/lb-method", "random")))
	stored := func(change func(*corev1.Service)) *corev1.Service {
		s := want.DeepCopy()
		s.ResourceVersion, s.UID, s.Spec.ClusterIP, s.Spec.Type = "7", "u", "10.0.0.9", corev1.ServiceTypeClusterIP
		s.Spec.SessionAffinity, s.Spec.IPFamilies = corev1.ServiceAffinityNone, []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
		change(s)
		return s
	}
	for name, tc := range map[string]struct {
		change func(*corev1.Service)
		writes bool
	}{
		"nothing":                    {func(*corev1.Service) {}, false},
		"what the server sets":       {func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"10.0.0.9"} }, false},
		"its IP families":            {func(s *corev1.Service) { s.Spec.IPFamilies = s.Spec.IPFamilies[:1] }, false},
		"a label":                    {func(s *corev1.Service) { s.Labels["a"] = "b" }, true},
		"an annotation":              {func(s *corev1.Service) { s.Annotations["a"] = "b" }, true},
		"an annotation that is lost": {func(s *corev1.Service) { s.Annotations = nil }, true},
		"a selector":                 {func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "x"} }, true},
		"a port":                     {func(s *corev1.Service) { s.Spec.Ports[0].Port = 81 }, true},
		"unready pods":               {func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true }, true},
		"its affinity":               {func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }, true},
		"how long that lasts": {func(s *corev1.Service) {
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(9))}}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			have := stored(tc.change)
			before := have.DeepCopy()
			o := companion(want, have)
			if (o != nil) != tc.writes {
				t.Fatalf("writes %v", o)
			}
			if !cmp.Equal(have, before) {
				t.Error("the cache's own object is changed")
			}
			if o == nil {
				return
			}
			got := o.(*corev1.Service)
			if diff := cmp.Diff(stored(func(s *corev1.Service) { s.Spec.ClusterIPs = have.Spec.ClusterIPs }), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestInjecting: what is refused is told as an injection that fails until traffic is redirected, and then as a change that does.
func TestInjecting(t *testing.T) {
	for name, tc := range map[string]struct {
		world []func(*world)
		want  bool
	}{
		"it begins":               {nil, true},
		"interceptors listen":     {[]func(*world){func(w *world) { w.reconcile() }}, true},
		"redirected":              {[]func(*world){redirected}, false},
		"redirected by Ingresses": {[]func(*world){byIngress, redirected}, false},
		"by Ingresses, it begins": {[]func(*world){byIngress}, true},
		"the Service in place of its Ingress": {
			[]func(*world){byIngress, redirected, func(w *world) { w.service.Labels[OptInLabel] = "true" }}, true,
		},
		"failed open":    {[]func(*world){redirected, func(w *world) { w.addresses = nil }}, false},
		"not wanted":     {[]func(*world){redirected, optOut}, false},
		"never opted in": {[]func(*world){optOut}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.world...)
			p := w.plan()
			if p.Injecting != tc.want || p.Memory.Phase != p.Phase {
				t.Errorf("injecting %t; it remembers %q in %s", p.Injecting, p.Memory.Phase, describe(p))
			}
		})
	}
}

// TestAskOutcomes: what follows from an answer of admission, and from none.
func TestAskOutcomes(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.reconcile()
		w.memory.Blocked, w.memory.Waits, w.memory.Reported = "x", "y", map[string]string{ReasonSkipped: "z"}
	})
	p := w.plan()
	if len(p.Ask) != 1 || p.Ask[0].Granted == nil || !p.Ask[0].Into || !p.Forget {
		t.Fatalf("got %s", describe(p))
	}
	granted, ignored := p.Ask[0].Granted, p.Ask[0].Ignored
	if granted.Soon || granted.Memory.Phase != PhaseRedirected || granted.Memory.Waits != "" || granted.Memory.Blocked != "" ||
		granted.Memory.Reported[ReasonSkipped] != "" || granted.Memory.Reported[ReasonInjected] == "" {
		t.Errorf("granted: %+v", granted)
	}
	if !ignored.Soon || len(ignored.Reports) != 1 || ignored.Memory.Reported[ReasonInjected] != "" {
		t.Errorf("ignored: %+v", ignored)
	}
}

// TestFamilies: nobody loses an IP family by an injection; once injected, the others go on.
func TestFamilies(t *testing.T) {
	const four, six = corev1.IPv4Protocol, corev1.IPv6Protocol
	of := func(families ...corev1.IPFamily) func(*world) {
		return func(w *world) { w.service.Spec.IPFamilies = families }
	}
	scaledByUs := func(w *world) { w.keda = false }
	have := func(addresses ...string) func(*world) { return func(w *world) { w.addresses = addresses } }
	for name, tc := range map[string]struct {
		world []func(*world)
		want  string
	}{
		"both, of two": {
			[]func(*world){of(four, six), have("198.18.0.2", "fd00::2"), func(w *world) { w.reconcile() }},
			"Redirecting: try web-deployment, update web-scale-to-zero-ipv4(1), update web-scale-to-zero-ipv6(1), ask web route=ready",
		},
		"one, of two": {
			[]func(*world){of(four, six), have("198.18.0.2")},
			"Listening: create web-direct, create web-scale-to-zero-ipv4(0), create web-scale-to-zero-ipv6(0), soon",
		},
		"the wrong one": {
			[]func(*world){of(six), have("198.18.0.2")}, "Listening: create web-direct, create web-scale-to-zero-ipv6(0), soon",
		},
		"IPv6 alone": {
			[]func(*world){of(six), have("198.18.0.2", "fd00::2"), func(w *world) { w.reconcile() }},
			"Redirecting: try web-deployment, update web-scale-to-zero-ipv6(1), ask web route=ready",
		},
		"one goes": {
			[]func(*world){of(four, six), have("198.18.0.2", "fd00::2"), scaledByUs, soonRedirected, have("198.18.0.2")},
			"Redirected: update web-scale-to-zero-ipv6(0), soon",
		},
		"one has gone for long": {[]func(*world){
			of(four, six), have("198.18.0.2", "fd00::2"), scaledByUs, soonRedirected, have("198.18.0.2"),
			func(w *world) {
				w.reconcile()
				w.now = w.now.Add(reportAfter)
			},
		}, "Redirected: report NoInterceptor, after 5s"},
		"all go": {
			[]func(*world){of(four, six), have("198.18.0.2", "fd00::2"), scaledByUs, soonRedirected, have()},
			"FailedOpen: update web-scale-to-zero-ipv4(1), update web-scale-to-zero-ipv6(0), report NoInterceptor, after 2m30s",
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
