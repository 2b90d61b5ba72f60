// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestOptIn tests every combination of what opts a Service in or out.
func TestOptIn(t *testing.T) {
	const in, out, none, wrong = "true", "false", "", "yes"
	for _, own := range []string{in, out, none, wrong} {
		for _, namespace := range []string{in, out, none, wrong} {
			for _, byIngress := range []bool{false, true} {
				for _, headless := range []bool{false, true} {
					for _, exposed := range []bool{false, true} {
						name := fmt.Sprintf("Service %q, Namespace %q, Ingress %t, headless %t, exposed %t", own, namespace, byIngress, headless, exposed)
						s, ns := service(unlabelled), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "apps", Labels: map[string]string{}}}
						if own != none {
							s.Labels[OptInLabel] = own
						}
						if namespace != none {
							ns.Labels[OptInLabel] = namespace
						}
						if headless {
							s.Spec.ClusterIP = corev1.ClusterIPNone
						}
						if exposed {
							s.Spec.Type = corev1.ServiceTypeNodePort
						}
						scope, skip := optIn(s, ns, byIngress, Surroundings{})
						want, wantSkip := ScopeNone, false
						switch {
						case own == wrong:
							wantSkip = true
						case own == in:
							want = ScopeService
						case own == none && namespace == wrong:
							wantSkip = true
						case own == none && namespace == in && exposed:
							want = ScopeService
						case own == none && namespace == in:
							wantSkip = true
						}
						if byIngress && own != wrong && (want == ScopeNone || headless) {
							want, wantSkip = ScopeIngresses, false
						}
						if scope != want || (skip != "") != wantSkip {
							t.Errorf("%s: scope %d, want %d; skip %q", name, scope, want, skip)
						}
						general := own == none && namespace == in
						if got := generallyOptedIn(s, ns); got != general {
							t.Errorf("%s: opted in by its Namespace alone: %t", name, got)
						}
					}
				}
			}
		}
	}
}

// TestSettingsLayers tests that the nearest setting counts, and that those of Ingresses count only if their traffic is redirected.
func TestSettingsLayers(t *testing.T) {
	const key = Prefix + "cooldown"
	w := newWorld(t, byIngress)
	o := w.observe()
	o.Namespace = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{key: "1m", Prefix + "max-replicas": "7"}}}
	cooldown := func(scope Scope) time.Duration {
		t.Helper()
		s, skip := o.settings(scope, o.optedInIngresses())
		if skip != "" || s.MaxReplicas != 7 {
			t.Errorf("%+v, %s", s, skip)
		}
		return s.Cooldown
	}
	if got := cooldown(ScopeIngresses); got != time.Minute {
		t.Errorf("of its Namespace: %s", got)
	}
	annotated(key, "2m")(o.Service)
	if got := cooldown(ScopeIngresses); got != 2*time.Minute {
		t.Errorf("of the Service: %s", got)
	}
	o.Ingresses[0].Annotations = map[string]string{key: "3m"}
	later := *o.Ingresses[0].DeepCopy()
	later.Name, later.Annotations[key] = "later", "4m"
	o.Ingresses = append(o.Ingresses, later)
	if got := cooldown(ScopeIngresses); got != 4*time.Minute {
		t.Errorf("of the later Ingress: %s", got)
	}
	if got := cooldown(ScopeService); got != 2*time.Minute {
		t.Errorf("of the Service, whose own traffic is taken: %s", got)
	}
}

