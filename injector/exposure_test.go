// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func port(name string, number int32, appProtocol *string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: name, Port: number, AppProtocol: appProtocol})
	}
}

func noPorts(s *corev1.Service) { s.Spec.Ports = nil }

func ofType(t corev1.ServiceType) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.Type = t }
}

func called(name string) func(*corev1.Service) { return func(s *corev1.Service) { s.Name = name } }

func headless(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }

// ingressTo returns an Ingress whose default backend is a port of a Service.
func ingressTo(name string, port networkingv1.ServiceBackendPort, change ...func(*networkingv1.Ingress)) networkingv1.Ingress {
	i := networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: "front"},
		Spec: networkingv1.IngressSpec{DefaultBackend: &networkingv1.IngressBackend{
			Service: &networkingv1.IngressServiceBackend{Name: name, Port: port},
		}},
	}
	for _, c := range change {
		c(&i)
	}
	return i
}

func TestJudgeNamespaced(t *testing.T) {
	byNumber, byName := networkingv1.ServiceBackendPort{Number: 80}, networkingv1.ServiceBackendPort{Name: "ui"}
	optedOut := func(i *networkingv1.Ingress) { i.Labels = map[string]string{OptInLabel: "false"} }
	optedOutToo := func(i *networkingv1.Ingress) { i.Annotations = map[string]string{EnabledAnnotation: "false"} }
	labelled := func(i *networkingv1.Ingress) { i.Labels = map[string]string{OptInLabel: "true"} }
	ingresses := func(all ...networkingv1.Ingress) Surroundings { return Surroundings{Ingresses: all} }
	routes := func(service string, port int32) Surroundings {
		return Surroundings{Routes: []GatewayRoute{{Kind: "HTTPRoute", Backends: []RouteBackend{{service, port}}}}}
	}
	beside := func(around Surroundings, others ...*corev1.Service) Surroundings {
		for _, o := range others {
			around.Services = append(around.Services, *o)
		}
		return around
	}
	internal := Surroundings{InternalServices: true}
	const noHTTP, notReached, uncounted = "does not say that it speaks HTTP", "no Ingress, Gateway API route, load balancer or node " +
		"port exposes it", "visitors reach its pods by Service"
	ui := port("ui", 80, nil)
	tests := map[string]struct {
		change []func(*corev1.Service) // to a Service without ports
		around Surroundings
		skip   string // part of the reason; empty means injected
	}{
		"beside a store": {[]func(*corev1.Service){ui}, beside(ingresses(ingressTo("web", byNumber)),
			service(called("db"), unlabelled, noPorts, port("bolt", 7687, nil))), "its pods also serve port bolt (7687) of Service db"},
		"beside a store that is opted in itself": {[]func(*corev1.Service){ui}, beside(ingresses(ingressTo("web", byNumber)),
			service(called("db"), noPorts, port("bolt", 7687, nil))), ""},
		"beside a direct Service of ours": {[]func(*corev1.Service){ui}, beside(ingresses(ingressTo("web", byNumber)),
			service(called("web-direct"), unlabelled, noPorts, port("bolt", 7687, nil), func(s *corev1.Service) {
				s.Labels = map[string]string{ManagedByLabel: ManagedBy}
			})), ""},
		"an Ingress, by number": {[]func(*corev1.Service){ui}, ingresses(ingressTo("web", byNumber)), ""},
		"an Ingress, by name":   {[]func(*corev1.Service){ui}, ingresses(ingressTo("web", byName)), ""},
		"an Ingress to another port": {[]func(*corev1.Service){ui}, ingresses(ingressTo("web",
			networkingv1.ServiceBackendPort{Number: 81})), notReached},
		"an Ingress to another Service":       {[]func(*corev1.Service){ui}, ingresses(ingressTo("api", byNumber)), notReached},
		"an Ingress that opts out":            {[]func(*corev1.Service){ui}, ingresses(ingressTo("web", byNumber, optedOut)), notReached},
		"an Ingress that opts out, annotated": {[]func(*corev1.Service){ui}, ingresses(ingressTo("web", byNumber, optedOutToo)), notReached},
		"a Gateway API route":                 {[]func(*corev1.Service){ui}, routes("web", 80), ""},
		"a route to another port":             {[]func(*corev1.Service){ui}, routes("web", 81), notReached},
		"a load balancer":                     {[]func(*corev1.Service){ui, ofType(corev1.ServiceTypeLoadBalancer)}, Surroundings{}, ""},
		"a node port":                         {[]func(*corev1.Service){ui, ofType(corev1.ServiceTypeNodePort)}, Surroundings{}, ""},
		"a load balancer for a database": {
			[]func(*corev1.Service){port("http", 5432, nil), ofType(corev1.ServiceTypeLoadBalancer)},
			Surroundings{},
			"its port http (5432) is that of PostgreSQL",
		},
		"nothing exposes it":                 {[]func(*corev1.Service){port("http", 80, nil)}, Surroundings{}, notReached},
		"internal, named http":               {[]func(*corev1.Service){port("http", 80, nil)}, internal, ""},
		"internal, named http-api":           {[]func(*corev1.Service){port("http-api", 80, nil)}, internal, ""},
		"internal, named https":              {[]func(*corev1.Service){port("https", 80, nil)}, internal, ""},
		"internal, unnamed":                  {[]func(*corev1.Service){port("", 80, nil)}, internal, noHTTP},
		"internal, appProtocol http":         {[]func(*corev1.Service){port("web", 80, new("http"))}, internal, ""},
		"internal, appProtocol against name": {[]func(*corev1.Service){port("http", 80, new("ssh"))}, internal, noHTTP},
		"internal, a cache named http": {
			[]func(*corev1.Service){port("http", 6379, nil)},
			internal,
			"its port http (6379) is that of Redis",
		},
		"one port of two is reached": {
			[]func(*corev1.Service){ui, port("gossip", 7946, nil)},
			ingresses(ingressTo("web", byNumber)),
			noHTTP,
		},
		"the other port speaks HTTP": {[]func(*corev1.Service){ui, port("http-metrics", 9100, nil)}, ingresses(ingressTo("web",
			byNumber)), ""},
		"a broker with its console reached": {
			[]func(*corev1.Service){ui, port("amqp", 5672, nil)},
			ingresses(ingressTo("web", byNumber)),
			"is that of RabbitMQ",
		},

		"another Service of its pods is reached": {[]func(*corev1.Service){port("http", 80, nil)}, beside(routes("public", 80),
			service(called("public"))), ""},
		"a Service of a part of its pods is reached": {[]func(*corev1.Service){port("http", 80, nil)}, beside(routes("public", 80),
			service(called("public"), func(s *corev1.Service) { s.Spec.Selector["tier"] = "front" })), ""},
		"a Service of other pods is reached": {[]func(*corev1.Service){port("http", 80, nil)}, beside(routes("public", 80),
			service(called("public"), func(s *corev1.Service) { s.Spec.Selector["app"] = "api" })), notReached},
		"with a headless one that an Ingress reaches": {[]func(*corev1.Service){
			port("ssh", 22, nil),
			ofType(corev1.ServiceTypeLoadBalancer),
		}, beside(ingresses(ingressTo("http", byNumber)), service(called("http"), unlabelled,
			headless)), uncounted + " http too, which cannot be injected: it is headless"},
		"with one whose Ingress is opted in": {[]func(*corev1.Service){
			port("ssh", 22, nil),
			ofType(corev1.ServiceTypeLoadBalancer),
		}, beside(ingresses(ingressTo("http", byNumber, labelled)), service(called("http"), unlabelled,
			headless)), ""},
		"with a headless one that is internal": {
			[]func(*corev1.Service){ui, ofType(corev1.ServiceTypeNodePort)},
			beside(Surroundings{}, service(called("peers"), unlabelled, headless)), "",
		},
		"with a load balancer for UDP": {
			[]func(*corev1.Service){ui, ofType(corev1.ServiceTypeNodePort)},
			beside(Surroundings{}, service(called("dns"), ofType(corev1.ServiceTypeLoadBalancer),
				func(s *corev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolUDP })), uncounted + " dns",
		},
		"with a load balancer that is opted out": {
			[]func(*corev1.Service){ui, ofType(corev1.ServiceTypeNodePort)},
			beside(Surroundings{}, service(called("public"), label("false"), ofType(corev1.ServiceTypeLoadBalancer))), "it is opted out",
		},
		"with its own direct Service": {
			[]func(*corev1.Service){ui, ofType(corev1.ServiceTypeNodePort)},
			beside(Surroundings{}, DirectService(service(), Settings{})), "",
		},
		"with a UDP load balancer of other pods": {
			[]func(*corev1.Service){ui, ofType(corev1.ServiceTypeNodePort)},
			beside(Surroundings{}, service(called("dns"), ofType(corev1.ServiceTypeLoadBalancer),
				func(s *corev1.Service) { s.Spec.Ports[0].Protocol, s.Spec.Selector["app"] = corev1.ProtocolUDP, "dns" })), "",
		},
		"intercepted, with another one of its own pods": {[]func(*corev1.Service){sentinel, port("http", 80, nil)}, beside(routes("public",
			80), service(called("public"), sentinel)), ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := JudgeNamespaced(service(append([]func(*corev1.Service){unlabelled, noPorts}, tc.change...)...), tc.around)
			if (got == "") != (tc.skip == "") || !strings.Contains(string(got), tc.skip) {
				t.Errorf("got %q, want something with %q", got, tc.skip)
			}
		})
	}
}

