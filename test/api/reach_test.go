// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

const dropped = "the interceptors cannot connect to its pods on port 8080 (i/o timeout). If a NetworkPolicy restricts them, " +
	"allow ingress from pods app.kubernetes.io/component=interceptor,app.kubernetes.io/name=scale-to-zero in namespace scale-to-zero " +
	"(namespaceSelector kubernetes.io/metadata.name=scale-to-zero);"

// listedAs makes the interceptors' Service, whose selector a NetworkPolicy would name.
func listedAs(t *testing.T) {
	t.Helper()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ours, Name: "interceptors"}, Spec: corev1.ServiceSpec{
		ClusterIP: corev1.ClusterIPNone,
		Selector:  map[string]string{"app.kubernetes.io/name": "scale-to-zero", "app.kubernetes.io/component": "interceptor"},
	}}
	create(t, s.DeepCopy())
	t.Cleanup(func() {
		if err := kube.Delete(context.Background(), s); err != nil {
			t.Error(err)
		}
	})
}

func blocked(ready int) injector.PortReach {
	return injector.PortReach{Name: "http", Ready: ready, Port: "8080", Error: "i/o timeout"}
}

// TestPodsOutOfReach: an app whose pods the interceptors cannot connect to is not injected, and gets no traffic through
// them. It is injected once they can connect.
func TestPodsOutOfReach(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	listedAs(t)
	fake := &interceptors{}
	fake.setReach(blocked(1))
	start(t, planeOptions{interceptors: fake})
	for name, through := range map[string]bool{"a Service": false, "an Ingress": true} {
		t.Run(name, func(t *testing.T) {
			fake.setReach(blocked(1))
			a := newApp(t, 1)
			slice := "web-scale-to-zero-ipv4"
			if through {
				slice = "web-scale-to-zero-scale-to-zero-ipv4"
				a.ingress("front")
				a.patchIngress("front", label)
			} else {
				a.label(`"true"`)
			}
			a.directMade()
			a.told("Service", "web", "InjectionSkipped: Not injected: "+dropped)
			s := &discoveryv1.EndpointSlice{}
			if a.get(slice, s); len(s.Endpoints) != 0 {
				t.Errorf("interceptors are published: %v", s.Endpoints)
			}
			if err := a.gone("web-deployment", newScaledObject()); err != nil {
				t.Error(err)
			}
			if strings.Contains(events(t, a.ns, "Service", "web"), "Injected") {
				t.Error("it is said to be injected")
			}
			// A rollout leaves it without a ready pod. That does not count as asleep.
			a.ready(0)
			a.directSlice(false)
			for range 2 {
				fake.nextDial(t)
			}
			if s := a.live(); injector.Intercepted(s) {
				t.Error("injected while it had no ready pod")
			}
			a.ready(1)
			a.directSlice(true)

			fake.setReach(injector.PortReach{Name: "http", Ready: 1, Reached: true})
			a.told("Service", "web", "Injected: ")
			if got := events(t, a.ns, "Service", "web"); strings.Count(got, "InjectionSkipped") != 1 {
				t.Errorf("events: %q", got)
			}
		})
	}
}

// TestProvenWhenReady: an app that was asleep when it was labelled is proven with its first ready pod, and restored if
// the interceptors cannot connect to it.
func TestProvenWhenReady(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	listedAs(t)
	for name, open := range map[string]bool{"open": true, "blocked": false} {
		t.Run(name, func(t *testing.T) {
			fake := &interceptors{}
			p := start(t, planeOptions{interceptors: fake})
			defer p.stop()
			a := newApp(t, 0)
			a.nativeSlice(false)
			a.label(`"true"`)
			eventually(t, "the direct Service is made", func() error {
				return kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: "web-direct"}, &corev1.Service{})
			})
			a.directSlice(false)
			eventually(t, "the Service is intercepted", a.intercepted)
			unproven := func() string {
				s, _ := a.routeSlice()
				return s.Annotations[injector.UnprovenAnnotation]
			}
			if unproven() != injector.UnprovenYet {
				t.Errorf("unproven is %q", unproven())
			}
			if open {
				fake.setReach(injector.PortReach{Name: "http", Ready: 1, Reached: true})
			} else {
				fake.setReach(blocked(1))
			}
			a.scale(1)
			a.ready(1)
			a.directSlice(true)
			if open {
				eventually(t, "it is proven", func() error {
					if got := unproven(); got != "" {
						return errors.New(got)
					}
					return nil
				})
				if err := a.intercepted(); err != nil {
					t.Error(err)
				}
				return
			}
			eventually(t, "the redirect is undone", func() error {
				if s := a.live(); injector.Intercepted(s) {
					return fmt.Errorf("selector %v", s.Spec.Selector)
				}
				return nil
			})
			a.nativeSlice(true) // as Kubernetes does then
			a.told("Service", "web", "Restored: Requests to Service web go to its pods again, without scale-to-zero: "+dropped)
			a.told("Service", "web", "InjectionSkipped: Not injected: "+dropped)
			fake.setReach(injector.PortReach{Name: "http", Ready: 1, Reached: true})
			a.directMade()
			eventually(t, "the Service is intercepted", a.intercepted)
		})
	}
}
