// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

func TestReachOf(t *testing.T) {
	backend := func(name string) networkingv1.IngressBackend {
		return networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: name}}
	}
	ingress := func(name string, hosts ...string) networkingv1.Ingress {
		var i networkingv1.Ingress
		for _, host := range hosts {
			i.Spec.Rules = append(i.Spec.Rules, networkingv1.IngressRule{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{
				HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Backend: backend(name)}}},
			}})
		}
		return i
	}
	with := func(i networkingv1.Ingress, change func(*networkingv1.Ingress)) networkingv1.Ingress {
		change(&i)
		return i
	}
	a, b := ingress("web", "b.example.com", "a.example.com"), ingress("web", "*.example.org", "a.example.com")
	for name, tc := range map[string]struct {
		change    func(*corev1.Service)
		ingresses []networkingv1.Ingress
		want      api.Reach
	}{
		"nothing": {nil, nil, api.Reach{}},
		"Ingresses": {
			nil,
			[]networkingv1.Ingress{a, ingress("other", "c.example.com"), b},
			api.Reach{Hosts: []string{"*.example.org", "a.example.com", "b.example.com"}},
		},
		"an alias": {
			nil,
			[]networkingv1.Ingress{with(ingress("web-scale-to-zero", "a.example.com"), func(i *networkingv1.Ingress) {
				setAliases(i, map[string]string{"web": "web-scale-to-zero"})
			})},
			api.Reach{Hosts: []string{"a.example.com"}},
		},
		"any host": {nil, []networkingv1.Ingress{a, ingress("web", "")}, api.Reach{}},
		"a default": {
			nil,
			[]networkingv1.Ingress{with(a, func(i *networkingv1.Ingress) { i.Spec.DefaultBackend = new(backend("web")) })},
			api.Reach{},
		},
		"more hosts": {nil, []networkingv1.Ingress{with(a, func(i *networkingv1.Ingress) {
			i.Annotations = map[string]string{"nginx.ingress.kubernetes.io/server-alias": "x"}
		})}, api.Reach{}},
		"another Host": {nil, []networkingv1.Ingress{with(a, func(i *networkingv1.Ingress) {
			i.Annotations = map[string]string{"nginx.ingress.kubernetes.io/upstream-vhost": "x"}
		})}, api.Reach{}},
		"cluster IPs": {
			func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"10.96.0.7", "fd00::7"} }, nil,
			api.Reach{Inside: []string{"10.96.0.7", "fd00::7"}},
		},
		"load balancer": {func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeLoadBalancer }, nil, api.Reach{Direct: true}},
		"node port": {func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }, []networkingv1.Ingress{ingress("web",
			"a.example.com")}, api.Reach{Direct: true, Hosts: []string{"a.example.com"}}},
		"an external IP": {func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"192.0.2.1"} }, nil, api.Reach{Direct: true}},
	} {
		service := &corev1.Service{}
		service.Name = "web"
		if tc.change != nil {
			tc.change(service)
		}
		got := ReachOf(service, tc.ingresses)
		if len(got.Inside) == 0 {
			got.Inside = nil
		}
		if !reflect.DeepEqual(*got, tc.want) {
			t.Errorf("%s: got %+v, want %+v", name, *got, tc.want)
		}
	}
}
