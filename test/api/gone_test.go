// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
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