func TestStores(t *testing.T) {
	target := func(number int32, target intstr.IntOrString) corev1.ServicePort {
		return corev1.ServicePort{Name: "http", Port: number, TargetPort: target}
	}
	for want, ports := range map[string][]corev1.ServicePort{
		"PostgreSQL": {target(5432, intstr.FromString("http")), target(80, intstr.FromInt32(5432)), target(80,
			intstr.FromString("tcp-postgresql")), {Name: "http", Port: 80, AppProtocol: new("postgres")}},
		"Redis": {
			target(6379, intstr.FromString("http")),
			{Name: "tcp-redis", Port: 80},
			{Name: "redis-sentinel", Port: 80},
			target(80, intstr.FromString("valkey")),
		},
		"MySQL":         {target(3306, intstr.FromInt32(3306)), {Name: "mysql", Port: 33060}},
		"Kafka":         {{Port: 9092}, {Port: 9094}},
		"Alertmanager":  {{Name: "http-web", Port: 9093}},
		"Elasticsearch": {{Name: "http", Port: 9200}},
		"RabbitMQ":      {{Name: "amqp", Port: 80}},
		"": {
			{Name: "http", Port: 80},
			{Name: "https", Port: 8443},
			{Name: "http", Port: 9000},
			{Name: "http", Port: 8123},
			{Name: "agent-listener", Port: 50000},
			target(80, intstr.FromString("http")), target(8080, intstr.FromInt32(8080)),
		},
	} {
		for _, p := range ports {
			if got := storeOf(p); (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("%+v: got %q, want something with %q", p, got, want)
			}
		}
	}
}