// TestForbiddenTarget tests that a workload that may not be read is skipped, unless it is already injected: nobody else could wake it
// then.
func TestForbiddenTarget(t *testing.T) {
	named := func(w *world) { annotated(Prefix+"workload", "Deployment/web")(w.service) }
	forbid := func(w *world) { w.forbidden = "no right" }
	for name, tc := range map[string]struct {
		world []func(*world)
		want  Phase
		skip  bool
	}{
		"not injected": {[]func(*world){named, forbid}, PhaseAbsent, true},
		"injected":     {[]func(*world){named, redirected, forbid}, PhaseRedirected, false},
		"injected, and renamed": {[]func(*world){named, redirected, func(w *world) {
			annotated(Prefix+"workload",
				"Deployment/other")(w.service)
		}, forbid}, PhaseRestoring, false},
		"read again, and not renamed": {
			[]func(*world){named, redirected, forbid, func(w *world) { w.reconcile(); w.forbidden = "" }},
			PhaseRedirected, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.world...)
			p := w.plan()
			if p.Phase != tc.want {
				t.Errorf("%s", describe(p))
			}
			if skipped := p.Memory.Reported[ReasonSkipped] != ""; skipped != tc.skip {
				t.Errorf("skipped: %t, %v", skipped, p.Memory.Reported)
			}
			if w.forbidden == "" && p.Memory.Reported[ReasonForbidden] != "" {
				t.Error("it counts as forbidden when it may be read again")
			}
		})
	}
}

// TestPause tests what each of KEDA's annotations, and our own, means for visitors and for the owner.
func TestPause(t *testing.T) {
	paused := func(annotations map[string]string) *keda.ScaledObject {
		return &keda.ScaledObject{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "web-deployment", Annotations: annotations}}
	}
	deleted := paused(map[string]string{keda.PausedAnnotation: "true"})
	deleted.DeletionTimestamp = &metav1.Time{Time: noon}
	other := theirs("mine", func(so *keda.ScaledObject) { so.Annotations = map[string]string{keda.PausedAnnotation: "true"} })
	byUs := theirs("mine", func(so *keda.ScaledObject) {
		so.Annotations = map[string]string{
			keda.PausedReplicasAnnotation: "0", TriggerAnnotation: triggerRequest{Asleep: true}.encode(),
		}
	})
	kept, retiring := demand{asleep: "service -n apps web"}, demand{asleep: "service -n apps web", retiring: true}
	const neither = "neither wakes it nor puts it to sleep"
	for name, tc := range map[string]struct {
		d           demand
		so, foreign *keda.ScaledObject
		why, note   string // parts; empty means none
	}{
		"no ScaledObject":   {},
		"nothing is paused": {so: paused(nil)},
		"it is deleted":     {so: deleted},
		"paused":            {so: paused(map[string]string{keda.PausedAnnotation: "true"}), why: "is paused (", note: neither},
		"at zero":           {so: paused(map[string]string{keda.PausedReplicasAnnotation: "0"}), why: "is paused (", note: neither},
		"at two":            {so: paused(map[string]string{keda.PausedReplicasAnnotation: "2"}), note: "does not put it to sleep"},
		"scaling in":        {so: paused(map[string]string{keda.PausedScaleInAnnotation: "true"}), note: "does not put it to sleep"},
		"scaling out": {
			so: paused(map[string]string{keda.PausedScaleOutAnnotation: "true"}), why: "is paused (", note: "does not wake it",
		},
		"both ways": {
			so:  paused(map[string]string{keda.PausedScaleInAnnotation: "true", keda.PausedScaleOutAnnotation: "true"}),
			why: "is paused (", note: "autoscaling.keda.sh/paused-scale-in- autoscaling.keda.sh/paused-scale-out-",
		},
		"paused false":           {so: paused(map[string]string{keda.PausedAnnotation: "false"})},
		"somebody else's":        {so: paused(nil), foreign: &other, why: "ScaledObject mine is paused (", note: neither},
		"somebody else's, by us": {foreign: &byUs},
		"kept asleep": {
			d: kept, so: paused(map[string]string{keda.PausedAnnotation: "true"}),
			why:  "its owner keeps it asleep (annotation scale-to-zero/asleep)",
			note: "at zero replicas. Requests get 503. Let it wake: kubectl annotate service -n apps web scale-to-zero/asleep-",
		},
		"kept asleep, and restored": {d: retiring},
	} {
		t.Run(name, func(t *testing.T) {
			planner := &workloadPlanner{o: &WorkloadObservation{ScaledObject: tc.so}, d: tc.d, auto: Autoscaler{ScaledObject: tc.foreign}}
			p, noWake := planner.paused(), tc.why != ""
			awake, asleep := Workload{Kind: "Deployment", Replicas: 1}, Workload{Kind: "Deployment"}
			if (p.why() != "") != noWake || !strings.Contains(p.why(), tc.why) || (p.progress(awake) != nil) != noWake {
				t.Errorf("why %q", p.why())
			}
			if noWake && (p.progress(awake).Asleep || !p.progress(asleep).Asleep || p.progress(asleep).Why != p.why()) {
				t.Errorf("progress %+v, %+v", p.progress(awake), p.progress(asleep))
			}
			if _, note := p.note(awake); (note == "") != (tc.note == "") || !strings.Contains(note, tc.note) {
				t.Errorf("note %q", note)
			}
		})
	}
}

