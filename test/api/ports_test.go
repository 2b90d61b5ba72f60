// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestPortsAndAffinity edits the ports and the session affinity of an injected Service.
func TestPortsAndAffinity(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.injected()
	_, before := a.routeSlice()
	var direct, same corev1.Service
	a.get("web-direct", &direct)
	if before.Ports[0].Protocol != api.ProtocolHTTP || before.ClientAffinity {
		t.Errorf("at first: %+v", before)
	}
	says := func(affinity bool, want map[string]string) {
		t.Helper()
		eventually(t, "the route slice has it", func() error {
			_, routes := a.routeSlice()
			got := map[string]string{}
			for _, p := range routes.Ports {
				got[p.Name] = p.Protocol
			}
			if d := cmp.Diff(want, got); d != "" || routes.ClientAffinity != affinity {
				return fmt.Errorf("client affinity %t, ports (-want +got):\n%s", routes.ClientAffinity, d)
			}
			return nil
		})
	}
	must := func(patch string) {
		t.Helper()
		if err := a.patch(patch); err != nil {
			t.Fatal(err)
		}
	}
	must(`{"metadata":{"annotations":{"scale-to-zero/protocol":"auto"}},"spec":{"sessionAffinity":"ClientIP"}}`)
	says(true, map[string]string{"http": "auto"})
	if a.get("web-direct", &same); same.ResourceVersion != direct.ResourceVersion {
		t.Errorf("the direct Service was written, which has no clients: %+v", same.Spec)
	}
	must(`{"metadata":{"annotations":{"scale-to-zero/protocol":"db=tcp,81=auto"}},
		"spec":{"sessionAffinity":"None","sessionAffinityConfig":null,"ports":[
		{"name":"http","port":80}, {"name":"grpc","port":81,"appProtocol":"kubernetes.io/h2c"}, {"name":"tls","port":443,"appProtocol":"https"},
		{"name":"db","port":5432}, {"name":"mysql","port":3307}, {"name":"own","port":82,"appProtocol":"example.com/own"}]}}`)
	says(false, map[string]string{"http": "http", "grpc": "http", "tls": "tcp", "db": "tcp", "mysql": "tcp", "own": "auto"})
	if slice, _ := a.routeSlice(); strings.Contains(slice.Annotations[api.RoutesAnnotation], "ffinity") {
		t.Errorf("interceptors of an earlier version get affinity: %s", slice.Annotations[api.RoutesAnnotation])
	}

	// An annotation that names a port that does not exist is denied, and so is removing that port.
	for patch, want := range map[string]string{
		`{"metadata":{"annotations":{"scale-to-zero/protocol":"5433=tcp"}}}`: `"5433=tcp" is not allowed: Service web has no port 5433; ` +
			`it has http (80), grpc (81)`,
		`{"spec":{"ports":[{"name":"http","port":80}]}}`: `"db=tcp,81=auto" is not allowed: Service web has no port 81, db; ` +
			`it has http (80)`,
	} {
		if err := a.patch(patch); !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it denied with %s", err, want)
		}
	}
	must(`{"metadata":{"annotations":{"scale-to-zero/protocol":null}},"spec":{"ports":[{"name":"http","port":80}]}}`)
	says(false, map[string]string{"http": "http"})
}

// TestAffinityThroughAnIngress: an ingress controller connects to the alias Service, which copies the Service's changes.
func TestAffinityThroughAnIngress(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.ingress("front")
	a.patchIngress("front", label)
	a.directMade()
	a.led("front", "other", "web-scale-to-zero")
	for _, tc := range []struct {
		patch    string
		affinity corev1.ServiceAffinity
	}{
		{`{"spec":{"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":60}}}}`, corev1.ServiceAffinityClientIP},
		{`{"spec":{"sessionAffinity":"None","sessionAffinityConfig":null}}`, corev1.ServiceAffinityNone},
	} {
		if err := a.patch(tc.patch); err != nil {
			t.Fatal(err)
		}
		eventually(t, "alias and routes have the affinity "+string(tc.affinity), func() error {
			var alias corev1.Service
			a.get("web-scale-to-zero", &alias)
			var slice discoveryv1.EndpointSlice
			a.get("web-scale-to-zero-scale-to-zero-ipv4", &slice)
			routes, err := api.DecodeRoutes(slice.Annotations[api.RoutesAnnotation])
			want := a.live().Spec.SessionAffinityConfig
			if alias.Spec.SessionAffinity != tc.affinity || !cmp.Equal(alias.Spec.SessionAffinityConfig, want) ||
				routes.ClientAffinity != (tc.affinity == corev1.ServiceAffinityClientIP) {
				return errors.Join(err, fmt.Errorf("alias %s %v, routes %t", alias.Spec.SessionAffinity, alias.Spec.SessionAffinityConfig,
					routes.ClientAffinity))
			}
			return nil
		})
	}
}
