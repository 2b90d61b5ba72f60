// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"maps"
	"slices"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// DefaultMaxRoutesPerNamespace is the default of Options.MaxRoutesPerNamespace.
const DefaultMaxRoutesPerNamespace = 5000

// omitted are the slices that do not count although they are labelled like ours. Each is logged once for each reason.
type omitted struct {
	log logr.Logger
	why map[name]string
}

func (o *omitted) note(n name, why string) {
	if o.why[n] == why {
		return
	}
	o.why[n] = why
	o.log.Info("Leaving out an EndpointSlice that is labelled as scale-to-zero's", "namespace", n.namespace, "name", n.name, "why", why)
}

// gone is for a slice that counts, or does not exist any more.
func (o *omitted) gone(n name) { delete(o.why, n) }

// quota bounds how many routes the Services of one namespace have. Each route costs memory and a port, in all interceptors.
type quota struct {
	limit int // 0 for none
	// taken is how many routes each Service has, and sum how many each namespace has.
	taken map[name]int
	sum   map[string]int
	// over are the Services whose routes exceed the limit.
	over map[name]struct{}
}

func newQuota(limit int) quota {
	return quota{limit: limit, taken: map[name]int{}, sum: map[string]int{}, over: map[name]struct{}{}}
}

// take gives a Service that many routes, and reports whether its namespace may have them. If not, the Service keeps what it has.
func (q *quota) take(service name, routes int) bool {
	sum := q.sum[service.namespace] - q.taken[service] + routes
	if q.limit > 0 && sum > q.limit && routes > q.taken[service] {
		q.over[service] = struct{}{}
		return false
	}
	delete(q.over, service)
	q.taken[service], q.sum[service.namespace] = routes, sum
	return true
}

// free takes the routes of a Service back, and returns the Services of its namespace that may have theirs now.
func (q *quota) free(service name) []name {
	q.sum[service.namespace] -= q.taken[service]
	if q.sum[service.namespace] == 0 {
		delete(q.sum, service.namespace)
	}
	delete(q.taken, service)
	delete(q.over, service)
	return q.waiting(service.namespace)
}

// waiting returns the Services of a namespace whose routes exceed the limit.
func (q *quota) waiting(namespace string) []name {
	var others []name
	for other := range q.over {
		if other.namespace == namespace {
			others = append(others, other)
		}
	}
	slices.SortFunc(others, func(a, b name) int { return cmp.Compare(a.name, b.name) })
	return others
}

// apps returns direct slices without the addresses of interceptors.
func (s *store) apps(direct []slice) []slice {
	for i := range direct {
		d := &direct[i]
		kept := slices.DeleteFunc(slices.Clone(d.ips), func(ip string) bool { return s.interceptors[ip] })
		if len(kept) == len(d.ips) {
			continue
		}
		d.pods -= min(d.pods, len(d.ips)-len(kept))
		d.ips, d.endpoints, d.unready = kept, s.without(d.endpoints), s.without(d.unready)
	}
	return direct
}

func (s *store) without(endpoints map[string][]endpoint) map[string][]endpoint {
	out := map[string][]endpoint{}
	for portName, of := range endpoints {
		out[portName] = slices.DeleteFunc(slices.Clone(of), func(e endpoint) bool { return s.interceptors[e.ip] })
	}
	return out
}

// setInterceptors changes the addresses of the interceptors, and passes on what that means for Services that list one as a pod.
func (s *store) setInterceptors(now map[string]bool) {
	before := s.interceptors
	if maps.Equal(before, now) {
		return
	}
	s.interceptors = now
	changed := map[name]struct{}{}
	for _, sl := range s.slices {
		if sl.role == api.RoleDirect && slices.ContainsFunc(sl.ips, func(ip string) bool { return before[ip] != now[ip] }) {
			changed[sl.service] = struct{}{}
		}
	}
	for direct := range changed {
		s.tell(roleName{api.RoleDirect, direct})
	}
}
