// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// answering plans with interceptors that listen at these addresses only, HOST:PORT.
func (w *world) answering(addresses ...string) (Plan, map[QuestionKind]Question) {
	w.t.Helper()
	o, asked := w.observe(), map[QuestionKind]Question{}
	p, q := PlanService(o)
	for q.Kind != NoQuestion {
		asked[q.Kind] = q
		w.answer(&o, q)
		if o.Answers.Serving != nil {
			for a := range o.Answers.Serving.At {
				o.Answers.Serving.At[a] = slices.Contains(addresses, a)
			}
		}
		p, q = PlanService(o)
	}
	return p, asked
}

// admin gives the Service a second port.
func admin(w *world) {
	w.service.Spec.Ports = append(w.service.Spec.Ports, corev1.ServicePort{Name: "admin", Port: 81, Protocol: corev1.ProtocolTCP})
}

// publishes returns the endpoints and ports of the plan's route slices: "198.18.0.2,198.18.0.3:10000".
func publishes(p Plan) string {
	var out []string
	for _, o := range p.Apply {
		s, ok := o.(*discoveryv1.EndpointSlice)
		if !ok {
			continue
		}
		var hosts []string
		for _, e := range s.Endpoints {
			hosts = append(hosts, e.Addresses...)
		}
		port := ""
		for _, p := range s.Ports {
			port += ":" + *p.Name
		}
		out = append(out, strings.Join(hosts, ",")+port)
	}
	return strings.Join(out, " ")
}

// TestPortsAreAdded tests that a new port of a redirected Service waits for the interceptors, and that the others stay published.
func TestPortsAreAdded(t *testing.T) {
	const first, second = "198.18.0.2:", "198.18.0.3:"
	for name, tc := range map[string]struct {
		world     []func(*world)
		listening []string
		want      string
		phase     Phase
	}{
		"all listen on it": {
			[]func(*world){redirected, admin},
			[]string{first + "10001", second + "10001"},
			"198.18.0.2,198.18.0.3:http:admin", PhaseRedirected,
		},
		"one listens on it":  {[]func(*world){redirected, admin}, []string{second + "10001"}, "198.18.0.3:http:admin", PhaseRedirected},
		"none listens on it": {[]func(*world){redirected, admin}, nil, "198.18.0.2,198.18.0.3:http", PhaseRedirected},
		"not redirected, and none listens on it": {
			[]func(*world){once, admin}, []string{first + "10000", second + "10000"}, "", PhaseListening,
		},
		"not redirected, and one listens on all": {
			[]func(*world){once, admin}, []string{first + "10000", second + "10000", second + "10001"}, "198.18.0.3:http:admin", PhaseRedirecting,
		},
		"by an Ingress, and none listens on it": {
			[]func(*world){byIngress, redirected, admin}, nil, "198.18.0.2,198.18.0.3:http", PhaseRedirected,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.world...)
			p, _ := w.answering(tc.listening...)
			if got := publishes(p); got != tc.want || p.Phase != tc.phase {
				t.Errorf("publishes %q, want %q: %s", got, tc.want, describe(p))
			}
		})
	}
}

