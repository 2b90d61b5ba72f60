// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"strings"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestWorkloadDeletedWhileAsleep: held requests fail at once, also while the alias Service lingers.
func TestWorkloadDeletedWhileAsleep(t *testing.T) {
	t.Run("Service", func(t *testing.T) {
		listInterceptors(t, "198.18.0.2")
		start(t, planeOptions{interceptors: &interceptors{}})
		a := newApp(t, 1)
		a.injected()
		a.scale(0)
		if err := kube.Delete(t.Context(), a.deployment("web", 1)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the route slice goes", func() error { return a.gone("web-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{}) })
		a.told("Service", "web", "Deployment/web does not exist any more")
	})
	t.Run("Ingress", func(t *testing.T) {
		listInterceptors(t, "198.18.0.2")
		start(t, planeOptions{interceptors: &interceptors{}})
		a := newApp(t, 1)
		a.ingress("front")
		a.patchIngress("front", label)
		a.directMade()
		a.led("front", "other", "web-scale-to-zero")
		if err := kube.Delete(t.Context(), a.deployment("web", 1)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the route slice says why", func() error {
			var slice discoveryv1.EndpointSlice
			a.get("web-scale-to-zero-scale-to-zero-ipv4", &slice)
			routes, err := api.DecodeRoutes(slice.Annotations[api.RoutesAnnotation])
			if !strings.Contains(routes.Gone, "Deployment/web") {
				return fmt.Errorf("gone: %q, %w", routes.Gone, err)
			}
			return nil
		})
	})
}

// lessons are Learned that the test sets.
type lessons chan []int32

func (l lessons) Follow(ctx context.Context, serverFirst func([]int32)) error {
	for {
		select {
		case ports := <-l:
			serverFirst(ports)
		case <-ctx.Done():
			return nil
		}
	}
}

// TestServerFirstIsKept: the route slice has what the interceptors have learned about a port, and keeps it when another
// controller becomes the leader.
func TestServerFirstIsKept(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	l := make(lessons)
	p := start(t, planeOptions{interceptors: &interceptors{}, learned: l})
	a := newApp(t, 1)
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/protocol":"auto"}}}`); err != nil {
		t.Fatal(err)
	}
	a.injected()
	_, routes := a.routeSlice()
	if routes.Ports[0].ServerFirst || routes.Reach == nil || len(routes.Reach.Inside) == 0 {
		t.Errorf("routes %+v", routes)
	}
	l <- []int32{routes.Ports[0].Listen, 29999}
	kept := func() error {
		if _, routes := a.routeSlice(); !routes.Ports[0].ServerFirst {
			return fmt.Errorf("ports %+v", routes.Ports)
		}
		return nil
	}
	eventually(t, "the route slice has it", kept)
	p.stop()
	start(t, planeOptions{interceptors: &interceptors{}})
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"7m"}}}`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another controller has written the routes", func() error {
		if _, routes := a.routeSlice(); routes.Cooldown.String() != "7m0s" {
			return fmt.Errorf("cool-down %s", routes.Cooldown)
		}
		return nil
	})
	if err := kept(); err != nil {
		t.Error(err)
	}
}
