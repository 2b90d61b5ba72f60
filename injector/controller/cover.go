// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// cover finds out whether the interceptor ports of a Front are bound as its pods are, and which policy would let the interceptors in.
//
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=create;update;delete
func (b *serviceObserver) cover(ctx context.Context, o *injector.Observation, q injector.Question) (*injector.Cover, error) {
	if b.mirror == nil {
		return &injector.Cover{}, nil
	}
	policies, err := b.mirror.policies(ctx, client.InNamespace(o.Service.Namespace), client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, err
	}
	target := injector.Target{Workload: q.Workload}
	if o.Answers.Target != nil {
		target.Object = o.Answers.Target.Object
	}
	pods := podsOf(o.Service, target)
	c := &injector.Cover{Ports: map[int32]bool{}}
	if b.FollowPolicies {
		front := types.NamespacedName{Namespace: o.Service.Namespace, Name: q.Front}
		if c.CutOff, err = b.cutOff(ctx, o, q, pods); err != nil {
			return nil, err
		}
		b.mirror.cover(c, front, q.Routes, func(p api.Port) injector.Callers { return callers(o.Service, pods, policies, p) })
	}
	if b.AdmitInterceptors {
		us, err := b.interceptorsPeer(ctx)
		if err != nil {
			return nil, err
		}
		// If somebody else has a policy of that name, it stays, and the proof of the way tells what is missing.
		if !slices.ContainsFunc(policies, func(n networkingv1.NetworkPolicy) bool {
			return n.Name == injector.AdmissionPolicyName(o.Service.Name) && !injector.IsAdmissionPolicy(&n, o.Service)
		}) {
			c.Admission = injector.AdmissionPolicy(o.Service, pods, policies, us)
		}
	}
	return c, nil
}

// interceptorsPeer are the interceptors in the words of a NetworkPolicy.
func (b *serviceObserver) interceptorsPeer(ctx context.Context) (networkingv1.NetworkPolicyPeer, error) {
	own := &corev1.Service{}
	if err := b.client.Get(ctx, types.NamespacedName{Namespace: b.Namespace, Name: b.InterceptorService}, own); err != nil {
		return networkingv1.NetworkPolicyPeer{}, fmt.Errorf("getting the interceptors' service: %w", err)
	}
	return networkingv1.NetworkPolicyPeer{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: b.Namespace}},
		PodSelector:       &metav1.LabelSelector{MatchLabels: own.Spec.Selector},
	}, nil
}

// admission returns our policy in the namespace of a Service; nil if there is none.
func (b *serviceObserver) admission(ctx context.Context, service *corev1.Service) (*networkingv1.NetworkPolicy, error) {
	if !b.AdmitInterceptors {
		return nil, nil //nolint:nilnil // there is none
	}
	n := &networkingv1.NetworkPolicy{}
	name := types.NamespacedName{Namespace: service.Namespace, Name: injector.AdmissionPolicyName(service.Name)}
	if err := b.client.Get(ctx, name, n); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("getting networkpolicy %s: %w", name, err)
	}
	if !injector.IsAdmissionPolicy(n, service) {
		return nil, nil //nolint:nilnil // there is none
	}
	return n, nil
}

// cover says which ports of a Front are covered. If some are not, the next round mirrors them.
func (r *mirrorReconciler) cover(
	c *injector.Cover, front types.NamespacedName, routes api.Routes, callers func(api.Port) injector.Callers,
) {
	now := r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	missing := false
	for _, p := range routes.Ports {
		has, key := r.covers[p.Listen], callers(p).Key()
		same := r.covers != nil && has.key == key
		settled := key == "" || now.Sub(has.since) >= coverSettles
		c.Ports[p.Listen] = same && settled && !r.refused[p.Listen]
		missing = missing || !same
		switch {
		case c.Ports[p.Listen]:
		case r.refused[p.Listen] && same:
			c.Lasting = true
			c.Lacks = "the NetworkPolicies of its namespace have more rules than fit into those of the interceptors, so nobody may connect; " +
				"merge the rules that select its pods"
		case r.failed != "":
			c.Lacks, c.Lasting = r.failed, true
		default:
			c.Lacks = injector.Skip(fmt.Sprintf("the interceptors' own NetworkPolicies in namespace %s do not follow those of its namespace yet",
				r.Namespace))
		}
	}
	if !missing {
		return
	}
	r.pending[front] = pendingFront{routes, now}
	r.ask()
}

// forget is for a Front that is gone.
func (r *mirrorReconciler) forget(front types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pending, front)
}
