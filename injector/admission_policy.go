// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// AdmissionPolicyName returns the name of the NetworkPolicy that lets the interceptors in to a Service's pods.
func AdmissionPolicyName(service string) string { return api.Bounded(service, "-scale-to-zero", 253) }

// IsAdmissionPolicy reports whether a policy is the one that we add for a Service.
func IsAdmissionPolicy(n *networkingv1.NetworkPolicy, service *corev1.Service) bool {
	return n.Namespace == service.Namespace && n.Name == AdmissionPolicyName(service.Name) && n.Labels[ManagedByLabel] == ManagedBy
}

// AdmissionPolicy returns the smallest NetworkPolicy that lets the interceptors in to the pods of a Service, or nil if none is needed.
//
// A policy isolates the pods that it selects, so there is one only if another policy isolates them already. It must not select pods
// that the others do not: it selects those that have, of every label that the others ask for, what these pods have.
func AdmissionPolicy(service *corev1.Service, pods Pods, policies []networkingv1.NetworkPolicy, interceptors networkingv1.NetworkPolicyPeer,
) *networkingv1.NetworkPolicy {
	isolating := slices.DeleteFunc(pods.Isolating(policies), func(n *networkingv1.NetworkPolicy) bool {
		return IsAdmissionPolicy(n, service)
	})
	if len(isolating) == 0 {
		return nil
	}
	selector := metav1.LabelSelector{MatchLabels: map[string]string{}}
	for _, key := range selectedKeys(isolating, OriginalSelector(service)) {
		if value, ok := pods.Labels[key]; ok {
			selector.MatchLabels[key] = value
		} else {
			selector.MatchExpressions = append(selector.MatchExpressions,
				metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpDoesNotExist})
		}
	}
	var numbers []int32
	for _, p := range service.Spec.Ports {
		if n := pods.Number(p); n > 0 {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	rule := networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{interceptors}}
	for _, n := range slices.Compact(numbers) {
		rule.Ports = append(rule.Ports, portRange(n, n))
	}
	if len(rule.Ports) == 0 {
		return nil // a rule without ports would be about all
	}
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: service.Namespace, Name: AdmissionPolicyName(service.Name),
			Labels:          map[string]string{ManagedByLabel: ManagedBy, ServiceLabel: service.Name},
			OwnerReferences: []metav1.OwnerReference{OwnerReference(service)},
		},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: selector, Ingress: []networkingv1.NetworkPolicyIngressRule{rule},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
		},
	}
}

// selectedKeys returns the label keys of the policies' pod selectors and of the Service's selector, sorted.
func selectedKeys(policies []*networkingv1.NetworkPolicy, selector map[string]string) []string {
	var keys []string
	for k := range selector {
		keys = append(keys, k)
	}
	for _, n := range policies {
		for k := range n.Spec.PodSelector.MatchLabels {
			keys = append(keys, k)
		}
		for _, e := range n.Spec.PodSelector.MatchExpressions {
			keys = append(keys, e.Key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
