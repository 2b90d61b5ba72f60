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
	pod  string // its name; empty if the slice does not say
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
		s.routes, s.progress = es.Annotations[api.RoutesAnnotation], es.Annotations[api.ProgressAnnotation]
		s.learned = es.Annotations[api.LearnedAnnotation]
		for _, e := range es.Endpoints {
			s.published = s.published || usable(e) && slices.Contains(e.Addresses, self.PodIP)
		}
	case api.RoleDirect:
		s.endpoints, s.unready, s.pods = pods(es)
		s.ips = ips(es)
	case api.RoleInterceptor:
		s.peers = peers(es, self)
	}
	return s
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
		if len(e.Addresses) == 0 || ending(e) {
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
			pod := endpoint{addr: net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port)))}
			if e.TargetRef != nil {
				pod.pod = e.TargetRef.Name
			}
			into[portName] = append(into[portName], pod)
		}
	}
	return ready, unready, all
}

// ips returns the addresses of the pods that are not terminating.
func ips(es *discoveryv1.EndpointSlice) []string {
	var all []string
	for _, e := range es.Endpoints {
		if !ending(e) {
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
		case e.pod != "" && v4[e.pod]:
			continue
		}
		out = append(out, e.addr)
	}
	return out
}
