// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"hash/fnv"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// name is a namespace and a name.
type name struct{ namespace, name string }

// slice is the small part of an EndpointSlice that we keep.
type slice struct {
	role       string
	service    name // the Service that it belongs to: the opted-in one, the direct one or the interceptors' own
	created    time.Time
	uid        string
	generation int64

	meta      api.SliceMeta         // role route
	foreign   string                // why it does not count, although it has the role; empty if it does
	routes    string                // the annotation; role route
	progress  string                // the annotation; role route
	learned   string                // the annotation; role route
	published bool                  // our own address is a ready endpoint; role route
	endpoints map[string][]endpoint // ready pods by port name; role direct
	unready   map[string][]endpoint // pods that are neither ready nor terminating; role direct
	pods      int                   // ready or not, but not terminating; role direct
	ips       []string              // of these pods; role direct
	peers     []peer.Peer           // role interceptor
}

// endpoint is a pod's port.
type endpoint struct {
	addr string // ip:port
	ip   string
	pod  string // its name
}

// digest returns what is kept of es. self identifies the interceptor's own endpoint.
func digest(es *discoveryv1.EndpointSlice, self Options) slice {
	s := slice{
		role:    es.Labels[api.RoleLabel],
		service: name{es.Namespace, es.Labels[discoveryv1.LabelServiceName]},
		created: es.CreationTimestamp.Time, uid: string(es.UID), generation: es.Generation,
	}
	switch s.role {
	case api.RoleRoute:
		if s.meta = metaOf(es); s.meta.Check() != nil {
			s.foreign = s.meta.Check().Error()
			return s
		}
		s.routes, s.progress = es.Annotations[api.RoutesAnnotation], es.Annotations[api.ProgressAnnotation]
		s.learned = es.Annotations[api.LearnedAnnotation]
		for _, e := range es.Endpoints {
			s.published = s.published || usable(e) && slices.Contains(e.Addresses, self.PodIP)
		}
	case api.RoleDirect:
		if by := es.Labels[discoveryv1.LabelManagedBy]; by != api.EndpointSliceController {
			s.foreign = "it is managed by " + strconv.Quote(by) + ", and not by " + api.EndpointSliceController
			return s
		}
		s.endpoints, s.unready, s.pods = pods(es)
		s.ips = ips(es)
	case api.RoleInterceptor:
		s.peers = peers(es, self)
	}
	return s
}

// metaOf returns what a route slice says about itself.
func metaOf(es *discoveryv1.EndpointSlice) api.SliceMeta {
	m := api.SliceMeta{
		Name: es.Name, AddressType: string(es.AddressType),
		Front: es.Labels[discoveryv1.LabelServiceName], Service: es.Labels[api.ServiceLabel],
		ManagedBy: es.Labels[discoveryv1.LabelManagedBy], MadeBy: es.Labels["app.kubernetes.io/managed-by"],
	}
	for _, o := range es.OwnerReferences {
		m.Owners = append(m.Owners, api.Owner{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, UID: string(o.UID)})
	}
	return m
}

// isPod reports whether an endpoint of a direct slice is a pod of the namespace. Whoever may write EndpointSlices can list any address,
// and an interceptor reaches what its author may not.
func isPod(e discoveryv1.Endpoint, namespace string) bool {
	ref := e.TargetRef
	return ref != nil && ref.Kind == "Pod" && ref.Name != "" && (ref.Namespace == "" || ref.Namespace == namespace) &&
		!slices.ContainsFunc(e.Addresses, func(address string) bool { return !api.IsPodAddress(address) })
}

// usable reports whether an endpoint takes new requests. A missing condition counts as ready.
func usable(e discoveryv1.Endpoint) bool {
	return (e.Conditions.Ready == nil || *e.Conditions.Ready) && !ending(e)
}

func ending(e discoveryv1.Endpoint) bool {
	return e.Conditions.Terminating != nil && *e.Conditions.Terminating
}

