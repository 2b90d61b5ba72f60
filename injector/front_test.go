// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// most returns settings with that many replicas at most.
func most(n int32) Settings { return Settings{Sizes: Sizes{MaxReplicas: n}} }

func TestAffinityCookieSetting(t *testing.T) {
	for value, ok := range map[string]bool{
		"JSESSIONID": true, "connect.sid": true, "auto": true, "__Host-session": true, "a!#$%&'*+-.^_`|~0": true, strings.Repeat("a", 128): true,
		"": false, "a b": false, "a=b": false, "a;b": false, `"a"`: false, "a,b": false, "a/b": false, "{a}": false, "ключ": false,
		"a\t": false, "a\x7f": false, strings.Repeat("a", 129): false,
	} {
		s, err := ParseSettings(map[string]string{Prefix + "affinity-cookie": value})
		var setting *SettingError
		switch {
		case ok && (err != nil || s.AffinityCookie != value):
			t.Errorf("%q: %q, %v", value, s.AffinityCookie, err)
		case !ok && (!errors.As(err, &setting) || setting.Value != value || !strings.Contains(setting.Allowed, "RFC 6265")):
			t.Errorf("%q: %v", value, err)
		}
	}
}

func TestProxyProtocolSetting(t *testing.T) {
	service := &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "pg", Port: 5432}, {Name: "http", Port: 80}}}}
	for value, want := range map[string]string{
		"2": "pg http", "off": "", "5432=2": "pg", "pg=2": "pg", "2,80=off": "pg", "2, http=off": "pg", "pg=2,http=2": "pg http",
		"1": "denied", "v2": "denied", "2,2": "denied", "pg=1": "denied", "true": "denied", "pg": "denied", "=2": "denied",
		"pg=2,5432=off": "denied", "mysql=2": "denied",
	} {
		service.Annotations = map[string]string{Prefix + "proxy-protocol": value}
		s, err := ParseSettings(service.Annotations)
		if err = errors.Join(err, CheckPorts(service)); err != nil {
			var setting *SettingError
			if want != "denied" || !errors.As(err, &setting) || setting.Key != "annotation "+Prefix+"proxy-protocol" {
				t.Errorf("%q: %v", value, err)
			}
			continue
		}
		routes := NewRoutes(service, s, Workload{}, nil)
		var proxied []string
		for _, p := range routes.Ports {
			if p.ProxyProtocol {
				proxied = append(proxied, p.Name)
			}
		}
		if got := strings.Join(proxied, " "); got != want {
			t.Errorf("%q: the header is for %q, want %q", value, got, want)
		}
	}
}

func TestAffinityLost(t *testing.T) {
	ingress := func(key, value string) []*networkingv1.Ingress {
		return []*networkingv1.Ingress{{ObjectMeta: metav1.ObjectMeta{Name: "front", Annotations: map[string]string{
			key:     value,
			"other": "cookie",
		}}}}
	}
	for name, tc := range map[string]struct {
		service   map[string]string
		ingresses []*networkingv1.Ingress
		settings  Settings
		replicas  int32
		want      string
	}{
		"ingress-nginx": {
			ingresses: ingress("nginx.ingress.kubernetes.io/affinity", "cookie"),
			want:      "Ingress front (nginx.ingress.kubernetes.io/affinity: cookie)",
		},
		"ingress-nginx's hash": {ingresses: ingress("nginx.ingress.kubernetes.io/upstream-hash-by", "$remote_addr"), want: "Ingress front ("},
		"Traefik": {
			service: map[string]string{"traefik.ingress.kubernetes.io/service.sticky.cookie": "true"},
			want:    "Service web (traefik.ingress.kubernetes.io/service.sticky.cookie: true)",
		},
		"Traefik's is off":         {service: map[string]string{"traefik.ingress.kubernetes.io/service.sticky.cookie": "false"}},
		"HAProxy Ingress":          {ingresses: ingress("haproxy-ingress.github.io/affinity", "cookie"), want: "Ingress front ("},
		"HAProxy's controller":     {service: map[string]string{"haproxy.org/cookie-persistence": "srv"}, want: "Service web ("},
		"HAProxy balances by URI":  {ingresses: ingress("haproxy.org/load-balance", "uri"), want: "Ingress front ("},
		"HAProxy balances by turn": {ingresses: ingress("haproxy.org/load-balance", "roundrobin")},
		"AWS": {ingresses: ingress("alb.ingress.kubernetes.io/target-group-attributes",
			"stickiness.enabled=true,stickiness.lb_cookie.duration_seconds=60"), want: "Ingress front ("},
		"AWS without": {ingresses: ingress("alb.ingress.kubernetes.io/target-group-attributes", "slow_start.duration_seconds=30")},
		"nothing":     {ingresses: ingress("nginx.ingress.kubernetes.io/affinity-mode", "persistent")},
		"it is set": {
			ingresses: ingress("nginx.ingress.kubernetes.io/affinity", "cookie"),
			settings:  Settings{AffinityCookie: "sid"},
		},
		"one pod": {ingresses: ingress("nginx.ingress.kubernetes.io/affinity", "cookie"), replicas: 1},
		"one pod, later more": {
			ingresses: ingress("nginx.ingress.kubernetes.io/affinity", "cookie"), replicas: 1,
			settings: most(2), want: "Ingress front (",
		},
		"several pods, later one": {ingresses: ingress("nginx.ingress.kubernetes.io/affinity", "cookie"), settings: most(1)},
	} {
		t.Run(name, func(t *testing.T) {
			service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Annotations: tc.service}}
			w := Workload{ObjectMeta: metav1.ObjectMeta{Name: "web"}, APIVersion: "apps/v1", Kind: "Deployment", Replicas: max(tc.replicas, 0)}
			if tc.replicas == 0 { // three replicas, asleep
				w.Annotations = map[string]string{ReplicasAnnotation: "3"}
			}
			got := AffinityLost(service, tc.ingresses, tc.settings, w)
			if !strings.HasPrefix(got, tc.want) || (got == "") != (tc.want == "") {
				t.Errorf("%q, want %q", got, tc.want)
			}
			if got != "" && (!strings.Contains(got, "not a pod of Deployment/web") || !strings.Contains(got, Prefix+"affinity-cookie")) {
				t.Errorf("%q does not say what to do", got)
			}
		})
	}
}