// TestDemand tests that the demands of the Services on their workload are merged.
func TestDemand(t *testing.T) {
	taken, past, retiring := asking("web", sentinel), asking("past"), asking("old", sentinel)
	retiring.Routes.Retiring = true
	open, long, listed := asking("open", sentinel), asking("long", sentinel), asking("early", sentinel)
	open.Slice.Annotations[FailOpenAnnotation] = "true"
	long.Routes.HoldTimeout, long.Routes.Cooldown = api.Duration(time.Hour), api.Duration(2*time.Hour)
	listed.Service.Spec.PublishNotReadyAddresses, listed.PodsListed = true, true
	six := asking("web", sentinel)
	six.Slice.Name = "web-scale-to-zero-ipv6"
	broken := asking("broken", sentinel)
	delete(broken.Slice.Annotations, ScalingAnnotation)
	const usual = 5 * time.Minute
	for name, tc := range map[string]struct {
		asks                                                []Asking
		services                                            int
		unsafe, failOpen, retiring, published, unknown, non bool
		cooldown, hold                                      time.Duration
	}{
		"nothing":                  {nil, 0, false, false, false, false, false, true, 0, 0},
		"redirected":               {[]Asking{taken}, 1, false, false, false, false, false, false, usual, usual},
		"of two address types":     {[]Asking{taken, six}, 1, false, false, false, false, false, false, usual, usual},
		"not redirected":           {[]Asking{past}, 0, true, false, false, false, false, false, usual, usual},
		"retiring":                 {[]Asking{retiring}, 0, false, false, true, false, false, false, 0, usual},
		"failed open":              {[]Asking{open}, 1, false, true, false, false, false, false, usual, usual},
		"several":                  {[]Asking{taken, past, retiring, long}, 2, true, false, true, false, false, false, 2 * time.Hour, time.Hour},
		"pods that are early":      {[]Asking{listed}, 1, false, false, false, true, false, false, usual, usual},
		"of an earlier version":    {[]Asking{broken}, 0, false, false, false, false, true, false, 0, usual},
		"by two Fronts":            {[]Asking{taken, ofAlias(true)}, 1, false, false, false, false, false, false, usual, usual},
		"an alias, redirected":     {[]Asking{ofAlias(true)}, 1, false, false, false, false, false, false, usual, usual},
		"an alias, not redirected": {[]Asking{ofAlias(false)}, 0, true, false, false, false, false, false, usual, usual},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDemand(tc.asks)
			if len(d.services) != tc.services || len(d.slices) != len(tc.asks) || d.unsafe != tc.unsafe || d.failOpen != tc.failOpen ||
				d.retiring != tc.retiring ||
				d.published != tc.published || d.unknown != tc.unknown || d.none() != tc.non || d.cooldown() != tc.cooldown || d.hold != tc.hold {
				t.Errorf("%+v, none %t, cool-down %s", d, d.none(), d.cooldown())
			}
		})
	}
}

