// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// surroundings reads what JudgeNamespaced has to know about a Service's namespace, if the namespace is opted in.
func (r *ServiceReconciler) surroundings(ctx context.Context, service *corev1.Service, namespace *corev1.Namespace, ingresses backing) (injector.Surroundings, error) {
	if !generallyOptedIn(service, namespace) {
		return injector.Surroundings{}, nil
	}
	return r.allSurroundings(ctx, namespace, ingresses)
}

// generallyOptedIn says whether only its namespace opts a Service in.
func generallyOptedIn(service *corev1.Service, namespace *corev1.Namespace) bool {
	own, err := injector.OptedIn(service)
	all, _ := injector.OptedIn(namespace)
	return err == nil && all && !own && !injector.OptedOut(service)
}

func (r *ServiceReconciler) allSurroundings(ctx context.Context, namespace *corev1.Namespace, ingresses backing) (injector.Surroundings, error) {
	around := injector.Surroundings{
		Ingresses:        ingresses.all,
		InternalServices: namespace.Annotations[injector.InternalServicesAnnotation] == "true",
	}
	var list corev1.ServiceList
	if err := r.client.List(ctx, &list, client.InNamespace(namespace.Name), client.UnsafeDisableDeepCopy); err != nil {
		return around, fmt.Errorf("listing services of namespace %s: %w", namespace.Name, err)
	}
	around.Services = list.Items
	var err error
	around.Routes, err = r.gateway.routes(ctx, namespace.Name)
	return around, err
}

// routingTo names the Ingresses that send traffic to the Service.
func (b backing) routingTo(service string) []string {
	var names []string
	for i := range b.all {
		author, _ := injector.Backends(&b.all[i])
		for _, name := range author {
			if name == service {
				names = append(names, b.all[i].Name)
			}
		}
	}
	return names
}

// warnUnvisited warns once, halfway to its first sleep, about an app that may never have had visitors: its Service was
// opted in together with others, with its namespace or, it seems, with a whole chart; nothing exposes it
// outside of the cluster; and no request comes. Such a Service is often that of a worker, which serves its logs or metrics, and which no
// request will wake.
func (r *ServiceReconciler) warnUnvisited(ctx context.Context, service *corev1.Service, e entrance, ingresses backing, v verdict) (ctrl.Result, error) {
	if v.take != takeService || v.settings.MinReplicas > 0 || len(e.slices) == 0 {
		return ctrl.Result{}, nil
	}
	cooldown := v.settings.Cooldown
	age := r.Now().Sub(e.slices[0].CreationTimestamp.Time)
	switch {
	case age < cooldown/2:
		return ctrl.Result{RequeueAfter: cooldown/2 - age}, nil
	case age >= cooldown:
		return ctrl.Result{}, nil
	}
	around, err := r.allSurroundings(ctx, v.namespace, ingresses)
	if err != nil || around.Reached(service) || !v.general && !injector.OptedInTogether(service, around.Services) {
		return ctrl.Result{}, err
	}
	within := age * 3 / 4 // interceptors count from a little later than the slices' creation, in whole seconds
	visited, err := r.Counts.Visited(ctx, service.Namespace, v.workload.Ref(), within)
	if err != nil {
		log.FromContext(ctx).Info("Not warning about an app without visitors: the interceptors cannot be asked", "error", err.Error())
	}
	if err != nil || visited {
		return ctrl.Result{RequeueAfter: cooldown / 4}, nil
	}
	r.stories.tellOnce(ctx, corev1.EventTypeWarning, reasonUnvisited, fmt.Sprintf(
		"No request has come to Service %s of late, and no Ingress, Gateway API route, load balancer or node port exposes it. It was opted in together with others. "+
			"Unless a request comes, %s sleeps after %s, and then only a request wakes it. "+
			"If it works without requests, as a worker or a scheduler does, keep it awake: kubectl annotate service -n %s %s %smin-replicas=1",
		service.Name, v.workload.Ref(), injector.Short(cooldown), service.Namespace, service.Name, injector.Prefix), service)
	return ctrl.Result{}, nil
}

// reachedTogether maps an object to the Services that it may expose, and, where their namespace is opted in, to
// the others there: those of the same pods are taken over together.
func (r *ServiceReconciler) reachedTogether(direct handler.MapFunc) handler.MapFunc {
	return func(ctx context.Context, o client.Object) []reconcile.Request {
		requests := direct(ctx, o)
		var namespace corev1.Namespace
		if err := r.client.Get(ctx, client.ObjectKey{Name: o.GetNamespace()}, &namespace); err != nil {
			if client.IgnoreNotFound(err) != nil {
				log.FromContext(ctx).Error(err, "Getting a namespace")
			}
			return requests
		}
		if optedIn, err := injector.OptedIn(&namespace); err != nil || !optedIn {
			return requests
		}
		return append(requests, r.list(ctx, client.InNamespace(o.GetNamespace()))...)
	}
}
