// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// portBook assigns interceptor ports. At first use it reads from the route slices which ports are assigned.
type portBook struct {
	client    client.Reader
	low, high int32
	// perNamespace is how many routes a namespace may have; 0 for no limit.
	perNamespace int

	mu    sync.Mutex // protects ports, and filling it at first use
	ports *injector.Ports
}

// get returns the interceptor ports of a Front by the names of its ports, and frees those with other names. If the namespace has too
// many, it returns why.
func (b *portBook) get(ctx context.Context, front types.NamespacedName, now time.Time, names []string) (
	listen map[string]int32, full injector.Skip, err error,
) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.learn(ctx); err != nil {
		return nil, "", err
	}
	if full := b.ports.Room(front.Namespace, front.Name, b.perNamespace, names...); full != "" {
		return nil, full, nil
	}
	b.ports.Keep(front.Namespace, front.Name, now, names...)
	out := map[string]int32{}
	for _, name := range names {
		n, err := b.ports.Get(injector.PortOwner{Namespace: front.Namespace, Service: front.Name, Port: name}, now)
		if err != nil {
			return nil, "", err
		}
		out[name] = n
	}
	return out, "", nil
}

// owns reports whether a route has an interceptor port.
func (b *portBook) owns(ctx context.Context, owner injector.PortOwner, port int32) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.learn(ctx); err != nil {
		return false, err
	}
	return b.ports.Owns(owner, port), nil
}

// free frees all ports of a Front.
func (b *portBook) free(front types.NamespacedName, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ports != nil {
		b.ports.Keep(front.Namespace, front.Name, now)
	}
}

// learn fills ports from all route slices whose Services exist, once, the oldest first. If two slices claim a port, the younger one
// gets another. The caller holds mu.
func (b *portBook) learn(ctx context.Context) error {
	if b.ports != nil {
		return nil
	}
	var list discoveryv1.EndpointSliceList
	if err := b.client.List(ctx, &list, client.MatchingLabels{api.RoleLabel: api.RoleRoute}); err != nil {
		return fmt.Errorf("listing all route slices: %w", err)
	}
	slices.SortFunc(list.Items, func(a, b discoveryv1.EndpointSlice) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	ports := injector.NewPorts(b.low, b.high)
	for i := range list.Items {
		s := &list.Items[i]
		routes, ok := routesOf(s)
		if !ok {
			continue
		}
		owner := &corev1.Service{}
		err := b.client.Get(ctx, types.NamespacedName{Namespace: s.Namespace, Name: routes.Service}, owner)
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("getting service %s/%s: %w", s.Namespace, routes.Service, err)
		}
		if err != nil || !ownedBy(s, owner.UID) {
			continue
		}
		for _, p := range routes.Ports {
			front := s.Labels[discoveryv1.LabelServiceName]
			if !ports.Learn(injector.PortOwner{Namespace: s.Namespace, Service: front, Port: p.Name}, p.Listen) {
				log.FromContext(ctx).Info("An interceptor port cannot be kept; the route gets another", "service", s.Namespace+"/"+front, "port",
					p.Listen)
			}
		}
	}
	b.ports = ports
	return nil
}