// TestKEDAHolds tests when a ScaledObject may be deleted.
func TestKEDAHolds(t *testing.T) {
	so := func(change ...func(*keda.ScaledObject)) *keda.ScaledObject {
		s := &keda.ScaledObject{Spec: keda.ScaledObjectSpec{MinReplicaCount: new(int32(2)), MaxReplicaCount: new(int32(2))}}
		s.Annotations = map[string]string{SinceAnnotation: noon.Format(time.RFC3339)}
		for _, c := range change {
			c(s)
		}
		return s
	}
	for name, tc := range map[string]struct {
		so    *keda.ScaledObject
		hpa   HPAAnswer
		after time.Duration
		told  bool
		holds bool
	}{
		"no HPA":               {so(), HPAAnswer{}, 0, true, true},
		"it holds":             {so(), HPAAnswer{true, 2, 2}, 0, true, true},
		"it holds another":     {so(), HPAAnswer{true, 1, 2}, kedaGrace, true, false},
		"it has had its time":  {so(), HPAAnswer{true, 1, 2}, kedaGrace + time.Second, true, true},
		"nobody knows since":   {so(func(s *keda.ScaledObject) { s.Annotations = nil }), HPAAnswer{true, 1, 2}, time.Hour, false, false},
		"it tells another max": {so(func(s *keda.ScaledObject) { s.Spec.MaxReplicaCount = new(int32(3)) }), HPAAnswer{}, 0, false, true},
		"it tells no min":      {so(func(s *keda.ScaledObject) { s.Spec.MinReplicaCount = nil }), HPAAnswer{}, 0, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := holds(tc.so, 2); got != tc.told {
				t.Errorf("tells KEDA: %t", got)
			}
			if got := kedaHolds(noon.Add(tc.after), tc.so, tc.hpa, 2); got != tc.holds {
				t.Errorf("KEDA holds: %t", got)
			}
		})
	}
}

// TestFronts tests that route slices are assigned to the Front whose traffic they take.
func TestFronts(t *testing.T) {
	w := newWorld(t, redirected)
	o := w.observe()
	alias := *o.Slices[0].DeepCopy()
	alias.Labels[discoveryv1.LabelServiceName] = "web-scale-to-zero"
	alias.Annotations[UnprovenAnnotation], alias.Annotations[api.RoutesAnnotation], alias.Endpoints = "blocked", "{", nil
	o.Slices = append(o.Slices, alias)
	self, other := o.fronts()
	if len(self.Slices) != 1 || self.Alias || !self.publishes() || self.blocked() != "" || self.Routes.Service != "web" ||
		self.Service != o.Service {
		t.Errorf("%+v", self)
	}
	if len(other.Slices) != 1 || !other.Alias || other.publishes() || other.blocked() != "blocked" || other.Routes.Service != "" ||
		other.failsOpen() {
		t.Errorf("%+v", other)
	}
	other.Unproven = UnprovenYet
	if other.blocked() != "" {
		t.Error("what is not proven yet is blocked")
	}
	if wanted, rest := (Verdict{Scope: ScopeIngresses}).wanted(&self, &other); wanted != &other || rest != &self {
		t.Error("the Service's own traffic is wanted")
	}
}

// TestCompanion tests that fields that the API server has set do not cause a write of a companion.
func TestCompanion(t *testing.T) {
	want := DirectService(service(), Settings{})
	if companion(want, nil) != want {
		t.Error("it is not made")
	}
	have := want.DeepCopy()
	have.ResourceVersion, have.Spec.SessionAffinity, have.Spec.ClusterIPs = "7", corev1.ServiceAffinityNone, []string{corev1.ClusterIPNone}
	have.Spec.IPFamilies = append(have.Spec.IPFamilies, corev1.IPv6Protocol)
	if got := companion(want, have); got != nil {
		t.Errorf("it is written for nothing: %+v", got)
	}
	have.Spec.Ports = nil
	got, ok := companion(want, have).(*corev1.Service)
	if !ok || got.ResourceVersion != "7" || len(got.Spec.Ports) != 1 || len(got.Spec.IPFamilies) != 2 {
		t.Errorf("%+v", got)
	}
}

// TestUnjoin tests a single error of the settings, and several.
func TestUnjoin(t *testing.T) {
	one, other := errors.New("one"), errors.New("other")
	if got := unjoin(one); len(got) != 1 || !errors.Is(got[0], one) {
		t.Errorf("%v", got)
	}
	if got := unjoin(errors.Join(one, other)); len(got) != 2 {
		t.Errorf("%v", got)
	}
}