func pods(es *discoveryv1.EndpointSlice) (ready, unready map[string][]endpoint, all int) {
	ready, unready = map[string][]endpoint{}, map[string][]endpoint{}
	for _, e := range es.Endpoints {
		if len(e.Addresses) == 0 || ending(e) || !isPod(e, es.Namespace) {
			continue
		}
		all++
		into := ready
		if !usable(e) {
			into = unready
		}
		for _, p := range es.Ports {
			if p.Port == nil {
				continue
			}
			portName := ""
			if p.Name != nil {
				portName = *p.Name
			}
			// According to the API, the Addresses are interchangeable, and clients use the first.
			ip := e.Addresses[0]
			pod := endpoint{addr: net.JoinHostPort(ip, strconv.Itoa(int(*p.Port))), ip: ip, pod: e.TargetRef.Name}
			into[portName] = append(into[portName], pod)
		}
	}
	return ready, unready, all
}

// ips returns the addresses of the pods that are not terminating.
func ips(es *discoveryv1.EndpointSlice) []string {
	var all []string
	for _, e := range es.Endpoints {
		if !ending(e) && isPod(e, es.Namespace) {
			all = append(all, e.Addresses...)
		}
	}
	return all
}

// peers returns the other interceptors in any condition: a draining interceptor still counts.
func peers(es *discoveryv1.EndpointSlice, self Options) []peer.Peer {
	var all []peer.Peer
	for _, e := range es.Endpoints {
		if len(e.Addresses) == 0 {
			continue
		}
		p := peer.Peer{Name: e.Addresses[0], Addr: e.Addresses[0], Unready: !usable(e)}
		if e.TargetRef != nil {
			p.Name = e.TargetRef.Name
		}
		if p.Addr != self.PodIP && p.Name != self.PodName {
			all = append(all, p)
		}
	}
	return all
}

// combine builds the data path's view of one opted-in Service from its route slices, one for each IP family, and the slices of its
// direct Service.
func combine(routes api.Routes, own, direct []slice) route.Service {
	s := route.Service{
		Namespace: own[0].service.namespace, Name: own[0].service.name, Routes: routes, Created: own[0].created,
	}
	for _, r := range own {
		if r.created.Before(s.Created) {
			s.Created = r.created
		}
		s.Published = s.Published || r.published
	}
	slices.SortFunc(direct, func(a, b slice) int { return cmp.Compare(a.uid, b.uid) })
	ready, unready := map[string][]endpoint{}, map[string][]endpoint{}
	sleep := fnv.New64a()
	for _, d := range direct {
		// Add up the pods of all slices. A pod counts once for each IP family; only zero or not matters.
		s.Pods += d.pods
		s.IPs = append(s.IPs, d.ips...)
		for portName, endpoints := range d.endpoints {
			ready[portName] = append(ready[portName], endpoints...)
		}
		for portName, endpoints := range d.unready {
			unready[portName] = append(unready[portName], endpoints...)
		}
		_, _ = sleep.Write([]byte(d.uid + "/" + strconv.FormatInt(d.generation, 10) + "\n")) // never fails
	}
	s.Endpoints, s.Unready = byPort(ready), byPort(unready)
	s.SleepID = strconv.FormatUint(sleep.Sum64(), 36)
	return s
}

func byPort(endpoints map[string][]endpoint) map[string][]string {
	out := map[string][]string{}
	for portName, of := range endpoints {
		out[portName] = addresses(of)
	}
	return out
}

// addresses returns the pods' addresses, one for each pod. If a pod has addresses of both IP families, the IPv4 address counts,
// because many apps listen only there.
func addresses(endpoints []endpoint) []string {
	v6 := func(e endpoint) bool { return strings.HasPrefix(e.addr, "[") }
	slices.SortFunc(endpoints, func(a, b endpoint) int {
		if v6(a) != v6(b) {
			return map[bool]int{true: 1, false: -1}[v6(a)]
		}
		return cmp.Compare(a.addr, b.addr)
	})
	v4 := map[string]bool{}
	out := make([]string, 0, len(endpoints))
	for _, e := range endpoints {
		switch {
		case !v6(e):
			v4[e.pod] = true
		case v4[e.pod]:
			continue
		}
		out = append(out, e.addr)
	}
	return out
}
