// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	labelsets "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// peer is one end of a connection: a pod, or an address outside the cluster if it has no namespace.
type peer struct {
	namespace string
	labels    map[string]string
	address   string
}

// admits evaluates policies as the API describes them, one connection at a time. It shares nothing with Callers and Mirror.
func admits(policies []networkingv1.NetworkPolicy, to peer, ports map[string]int32, port int32, from peer) bool {
	isolated := false
	for _, p := range policies {
		if p.Namespace != to.namespace || !picksPod(&p.Spec.PodSelector, to.labels) ||
			!slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) {
			continue
		}
		isolated = true
		for _, rule := range p.Spec.Ingress {
			if admitsPort(rule.Ports, ports, port) && admitsPeer(rule.From, p.Namespace, from) {
				return true
			}
		}
	}
	return !isolated
}

func admitsPort(rules []networkingv1.NetworkPolicyPort, named map[string]int32, port int32) bool {
	if len(rules) == 0 {
		return true
	}
	for _, r := range rules {
		if r.Protocol != nil && *r.Protocol != corev1.ProtocolTCP {
			continue
		}
		if r.Port == nil || r.Port.Type == intstr.String && named[r.Port.StrVal] == port {
			return true
		}
		if r.Port.Type == intstr.Int {
			last := r.Port.IntVal
			if r.EndPort != nil {
				last = *r.EndPort
			}
			if r.Port.IntVal <= port && port <= last {
				return true
			}
		}
	}
	return false
}

func admitsPeer(rules []networkingv1.NetworkPolicyPeer, namespace string, from peer) bool {
	if len(rules) == 0 {
		return true
	}
	for _, r := range rules {
		switch {
		case r.IPBlock != nil:
			in := func(cidr string) bool { return netip.MustParsePrefix(cidr).Contains(netip.MustParseAddr(from.address)) }
			if in(r.IPBlock.CIDR) && !slices.ContainsFunc(r.IPBlock.Except, in) {
				return true
			}
		case from.namespace == "":
		case r.PodSelector != nil && !picksPod(r.PodSelector, from.labels):
		case r.NamespaceSelector == nil && from.namespace == namespace:
			return true
		case r.NamespaceSelector != nil && picksPod(r.NamespaceSelector, namespaceLabels(from.namespace)):
			return true
		}
	}
	return false
}

func picksPod(s *metav1.LabelSelector, on map[string]string) bool {
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(labelsets.Set(on))
}

func namespaceLabels(name string) map[string]string {
	return map[string]string{corev1.LabelMetadataName: name, "team": name[:1]}
}

// policyMaker makes random policies out of a few words, so that they often concern each other.
type policyMaker struct{ *rand.Rand }

func (r policyMaker) one(of ...string) string { return of[r.IntN(len(of))] }

func (r policyMaker) selector() *metav1.LabelSelector {
	switch r.IntN(6) {
	case 0:
		return &metav1.LabelSelector{}
	case 1:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
			Key: r.one("app", "role"), Operator: metav1.LabelSelectorOpNotIn, Values: []string{r.one("web", "db", "friend")},
		}}}
	case 2:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
			Key: r.one("app", "role"), Operator: metav1.LabelSelectorOpExists,
		}}}
	default:
		return &metav1.LabelSelector{MatchLabels: map[string]string{r.one("app", "role"): r.one("web", "db", "friend")}}
	}
}

func (r policyMaker) peer() networkingv1.NetworkPolicyPeer {
	switch r.IntN(5) {
	case 0:
		return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{
			CIDR: "10.0.0.0/8", Except: []string{r.one("10.1.0.0/16", "10.2.0.0/16")},
		}}
	case 1:
		return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: r.one("192.0.2.0/24", "0.0.0.0/0")}}
	case 2:
		return networkingv1.NetworkPolicyPeer{PodSelector: r.selector()}
	case 3:
		return networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": r.one("a", "b")}}}
	default:
		return networkingv1.NetworkPolicyPeer{PodSelector: r.selector(), NamespaceSelector: inNamespace(r.one("a1", "a2", "b1"))}
	}
}

func (r policyMaker) port() networkingv1.NetworkPolicyPort {
	p := networkingv1.NetworkPolicyPort{Protocol: new(corev1.ProtocolTCP)}
	switch r.IntN(6) {
	case 0:
		p.Port = new(intstr.FromString(r.one("http", "admin", "unknown")))
	case 1:
		p.Port, p.EndPort = new(intstr.FromInt32(8000)), new(int32(8085))
	case 2:
		p.Protocol = new(corev1.ProtocolUDP)
	case 3:
		p.Protocol = nil
	default:
		p.Port = new(intstr.FromInt32([]int32{80, 8080, 9000}[r.IntN(3)]))
	}
	return p
}

func (r policyMaker) policy(namespace string) networkingv1.NetworkPolicy {
	p := networkingv1.NetworkPolicy{}
	p.Namespace, p.Name = namespace, fmt.Sprint("p", r.Int32())
	p.Spec.PodSelector = *r.selector()
	p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	if r.IntN(6) == 0 {
		p.Spec.PolicyTypes[0] = networkingv1.PolicyTypeEgress
	}
	for range r.IntN(3) {
		rule := networkingv1.NetworkPolicyIngressRule{}
		for range r.IntN(3) {
			rule.From = append(rule.From, r.peer())
		}
		for range r.IntN(3) {
			rule.Ports = append(rule.Ports, r.port())
		}
		p.Spec.Ingress = append(p.Spec.Ingress, rule)
	}
	return p
}

// sources are clients of every kind that the policies distinguish.
func sources() []peer {
	all := []peer{{address: "192.0.2.7"}, {address: "10.1.2.3"}, {address: "203.0.113.1"}}
	for i, namespace := range []string{"a1", "a2", "b1", "c1"} {
		for k, l := range []string{"app=web", "app=db", "role=friend", "app=db,role=web", "x=y"} {
			labels, _ := labelsets.ConvertSelectorToLabelsMap(l)
			all = append(all, peer{namespace, labels, fmt.Sprintf("10.%d.0.%d", i, k+1)})
		}
	}
	return all
}

func (p peer) String() string {
	return strings.TrimPrefix(p.namespace+"/"+labelsets.Set(p.labels).String()+"@"+p.address, "/@")
}
