// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// counts fakes the interceptors' counts.
type counts struct {
	mu      sync.Mutex // protects what follows
	active  bool
	pending int64
	err     error         // until the counts are set
	use     *injector.Use // nil if unknown
}

func (c *counts) Count(context.Context, string, api.Workload) (injector.CountAnswer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return injector.CountAnswer{Known: c.err == nil, Active: c.active, Pending: c.pending}, c.err
}

func (c *counts) Use(context.Context, string, api.Workload) (injector.Use, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.use == nil {
		return injector.Use{}, errors.New("nobody answers")
	}
	return *c.use, nil
}

func (c *counts) setUse(use *injector.Use) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.use = use
}

func (c *counts) set(active bool, pending int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active, c.pending, c.err = active, pending, nil
}

func installKEDA(t *testing.T) {
	t.Helper()
	if _, err := envtest.InstallCRDs(env.Config,
		envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{scaledObjects()}}); err != nil {
		t.Error(err)
	}
}

// withoutKEDA removes KEDA until the test is over.
func withoutKEDA(t *testing.T) {
	t.Helper()
	t.Cleanup(func() { installKEDA(t) })
	uninstallKEDA(t)
}

func uninstallKEDA(t *testing.T) {
	t.Helper()
	if err := envtest.UninstallCRDs(env.Config,
		envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{scaledObjects()}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "KEDA's API is gone", func() error {
		err := kube.List(t.Context(), &keda.ScaledObjectList{})
		if err == nil {
			return errors.New("ScaledObjects can be listed")
		}
		if !meta.IsNoMatchError(err) && !strings.Contains(err.Error(), "could not find the requested resource") {
			return err
		}
		return nil
	})
}

// TestWithoutKEDA: the interceptors' counts decide on the scale. KEDA scales as soon as it is installed, and until it is
// removed.
func TestWithoutKEDA(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	withoutKEDA(t)
	c := &counts{err: errors.New("nobody answers")}
	start(t, planeOptions{interceptors: &interceptors{}, counts: c})
	a := newApp(t, 1)
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"1s","scale-to-zero/max-replicas":"3",` +
		`"scale-to-zero/target-pending-requests":"10"}}}`); err != nil {
		t.Fatal(err)
	}
	a.label(`"true"`)
	a.followInjection()
	c.set(true, 25)
	a.has(3)
	c.set(false, 0)
	a.has(0)
	a.told("Deployment", "web", "Asleep: ")
	installKEDA(t)
	eventually(t, "KEDA takes over", a.scaled)
	so := &keda.ScaledObject{}
	a.get("web-deployment", so)
	if n := injector.Remembered(so.Annotations); n != 1 {
		t.Errorf("made while asleep, the ScaledObject remembers %d", n)
	}
	if err := kube.Delete(t.Context(), so); err != nil {
		t.Fatal(err)
	}
	uninstallKEDA(t)
	a.scale(2)
	a.has(0) // again by the counts
	a.label("null")
	a.has(1)
	a.ready(1)
	a.nativeSlice(true)
	eventually(t, "nothing of ours is left", func() error {
		d := &appsv1.Deployment{}
		if a.get("web", d); d.Annotations[injector.ReplicasAnnotation] != "" {
			return fmt.Errorf("annotations %v", d.Annotations)
		}
		return a.gone("web-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{})
	})
}

// TestLimitFalls: replicas that load justified under the old limit are no user's wish, even if they stay for a while.
func TestLimitFalls(t *testing.T) {
	for name, withKEDA := range map[string]bool{"without KEDA": false, "with KEDA": true} {
		t.Run(name, func(t *testing.T) {
			listInterceptors(t, "198.18.0.2")
			if !withKEDA {
				withoutKEDA(t)
			}
			start(t, planeOptions{interceptors: &interceptors{}, counts: &counts{err: errors.New("nobody answers")}})
			a := newApp(t, 1)
			if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/max-replicas":"5"}}}`); err != nil {
				t.Fatal(err)
			}
			a.label(`"true"`)
			a.followInjection()
			remembers := func(want int32) {
				t.Helper()
				eventually(t, fmt.Sprintf("it remembers %d", want), func() error {
					d := &appsv1.Deployment{}
					if a.get("web", d); injector.Remembered(d.Annotations) != want {
						return fmt.Errorf("annotations %v", d.Annotations)
					}
					return nil
				})
			}
			remembers(1)
			a.scaledSeen(5) // KEDA's HPA, or we
			if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/max-replicas":null}}}`); err != nil {
				t.Fatal(err)
			}
			eventually(t, "its route slice has the new maximum", func() error {
				if s, _ := a.routeSlice(); strings.Contains(s.Annotations[injector.ScalingAnnotation], "maxReplicas") {
					return fmt.Errorf("annotations %v", s.Annotations)
				}
				return nil
			})
			if withKEDA {
				eventually(t, "KEDA's maximum is 1", func() error {
					so := &keda.ScaledObject{}
					if a.get("web-deployment", so); *so.Spec.MaxReplicaCount != 1 {
						return fmt.Errorf("it is %d", *so.Spec.MaxReplicaCount)
					}
					return nil
				})
			}
			a.ready(5)
			a.scaledSeen(3)
			remembers(1)
			a.scale(4) // which is more than it was
			remembers(4)
		})
	}
}

