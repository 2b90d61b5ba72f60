// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// PortRest is how long a freed port rests before another route gets it: longer than any kube-proxy or ingress controller is expected
// to lag behind. Its former route can get it back at any time.
const PortRest = 10 * time.Minute

// PortOwner is one port of one Service. Each has an interceptor port of its own.
type PortOwner struct {
	Namespace, Service, Port string
}

// Ports assigns an interceptor port to each route. It only caches the route slices, which are authoritative. The zero value is not
// usable. Ports is not safe for concurrent use.
type Ports struct {
	low, high int32
	owner     map[int32]PortOwner
	port      map[PortOwner]int32
	freed     map[int32]freed
	had       map[PortOwner]int32 // the freed port of each former owner; the inverse of freed
	count     map[string]int      // how many ports each namespace has
	choose    func(n int32) int32 // returns a random number from 0 to n-1
}

// freed is who owned a port, and when the port was freed.
type freed struct {
	owner PortOwner
	at    time.Time
}

// NewPorts returns a Ports that assigns the ports from low to high, both included.
func NewPorts(low, high int32) *Ports {
	return &Ports{
		low: low, high: high,
		owner: map[int32]PortOwner{}, port: map[PortOwner]int32{}, freed: map[int32]freed{}, had: map[PortOwner]int32{},
		count: map[string]int{}, choose: rand.Int32N,
	}
}

// Learn records that r has port p, according to a route slice. It returns false if another route has p or if p is out of range: r
// then needs a new port.
func (ps *Ports) Learn(r PortOwner, p int32) bool {
	if other, taken := ps.owner[p]; taken && other != r || p < ps.low || p > ps.high {
		return false
	}
	if had, ok := ps.port[r]; ok && had != p {
		return false
	}
	if _, known := ps.port[r]; !known {
		ps.count[r.Namespace]++
	}
	ps.owner[p], ps.port[r] = r, p
	delete(ps.had, ps.freed[p].owner)
	delete(ps.freed, p)
	return true
}

// Owns reports whether r has port p.
func (ps *Ports) Owns(r PortOwner, p int32) bool { return ps.owner[p] == r }

// Get returns the port of r. At first use it assigns one that is free and does not rest.
func (ps *Ports) Get(r PortOwner, now time.Time) (int32, error) {
	if p, ok := ps.port[r]; ok {
		return p, nil
	}
	if p, ok := ps.had[r]; ok && ps.Learn(r, p) {
		// Requests that are still held on that port go on, for example if a new Service with the same name replaces the old one.
		return p, nil
	}
	size := ps.high - ps.low + 1
	// A port that follows from a name could be claimed before its route exists. A random one also makes it unlikely that a new leader,
	// which does not know which ports rest, assigns a port that was freed a moment ago.
	start := ps.choose(size)
	for i := range size {
		p := ps.low + (start+i)%size
		if _, taken := ps.owner[p]; taken {
			continue
		}
		if f, rests := ps.freed[p]; rests && now.Sub(f.at) < PortRest {
			continue
		}
		ps.Learn(r, p)
		return p, nil
	}
	return 0, fmt.Errorf("giving route %s/%s port %q an interceptor port: all %d from %d to %d are in use or rest for %s after use; "+
		"widen the range",
		r.Namespace, r.Service, r.Port, size, ps.low, ps.high, PortRest)
}

// Room says why a Service must not have these ports, if its namespace then has more than limit; a limit of 0 is none. Ports that the
// Service has already are not taken from it, even if the limit is lower now.
func (ps *Ports) Room(namespace, service string, limit int, ports ...string) Skip {
	more := 0
	for _, port := range ports {
		if _, has := ps.port[PortOwner{namespace, service, port}]; !has {
			more++
		}
	}
	has := ps.count[namespace]
	for r := range ps.port {
		if r.Namespace == namespace && r.Service == service && !slices.Contains(ports, r.Port) {
			has-- // it is about to be freed
		}
	}
	if limit > 0 && more > 0 && has+more > limit {
		return Skip(fmt.Sprintf("with it, namespace %s would have %d routes, one for each port of an injected Service, and %d is the limit; opt "+
			"another Service out, or have scale-to-zero's chart value controller.maxRoutesPerNamespace raised", namespace, has+more, limit))
	}
	return ""
}

// Keep frees all ports of the Service whose names are not in ports.
func (ps *Ports) Keep(namespace, service string, now time.Time, ports ...string) {
	keep := map[string]bool{}
	for _, p := range ports {
		keep[p] = true
	}
	for r, p := range ps.port {
		if r.Namespace == namespace && r.Service == service && !keep[r.Port] {
			delete(ps.port, r)
			delete(ps.owner, p)
			if ps.count[r.Namespace]--; ps.count[r.Namespace] == 0 {
				delete(ps.count, r.Namespace)
			}
			ps.freed[p], ps.had[r] = freed{r, now}, p
		}
	}
}
