// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Surroundings is what decides, in a Service's namespace, whether visitors reach the Service. Services has at least those that share
// pods with the judged ones.
type Surroundings struct {
	Services  []corev1.Service
	Ingresses []networkingv1.Ingress
	Routes    []GatewayRoute
	// InternalServices is set if the Namespace's opt-in includes Services that only other pods call.
	InternalServices bool
}

// GatewayRoute is an HTTPRoute, GRPCRoute, TLSRoute or TCPRoute of the Gateway API.
type GatewayRoute struct {
	Kind, Name string
	Backends   []RouteBackend
}

// RouteBackend is a port of a Service to which a GatewayRoute sends traffic.
type RouteBackend struct {
	Service string
	Port    int32
}

// GatewayRouteKinds are the kinds of the Gateway API, in group GatewayGroup, that expose Services.
func GatewayRouteKinds() []string { return []string{"HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"} }

// GatewayGroup is the API group of the Gateway API.
const GatewayGroup = "gateway.networking.k8s.io"

// NewGatewayRoute reads a route as the API server returns it. It omits backends in other namespaces: a ReferenceGrant decides whether
// they may be used, and a route that somebody creates elsewhere must not put an app here to sleep.
func NewGatewayRoute(route *unstructured.Unstructured) GatewayRoute {
	r := GatewayRoute{Kind: route.GetKind(), Name: route.GetName()}
	rules, _, _ := unstructured.NestedSlice(route.Object, "spec", "rules")
	for _, rule := range rules {
		fields, _ := rule.(map[string]any)
		refs, _, _ := unstructured.NestedSlice(fields, "backendRefs")
		for _, ref := range refs {
			if b, ok := routeBackend(ref, route.GetNamespace()); ok {
				r.Backends = append(r.Backends, b)
			}
		}
	}
	return r
}

func routeBackend(ref any, namespace string) (RouteBackend, bool) {
	fields, _ := ref.(map[string]any)
	text := func(key string) string { s, _, _ := unstructured.NestedString(fields, key); return s }
	if kind := text("kind"); kind != "" && kind != "Service" || text("group") != "" {
		return RouteBackend{}, false
	}
	if other := text("namespace"); other != "" && other != namespace {
		return RouteBackend{}, false
	}
	port, _, _ := unstructured.NestedInt64(fields, "port")
	return RouteBackend{Service: text("name"), Port: int32(port)}, text("name") != "" //nolint:gosec // the CRD bounds it to 65535
}

// JudgeNamespaced judges a Service that only its Namespace opts in. Such an opt-in is meant for Services that visitors reach, and
// must never put a database to sleep:
//
//   - No port may belong to a database, a cache or a broker, whatever its name.
//   - Visitors must reach the Service, or another Service with the same pods: by an Ingress, a Gateway API route, a load balancer
//     or a node port. This rule does not apply if the Namespace asks for internal Services too.
//   - Visitors must reach each port, unless its appProtocol or its name says that it speaks HTTP.
//   - Visitors must not reach the same pods by a Service that cannot be injected: these visitors would not count.
func JudgeNamespaced(service *corev1.Service, around Surroundings) Skip {
	if port, store := storePort(service); store != "" {
		return Skip(fmt.Sprintf("only its namespace opts it in, and its port %s is that of %s: "+
			"what other programs keep their data in does not sleep with its namespace. If it should, label it %s=true",
			port, store, OptInLabel))
	}
	for i := range around.Services {
		other := &around.Services[i]
		optedIn, _ := OptedIn(other)
		if !sharePods(service, other) || optedIn || other.Labels[ManagedByLabel] == ManagedBy {
			continue
		}
		if port, store := storePort(other); store != "" {
			return Skip(fmt.Sprintf("only its namespace opts it in, and its pods also serve port %s of Service %s, which is that of %s: "+
				"what other programs keep their data in does not sleep with its namespace. If it should, label both %s=true",
				port, other.Name, store, OptInLabel))
		}
	}
	if !around.InternalServices && !around.reachTogether(service) {
		return Skip(fmt.Sprintf("only its namespace opts it in, and no Ingress, Gateway API route, load balancer or node port exposes it. "+
			"To inject it, label it %s=true; for all such Services, annotate the Namespace %s=true",
			OptInLabel, InternalServicesAnnotation))
	}
	for _, p := range service.Spec.Ports {
		if !speaksHTTP(p) && !around.reachesPort(service, p) {
			return Skip(fmt.Sprintf("only its namespace opts it in, and its port %s does not say that it speaks HTTP: "+
				"name the port http, set its appProtocol, or label the Service %s=true",
				portName(p), OptInLabel))
		}
	}
	for i := range around.Services {
		other := &around.Services[i]
		if why := around.uncounted(other); sharePods(service, other) && why != "" {
			return Skip(fmt.Sprintf("only its namespace opts it in, and visitors reach its pods by Service %s too, which cannot be injected: %s. "+
				"They would not be counted", other.Name, why))
		}
	}
	return ""
}

