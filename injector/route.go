// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"maps"
	"net"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// NewRoutes returns the routes of an opted-in Service. listen are the interceptor ports, by the names of the Service's ports.
func NewRoutes(service *corev1.Service, s Settings, w Workload, listen map[string]int32) api.Routes {
	r := api.Routes{
		Service:     service.Name,
		ServiceUID:  string(service.UID),
		Direct:      DirectServiceName(service.Name),
		Workload:    w.Ref(),
		Cooldown:    api.Duration(s.Cooldown),
		NeverSleeps: s.MinReplicas > 0,
		HoldTimeout: api.Duration(s.HoldTimeout),
		// Kube-proxies keep a client at one interceptor, and the interceptors keep the client at one pod.
		ClientAffinity: service.Spec.SessionAffinity == corev1.ServiceAffinityClientIP,
		WaitingPage:    s.WaitingPage,
		FullDetails:    s.Details == detailsFull,
		AffinityCookie: s.AffinityCookie,
		NoLearning:     s.NoLearning,
		Awake:          s.Awake,

		MaxPendingPerPod: s.MaxPendingPerPod,
		CountsRate:       s.TargetRequestRate > 0,
	}
	r.WakeWith, _ = parseWakeWith(s.WakeWith)
	if s.Readiness != readinessKubelet {
		r.Readiness = ReadinessOf(w.Template, service.Spec.Ports)
	}
	r.IgnorePaths, _ = parseIgnorePaths(s.IgnorePaths) // a value that does not parse was denied, or makes the Service be skipped
	r.IgnoreAgents, r.CountKnownAgents, _ = parseIgnoreAgents(s.IgnoreAgents)
	proxied, _ := parseProxyProtocol(s.ProxyProtocol)
	for _, p := range service.Spec.Ports {
		r.Ports = append(r.Ports, api.Port{
			Name: p.Name, Port: p.Port, Listen: listen[p.Name],
			Protocol: protocol(p, s.Protocol), ProxyProtocol: proxied.of(p) == proxyProtocolV2,
		})
	}
	r.Busy = s.Busy.on(service, s.Protocol, w)
	return r
}

// encodeRoutes is Encode for our own routes, which always encode: they consist of text and numbers.
func encodeRoutes(routes api.Routes) string {
	annotation, _ := routes.Encode()
	return annotation
}

// Interceptor is a ready interceptor as a route slice lists it.
type Interceptor struct {
	Address string // IP address
	Node    *string
	Zone    *string
	PodRef  *corev1.ObjectReference
}

// Interceptors returns the ready interceptors from their own EndpointSlices, sorted by address.
func Interceptors(slicesOfInterceptors []discoveryv1.EndpointSlice) []Interceptor {
	found := map[string]Interceptor{}
	for _, slice := range slicesOfInterceptors {
		for _, e := range slice.Endpoints {
			if !ready(e) || len(e.Addresses) == 0 {
				continue
			}
			found[e.Addresses[0]] = Interceptor{Address: e.Addresses[0], Node: e.NodeName, Zone: e.Zone, PodRef: e.TargetRef}
		}
	}
	out := make([]Interceptor, 0, len(found))
	for _, address := range slices.Sorted(maps.Keys(found)) {
		out = append(out, found[address])
	}
	return out
}

// OfFamilies returns the interceptors that clients of a Service with these IP families can reach.
func OfFamilies(interceptors []Interceptor, families []corev1.IPFamily) []Interceptor {
	return slices.DeleteFunc(slices.Clone(interceptors), func(i Interceptor) bool { return !slices.Contains(families, i.family()) })
}

// MissingFamily returns the first of the IP families that no interceptor has; empty if there is none.
func MissingFamily(interceptors []Interceptor, families []corev1.IPFamily) corev1.IPFamily {
	for _, f := range families {
		if !slices.ContainsFunc(interceptors, func(i Interceptor) bool { return i.family() == f }) {
			return f
		}
	}
	return ""
}

