// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"

	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// addWakeRoles adds the controller of the interceptors' Roles.
func (p *plane) addWakeRoles(context.Context) error {
	if p.InterceptorAccount == "" {
		return nil
	}
	p.wakeRoles = newWakeRoles(p.Options, p.mgr.GetClient(), p.mgr.GetAPIReader())
	namespace := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		return named("", o.GetNamespace())
	})
	ours := builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool { return injector.IsWakeRole(o) }))
	err := ctrl.NewControllerManagedBy(p.mgr).
		Named("wakerole").
		Watches(&discoveryv1.EndpointSlice{}, namespace, builder.WithPredicates(rerouted())).
		Watches(&rbacv1.Role{}, namespace, ours).
		Watches(&rbacv1.RoleBinding{}, namespace, ours).
		WatchesRawSource(p.wakeRoles.namespaces.source()).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(p.wakeRoles)
	if err != nil {
		return fmt.Errorf("adding wakerole controller: %w", err)
	}
	return nil
}

// watchRights makes plans go on when the interceptors get a right, and report when they do not.
func (p *plane) watchRights() error {
	if p.wakeRoles == nil {
		return nil
	}
	return p.serviceController.Watch(p.wakeRoles.services.source())
}
