// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	labelsets "k8s.io/apimachinery/pkg/labels"
)

// Destination is where pods of other policies' egress rules connect to, as these rules see it.
type Destination struct {
	Pods

	// NamespaceLabels are those of its namespace.
	NamespaceLabels map[string]string
	// Addresses are the IP addresses of its pods. An app that sleeps has none.
	Addresses []string
}

// Redirection is what changes for the clients of an app that is redirected.
type Redirection struct {
	App, Interceptors Destination
	// Outside is set if the app's own namespace does not matter, because only what comes through Ingresses is redirected.
	Outside bool
	// Ports are the pods' ports, and those of the interceptors in their place.
	Ports []RedirectedPort
}

// RedirectedPort is a port of the pods and the interceptors' port in its place.
type RedirectedPort struct{ Of, Listen int32 }

// CutOff returns the policies, as NAMESPACE/NAME, that let pods connect to the app's pods, and not to the interceptors in their place.
// The connections of these pods would fail.
//
// What a pod may connect to is the union of all policies that select it. So a policy counts only if no policies that select the same
// pods, or more, allow the interceptors. Whether there are pods that it selects, and whether they call the app, is not known.
func (r Redirection) CutOff(policies []networkingv1.NetworkPolicy) []string {
	byNamespace := map[string][]*networkingv1.NetworkPolicy{}
	for i := range policies {
		n := &policies[i]
		if slices.Contains(n.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) && n.Namespace != r.Interceptors.Namespace &&
			(!r.Outside || n.Namespace != r.App.Namespace) {
			byNamespace[n.Namespace] = append(byNamespace[n.Namespace], n)
		}
	}
	var out []string
	for namespace, all := range byNamespace {
		for _, n := range all {
			if slices.ContainsFunc(r.Ports, func(p RedirectedPort) bool { return r.cuts(n, all, p) }) {
				out = append(out, namespace+"/"+n.Name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// cuts reports whether n allows a port of the app, and none of all those that select the same pods allows the interceptors' port.
func (r Redirection) cuts(n *networkingv1.NetworkPolicy, all []*networkingv1.NetworkPolicy, p RedirectedPort) bool {
	addresses := r.App.Addresses
	if len(addresses) == 0 {
		addresses = []string{""} // no address block is about it
	}
	if !slices.ContainsFunc(addresses, func(a string) bool { return r.App.allowed(n, a, p.Of) }) {
		return false
	}
	for _, a := range r.Interceptors.Addresses {
		if !slices.ContainsFunc(all, func(other *networkingv1.NetworkPolicy) bool {
			return selectsAll(&other.Spec.PodSelector, &n.Spec.PodSelector) && r.Interceptors.allowed(other, a, p.Listen)
		}) {
			return true
		}
	}
	return false
}

// allowed reports whether a policy lets the pods that it selects connect to a pod of the destination.
func (d Destination) allowed(n *networkingv1.NetworkPolicy, address string, port int32) bool {
	return slices.ContainsFunc(n.Spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
		return d.covers(rule.Ports, port) && (len(rule.To) == 0 ||
			slices.ContainsFunc(rule.To, func(peer networkingv1.NetworkPolicyPeer) bool { return d.is(peer, n.Namespace, address) }))
	})
}

// is reports whether a rule of a policy in a namespace is about a pod of the destination.
func (d Destination) is(peer networkingv1.NetworkPolicyPeer, namespace, address string) bool {
	if peer.IPBlock != nil {
		return within(peer.IPBlock, address)
	}
	if d.Template != nil && d.Template.Spec.HostNetwork { // policies do not see such pods
		return false
	}
	if peer.NamespaceSelector == nil && namespace != d.Namespace {
		return false
	}
	return matches(peer.NamespaceSelector, d.NamespaceLabels) && matches(peer.PodSelector, d.Labels)
}

// matches reports whether labels match a selector. None matches everything.
func matches(s *metav1.LabelSelector, on map[string]string) bool {
	if s == nil {
		return true
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(labelsets.Set(on))
}

// within reports whether an address is in a block.
func within(block *networkingv1.IPBlock, address string) bool {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	in := func(cidr string) bool {
		prefix, err := netip.ParsePrefix(cidr)
		return err == nil && prefix.Contains(ip)
	}
	return in(block.CIDR) && !slices.ContainsFunc(block.Except, in)
}

// selectsAll reports whether a selects every pod that b selects, as far as that can be told without the pods.
func selectsAll(a, b *metav1.LabelSelector) bool {
	for key, value := range a.MatchLabels {
		if have, ok := b.MatchLabels[key]; !ok || have != value {
			return false
		}
	}
	return !slices.ContainsFunc(a.MatchExpressions, func(one metav1.LabelSelectorRequirement) bool {
		return !slices.ContainsFunc(b.MatchExpressions, func(other metav1.LabelSelectorRequirement) bool {
			return equality.Semantic.DeepEqual(one, other)
		})
	})
}

// named policies in an event.
const maxNamed = 3

// CutOffText says which clients cannot reach the interceptors, and what to do. allow are the interceptors' pods. It is empty if there
// are no such policies.
func CutOffText(policies []string, allow string) Skip {
	if len(policies) == 0 {
		return ""
	}
	who := strings.Join(policies[:min(len(policies), maxNamed)], ", ")
	if more := len(policies) - maxNamed; more > 0 {
		who = fmt.Sprintf("%s and %d more", who, more)
	}
	subject, verb, there := "NetworkPolicy", "lets", "there"
	if len(policies) > 1 {
		subject, verb, there = "NetworkPolicies", "let", "in each"
	}
	return Skip(fmt.Sprintf("%s %s %s pods connect to this app's pods, and not to the interceptors of scale-to-zero, so these pods cannot "+
		"call it through them. Allow egress to %s %s", subject, who, verb, allow, there))
}