// TestQuestionsName tests which Service, ports and workload the questions are about.
func TestQuestionsName(t *testing.T) {
	for name, tc := range map[string]struct {
		world []func(*world)
		front string
	}{
		"a Service": {[]func(*world){asleep, redirected, func(w *world) { w.workload.Replicas, w.workload.ReadyReplicas = 1, 1 }}, "web"},
		"an Ingress": {
			[]func(*world){asleep, byIngress, redirected, func(w *world) { w.workload.Replicas, w.workload.ReadyReplicas = 1, 1 }},
			"web-scale-to-zero",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, append(tc.world, admin)...)
			_, asked := w.answering("198.18.0.2:10001", "198.18.0.2:10101")
			if q := asked[AskPorts]; q.Front != tc.front || !slices.Equal(q.Ports, []string{"http", "admin"}) {
				t.Errorf("ports: %+v", q)
			}
			if q := asked[AskWay]; q.Front != tc.front || !slices.Equal(q.Addresses, []string{"198.18.0.2"}) {
				t.Errorf("way: %+v", q)
			}
			if q := asked[AskSiblings]; q.Workload.Name != "web" || q.Workload.Kind != "Deployment" {
				t.Errorf("siblings: %+v", q)
			}
			for _, a := range asked[AskServing].Addresses {
				if host, _, err := net.SplitHostPort(a); err != nil || !slices.Contains(w.addresses, host) {
					t.Errorf("dials %s", a)
				}
			}
		})
	}
	w := newWorld(t, redirected, optOut)
	p, asked := w.answering()
	if q := asked[AskRouted]; q.Name != "Deployment/web" {
		t.Errorf("routed: %+v; %s", q, describe(p))
	}
	w.reconcile()
	w.native = true
	if _, asked := w.answering(); asked[AskKept].Workload.Name != "web" {
		t.Errorf("kept: %+v", asked[AskKept])
	}
	w = newWorld(t, func(w *world) { annotated(Prefix+"wake-with", "db,worker")(w.service) }, once)
	w.stack = map[string]bool{"db": true}
	if _, asked := w.answering("198.18.0.2:10000"); !slices.Equal(asked[AskStack].Names, []string{"db", "worker"}) {
		t.Errorf("stack: %+v", asked[AskStack])
	}
}

// TestInjectFromAnywhere tests what is planned for a Service whose objects somebody else has changed.
func TestInjectFromAnywhere(t *testing.T) {
	deaf := func(w *world) { w.addresses, w.deaf["198.18.0.9"] = []string{"198.18.0.9"}, true }
	blocked := func(w *world) { w.blocked = true }
	early := func(w *world) { w.service.Spec.PublishNotReadyAddresses = true }
	unready := func(w *world) { w.workload.ReadyReplicas = 0 }
	ignored := func(w *world) { w.admission = false; once(w); once(w) }
	for name, tc := range map[string]struct {
		world []func(*world)
		want  string
	}{
		"redirected, and its slices are gone": {
			[]func(*world){redirected, noRoutes}, "Redirected: create web-scale-to-zero-ipv4(2), ask web route=ready",
		},
		"redirected, its slices are gone, and so are the interceptors": {
			[]func(*world){redirected, noRoutes, func(w *world) { w.addresses = nil }}, "Listening: create web-scale-to-zero-ipv4(0), soon",
		},
		"redirected, and its new interceptors do not listen yet": {[]func(*world){redirected, deaf, once, blocked}, "Redirected: soon"},
		"redirected, and its new interceptors listen at last": {
			[]func(*world){redirected, deaf, once, func(w *world) { clear(w.deaf) }, blocked}, "Redirected: update web-scale-to-zero-ipv4(1)",
		},
		"redirected, and the direct Service is gone": {
			[]func(*world){redirected, func(w *world) { delete(w.companions, "web-direct") }}, "Redirected: create web-direct",
		},
		"an alias is gone": {
			[]func(*world){byIngress, redirected, func(w *world) { delete(w.companions, "web-scale-to-zero") }},
			"Redirected: create web-scale-to-zero",
		},
		"an Ingress is opted in too": {[]func(*world){byIngress, redirected, func(w *world) {
			second := *w.ingresses[0].DeepCopy()
			second.Name, second.Annotations = "second", nil
			second.Spec.DefaultBackend.Service.Name = "web"
			w.ingresses = append(w.ingresses, second)
		}}, "Redirecting: ask front aliases=web=web-scale-to-zero, ask second aliases=web=web-scale-to-zero"},
		"admission ignores it":                               {[]func(*world){ignored}, "Redirecting: ask web route=ready"},
		"admission ignores it, and its pods are taken early": {[]func(*world){early, ignored, unready}, "Redirecting: soon"},
		"admission ignores it, its pods are taken early, and none is listed": {
			[]func(*world){early, ignored, unready, func(w *world) { w.native = false }}, "Redirecting: ask web route=ready",
		},
		"admission ignores it, and the slice of its pods is gone": {
			[]func(*world){asleep, ignored, func(w *world) { w.workload.Replicas, w.listed = 1, false }}, "Redirecting: soon",
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

// TestTriedInAdvance tests that the API server is asked about an app's ScaledObject before the injection, unless it has accepted it
// before, and about the very one that the app will have.
func TestTriedInAdvance(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*world)
		have   []keda.ScaledObject
		want   string
	}{
		"a new one":         {func(*world) {}, nil, "web-deployment 0-1, remembers 1"},
		"of three replicas": {func(w *world) { w.workload.Replicas = 3 }, nil, "web-deployment 3-3, remembers 3"},
		"of an app asleep":  {asleep, nil, "web-deployment 0-1, remembers 1"},
		"with settings": {func(w *world) {
			annotated(Prefix+"min-replicas", "2")(w.service)
			annotated(Prefix+"max-replicas", "5")(w.service)
		}, nil, "web-deployment 2-5, remembers 1"},
		"there already": {
			func(*world) {},
			[]keda.ScaledObject{{ObjectMeta: metav1.ObjectMeta{
				Name: "web-deployment", Labels: map[string]string{ManagedByLabel: ManagedBy}, Annotations: map[string]string{ReplicasAnnotation: "1"},
			}}},
			"",
		},
		"without KEDA": {func(w *world) { w.keda = false }, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.change, once)
			o := w.observe()
			p, q := PlanService(o)
			for q.Kind != NoQuestion {
				w.answer(&o, q)
				if q.Kind == AskTarget {
					o.Answers.Target.ScaledObjects = tc.have
				}
				p, q = PlanService(o)
			}
			got := ""
			if so := p.Try; so != nil {
				got = fmt.Sprintf("%s %d-%d, remembers %d", so.Name, *so.Spec.MinReplicaCount, *so.Spec.MaxReplicaCount, Remembered(so.Annotations))
			}
			if got != tc.want || p.Phase != PhaseRedirecting {
				t.Errorf("tries %q, want %q: %s", got, tc.want, describe(p))
			}
		})
	}
}