// TestNewWorkload tests workloads of every built-in kind.
func TestNewWorkload(t *testing.T) {
	labels := map[string]string{"app": "web"}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}}
	selector := &metav1.LabelSelector{MatchLabels: labels}
	refused := appsv1.DeploymentStatus{ReadyReplicas: 1, ObservedGeneration: 2, Conditions: []appsv1.DeploymentCondition{{
		Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: "exceeded quota",
	}}}
	for name, tc := range map[string]struct {
		object          any
		kind            string
		replicas, ready int32
		refused         string
	}{
		"a Deployment": {&appsv1.Deployment{
			Spec:   appsv1.DeploymentSpec{Selector: selector, Template: template},
			Status: refused,
		}, "Deployment", 1, 1, "exceeded quota"},
		"a Deployment of another count": {&appsv1.Deployment{Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(0)), Selector: selector,
			Template: template,
		}}, "Deployment", 0, 0, ""},
		"a Deployment that has changed": {&appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Generation: 3},
			Spec:       appsv1.DeploymentSpec{Selector: selector, Template: template}, Status: refused,
		}, "Deployment", 1, 1, ""},
		"a StatefulSet": {&appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{
			Replicas: new(int32(3)), Selector: selector,
			Template: template,
		}, Status: appsv1.StatefulSetStatus{ReadyReplicas: 2}}, "StatefulSet", 3, 2, ""},
		"a DaemonSet": {&appsv1.DaemonSet{
			Spec:   appsv1.DaemonSetSpec{Template: template},
			Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: 5, NumberReady: 4},
		}, "DaemonSet", 5, 4, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w, ok := NewWorkload(tc.object)
			if !ok || w.Kind != tc.kind || w.Replicas != tc.replicas || w.ReadyReplicas != tc.ready || w.Refused != tc.refused ||
				w.APIVersion != "apps/v1" || !cmp.Equal(w.PodLabels, labels) {
				t.Errorf("%+v, %t", w, ok)
			}
			if want := "app=web"; tc.kind != "DaemonSet" && w.Selector != want {
				t.Errorf("selector %q", w.Selector)
			}
		})
	}
	if _, ok := NewWorkload(&corev1.Pod{}); ok {
		t.Error("a Pod is a workload")
	}
}

// TestPortsLearn tests that a port belongs to one route, and that a route has one port.
func TestPortsLearn(t *testing.T) {
	ps := NewPorts(10000, 10001)
	web, api := PortOwner{"apps", "web", "http"}, PortOwner{"apps", "api", "http"}
	for _, tc := range []struct {
		route PortOwner
		port  int32
		want  bool
	}{
		{web, 10000, true},
		{web, 10000, true},
		{api, 10000, false},
		{web, 10001, false},
		{api, 9999, false},
		{api, 10002, false},
		{api, 10001, true},
	} {
		if got := ps.Learn(tc.route, tc.port); got != tc.want {
			t.Errorf("%v, %d: %t", tc.route, tc.port, got)
		}
	}
	if p, err := ps.Get(web, noon); err != nil || p != 10000 {
		t.Errorf("%d, %v", p, err)
	}
	ps.Keep("apps", "web", noon)
	if _, err := ps.Get(PortOwner{"apps", "new", "http"}, noon); err == nil || !strings.Contains(err.Error(),
		"all 2 from 10000 to 10001 are in use or rest") {
		t.Errorf("a port that rests is given out: %v", err)
	}
	if p, err := ps.Get(PortOwner{"apps", "new", "http"}, noon.Add(PortRest)); err != nil || p != 10000 {
		t.Errorf("%d, %v", p, err)
	}
}