// storePort returns a port of the Service that belongs to a store, and the name of the store. Both are empty if there is none.
func storePort(service *corev1.Service) (port, store string) {
	for _, p := range service.Spec.Ports {
		if store := storeOf(p); store != "" {
			return portName(p), store
		}
	}
	return "", ""
}

// Reached reports whether requests from outside the cluster reach the Service: by an Ingress or a Gateway API route of its namespace,
// a load balancer or a node port.
func (a Surroundings) Reached(service *corev1.Service) bool {
	return slices.ContainsFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return a.reachesPort(service, p) })
}

// reachTogether reports whether visitors reach the Service, or another Service with the same pods.
func (a Surroundings) reachTogether(service *corev1.Service) bool {
	return a.Reached(service) || slices.ContainsFunc(a.Services, func(other corev1.Service) bool {
		return sharePods(service, &other) && a.Reached(&other)
	})
}

func (a Surroundings) reachesPort(service *corev1.Service, p corev1.ServicePort) bool {
	switch service.Spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		return true
	default:
		return len(a.exposing(service, p)) > 0 || slices.ContainsFunc(a.Routes, func(r GatewayRoute) bool {
			return slices.Contains(r.Backends, RouteBackend{service.Name, p.Port})
		})
	}
}

// exposing returns the Ingresses that send traffic to a port of the Service.
func (a Surroundings) exposing(service *corev1.Service, p corev1.ServicePort) []*networkingv1.Ingress {
	var exposing []*networkingv1.Ingress
	for i := range a.Ingresses {
		if ingress := &a.Ingresses[i]; !OptedOut(ingress) && refersTo(ingress, service.Name, p.Name, p.Port) {
			exposing = append(exposing, ingress)
		}
	}
	return exposing
}

// uncounted says why visitors who reach the Service would not be counted. It is empty if they would be, or if there are none.
func (a Surroundings) uncounted(service *corev1.Service) Skip {
	why := JudgeService(service, "", false, nil)
	if OptedOut(service) {
		why = "it is opted out"
	}
	if why == "" || service.Labels[ManagedByLabel] == ManagedBy || !a.Reached(service) {
		return ""
	}
	if !OnlyByIngress(service) {
		return why
	}
	for _, p := range service.Spec.Ports { // if all its Ingresses are opted in, its visitors are counted
		for _, ingress := range a.exposing(service, p) {
			if optedIn, err := OptedIn(ingress); err != nil || !optedIn {
				return why
			}
		}
	}
	return ""
}

// sharePods reports whether two different Services of a namespace select the same pods, or one selects a subset of the other's.
func sharePods(a, b *corev1.Service) bool {
	one, other := OriginalSelector(a), OriginalSelector(b)
	if len(one) == 0 || len(other) == 0 || a.Name == b.Name {
		return false
	}
	return contains(one, other) || contains(other, one)
}

// contains reports whether all entries of part are in all.
func contains(all, part map[string]string) bool {
	for k, v := range part {
		if got, ok := all[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// OptedInTogether reports whether the Service may have been opted in together with a whole chart: another Service of the same
// release, with other pods, is opted in too.
func OptedInTogether(service *corev1.Service, all []corev1.Service) bool {
	release := ReleaseOf(service)
	return release != "" && slices.ContainsFunc(all, func(other corev1.Service) bool {
		optedIn, err := OptedIn(&other)
		return err == nil && optedIn && other.Name != service.Name && ReleaseOf(&other) == release && !sharePods(service, &other)
	})
}

// ReleaseOf returns the name of the release to which a Service belongs; empty if the Service does not say.
func ReleaseOf(service *corev1.Service) string {
	labels := service.Labels
	for _, name := range []string{labels["app.kubernetes.io/instance"], service.Annotations["meta.helm.sh/release-name"], labels["release"]} {
		if name != "" {
			return name
		}
	}
	return ""
}