// The note fits into an event, however many Ingresses ask for affinity and however long their annotations are.
func TestAffinityLostIsBounded(t *testing.T) {
	var all []*networkingv1.Ingress
	for range 50 {
		all = append(all, &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{
			Name: strings.Repeat("n", 253), Annotations: map[string]string{"nginx.ingress.kubernetes.io/upstream-hash-by": strings.Repeat("é",
				1000)},
		}})
	}
	got := AffinityLost(&corev1.Service{}, all, most(2), Workload{ObjectMeta: metav1.ObjectMeta{Name: strings.Repeat("w",
		63)}})
	if len(got) > 2000 || !strings.Contains(got, "and 47 more") {
		t.Errorf("%d bytes: %s", len(got), got)
	}
}

func TestClientAddress(t *testing.T) {
	port := func(number int32, protocol string, proxied bool) api.Port {
		return api.Port{Port: number, Protocol: protocol, ProxyProtocol: proxied}
	}
	for name, tc := range map[string]struct {
		policy corev1.ServiceExternalTrafficPolicy
		ports  []api.Port
		lost   bool
		want   []string
	}{
		"Cluster": {policy: corev1.ServiceExternalTrafficPolicyCluster, ports: []api.Port{port(5432, api.ProtocolTCP, false)}},
		"none":    {ports: []api.Port{port(5432, api.ProtocolTCP, false)}},
		"HTTP": {
			policy: corev1.ServiceExternalTrafficPolicyLocal, ports: []api.Port{port(80, api.ProtocolHTTP, false)},
			want: []string{"X-Forwarded-For", "nodes that run an interceptor"},
		},
		"TCP": {
			policy: corev1.ServiceExternalTrafficPolicyLocal, ports: []api.Port{port(5432, api.ProtocolTCP, false)}, lost: true,
			want: []string{"connections to port 5432 reach the pods with an interceptor's address", `scale-to-zero/proxy-protocol: "2"`},
		},
		"both": {
			policy: corev1.ServiceExternalTrafficPolicyLocal, lost: true,
			ports: []api.Port{port(80, api.ProtocolHTTP, false), port(5432, api.ProtocolTCP, false), port(22, api.ProtocolAuto, false)},
			want:  []string{"X-Forwarded-For", "port 5432, 22", `scale-to-zero/proxy-protocol: "5432=2,22=2"`},
		},
		"with the header": {
			policy: corev1.ServiceExternalTrafficPolicyLocal, ports: []api.Port{port(5432, api.ProtocolTCP, true)},
			want: []string{"On port 5432 pods are sent it in a PROXY header"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			service := &corev1.Service{Spec: corev1.ServiceSpec{ExternalTrafficPolicy: tc.policy}}
			note, lost := ClientAddress(service, api.Routes{Ports: tc.ports})
			if lost != tc.lost || (note == "") != (len(tc.want) == 0) {
				t.Errorf("lost %t: %q", lost, note)
			}
			for _, want := range tc.want {
				if !strings.Contains(note, want) {
					t.Errorf("%q does not say %q", note, want)
				}
			}
		})
	}
}