// TestTexts tests the parts of events and warnings.
func TestTexts(t *testing.T) {
	two := api.Routes{Ports: []api.Port{{Port: 80, Listen: 10000}, {Port: 443, Listen: 10001}}}
	front := ingressTo("web", networkingv1.ServiceBackendPort{Number: 80})
	for got, want := range map[string]string{
		portsText(two):   "ports 80, 443",
		listensText(two): "ports 10000, 10001",
		ingressesText([]*networkingv1.Ingress{&front, &front}): "Ingress front, Ingress front",
		kubectlName(Workload{
			APIVersion: "example.com/v1", Kind: "Gallery", ObjectMeta: metav1.ObjectMeta{Name: "web"},
		}): "gallery.example.com/web",
		UndoneWarning("web-deployment", []string{"spec.triggers"}): "scale-to-zero " +
			"owns ScaledObject web-deployment and undoes this change of spec.triggers. Triggers of your own are not supported.",
		UndoneWarning("web-deployment", []string{"spec.cooldownPeriod"}): "scale-to-zero owns ScaledObject web-deployment and undoes this " +
			"change of spec.cooldownPeriod. Set scale-to-zero/cooldown, min-replicas, max-replicas or target-pending-requests on the Service.",
		replicasOf(1, 1): "1 of 1 replica",
		replicasOf(0, 3): "0 of 3 replicas",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if kinds := GatewayRouteKinds(); len(kinds) != 4 {
		t.Errorf("%v", kinds)
	}
}

// TestAdmitNamespace tests that settings that cannot be defaults are denied.
func TestAdmitNamespace(t *testing.T) {
	for name, tc := range map[string]struct {
		labels, annotations map[string]string
		denied              string
	}{
		"nothing":              {nil, nil, ""},
		"opted in":             {map[string]string{OptInLabel: "true"}, nil, ""},
		"a label":              {map[string]string{OptInLabel: "1"}, nil, `label scale-to-zero: "1"`},
		"a workload":           {nil, map[string]string{Prefix + "workload": "Deployment/web"}, "set it on that Service, not on the Namespace"},
		"internal services":    {nil, map[string]string{InternalServicesAnnotation: "true"}, ""},
		"a default":            {nil, map[string]string{Prefix + "cooldown": "1m"}, ""},
		"a default of nothing": {nil, map[string]string{Prefix + "cooldown": "soon"}, `"soon"`},
	} {
		t.Run(name, func(t *testing.T) {
			err := AdmitNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: tc.labels, Annotations: tc.annotations}})
			if (err == nil) != (tc.denied == "") || err != nil && !strings.Contains(err.Error(), tc.denied) {
				t.Errorf("%v", err)
			}
		})
	}
}

// FuzzInjection derives the events of an app from its input. world checks each step.
func FuzzInjection(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint8(30), seed%2 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, steps uint8, alias bool) {
		random := rand.New(rand.NewPCG(seed, 4))
		w := newWorld(t)
		if alias {
			byIngress(w)
		}
		for range steps {
			happens(w, random)
			w.reconcile()
		}
	})
}

// TestKeptAsleepBy tests that the object that keeps an app asleep is named: only a change of that one wakes the app.
func TestKeptAsleepBy(t *testing.T) {
	says := func(value string) map[string]string { return map[string]string{Prefix + "asleep": value} }
	ofNamespace := func(w *world) { w.namespace.Annotations = says("true") }
	ofService := func(value string) func(*world) { return func(w *world) { w.service.Annotations = says(value) } }
	ofIngress := func(w *world) { w.ingresses[0].Annotations = says("true") }
	for name, tc := range map[string]struct {
		world []func(*world)
		scope Scope
		want  string
	}{
		"nobody":                         {nil, ScopeService, ""},
		"the Namespace":                  {[]func(*world){ofNamespace}, ScopeService, "namespace apps"},
		"the Service":                    {[]func(*world){ofNamespace, ofService("true")}, ScopeService, "service -n apps web"},
		"the Namespace, not the Service": {[]func(*world){ofNamespace, ofService("false")}, ScopeService, ""},
		"the Ingress":                    {[]func(*world){byIngress, ofService("false"), ofIngress}, ScopeIngresses, "ingress -n apps front"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.world...)
			o := w.observe()
			o.Namespace = w.namespace
			o.Namespace.Name = "apps"
			s, _ := o.settings(tc.scope, o.optedInIngresses())
			if s.AsleepBy != tc.want || s.Asleep != (tc.want != "") {
				t.Errorf("kept asleep %t by %q, want %q", s.Asleep, s.AsleepBy, tc.want)
			}
			front := RouteSlices(w.service, w.service, api.Routes{Cooldown: 1}, s, Published{})[0]
			if read, err := ScalingSettings(&front, api.Routes{Cooldown: 1}); err != nil || read.AsleepBy != tc.want {
				t.Errorf("read from the slice: %q, %v", read.AsleepBy, err)
			}
		})
	}
}