func (i Interceptor) family() corev1.IPFamily {
	if net.ParseIP(i.Address).To4() != nil {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// ready reports whether an endpoint takes requests and is not terminating. A missing condition means ready, as the API defines. If
// addresses are published before they are ready, the API counts terminating pods as ready too.
func ready(e discoveryv1.Endpoint) bool {
	ending := e.Conditions.Terminating != nil && *e.Conditions.Terminating
	return !ending && (e.Conditions.Ready == nil || *e.Conditions.Ready)
}

// HasReadyEndpoint reports whether any of the slices lists a ready endpoint.
func HasReadyEndpoint(list []discoveryv1.EndpointSlice) bool {
	return slices.ContainsFunc(list, func(s discoveryv1.EndpointSlice) bool {
		return slices.ContainsFunc(s.Endpoints, ready)
	})
}

// Published is where a route slice sends traffic.
type Published struct {
	// Ports are published at the Interceptors. Each interceptor serves the routes on each of these ports.
	Ports        []api.Port
	Interceptors []Interceptor
}

// RouteSlices returns the route slices of a Service, one for each address type of front. front is the Service or the alias Service
// whose traffic the slices take. routes is what interceptors listen for, and published the subset that gets traffic.
func RouteSlices(front, service *corev1.Service, routes api.Routes, s Settings, published Published) []discoveryv1.EndpointSlice {
	annotation, scaling := encodeRoutes(routes), encodeScaling(s)
	var out []discoveryv1.EndpointSlice
	for _, family := range front.Spec.IPFamilies {
		addressType := discoveryv1.AddressType(family)
		l := labels(service.Name, api.RoleRoute)
		l[discoveryv1.LabelServiceName] = front.Name
		l[discoveryv1.LabelManagedBy] = ManagedBy
		out = append(out, discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace:       service.Namespace,
				Name:            RouteSliceName(front.Name, string(family)),
				Labels:          l,
				Annotations:     map[string]string{api.RoutesAnnotation: annotation, ScalingAnnotation: scaling},
				OwnerReferences: []metav1.OwnerReference{OwnerReference(service)},
			},
			AddressType: addressType,
			Ports:       slicePorts(service, published.Ports),
			Endpoints:   sliceEndpoints(service, addressType, published.Interceptors),
		})
	}
	return out
}

// slicePorts returns the published ports, with the appProtocol of the Service's ports, which some ingress controllers read.
func slicePorts(service *corev1.Service, ports []api.Port) []discoveryv1.EndpointPort {
	out := []discoveryv1.EndpointPort{}
	for _, p := range service.Spec.Ports {
		i := slices.IndexFunc(ports, func(published api.Port) bool { return published.Name == p.Name })
		if i < 0 {
			continue
		}
		out = append(out, discoveryv1.EndpointPort{
			Name: new(p.Name), Port: new(ports[i].Listen), Protocol: new(corev1.ProtocolTCP), AppProtocol: p.AppProtocol,
		})
	}
	return out
}

func sliceEndpoints(service *corev1.Service, addressType discoveryv1.AddressType, interceptors []Interceptor) []discoveryv1.Endpoint {
	out := []discoveryv1.Endpoint{}
	for _, i := range interceptors {
		if discoveryv1.AddressType(i.family()) != addressType {
			continue
		}
		out = append(out, discoveryv1.Endpoint{
			Addresses:  []string{i.Address},
			Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
			NodeName:   i.Node,
			Zone:       i.Zone,
			TargetRef:  i.PodRef,
		})
	}
	hint(out, service)
	return out
}

// Publish decides what to publish. listening reports whether an interceptor answers on a port, and before has the slice's present
// ports. An interceptor that answers on all ports of routes is published with all of them. If none does, because a port has just been
// added, the ports of before stay published at the interceptors that answer on those.
func Publish(routes api.Routes, interceptors []Interceptor, before []api.Port, listening func(Interceptor, api.Port) bool) Published {
	answering := func(ports []api.Port) []Interceptor {
		return slices.DeleteFunc(slices.Clone(interceptors), func(i Interceptor) bool {
			return slices.ContainsFunc(ports, func(p api.Port) bool { return !listening(i, p) })
		})
	}
	if all := answering(routes.Ports); len(all) > 0 {
		return Published{Ports: routes.Ports, Interceptors: all}
	}
	kept := slices.DeleteFunc(slices.Clone(routes.Ports), func(p api.Port) bool {
		return !slices.ContainsFunc(before, func(b api.Port) bool { return b.Listen == p.Listen })
	})
	if len(kept) == 0 {
		return Published{}
	}
	return Published{Ports: kept, Interceptors: answering(kept)}
}

// FailOpen makes route slices of a Service list the ready pods of the direct Service's slices instead of interceptors. A slice has one
// set of ports: if pods have different numbers for a named port, only those with the first pod's numbers are listed. FailOpen returns
// false if there is no ready pod to list.
func FailOpen(routeSlices []discoveryv1.EndpointSlice, service *corev1.Service, direct []discoveryv1.EndpointSlice) bool {
	listed := false
	for i := range routeSlices {
		s := &routeSlices[i]
		s.Ports, s.Endpoints = []discoveryv1.EndpointPort{}, []discoveryv1.Endpoint{}
		s.Annotations[FailOpenAnnotation] = "true"
		for _, d := range direct {
			endpoints := slices.DeleteFunc(slices.Clone(d.Endpoints), func(e discoveryv1.Endpoint) bool { return !ready(e) })
			hint(endpoints, service)
			if d.AddressType != s.AddressType || len(endpoints) == 0 {
				continue
			}
			if len(s.Endpoints) == 0 {
				s.Ports = d.Ports
			} else if !equality.Semantic.DeepEqual(s.Ports, d.Ports) {
				continue
			}
			s.Endpoints = append(s.Endpoints, endpoints...)
			listed = true
		}
	}
	return listed
}
