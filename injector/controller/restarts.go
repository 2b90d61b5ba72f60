// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"maps"
	"net"
	"sync"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// restarts remembers at which addresses an interceptor has become ready again, and which Services have asked it since.
//
// An interceptor whose container restarts keeps its pod's address, and is unready for a second or more. A controller with a backlog
// plans a Service only after that, and sees an interceptor that it has published. But the new process may not have the Service's port:
// another route slice that claims it may come first now, or something else in the pod may have bound it. So it is asked again. What was
// published before this controller leads is believed.
type restarts struct {
	namespace, service string // of the interceptors

	mu sync.Mutex // protects all below
	// away are the addresses at which there is none now, and times is how often one has come back, by address.
	away  map[string]bool
	times map[string]int
	// proven is, by Service and address, how often the interceptor had come back when it last said what it serves.
	proven map[types.NamespacedName]map[string]int
}

func newRestarts(o Options) *restarts {
	return &restarts{
		namespace: o.Namespace, service: o.InterceptorService, away: map[string]bool{}, times: map[string]int{},
		proven: map[types.NamespacedName]map[string]int{},
	}
}

// seeing passes each event on, after it has looked at it: a reconcile may come only after several of them.
func (r *restarts) seeing() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return r.see(nil, e.Object) },
		UpdateFunc: func(e event.UpdateEvent) bool { return r.see(e.ObjectOld, e.ObjectNew) },
		DeleteFunc: func(e event.DeleteEvent) bool { return r.see(e.Object, nil) },
	}
}

// see notes what a change of the interceptors' slices says. It returns true.
func (r *restarts) see(before, after client.Object) bool {
	was, is := r.ready(before), r.ready(after)
	r.mu.Lock()
	defer r.mu.Unlock()
	for address := range was {
		if !is[address] {
			r.away[address] = true
		}
	}
	for address := range is {
		if r.away[address] {
			delete(r.away, address)
			r.times[address]++
		}
	}
	return true
}

// ready returns the addresses of the ready interceptors in a slice of theirs.
func (r *restarts) ready(o client.Object) map[string]bool {
	s, ok := o.(*discoveryv1.EndpointSlice)
	if !ok || s == nil || s.Namespace != r.namespace || s.Labels[api.RoleLabel] != api.RoleInterceptor ||
		s.Labels[discoveryv1.LabelServiceName] != r.service {
		return nil
	}
	out := map[string]bool{}
	for _, e := range s.Endpoints {
		if len(e.Addresses) > 0 && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
			out[e.Addresses[0]] = true
		}
	}
	return out
}

// doubted returns the addresses at which the interceptor has come back since it last said what it serves of the Service.
func (r *restarts) doubted(service types.NamespacedName) map[string]bool {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]bool{}
	for address, n := range r.times {
		if r.proven[service][address] != n {
			out[address] = true
		}
	}
	return out
}

// counted returns how often each interceptor has come back. Who asks looks before he asks.
func (r *restarts) counted() map[string]int {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.times)
}

// answered notes that interceptors have said, since they had come back so often, what they serve of a Service at these addresses with
// a port.
func (r *restarts) answered(service types.NamespacedName, at map[string]bool, counted map[string]int) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	serves := map[string]bool{}
	for address, one := range at {
		host, _, _ := net.SplitHostPort(address) // the planner has joined it
		all, seen := serves[host]
		serves[host] = one && (all || !seen)
	}
	for host, all := range serves {
		if counted[host] == 0 || !all {
			continue // one that does not serve everything is asked until it does
		}
		if r.proven[service] == nil {
			r.proven[service] = map[string]int{}
		}
		r.proven[service][host] = counted[host]
	}
}

// forget is for a Service that is gone.
func (r *restarts) forget(service types.NamespacedName) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.proven, service)
}
