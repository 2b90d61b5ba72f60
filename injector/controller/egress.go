// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// cutOff finds out whether NetworkPolicies, in whatever namespace, let clients connect to the pods of a Service and not to the
// interceptors.
func (b *serviceObserver) cutOff(ctx context.Context, o *injector.Observation, q injector.Question, pods injector.Pods) (
	injector.Skip, error,
) {
	all, err := b.mirror.policies(ctx, client.UnsafeDisableDeepCopy)
	if err != nil || len(all) == 0 {
		return "", err
	}
	r := injector.Redirection{
		App:     injector.Destination{Pods: pods, NamespaceLabels: o.Namespace.Labels},
		Outside: q.Front != o.Service.Name,
	}
	for i := range o.DirectSlices {
		for _, e := range o.DirectSlices[i].Endpoints {
			r.App.Addresses = append(r.App.Addresses, e.Addresses...)
		}
	}
	reachable := injector.OfFamilies(o.Interceptors, o.Service.Spec.IPFamilies)
	if r.Interceptors, err = b.interceptorsSeen(ctx, reachable); err != nil {
		return "", err
	}
	for _, p := range q.Routes.Ports {
		r.Ports = append(r.Ports, injector.RedirectedPort{Of: numberOf(o.Service, pods, p), Listen: p.Listen})
	}
	allow, err := b.interceptorsText(ctx)
	return injector.CutOffText(r.CutOff(all), allow), err
}

// numberOf returns the pods' port behind the port of a route.
func numberOf(service *corev1.Service, pods injector.Pods, port api.Port) int32 {
	for _, p := range service.Spec.Ports {
		if p.Name == port.Name {
			return pods.Number(p)
		}
	}
	return port.Port
}

// interceptorsSeen returns the interceptors as NetworkPolicies see them.
func (b *serviceObserver) interceptorsSeen(ctx context.Context, ready []injector.Interceptor) (injector.Destination, error) {
	d := injector.Destination{Pods: injector.Pods{Namespace: b.Namespace}}
	for _, i := range ready {
		d.Addresses = append(d.Addresses, i.Address)
	}
	namespace, own := &corev1.Namespace{}, &corev1.Service{}
	if err := b.client.Get(ctx, types.NamespacedName{Name: b.Namespace}, namespace); client.IgnoreNotFound(err) != nil {
		return d, fmt.Errorf("getting namespace %s: %w", b.Namespace, err)
	}
	name := types.NamespacedName{Namespace: b.Namespace, Name: b.InterceptorService}
	if err := b.client.Get(ctx, name, own); err != nil {
		return d, fmt.Errorf("getting the interceptors' service: %w", err)
	}
	d.NamespaceLabels, d.Labels = namespace.Labels, own.Spec.Selector
	// In the chart their Deployment has the same name. Its pods have more labels than the Service selects.
	deployment := &appsv1.Deployment{}
	if err := b.client.Get(ctx, name, deployment); client.IgnoreNotFound(err) != nil {
		return d, fmt.Errorf("getting the interceptors' deployment: %w", err)
	}
	if labels := deployment.Spec.Template.Labels; len(labels) > 0 {
		d.Labels = labels
	}
	return d, nil
}
