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
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// optionalInterval is how often the API server is asked which kinds it serves. A watch of CustomResourceDefinitions would be faster.
// But it needs the right to read all of them, and discovery may still lag behind.
const optionalInterval = 5 * time.Second

// optionalKinds notices when kinds of an optional API are installed, upgraded or removed.
type optionalKinds struct {
	log       logr.Logger
	discovery discovery.ServerResourcesInterface
	live      client.Reader
	// versions are the usable versions, the newest first, and kinds the names of the kinds.
	versions []schema.GroupVersion
	kinds    []string
	// come starts to use a kind, and gone stops using it.
	come, gone func(context.Context, schema.GroupVersionKind) error

	mu    sync.Mutex // protects inUse
	inUse []schema.GroupVersionKind
}

// Start implements manager.Runnable.
func (k *optionalKinds) Start(ctx context.Context) error {
	tick := time.NewTicker(optionalInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := k.poll(ctx); err != nil && ctx.Err() == nil {
			k.log.Error(err, "Looking for an API that may be installed", "kinds", k.kinds)
		}
	}
}

// poll finds out which kinds the API server serves, and in which version, and acts on changes.
func (k *optionalKinds) poll(ctx context.Context) error {
	served, err := k.served()
	if err != nil {
		return err
	}
	for _, kind := range k.used() {
		if slices.Contains(served, kind) {
			continue
		}
		k.use(func(kinds []schema.GroupVersionKind) []schema.GroupVersionKind {
			return slices.DeleteFunc(kinds, func(other schema.GroupVersionKind) bool { return other == kind })
		})
		k.log.Info("A kind is not served any more", "kind", kind.Kind, "version", kind.Version)
		if err := k.gone(ctx, kind); err != nil {
			return fmt.Errorf("ending the use of %s: %w", kind.Kind, err)
		}
	}
	for _, kind := range served {
		if slices.Contains(k.used(), kind) {
			continue
		}
		readable, err := k.readable(ctx, kind)
		if err != nil {
			return err
		}
		if !readable {
			continue
		}
		if err := k.come(ctx, kind); err != nil {
			return fmt.Errorf("beginning the use of %s: %w", kind.Kind, err)
		}
		k.use(func(kinds []schema.GroupVersionKind) []schema.GroupVersionKind { return append(kinds, kind) })
		k.log.Info("A kind is served", "kind", kind.Kind, "version", kind.Version)
	}
	return nil
}

func (k *optionalKinds) use(change func([]schema.GroupVersionKind) []schema.GroupVersionKind) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inUse = change(k.inUse)
}

// used returns the kinds in use.
func (k *optionalKinds) used() []schema.GroupVersionKind {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.inUse)
}

// readable reports whether objects of a kind can be listed. A watch of a kind that may not be read, or is not ready yet, would block
// the controllers.
func (k *optionalKinds) readable(ctx context.Context, kind schema.GroupVersionKind) (bool, error) {
	err := k.live.List(ctx, newUnstructuredList(kind), client.Limit(1))
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		k.log.V(1).Info("A kind cannot be read", "kind", kind.Kind, "reason", err.Error())
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("listing a %s: %w", kind.Kind, err)
	}
	return true, nil
}

// served returns the kinds that the API server serves, each in its newest version.
func (k *optionalKinds) served() ([]schema.GroupVersionKind, error) {
	var served []schema.GroupVersionKind
	for _, gv := range k.versions {
		resources, err := k.discovery.ServerResourcesForGroupVersion(gv.String())
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("asking for the kinds of %s: %w", gv, err)
		}
		for _, kind := range k.kinds {
			known := slices.ContainsFunc(served, func(other schema.GroupVersionKind) bool { return other.Kind == kind })
			if !known && slices.ContainsFunc(resources.APIResources, func(r metav1.APIResource) bool { return r.Kind == kind }) {
				served = append(served, gv.WithKind(kind))
			}
		}
	}
	return served, nil
}

// gatewayRoutes reads the routes of the Gateway API, of all kinds that exist.
//
// +kubebuilder:rbac:groups=gateway.networking.k8s.io,resources=httproutes;grpcroutes;tlsroutes;tcproutes,verbs=list;watch
type gatewayRoutes struct {
	cache client.Reader
	kinds *optionalKinds
}

// gatewayVersions returns the usable versions of the Gateway API, the newest first.
func gatewayVersions() []schema.GroupVersion {
	var versions []schema.GroupVersion
	for _, version := range []string{"v1", "v1beta1", "v1alpha3", "v1alpha2"} {
		versions = append(versions, schema.GroupVersion{Group: injector.GatewayGroup, Version: version})
	}
	return versions
}

// routesTo returns the routes of a namespace that send traffic to one of the Services.
func (g *gatewayRoutes) routesTo(ctx context.Context, namespace string, services ...string) ([]injector.GatewayRoute, error) {
	var routes []injector.GatewayRoute
	for _, kind := range g.kinds.used() {
		list := newUnstructuredList(kind)
		found, err := listBy(func() []unstructured.Unstructured { return list.Items },
			func(r *unstructured.Unstructured) string { return r.GetName() }, func(service string) error {
				list = newUnstructuredList(kind)
				if err := g.cache.List(ctx, list, client.InNamespace(namespace), client.MatchingFields{byBackend: service},
					client.UnsafeDisableDeepCopy); err != nil {
					return fmt.Errorf("listing %ss of namespace %s: %w", kind.Kind, namespace, err)
				}
				return nil
			}, services)
		if err != nil {
			return nil, err
		}
		for i := range found {
			routes = append(routes, injector.NewGatewayRoute(&found[i]))
		}
	}
	return routes, nil
}

func newUnstructured(kind schema.GroupVersionKind) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(kind)
	return o
}

func newUnstructuredList(kind schema.GroupVersionKind) *unstructured.UnstructuredList {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
	return list
}
