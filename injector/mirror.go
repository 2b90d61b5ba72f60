// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	// mirrorShards is over how many policies the rules of all namespaces are spread. A namespace's rules are always in the same one, so
	// that they change all at once.
	mirrorShards = 16
	// maxMirror bounds the size of one of these policies, encoded as JSON. etcd refuses objects of 1.5 MB.
	maxMirror = 900_000
	maxPort   = 65535
)

// Mirror is the NetworkPolicies on the interceptors' pods. They say of each route's interceptor port what the policies of the app's
// namespace say of the pods' port behind it.
//
// As soon as one policy selects a pod, everything that no policy allows is denied. So the base policy allows what no app's policy is
// about: all ports except those of bound routes. The shards allow the callers of bound routes. Without a bound route there is no policy
// at all, unless Own is set.
type Mirror struct {
	// Namespace is where scale-to-zero runs, and Name is the base policy's.
	Namespace, Name string
	// Interceptors and Controllers are the labels of their pods. The controllers may connect to every port.
	Interceptors, Controllers map[string]string
	// Low and High bound the interceptor ports.
	Low, High int32
	// Own are the rules for the interceptors' other ports. Without any, these ports stay open.
	Own []networkingv1.NetworkPolicyIngressRule
	// Owner is the owner of the policies, if there is one.
	Owner []metav1.OwnerReference
}

// MirroredPort is the interceptor port of a route, and who may connect to it.
type MirroredPort struct {
	Namespace string // of the app
	Listen    int32
	Callers   Callers
}

// Policies returns the policies for these routes. The base policy comes first. If the rules of a shard do not fit into an object, the
// largest ones of the namespace that takes most are left out, and their ports are refused: nobody but the controllers may connect.
func (m Mirror) Policies(ports []MirroredPort) (policies []networkingv1.NetworkPolicy, refused map[int32]bool) {
	bound := boundPorts(ports)
	refused = map[int32]bool{}
	if len(bound) == 0 && len(m.Own) == 0 {
		return nil, refused
	}
	low, high := int32(1), int32(maxPort)
	if len(m.Own) > 0 {
		low, high = m.Low, m.High
	}
	base := m.policy(m.Name)
	if open := openRanges(slices.Sorted(maps.Keys(bound)), low, high); len(open) > 0 {
		base.Spec.Ingress = append(base.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{Ports: open})
	}
	base.Spec.Ingress = append(base.Spec.Ingress, m.Own...)
	if len(m.Controllers) > 0 {
		base.Spec.Ingress = append(base.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{{
			NamespaceSelector: inNamespace(m.Namespace), PodSelector: &metav1.LabelSelector{MatchLabels: m.Controllers},
		}}})
	}
	policies = append(policies, base)
	shards := map[uint32][]MirroredPort{}
	for _, p := range bound {
		if len(p.Callers.Peers) > 0 {
			shards[shardOf(p.Namespace)] = append(shards[shardOf(p.Namespace)], p)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(shards)) {
		policy := m.policy(fmt.Sprintf("%s-%02d", m.Name, n))
		policy.Spec.Ingress = fit(shards[n], refused)
		policies = append(policies, policy)
	}
	return policies, refused
}

func shardOf(namespace string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(namespace)) // it does not fail
	return h.Sum32() % mirrorShards
}

// boundPorts returns the ports that are not open to everybody. If two routes claim a port, and not for the same callers, it is closed
// until one of them has another port.
func boundPorts(ports []MirroredPort) map[int32]MirroredPort {
	bound, seen := map[int32]MirroredPort{}, map[int32]Callers{}
	for _, p := range ports {
		before, twice := seen[p.Listen]
		if twice && before.Key() != p.Callers.Key() {
			p.Callers = nobody()
		}
		seen[p.Listen] = p.Callers
		if p.Callers.Bound {
			bound[p.Listen] = p
		}
	}
	return bound
}

// fit returns the rules of a shard, one for all ports with the same callers, in a stable order.
func fit(ports []MirroredPort, refused map[int32]bool) []networkingv1.NetworkPolicyIngressRule {
	groups := map[string][]MirroredPort{}
	for _, p := range ports {
		// Namespaces do not share rules, so that each pays for its own.
		key := p.Namespace + " " + p.Callers.key
		groups[key] = append(groups[key], p)
	}
	rules, sizes := map[string]networkingv1.NetworkPolicyIngressRule{}, map[string]int{}
	all, byNamespace := 0, map[string]int{}
	for key, group := range groups {
		rule := networkingv1.NetworkPolicyIngressRule{From: group[0].Callers.Peers, Ports: ranges(group)}
		text, _ := json.Marshal(rule) // text and numbers: it does not fail
		rules[key], sizes[key] = rule, len(text)
		all += len(text)
		byNamespace[group[0].Namespace] += len(text)
	}
	keys := slices.Sorted(maps.Keys(groups))
	for all > maxMirror {
		largest := slices.MaxFunc(keys, func(a, b string) int {
			return cmp.Or(cmp.Compare(byNamespace[groups[a][0].Namespace], byNamespace[groups[b][0].Namespace]),
				cmp.Compare(sizes[a], sizes[b]), cmp.Compare(a, b))
		})
		for _, p := range groups[largest] {
			refused[p.Listen] = true
		}
		all -= sizes[largest]
		byNamespace[groups[largest][0].Namespace] -= sizes[largest]
		keys = slices.DeleteFunc(keys, func(key string) bool { return key == largest })
	}
	out := make([]networkingv1.NetworkPolicyIngressRule, 0, len(keys))
	for _, key := range keys {
		out = append(out, rules[key])
	}
	return out
}

// ranges returns the ports of a group, sorted, as few ranges.
func ranges(group []MirroredPort) []networkingv1.NetworkPolicyPort {
	numbers := make([]int32, len(group))
	for i, p := range group {
		numbers[i] = p.Listen
	}
	slices.Sort(numbers)
	var out []networkingv1.NetworkPolicyPort
	for i := 0; i < len(numbers); {
		last := i
		for last+1 < len(numbers) && numbers[last+1] <= numbers[last]+1 {
			last++
		}
		out = append(out, portRange(numbers[i], numbers[last]))
		i = last + 1
	}
	return out
}

// openRanges returns all ports from low to high that are not among the sorted ones.
func openRanges(without []int32, low, high int32) []networkingv1.NetworkPolicyPort {
	var out []networkingv1.NetworkPolicyPort
	for _, p := range without {
		if low < p && p <= high {
			out = append(out, portRange(low, p-1))
		}
		low = max(low, p+1)
	}
	if low <= high {
		out = append(out, portRange(low, high))
	}
	return out
}

func portRange(first, last int32) networkingv1.NetworkPolicyPort {
	p := networkingv1.NetworkPolicyPort{Protocol: new(corev1.ProtocolTCP), Port: new(intstr.FromInt32(first))}
	if last > first {
		p.EndPort = new(last)
	}
	return p
}

func (m Mirror) policy(name string) networkingv1.NetworkPolicy {
	return networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: m.Namespace, Name: name, Labels: map[string]string{ManagedByLabel: ManagedBy, MirrorLabel: m.Name},
			OwnerReferences: m.Owner,
		},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: m.Interceptors},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
		},
	}
}