func TestGatewayRoute(t *testing.T) {
	route := &unstructured.Unstructured{Object: map[string]any{
		"kind": "HTTPRoute", "metadata": map[string]any{"name": "front", "namespace": "apps"},
		"spec": map[string]any{"rules": []any{
			map[string]any{"backendRefs": []any{
				map[string]any{"name": "web", "port": int64(80)},
				map[string]any{"name": "api", "port": int64(81), "kind": "Service", "group": "", "namespace": "apps", "weight": int64(1)},
				map[string]any{"name": "elsewhere", "port": int64(80), "namespace": "others"},
				map[string]any{"name": "bucket", "group": "example.com", "kind": "Bucket"},
				map[string]any{"name": "import", "group": "multicluster.x-k8s.io", "kind": "ServiceImport", "port": int64(80)},
			}},
			map[string]any{"filters": []any{map[string]any{"type": "RequestRedirect"}}},
			map[string]any{"backendRefs": []any{map[string]any{"port": int64(80)}, "nonsense"}},
			"nonsense",
		}},
	}}
	got := NewGatewayRoute(route)
	if want := []RouteBackend{{"web", 80}, {"api", 81}}; !slices.Equal(got.Backends, want) || got.Kind != "HTTPRoute" || got.Name != "front" {
		t.Errorf("got %+v, want backends %v", got, want)
	}
	if got := NewGatewayRoute(&unstructured.Unstructured{Object: map[string]any{"spec": "x"}}); len(got.Backends) > 0 {
		t.Errorf("of nonsense: %+v", got)
	}
}

func TestOptedInTogether(t *testing.T) {
	of := func(name, release string, change ...func(*corev1.Service)) corev1.Service {
		s := service(append([]func(*corev1.Service){called(name)}, change...)...)
		s.Labels["app.kubernetes.io/instance"], s.Spec.Selector = release, map[string]string{"app": name}
		return *s
	}
	worker := of("worker", "airflow")
	for name, tc := range map[string]struct {
		all  []corev1.Service
		want bool
	}{
		"alone":                           {[]corev1.Service{worker}, false},
		"with the web server":             {[]corev1.Service{worker, of("web", "airflow")}, true},
		"with one opted in by annotation": {[]corev1.Service{worker, of("web", "airflow", unlabelled, enabled("true"))}, true},
		"with one that is not opted in":   {[]corev1.Service{worker, of("web", "airflow", unlabelled)}, false},
		"with one of another release":     {[]corev1.Service{worker, of("web", "grafana")}, false},
		"with another one of the same pods": {[]corev1.Service{worker, of("web", "airflow"), func() corev1.Service {
			s := of("worker-2",
				"other")
			return s
		}()}, true},
	} {
		if got := OptedInTogether(&worker, tc.all); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	same := of("worker-too", "airflow")
	same.Spec.Selector = worker.Spec.Selector
	if OptedInTogether(&worker, []corev1.Service{same}) {
		t.Error("with another one of the same pods alone")
	}
	if OptedInTogether(service(), []corev1.Service{*service(called("other"))}) {
		t.Error("without a release")
	}
}
