// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"maps"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

// renameIn renames the Services in an annotation of an Ingress, if it knows the annotation's format:
//
//	nginx.org/websocket-services: web,api                 and ssl-services, grpc-services
//	nginx.org/rewrites: serviceName=web rewrite=/         and sticky-cookie-services
//	alb.ingress.kubernetes.io/actions.x: {"forwardConfig":{"targetGroups":[{"serviceName":"web",…
//	nginx.ingress.kubernetes.io/default-backend: web      and others' of that name, with or without a port
func renameIn(key, value string, rename func(string) string) string {
	domain, name, _ := strings.Cut(key, "/")
	switch {
	case !strings.Contains(domain, "ingress") && domain != "nginx.org" && domain != "nginx.com":
		return value
	case strings.HasSuffix(name, "default-backend"):
		service, port, hasPort := strings.Cut(value, ":")
		if hasPort {
			return rename(service) + ":" + port
		}
		return rename(value)
	case slices.Contains([]string{"websocket-services", "ssl-services", "grpc-services"}, name):
		names := strings.Split(value, ",")
		for i, n := range names {
			bare := strings.TrimSpace(n)
			names[i] = strings.Replace(n, bare, rename(bare), 1)
		}
		return strings.Join(names, ",")
	default:
		return renameAfter("serviceName", value, rename)
	}
}

// renameAfter renames each name that follows word, as in serviceName=web or "serviceName": "web".
func renameAfter(word, value string, rename func(string) string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(value, word)
		out.WriteString(before)
		if !found {
			return out.String()
		}
		rest := strings.TrimLeft(after, "\"'=: \t")
		name := rest[:len(rest)-len(strings.TrimLeft(rest, "abcdefghijklmnopqrstuvwxyz0123456789-"))]
		out.WriteString(word + after[:len(after)-len(rest)] + rename(name))
		value = rest[len(name):]
	}
}

// actionServices returns the Services to which the actions of an AWS load balancer forward. They are backends too: the Ingress's spec
// names only the action.
func actionServices(ingress *networkingv1.Ingress) []string {
	var services []string
	for _, key := range slices.Sorted(maps.Keys(ingress.Annotations)) {
		if strings.HasPrefix(key, "alb.ingress.kubernetes.io/actions.") {
			renameAfter("serviceName", ingress.Annotations[key], func(name string) string {
				services = append(services, name)
				return name
			})
		}
	}
	return services
}

// NamedElsewhere returns the keys of an Ingress's annotations that seem to name one of its backend Services, but stay unchanged when
// the alias Service replaces the backend.
func NamedElsewhere(ingress *networkingv1.Ingress, service string) []string {
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(ingress.Annotations)) {
		value := ingress.Annotations[key]
		rewritten := renameIn(key, value, func(name string) string {
			if name == service {
				return AliasServiceName(service)
			}
			return name
		})
		if !strings.HasPrefix(key, Prefix) && !bookkeeping(key) && rewritten == value && seemsToName(key, value, service, ingress.Namespace) {
			keys = append(keys, key)
		}
	}
	return keys
}

// seemsToName reports whether an annotation contains the Service's name in a URL or in a DNS name of the cluster. If the annotation's
// key is about Services, the name may also be a word of its own.
func seemsToName(key, value, service, namespace string) bool {
	_, name, _ := strings.Cut(key, "/")
	about := slices.ContainsFunc([]string{"service", "backend", "upstream"}, func(word string) bool {
		return strings.Contains(strings.ToLower(name), word)
	})
	other := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.'
	}
	for _, address := range strings.Split(value, "://")[1:] {
		if end := strings.IndexFunc(address+" ", other); address[:end] == service {
			return true
		}
	}
	for word := range strings.FieldsFuncSeq(value, other) {
		inCluster := service + "." + namespace
		if about && word == service || word == inCluster || strings.HasPrefix(word, inCluster+".svc") {
			return true
		}
	}
	return false
}

// forIngressControllers reports whether ingress controllers and meshes read this annotation of a Service on a backend.
// Other annotations instruct tools that act on the Service itself: to scrape it, publish its name, or give it a load
// balancer or a certificate. The alias Service must not have these, or they would act twice.
func forIngressControllers(key, value string) bool {
	domain, name, _ := strings.Cut(key, "/")
	switch domain {
	case "cloud.google.com", "beta.cloud.google.com", "service.alpha.kubernetes.io": // GKE
		// The network endpoint groups of a Service have names, and a name can be used only once.
		return slices.Contains([]string{"backend-config", "app-protocols", "neg"}, name) && !strings.Contains(value, "exposed_ports")
	case "nginx.org", "nginx.com", "haproxy.org", "konghq.com", "projectcontour.io", "k8s.apisix.apache.org",
		"config.linkerd.io", "retry.linkerd.io", "timeout.linkerd.io", "balancer.linkerd.io":
		return true
	case "networking.istio.io":
		return name == "exportTo"
	default:
		// traefik.ingress.kubernetes.io, alb.ingress.kubernetes.io, haproxy-ingress.github.io, ingress.kubernetes.io, …
		return strings.Contains(domain, "ingress")
	}
}
