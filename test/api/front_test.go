// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// frontIngress is an Ingress that asks for a sticky cookie.
func (a *app) frontIngress() *networkingv1.Ingress {
	return &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: a.ns, Name: "front", Annotations: map[string]string{"nginx.ingress.kubernetes.io/affinity": "cookie"},
		},
		Spec: networkingv1.IngressSpec{DefaultBackend: &networkingv1.IngressBackend{
			Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}},
		}},
	}
}

// toldOnce waits for an event, and reports whether it is the only one with its reason.
func (a *app) toldOnce(reason, text string) {
	a.t.Helper()
	a.told("Service", "web", text)
	if got := events(a.t, a.ns, "Service", "web"); strings.Count(got, reason+": ") != 1 {
		a.t.Errorf("events %q", got)
	}
}

// One event each says which setting of a proxy in front no longer has an effect, and what becomes of the client's
// address. A restarted controller does not repeat them.
func TestFrontIsWarned(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	plane := planeOptions{interceptors: &interceptors{}}
	p := start(t, plane)
	a := newApp(t, 3)
	create(t, a.frontIngress())
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/protocol":"auto"}},` +
		`"spec":{"type":"NodePort","externalTrafficPolicy":"Local"}}`); err != nil {
		t.Fatal(err)
	}
	a.label(`"true"`)
	a.injected()
	a.toldOnce("AffinityLost", "Ingress front (nginx.ingress.kubernetes.io/affinity: cookie) keeps each client at one endpoint")
	a.toldOnce("ClientAddress", `set annotation scale-to-zero/proxy-protocol: "2"`)
	p.stop()
	start(t, plane)
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/affinity-cookie":"sid",` +
		`"scale-to-zero/proxy-protocol":"80=2"}}}`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the routes say so", func() error {
		if _, routes := a.routeSlice(); routes.AffinityCookie != "sid" || !routes.Ports[0].ProxyProtocol {
			return fmt.Errorf("%+v", routes)
		}
		return nil
	})
	a.toldOnce("AffinityLost", "not a pod of Deployment/web")
	a.told("Service", "web", "On port 80 pods are sent it in a PROXY header")
}

// A setting that cannot be used is denied, and the denial names one that can.
func TestBadFrontSettingsAreDenied(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.label(`"true"`)
	for patch, want := range map[string]string{
		`"affinity-cookie":"a b"`:   "the name of the app's session cookie",
		`"affinity-cookie":""`:      "the name of the app's session cookie",
		`"proxy-protocol":"1"`:      "2, for a PROXY header of version 2",
		`"proxy-protocol":"5432=2"`: "has no port 5432",
	} {
		err := a.patch(`{"metadata":{"annotations":{"` + injector.Prefix + patch[1:] + `}}}`)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", patch, err)
		}
	}
}
