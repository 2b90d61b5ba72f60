// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestVerdicts tests what is decided about a Service whose settings, workload or neighbours are odd, and when it is looked at again.
func TestVerdicts(t *testing.T) {
	generally := func(w *world) {
		w.namespace.Labels = map[string]string{OptInLabel: "true"}
		delete(w.service.Labels, OptInLabel)
	}
	set := func(key, value string) func(*world) {
		return func(w *world) { annotated(Prefix+key, value)(w.service) }
	}
	onIngress := func(key, value string) func(*world) {
		return func(w *world) { w.ingresses[0].Annotations = map[string]string{Prefix + key: value} }
	}
	byNamespace := func(key, value string) func(*world) {
		return func(w *world) { w.namespace.Annotations = map[string]string{Prefix + key: value} }
	}
	blockedBefore := func(w *world) {
		for _, s := range w.slices {
			s.Annotations[UnprovenAnnotation] = "the way is blocked"
		}
	}
	otherFront := func(w *world) {
		w.ingresses = append(w.ingresses, ingressTo("api", networkingv1.ServiceBackendPort{Number: 80}))
	}
	for name, tc := range map[string]struct {
		world []func(*world)
		skip  string // how the reason begins
		retry time.Duration
	}{
		"a port that it has not": {
			[]func(*world){set("protocol", "9=tcp")}, `annotation scale-to-zero/protocol: "9=tcp" is not allowed: Service web has no port 9; it ` +
				"has http (80)", 0,
		},
		"a port that it has not, and a setting that is none": {
			[]func(*world){set("protocol", "9=tcp"), set("cooldown", "soon")}, `annotation scale-to-zero/cooldown: "soon" is not allowed`, 0,
		},
		"a Namespace's default that is none": {
			[]func(*world){byNamespace("cooldown", "soon")}, `annotation scale-to-zero/cooldown: "soon" is not allowed`, 0,
		},
		"a Namespace's default that it overrides": {[]func(*world){byNamespace("cooldown", "soon"), set("cooldown", "1m")}, "", 0},
		"a Namespace's port that it has not":      {[]func(*world){byNamespace("protocol", "9=tcp")}, "", 0},
		"a setting of its Ingress that is none": {
			[]func(*world){byIngress, onIngress("cooldown", "soon")}, `annotation scale-to-zero/cooldown: "soon" is not allowed`, 0,
		},
		"a setting of an Ingress that does not matter": {
			[]func(*world){byIngress, onIngress("cooldown", "soon"), func(w *world) { w.service.Labels[OptInLabel] = "true" }}, "", 0,
		},
		"headless, and an Ingress to another Service": {
			[]func(*world){func(w *world) { headless(w.service) }, otherFront},
			"it is headless: its clients connect to pods by themselves. If visitors come through an Ingress, label the Ingress instead", 0,
		},
		"headless, and an Ingress to it": {
			[]func(*world){byIngress, func(w *world) {
				headless(w.service)
				w.service.Labels[OptInLabel], w.ingresses[0].Labels = "true", nil
			}},
			"it is headless: its clients connect to pods by themselves. Visitors come through an Ingress: kubectl label ingress -n apps front ", 0,
		},
		"a Namespace whose label is wrong": {
			[]func(*world){generally, func(w *world) { w.namespace.Labels[OptInLabel] = "yes" }},
			`namespace apps: label scale-to-zero: "yes" is not allowed`, 0,
		},
		"its own label is wrong": {
			[]func(*world){func(w *world) { w.service.Labels[OptInLabel] = "yes" }}, `label scale-to-zero: "yes"`, 0,
		},
		"the name of the direct one is taken": {
			[]func(*world){func(w *world) { w.foreign = "web-direct" }},
			"scale-to-zero needs the Service name web-direct, ", 0,
		},
		"the name of an alias that it needs": {
			[]func(*world){byIngress, func(w *world) { w.foreign = "web-scale-to-zero" }},
			"scale-to-zero needs the Service name web-scale-to-zero, ", 0,
		},
		"the name of one that it does not need": {[]func(*world){func(w *world) { w.foreign = "web-scale-to-zero" }}, "", 0},
		"its way was blocked":                   {[]func(*world){redirected, blockedBefore}, "the way is blocked", slowRetry},
		"nothing is wrong":                      {nil, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.world...)
			o := w.observe()
			p := &planner{o: &o}
			p.self, p.alias = o.fronts()
			v, q := p.judge()
			for q.Kind != NoQuestion {
				w.answer(&o, q)
				v, q = p.judge()
			}
			if (v.Skip == "") != (tc.skip == "") || !strings.HasPrefix(string(v.Skip), tc.skip) || v.Retry != tc.retry ||
				(v.Scope == ScopeNone) != (tc.skip != "") {
				t.Errorf("got %+v", v)
			}
		})
	}
}

