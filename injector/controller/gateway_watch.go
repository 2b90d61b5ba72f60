// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// gatewayInterval is how often the API server is asked which routes of the Gateway API it knows.
const gatewayInterval = 15 * time.Second

// gatewayWatch reads the routes of the Gateway API, which may be installed, upgraded or removed at any time.
type gatewayWatch struct {
	log       logr.Logger
	discovery discovery.DiscoveryInterface
	live      client.Reader
	cache     cache.Cache
	watch     func(*unstructured.Unstructured) error // has the ServiceReconciler notice changes of a kind

	mu    sync.Mutex // protects kinds
	kinds []schema.GroupVersionKind
}

// Start implements manager.Runnable.
func (g *gatewayWatch) Start(ctx context.Context) error {
	tick := time.NewTicker(gatewayInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := g.look(ctx); err != nil && ctx.Err() == nil {
			g.log.Error(err, "Looking for the Gateway API")
		}
	}
}

// look finds out which kinds of routes the API server knows, in which version, and acts on a change.
func (g *gatewayWatch) look(ctx context.Context) error {
	served, err := g.served()
	if err != nil {
		return err
	}
	for _, kind := range g.known() {
		if slices.Contains(served, kind) {
			continue
		}
		if err := g.cache.RemoveInformer(ctx, newRoute(kind)); err != nil {
			return fmt.Errorf("ending the watch of %s: %w", kind.Kind, err)
		}
		g.know(func(kinds []schema.GroupVersionKind) []schema.GroupVersionKind {
			return slices.DeleteFunc(kinds, func(k schema.GroupVersionKind) bool { return k == kind })
		})
		g.log.Info("Routes are not served any more", "kind", kind.Kind, "version", kind.Version)
	}
	for _, kind := range served {
		if slices.Contains(g.known(), kind) {
			continue
		}
		readable, err := g.readable(ctx, kind)
		if err != nil {
			return err
		}
		if !readable {
			continue
		}
		if err := g.watch(newRoute(kind)); err != nil {
			return fmt.Errorf("watching %s: %w", kind.Kind, err)
		}
		g.know(func(kinds []schema.GroupVersionKind) []schema.GroupVersionKind { return append(kinds, kind) })
		g.log.Info("Routes of the Gateway API expose Services", "kind", kind.Kind, "version", kind.Version)
	}
	return nil
}

func (g *gatewayWatch) know(change func([]schema.GroupVersionKind) []schema.GroupVersionKind) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.kinds = change(g.kinds)
}

// known returns the kinds that are watched.
func (g *gatewayWatch) known() []schema.GroupVersionKind {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.kinds)
}

// readable says whether routes of a kind can be listed: a watch of what may not be read, or is not there quite yet, would
// hold up the controller.
func (g *gatewayWatch) readable(ctx context.Context, kind schema.GroupVersionKind) (bool, error) {
	err := g.live.List(ctx, newRoutes(kind), client.Limit(1))
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		g.log.V(1).Info("Routes cannot be read", "kind", kind.Kind, "reason", err.Error())
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("listing a %s: %w", kind.Kind, err)
	}
	return true, nil
}

// served returns each kind of route that the API server knows, in the newest version.
func (g *gatewayWatch) served() ([]schema.GroupVersionKind, error) {
	var served []schema.GroupVersionKind
	for _, version := range []string{"v1", "v1beta1", "v1alpha3", "v1alpha2"} {
		gv := schema.GroupVersion{Group: injector.GatewayGroup, Version: version}
		resources, err := g.discovery.ServerResourcesForGroupVersion(gv.String())
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("asking for the kinds of %s: %w", gv, err)
		}
		for _, kind := range injector.GatewayRouteKinds() {
			known := slices.ContainsFunc(served, func(k schema.GroupVersionKind) bool { return k.Kind == kind })
			if !known && slices.ContainsFunc(resources.APIResources, func(r metav1.APIResource) bool { return r.Kind == kind }) {
				served = append(served, gv.WithKind(kind))
			}
		}
	}
	return served, nil
}

// routes returns the routes of a namespace.
func (g *gatewayWatch) routes(ctx context.Context, namespace string) ([]injector.GatewayRoute, error) {
	var routes []injector.GatewayRoute
	for _, kind := range g.known() {
		list := newRoutes(kind)
		if err := g.cache.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("listing %ss of namespace %s: %w", kind.Kind, namespace, err)
		}
		for i := range list.Items {
			routes = append(routes, injector.NewGatewayRoute(&list.Items[i]))
		}
	}
	return routes, nil
}

// routeBackends returns the Services that a route of the Gateway API sends traffic to.
func routeBackends(_ context.Context, o client.Object) []reconcile.Request {
	route, ok := o.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	var out []reconcile.Request
	for _, b := range injector.NewGatewayRoute(route).Backends {
		out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: route.GetNamespace(), Name: b.Service}})
	}
	return out
}

func newRoute(kind schema.GroupVersionKind) *unstructured.Unstructured {
	route := &unstructured.Unstructured{}
	route.SetGroupVersionKind(kind)
	return route
}

func newRoutes(kind schema.GroupVersionKind) *unstructured.UnstructuredList {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
	return list
}
