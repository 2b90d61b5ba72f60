// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// ReachOf says how browsers reach a Service. Of ingresses, only those that have the Service as a backend matter.
func ReachOf(service *corev1.Service, ingresses []networkingv1.Ingress) *api.Reach {
	r := &api.Reach{
		Direct: service.Spec.Type == corev1.ServiceTypeLoadBalancer || service.Spec.Type == corev1.ServiceTypeNodePort ||
			len(service.Spec.ExternalIPs) > 0,
		Inside: slices.DeleteFunc(slices.Clone(service.Spec.ClusterIPs), func(ip string) bool { return ip == corev1.ClusterIPNone }),
	}
	for i := range ingresses {
		hosts, known := hostsOf(&ingresses[i], service.Name)
		if !known {
			r.Hosts = nil // unknown hosts may reach it too, so a list would be wrong
			return r
		}
		r.Hosts = append(r.Hosts, hosts...)
	}
	slices.Sort(r.Hosts)
	r.Hosts = slices.Compact(r.Hosts)
	return r
}

// hostsOf returns the hosts for which an Ingress sends traffic to a Service. They are unknown if the Ingress does so for any host, or
// has annotations that change the host that the Service sees.
func hostsOf(ingress *networkingv1.Ingress, service string) (hosts []string, known bool) {
	author, _ := Backends(ingress)
	if !slices.Contains(author, service) {
		return nil, true
	}
	for key := range ingress.Annotations {
		if strings.HasSuffix(key, "/server-alias") || strings.HasSuffix(key, "/upstream-vhost") {
			return nil, false
		}
	}
	names := authorsNames(Aliases(ingress))
	leadsTo := func(b *networkingv1.IngressBackend) bool {
		return b != nil && b.Service != nil && (b.Service.Name == service || names[b.Service.Name] == service)
	}
	if leadsTo(ingress.Spec.DefaultBackend) {
		return nil, false
	}
	for _, rule := range ingress.Spec.Rules {
		if rule.HTTP == nil || !slices.ContainsFunc(rule.HTTP.Paths, func(p networkingv1.HTTPIngressPath) bool { return leadsTo(&p.Backend) }) {
			continue
		}
		if rule.Host == "" {
			return nil, false
		}
		hosts = append(hosts, rule.Host)
	}
	return hosts, true
}