// TestRestoredBesideAnother: a Service is restored while another one keeps the workload, which sleeps and which only we
// can wake.
func TestRestoredBesideAnother(t *testing.T) {
	for name, withKEDA := range map[string]bool{"without KEDA": false, "KEDA down": true} {
		t.Run(name, func(t *testing.T) {
			listInterceptors(t, "198.18.0.2")
			if !withKEDA {
				withoutKEDA(t)
			}
			c := &counts{err: errors.New("nobody answers")}
			start(t, planeOptions{interceptors: &interceptors{}, counts: c})
			a := newApp(t, 1)
			second := a.service()
			second.Name, second.Labels[injector.OptInLabel] = "web2", "true"
			second.Annotations = map[string]string{"scale-to-zero/cooldown": "1s"}
			create(t, second)
			eventually(t, "the direct Service of the second is made", func() error {
				return kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: "web2-direct"}, &corev1.Service{})
			})
			a.slice("web2-direct-native", "web2-direct", map[string]string{
				discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io", injector.ServiceLabel: "web2", api.RoleLabel: api.RoleDirect,
			}, true)
			if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"1s"}}}`); err != nil {
				t.Fatal(err)
			}
			a.label(`"true"`)
			a.followInjection()
			eventually(t, "the second is intercepted", func() error {
				got := &corev1.Service{}
				if a.get("web2", got); !injector.Intercepted(got) {
					return fmt.Errorf("selector %v", got.Spec.Selector)
				}
				return nil
			})
			a.scale(0)
			a.told("Deployment", "web", "Asleep: ")
			a.ready(0)
			a.directSlice(false)

			a.label("null")
			a.has(1)
			c.set(false, 0) // that wake is not for them
			a.ready(1)
			a.directSlice(true)
			a.nativeSlice(true)
			eventually(t, "the first is restored", func() error {
				return a.gone("web-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{})
			})
			if !withKEDA {
				a.has(0) // it may sleep again, for the second Service
				return
			}
			eventually(t, "KEDA may put it to sleep again", func() error {
				so := &keda.ScaledObject{}
				if a.get("web-deployment", so); so.Spec.Idle() != 0 {
					return fmt.Errorf("its least is %d", so.Spec.Idle())
				}
				return nil
			})
		})
	}
}

// TestKEDAIsGone: KEDA's API is there without its operator, so we must remove a ScaledObject's finalizer.
func TestKEDAIsGone(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 2)
	a.injected()
	so := &keda.ScaledObject{}
	a.get("web-deployment", so)
	so.Finalizers = []string{keda.Finalizer}
	if err := kube.Update(t.Context(), so); err != nil {
		t.Fatal(err)
	}
	a.scale(0)
	a.label("null")
	eventually(t, "the old replica count is back", func() error {
		if n := a.replicas(); n != 2 {
			return fmt.Errorf("it is %d", n)
		}
		return nil
	})
	a.ready(2)
	a.nativeSlice(true)
	eventually(t, "nothing of ours is left", a.nothingLeft)
}
