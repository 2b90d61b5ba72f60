// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// dualStack makes the app's Service reachable over IPv6 too.
func (a *app) dualStack() {
	a.t.Helper()
	if err := a.patch(`{"spec":{"ipFamilyPolicy":"RequireDualStack"}}`); err != nil {
		a.t.Fatal(err)
	}
}

// publishes reports how the route slice of an IP family differs from n interceptors.
func (a *app) publishes(family string, n int) func() error {
	return func() error {
		s := &discoveryv1.EndpointSlice{}
		a.get("web-scale-to-zero-"+family, s)
		if len(s.Endpoints) != n {
			return fmt.Errorf("%s: %d interceptors, want %d", family, len(s.Endpoints), n)
		}
		return nil
	}
}

// TestEachFamilyHasInterceptors: no client loses its way to the pods for interceptors that it cannot reach.
func TestEachFamilyHasInterceptors(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.dualStack()
	a.label(`"true"`)
	a.directMade()
	a.told("Service", "web", "InjectionSkipped: Not injected: it has an IPv6 address, and no interceptor")
	if a.intercepted() == nil {
		t.Error("intercepted without an interceptor for IPv6")
	}
	if err := a.publishes("ipv4", 0)(); err != nil {
		t.Error(err)
	}
	direct := &corev1.Service{}
	a.get("web-direct", direct)
	if len(direct.Spec.IPFamilies) != 2 {
		t.Errorf("the pods are listed for %v", direct.Spec.IPFamilies)
	}
	listFamily(t, discoveryv1.AddressTypeIPv6, "fd00::2")
	a.followInjection()
	for _, family := range []string{"ipv4", "ipv6"} {
		if err := a.publishes(family, 1)(); err != nil {
			t.Error(err)
		}
	}
}

// TestFamilyLost: an injected Service stays injected for the clients that can reach interceptors.
func TestFamilyLost(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	listFamily(t, discoveryv1.AddressTypeIPv6, "fd00::2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.dualStack()
	a.injected()
	listFamily(t, discoveryv1.AddressTypeIPv6)
	a.told("Service", "web", "NoInterceptor: No interceptor of scale-to-zero can be reached over IPv6")
	if err := a.publishes("ipv4", 1)(); err != nil || !injector.Intercepted(a.live()) {
		t.Errorf("IPv4 is cut too: %v", err)
	}
	listFamily(t, discoveryv1.AddressTypeIPv6, "fd00::3")
	eventually(t, "the family is back", a.publishes("ipv6", 1))
	a.told("Service", "web", "Injected: Requests to Service web go through scale-to-zero again")
}
