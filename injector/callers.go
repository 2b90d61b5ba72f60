// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	labelsets "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Callers are those whom the NetworkPolicies of an app's namespace let in on one port of its pods.
type Callers struct {
	// Bound is set if a policy selects the pods. Otherwise everybody may call, and Peers says nothing.
	Bound bool
	// Peers are the callers, sorted and without duplicates. Each can stand in a policy of another namespace. None means nobody.
	Peers []networkingv1.NetworkPolicyPeer
	// key identifies equal Peers.
	key string
}

// Key is the same for equal Callers, and empty if everybody may call.
func (c Callers) Key() string {
	if !c.Bound {
		return ""
	}
	return "bound:" + c.key
}

// nobody may call.
func nobody() Callers { return Callers{Bound: true} }

// Pods are what the policies see of an app's pods. The pods need not exist: this is what their template says.
type Pods struct {
	Namespace string
	Labels    map[string]string
	// Template has the containers' ports; nil if it is unknown.
	Template *corev1.PodTemplateSpec
}

// PodsOf returns the pods of a workload behind a Service. The labels that the Service selects are on them in any case.
func PodsOf(service *corev1.Service, w Workload) Pods {
	p := Pods{Namespace: service.Namespace, Labels: map[string]string{}, Template: w.Template}
	maps.Copy(p.Labels, w.PodLabels)
	maps.Copy(p.Labels, OriginalSelector(service))
	return p
}

// Isolating returns those of the policies that select the pods for ingress. Policies do not apply to the host network.
func (p Pods) Isolating(policies []networkingv1.NetworkPolicy) []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	if p.Template != nil && p.Template.Spec.HostNetwork {
		return nil
	}
	for i := range policies {
		n := &policies[i]
		selects, err := metav1.LabelSelectorAsSelector(&n.Spec.PodSelector)
		if err == nil && n.Namespace == p.Namespace && slices.Contains(n.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) &&
			selects.Matches(labelsets.Set(p.Labels)) {
			out = append(out, n)
		}
	}
	return out
}

// Callers returns who may connect to a port of the Service, by the policies of the namespace.
func (p Pods) Callers(policies []networkingv1.NetworkPolicy, port corev1.ServicePort) Callers {
	isolating := p.Isolating(policies)
	if len(isolating) == 0 {
		return Callers{}
	}
	out, number := nobody(), p.Number(port)
	byText := map[string]networkingv1.NetworkPolicyPeer{}
	for _, n := range isolating {
		for _, rule := range n.Spec.Ingress {
			if !p.covers(rule.Ports, number) {
				continue
			}
			if len(rule.From) == 0 {
				return Callers{}
			}
			for _, peer := range rule.From {
				peer = resolve(peer, p.Namespace)
				byText[textOf(peer)] = peer
			}
		}
	}
	texts := make([]string, 0, len(byText))
	for text := range byText {
		texts = append(texts, text)
	}
	slices.Sort(texts)
	for _, text := range texts {
		out.Peers = append(out.Peers, byText[text])
	}
	out.key = strings.Join(texts, ",")
	return out
}

// textOf returns the same text for equal peers.
func textOf(peer networkingv1.NetworkPolicyPeer) string {
	text, _ := json.Marshal(peer) // text, numbers and maps with sorted keys: it does not fail
	return string(text)
}

// resolve makes a peer say the same in any namespace as it says in its own.
func resolve(peer networkingv1.NetworkPolicyPeer, namespace string) networkingv1.NetworkPolicyPeer {
	if peer.PodSelector != nil && peer.NamespaceSelector == nil {
		peer.NamespaceSelector = inNamespace(namespace)
	}
	return peer
}

// inNamespace selects one namespace. Kubernetes puts this label on each.
func inNamespace(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: name}}
}

// Number returns the pods' port behind a port of the Service; 0 if no container has the port's name.
func (p Pods) Number(port corev1.ServicePort) int32 {
	if port.TargetPort.Type == intstr.Int {
		return cmp.Or(port.TargetPort.IntVal, port.Port)
	}
	n, _ := p.named(port.TargetPort.StrVal)
	return n
}

// named returns the TCP port of that name.
func (p Pods) named(name string) (int32, bool) {
	if p.Template == nil {
		return 0, false
	}
	for _, c := range runningContainers(p.Template) {
		for _, port := range c.Ports {
			if port.Name == name && isTCP(port.Protocol) {
				return port.ContainerPort, true
			}
		}
	}
	return 0, false
}

func isTCP(p corev1.Protocol) bool { return p == "" || p == corev1.ProtocolTCP }

// covers reports whether a rule with these ports is about a TCP port. A rule without ports is about all.
func (p Pods) covers(ports []networkingv1.NetworkPolicyPort, number int32) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(one networkingv1.NetworkPolicyPort) bool {
		switch {
		case one.Protocol != nil && !isTCP(*one.Protocol):
			return false
		case one.Port == nil:
			return true
		case one.Port.Type == intstr.String:
			named, ok := p.named(one.Port.StrVal)
			return ok && named == number
		case one.EndPort != nil:
			return one.Port.IntVal <= number && number <= *one.EndPort
		default:
			return one.Port.IntVal == number
		}
	})
}
