// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const (
	proxyProtocolV2 = "2"

	proxyProtocolAllowed = "2, for a PROXY header of version 2 on each connection to a pod, or off; for one port PORT=VALUE, with its " +
		"name or number; " +
		"several separated by commas, as in 5432=2 or 2,8080=off"
)

// parseProxyProtocol reads annotation proxy-protocol. An empty value means that there is none.
func parseProxyProtocol(value string) (portValues, bool) {
	if value == "" {
		return portValues{}, true
	}
	return parsePortValues(value, proxyProtocolV2, "off")
}

// affinityKey is an annotation that asks a proxy in front of the Service to keep each client at one endpoint.
type affinityKey struct {
	key  string
	asks func(value string) bool
}

// affinityKeys returns the annotations of those ingress controllers that balance over endpoints themselves. Each is looked for on
// Ingresses and on Services, because the controllers differ in where they read it.
func affinityKeys() []affinityKey {
	set := func(value string) bool { return value != "" }
	is := func(words ...string) func(string) bool {
		return func(value string) bool { return slices.Contains(words, strings.ToLower(value)) }
	}
	has := func(words ...string) func(string) bool {
		return func(value string) bool {
			return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(strings.ToLower(value), w) })
		}
	}
	return []affinityKey{
		{"nginx.ingress.kubernetes.io/affinity", is("cookie")},
		{"nginx.ingress.kubernetes.io/upstream-hash-by", set},
		{"nginx.org/sticky-cookie-services", set},
		{"nginx.com/sticky-cookie-services", set},
		{"nginx.org/lb-method", has("hash")},
		{"traefik.ingress.kubernetes.io/service.sticky.cookie", is("true")},
		{"traefik.ingress.kubernetes.io/affinity", is("true")},
		{"haproxy-ingress.github.io/affinity", is("cookie")},
		{"ingress.kubernetes.io/affinity", is("cookie", "true")},
		{"haproxy-ingress.github.io/balance-algorithm", has("source", "uri", "hdr", "hash")},
		{"haproxy.org/cookie-persistence", set},
		{"haproxy.org/load-balance", has("source", "uri", "hdr", "hash")},
		{"alb.ingress.kubernetes.io/target-group-attributes", has("stickiness.enabled=true")},
		{"appgw.ingress.kubernetes.io/cookie-based-affinity", is("true")},
	}
}

// AffinityLost describes annotations that ask an ingress controller for an affinity that the interceptors do not keep, and says what
// to set instead. It is empty if there are none. ingresses are those whose traffic for the Service goes through the interceptors. A
// workload with at most one pod loses nothing.
func AffinityLost(service *corev1.Service, ingresses []*networkingv1.Ingress, s Settings, w Workload) string {
	limit := NewScaling([]Settings{s}, max(Remembered(w.Annotations), w.Replicas)).MaxReplicas
	if s.AffinityCookie != "" || limit < 2 {
		return ""
	}
	var asks []string
	for _, k := range affinityKeys() {
		if value := strings.TrimSpace(service.Annotations[k.key]); k.asks(value) {
			asks = append(asks, fmt.Sprintf("Service %s (%s: %s)", service.Name, k.key, clip(value)))
		}
		for _, i := range ingresses {
			if value := strings.TrimSpace(i.Annotations[k.key]); k.asks(value) {
				asks = append(asks, fmt.Sprintf("Ingress %s (%s: %s)", i.Name, k.key, clip(value)))
			}
		}
	}
	if len(asks) == 0 {
		return ""
	}
	more := ""
	if n := len(asks) - maxAsks; n > 0 {
		asks, more = asks[:maxAsks], fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("%s%s keeps each client at one endpoint, which is now an interceptor and not a pod of %s: clients move between pods. "+
		"To keep a client at one pod, set annotation %saffinity-cookie to the name of the app's session cookie, or to auto if it has none",
		strings.Join(asks, ", "), more, w.Ref(), Prefix)
}

// maxAsks bounds an event that names annotations.
const maxAsks = 3

// clip shortens an annotation's value for an event.
func clip(value string) string {
	const limit = 60
	if r := []rune(value); len(r) > limit {
		return string(r[:limit]) + "..."
	}
	return value
}

// ClientAddress describes how the interceptors pass on the client's address, which externalTrafficPolicy Local is meant to preserve,
// and whether the address is lost on any port. The note is empty for Services without that policy.
func ClientAddress(service *corev1.Service, routes api.Routes) (note string, lost bool) {
	if service.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return "", false
	}
	var proxied, bare []string
	for _, p := range routes.Ports {
		switch {
		case p.ProxyProtocol:
			proxied = append(proxied, strconv.Itoa(int(p.Port)))
		case p.Protocol != api.ProtocolHTTP:
			bare = append(bare, strconv.Itoa(int(p.Port)))
		}
	}
	note = "externalTrafficPolicy is Local. HTTP requests carry the client's address in X-Forwarded-For."
	if len(proxied) > 0 {
		note += fmt.Sprintf(" On port %s pods are sent it in a PROXY header.", strings.Join(proxied, ", "))
	}
	if len(bare) > 0 {
		value := proxyProtocolV2
		if len(bare) < len(routes.Ports) {
			value = strings.Join(bare, "="+proxyProtocolV2+",") + "=" + proxyProtocolV2
		}
		note += fmt.Sprintf(" Other connections to port %s reach the pods with an interceptor's address; if the app reads the PROXY "+
			"protocol, set annotation %sproxy-protocol: %q.",
			strings.Join(bare, ", "), Prefix, value)
	}
	return note + " From outside the cluster the Service answers on nodes that run an interceptor.", len(bare) > 0
}