// TestTargetIsAskedFor tests that the workload is looked for by the settings that apply, in their order.
func TestTargetIsAskedFor(t *testing.T) {
	w := newWorld(t, byIngress, func(w *world) {
		w.namespace.Annotations = map[string]string{Prefix + "cooldown": "1m", Prefix + "hold-timeout": "1m", Prefix + "max-replicas": "2"}
		annotated(Prefix+"hold-timeout", "2m")(w.service)
		annotated(Prefix+"max-replicas", "3")(w.service)
		w.ingresses[0].Annotations = map[string]string{Prefix + "max-replicas": "4", Prefix + "workload": "StatefulSet/web"}
	})
	_, q := PlanService(w.observe())
	s := q.Settings
	if q.Kind != AskTarget || s.Cooldown != time.Minute || s.HoldTimeout != 2*time.Minute || s.MaxReplicas != 4 ||
		s.Workload != "StatefulSet/web" {
		t.Errorf("question %d, settings %+v", q.Kind, s)
	}
}

// TestGoneWhileItRetires tests that a Service that is being restored does not wait for a workload that has gone to come back.
func TestGoneWhileItRetires(t *testing.T) {
	w := newWorld(t, redirected, optOut, once, func(w *world) { w.service.Labels[OptInLabel] = "true" }, lost)
	if p := w.plan(); p.Phase != PhaseRestoring || p.After > 0 {
		t.Errorf("got %s", describe(p))
	}
}

// TestFrontsOfBrokenSlices tests what is known of a Front of which one slice can be read and another cannot.
func TestFrontsOfBrokenSlices(t *testing.T) {
	w := newWorld(t, redirected)
	o := w.observe()
	broken := *o.Slices[0].DeepCopy()
	broken.Name, broken.AddressType = "web-scale-to-zero-ipv6", discoveryv1.AddressTypeIPv6
	broken.Annotations = map[string]string{"scale-to-zero/routes": "{"}
	for _, slices := range [][]discoveryv1.EndpointSlice{{o.Slices[0], broken}, {broken, o.Slices[0]}} {
		o.Slices = slices
		if self, _ := o.fronts(); len(self.Slices) != 2 || self.Routes.Service != "web" {
			t.Errorf("%d slices, routes %+v", len(self.Slices), self.Routes)
		}
	}
}

// TestWaitIsOver tests when a Service that was missing something waits for nothing any more.
func TestWaitIsOver(t *testing.T) {
	waits := func(w *world) { w.memory.Waits = "something" }
	for name, tc := range map[string]struct {
		world []func(*world)
		waits bool
	}{
		"redirected, and proven":         {[]func(*world){redirected, waits}, false},
		"redirected, and not proven yet": {[]func(*world){asleep, redirected, waits}, true},
		"not redirected":                 {[]func(*world){waits}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if p := newWorld(t, tc.world...).plan(); (p.Memory.Waits != "") != tc.waits {
				t.Errorf("it waits for %q: %s", p.Memory.Waits, describe(p))
			}
		})
	}
}

// TestUnvisitedAtTheEdge tests the very moments between which an app without visitors is warned of.
func TestUnvisitedAtTheEdge(t *testing.T) {
	const cooldown = 5 * time.Minute
	for name, tc := range map[string]struct {
		age  time.Duration
		asks bool
	}{
		"nearly half of its cool-down": {cooldown/2 - 1, false},
		"half of it":                   {cooldown / 2, true},
		"nearly all of it":             {cooldown - 1, true},
		"all of it":                    {cooldown, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, internalNamespace, redirected)
			w.use = &Use{Idle: time.Hour, Counted: time.Hour}
			for _, s := range w.slices {
				s.CreationTimestamp = metav1.NewTime(w.now.Add(-tc.age))
			}
			p := w.plan()
			if (w.asked[AskVisits] > 0) != tc.asks || (len(p.Reports) > 0) != tc.asks || !tc.asks && tc.age < cooldown && p.After != 1 {
				t.Errorf("asks %v: %s", w.asked, describe(p))
			}
		})
	}
}

// TestPortsOfAnnotations tests which words of an annotation can be a port, and that one port is named once.
func TestPortsOfAnnotations(t *testing.T) {
	for word, want := range map[string]bool{
		"80": true, "65535": true, "http": true, "8080-tcp": true, "0": false, "00": false, "080": false, "65536": false, "-1": false, "": false,
		"Http": false, "a_b": false,
	} {
		if isPort(word) != want {
			t.Errorf("%q is a port: %t", word, !want)
		}
	}
	numbered := service(noPorts, port("80", 80, nil), port("web", 81, nil))
	for value, denied := range map[string]bool{
		"80=http": false, "web=http": false, "81=http": false, "web=http,81=tcp": true, "82=tcp": true,
	} {
		s := numbered.DeepCopy()
		annotated(Prefix+"protocol", value)(s)
		if err := CheckPorts(s); (err != nil) != denied {
			t.Errorf("%s: %v", value, err)
		}
	}
	for value, want := range map[string]string{"web=tcp,http": "tcp", "81=tcp,http": "tcp", "http": "http", "80=tcp": ""} {
		said, ok := parseProtocols(value)
		if got := said.of(corev1.ServicePort{Name: "web", Port: 81}); !ok || got != want {
			t.Errorf("%s: %q, %t", value, got, ok)
		}
	}
}
