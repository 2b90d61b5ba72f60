// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// PortReach is what one interceptor found out about one port of a Service.
type PortReach struct {
	Name  string
	Ready int // ready pods that the interceptor knows
	// Reached is set if one of them accepted a connection, and Refused if all that it tried refused.
	Reached, Refused bool
	// Port is the pods' port number, and Error why a connection failed; both are empty if none failed.
	Port, Error string
}

// Proof is what all interceptors together found out about whether they can reach a Service's pods.
type Proof struct {
	// Lacks says what prevents redirecting the Service's traffic through the interceptors.
	Lacks Skip
	// Blocked is set if the way is blocked. It is not set if an interceptor only does not know the pods yet, or if an app that counts as
	// ready too early does not listen yet.
	Blocked bool
	// Nothing is set if there was no ready pod to prove it with.
	Nothing bool
}

// Proven reports whether the interceptors reach the pods, as far as can be known.
func (p Proof) Proven() bool { return p.Lacks == "" }

// ReadyPorts returns the names of the ports on which the slices of a direct Service list a ready pod.
func ReadyPorts(direct []discoveryv1.EndpointSlice) []string {
	names := map[string]bool{}
	for _, s := range direct {
		if !slices.ContainsFunc(s.Endpoints, ready) {
			continue
		}
		for _, p := range s.Ports {
			if p.Port != nil && p.Name != nil {
				names[*p.Name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Prove judges what each interceptor found out. listed are the ports on which Kubernetes lists a ready pod. allow says which pods a
// NetworkPolicy has to allow.
//
// An interceptor has to connect to a pod on every port. If one port refuses and another one does not, the way is open, and the port
// probably refuses everybody. If all ports refuse, that proves nothing: a packet filter that rejects looks the same as an app that
// does not listen.
func Prove(found [][]PortReach, listed []string, allow string) Proof {
	var failed, refused []PortReach
	for _, one := range found {
		reached := false
		var refuses []PortReach
		for _, name := range listed {
			i := slices.IndexFunc(one, func(p PortReach) bool { return p.Name == name })
			switch {
			case i < 0 || one[i].Ready == 0:
				return Proof{Lacks: "an interceptor of scale-to-zero has not seen its pods yet"}
			case one[i].Reached:
				reached = true
			case one[i].Refused:
				refuses = append(refuses, one[i])
			default:
				failed = append(failed, one[i])
			}
		}
		if !reached {
			refused = append(refused, refuses...)
		}
	}
	switch {
	case len(listed) == 0:
		return Proof{Nothing: true}
	case len(failed) > 0:
		return Proof{Blocked: true, Lacks: cannotConnect(failed, "If a NetworkPolicy restricts them, allow ingress from "+allow+
			"; if a service mesh requires mTLS, exempt these ports or have the interceptors join the mesh")}
	case len(refused) > 0:
		return Proof{Lacks: cannotConnect(refused, "Does the app listen on all addresses? If a NetworkPolicy rejects them, allow ingress "+
			"from "+allow)}
	default:
		return Proof{}
	}
}

// cannotConnect describes the same failure in the same words, whichever pods and interceptors were tried.
func cannotConnect(ports []PortReach, advice string) Skip {
	numbers, reasons := map[string]bool{}, map[string]bool{}
	for _, p := range ports {
		numbers[p.Port], reasons[p.Error] = true, true
	}
	word := "port "
	if len(numbers) > 1 {
		word = "ports "
	}
	return Skip(fmt.Sprintf("the interceptors cannot connect to its pods on %s%s (%s). %s. It is injected once they can",
		word, strings.Join(slices.Sorted(maps.Keys(numbers)), ", "), strings.Join(slices.Sorted(maps.Keys(reasons)), ", "), advice))
}