// TestSlicesAreMended tests that route slices are written again when somebody has changed what is ours of them.
func TestSlicesAreMended(t *testing.T) {
	const name = "web-scale-to-zero-ipv4"
	for title, tc := range map[string]struct {
		change func(*discoveryv1.EndpointSlice)
		writes bool
	}{
		"nothing":             {func(*discoveryv1.EndpointSlice) {}, false},
		"a label":             {func(s *discoveryv1.EndpointSlice) { delete(s.Labels, discoveryv1.LabelManagedBy) }, true},
		"somebody's label":    {func(s *discoveryv1.EndpointSlice) { s.Labels["team"] = "shop" }, true},
		"an annotation":       {func(s *discoveryv1.EndpointSlice) { s.Annotations[ScalingAnnotation] = "{}" }, true},
		"an endpoint":         {func(s *discoveryv1.EndpointSlice) { s.Endpoints = s.Endpoints[:1] }, true},
		"an endpoint's state": {func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Conditions.Ready = new(false) }, true},
		"a port":              {func(s *discoveryv1.EndpointSlice) { s.Ports[0].AppProtocol = new("http") }, true},
		"an owner":            {func(s *discoveryv1.EndpointSlice) { s.OwnerReferences = nil }, false},
		"a start's progress":  {func(s *discoveryv1.EndpointSlice) { s.Annotations[api.ProgressAnnotation] = `{"stage":"pulling"}` }, false},
	} {
		t.Run(title, func(t *testing.T) {
			w := newWorld(t, redirected)
			before := w.slices[name].DeepCopy()
			tc.change(w.slices[name])
			changed := w.slices[name].DeepCopy()
			p := w.reconcile()
			if wrote := len(p.Apply) > 0; wrote != tc.writes {
				t.Fatalf("got %s", describe(p))
			}
			want := changed
			if tc.writes {
				want = before
			}
			after := w.slices[name]
			if !cmp.Equal(after.Annotations, want.Annotations) || !cmp.Equal(after.Labels, want.Labels) || !cmp.Equal(after.Ports, want.Ports) ||
				!cmp.Equal(after.Endpoints, want.Endpoints) {
				t.Errorf("got %+v\nwant %+v", after, want)
			}
		})
	}
}
