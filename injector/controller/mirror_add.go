// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// addMirror adds the mirror, if NetworkPolicies are followed. If policies only let interceptors in, nothing is mirrored.
func (p *plane) addMirror(context.Context) error {
	if !p.FollowPolicies && !p.AdmitInterceptors {
		return nil
	}
	p.mirror = newMirror(p.Options, p.mgr.GetClient(), p.workloads, p.ports)
	if !p.FollowPolicies {
		return nil
	}
	all := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{p.mirror.request()}
	})
	asked := handler.TypedEnqueueRequestsFromMapFunc(func(context.Context, types.NamespacedName) []reconcile.Request {
		return []reconcile.Request{p.mirror.request()}
	})
	err := ctrl.NewControllerManagedBy(p.mgr).
		Named("networkpolicy").
		Watches(&networkingv1.NetworkPolicy{}, all).
		Watches(&discoveryv1.EndpointSlice{}, all, builder.WithPredicates(rerouted())).
		Watches(&corev1.Service{}, all, builder.WithPredicates(updates(targets))).
		Watches(&appsv1.Deployment{}, all, builder.WithPredicates(updates(podsSeen))).
		Watches(&appsv1.StatefulSet{}, all, builder.WithPredicates(updates(podsSeen))).
		WatchesRawSource(source.Channel(p.mirror.asked, asked)).
		Complete(p.mirror)
	if err != nil {
		return fmt.Errorf("adding networkpolicy controller: %w", err)
	}
	return nil
}

// watchPolicies makes plans follow the NetworkPolicies of the apps' namespaces.
func (p *plane) watchPolicies() error {
	if p.mirror == nil {
		return nil
	}
	return p.serviceController.Watch(source.Kind[client.Object](p.mgr.GetCache(), &networkingv1.NetworkPolicy{},
		handler.EnqueueRequestsFromMapFunc(p.requests.servicesOfPolicy), predicate.ResourceVersionChangedPredicate{}))
}

// rerouted passes a route slice that appears, disappears or leads elsewhere. It filters out what changes all the time, such as an
// app's progress.
func rerouted() predicate.Predicate {
	routes := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetLabels()[api.RoleLabel] == api.RoleRoute })
	return predicate.And(routes, predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, _ := routesOf(e.ObjectOld)
		after, _ := routesOf(e.ObjectNew)
		same := func(a, b api.Port) bool { return a.Listen == b.Listen && a.Name == b.Name && a.Port == b.Port }
		return before.Service != after.Service || before.Workload != after.Workload || !slices.EqualFunc(before.Ports, after.Ports, same) ||
			!maps.Equal(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels())
	}})
}

// updates passes an object of which seen returns something else than before.
func updates(seen func(client.Object) any) predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return !e.IsInInitialList },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			return !equality.Semantic.DeepEqual(seen(e.ObjectOld), seen(e.ObjectNew))
		},
	}
}

// targets returns what a Service says of its pods.
func targets(o client.Object) any {
	s, ok := o.(*corev1.Service)
	if !ok {
		return nil
	}
	return []any{s.Spec.Ports, injector.OriginalSelector(s)}
}

// podsSeen returns what NetworkPolicies see of a workload's pods.
func podsSeen(o client.Object) any {
	w, _ := injector.NewWorkload(o)
	if w.Template == nil {
		return nil
	}
	seen := []any{w.PodLabels, w.Template.Spec.HostNetwork}
	for _, c := range slices.Concat(w.Template.Spec.InitContainers, w.Template.Spec.Containers) {
		seen = append(seen, c.Ports)
	}
	return seen
}
