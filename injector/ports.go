// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"hash/fnv"
	"time"
)

// PortRest is how long a freed port rests before it is given to another route: longer than any kube-proxy or ingress
// controller is expected to lag behind. The route that had it gets it back at any time.
const PortRest = 10 * time.Minute

// PortOwner names one port of one Service: what an interceptor port is given to.
type PortOwner struct {
	Namespace, Service, Port string
}

// Ports gives each route an interceptor port of its own. It is a memory of the route slices, which are the truth; the
// zero value is not usable. It is not safe for concurrent use.
type Ports struct {
	low, high int32
	owner     map[int32]PortOwner
	port      map[PortOwner]int32
	freed     map[int32]freed
	had       map[PortOwner]int32 // of those whose port was freed; it has the ports of freed
}

// freed is whose a port was, and until when.
type freed struct {
	owner PortOwner
	at    time.Time
}

// NewPorts returns a Ports that gives out low to high, both included.
func NewPorts(low, high int32) *Ports {
	return &Ports{
		low: low, high: high,
		owner: map[int32]PortOwner{}, port: map[PortOwner]int32{}, freed: map[int32]freed{}, had: map[PortOwner]int32{},
	}
}

// Learn records that r has port p, as a route slice says. False means that another route has it, or that it is outside
// of the range: then r needs a new one.
func (ps *Ports) Learn(r PortOwner, p int32) bool {
	if other, taken := ps.owner[p]; taken && other != r || p < ps.low || p > ps.high {
		return false
	}
	if had, ok := ps.port[r]; ok && had != p {
		return false
	}
	ps.owner[p], ps.port[r] = r, p
	delete(ps.had, ps.freed[p].owner)
	delete(ps.freed, p)
	return true
}

// Get returns the port of r, at first use a new one that nobody has and that does not rest.
func (ps *Ports) Get(r PortOwner, now time.Time) (int32, error) {
	if p, ok := ps.port[r]; ok {
		return p, nil
	}
	if p, ok := ps.had[r]; ok && ps.Learn(r, p) {
		// Requests that are still held there go on, as those for a Service that is replaced by another one of its name.
		return p, nil
	}
	size := ps.high - ps.low + 1
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%s/%s", r.Namespace, r.Service, r.Port)
	// Each route starts its search at a place of its own. So a new leader, which does not know which ports rest, is unlikely to
	// give out a port that was freed a moment ago.
	start := int32(int64(h.Sum32()) % int64(size)) //nolint:gosec // less than size
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

// Keep frees every port of the Service whose name is not in ports; with none, all of them.
func (ps *Ports) Keep(namespace, service string, now time.Time, ports ...string) {
	keep := map[string]bool{}
	for _, p := range ports {
		keep[p] = true
	}
	for r, p := range ps.port {
		if r.Namespace == namespace && r.Service == service && !keep[r.Port] {
			delete(ps.port, r)
			delete(ps.owner, p)
			ps.freed[p], ps.had[r] = freed{r, now}, p
		}
	}
}
