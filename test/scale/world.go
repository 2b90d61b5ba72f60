// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
)

// product is the namespace of scale-to-zero, and the name of its release.
const product = "scale-to-zero"

// world is the cluster with the apps under test.
type world struct {
	config    *rest.Config
	client    kubernetes.Interface
	namespace string // of the apps that were made last, or of the first thousand of them
	began     time.Time

	mu   sync.Mutex // protects all below
	apps map[string]*app
}

// app is what the watches see of an app.
type app struct {
	number           int
	namespace, name  string
	intercepted      bool
	replicas, ready  int32
	route            string // where the first interceptor listens for it, as ip:port
	seenDeployment   bool
	interceptorIndex int
}

func (a *app) key() string { return a.namespace + "/" + a.name }

// newWorld connects to the cluster and begins to watch.
func newWorld(ctx context.Context) (*world, error) {
	c, err := config.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the cluster: %w", err)
	}
	c.QPS = -1 // no limit: the cluster is ours
	c.ContentType = "application/vnd.kubernetes.protobuf"
	w := &world{config: c, apps: map[string]*app{}, began: time.Now()}
	if w.client, err = kubernetes.NewForConfig(c); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return w, w.watch(ctx)
}

// say prints a line of progress.
func (w *world) say(format string, args ...any) {
	fmt.Printf("%6.0fs  %s\n", time.Since(w.began).Seconds(), fmt.Sprintf(format, args...))
}

func (w *world) watch(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(w.client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.LabelSelector = appLabel
	}))
	saw := func(o any) {
		w.mu.Lock()
		defer w.mu.Unlock()
		switch o := o.(type) {
		case *appsv1.Deployment:
			if a := w.apps[o.Namespace+"/"+o.Name]; a != nil {
				a.replicas, a.ready, a.seenDeployment = *o.Spec.Replicas, o.Status.ReadyReplicas, true
			}
		case *corev1.Service:
			if a := w.apps[o.Namespace+"/"+o.Name]; a != nil {
				a.intercepted = o.Spec.Selector["scale-to-zero/intercepted"] != ""
			}
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: saw, UpdateFunc: func(_, o any) { saw(o) }}
	deployments, services := factory.Apps().V1().Deployments().Informer(), factory.Core().V1().Services().Informer()
	for _, informer := range []cache.SharedIndexInformer{deployments, services} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), deployments.HasSynced, services.HasSynced) {
		return errors.New("watching: interrupted")
	}
	return nil
}

// appsPerNamespace is half of what a namespace may have by default.
const appsPerNamespace = 1000

// create makes apps until there are n, in new namespaces, and waits until those of them that are awake are ready.
func (w *world) create(ctx context.Context, n int) error {
	have := len(w.apps)
	everything, ctx := errgroup.WithContext(ctx)
	everything.SetLimit(24)
	for i := have; i < n; i++ {
		namespace := fmt.Sprintf("scale-%d-%d", n, (i-have)/appsPerNamespace)
		if (i-have)%appsPerNamespace == 0 {
			if err := w.makeNamespace(ctx, namespace); err != nil {
				return err
			}
			if i == have {
				w.namespace = namespace
			}
		}
		a := &app{number: i, namespace: namespace, name: fmt.Sprintf("app-%05d", i)}
		w.mu.Lock()
		w.apps[a.key()] = a
		w.mu.Unlock()
		everything.Go(func() error { return w.createApp(ctx, a) })
	}
	if err := everything.Wait(); err != nil {
		return err
	}
	return w.until(context.WithoutCancel(ctx), "the apps to be ready", 10*time.Minute, func(a *app) bool {
		return a.seenDeployment && (a.number < have || !startsAwake(a.number) || a.ready > 0)
	})
}

func (w *world) makeNamespace(ctx context.Context, name string) error {
	_, err := w.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("making a namespace: %w", err)
	}
	return nil
}

func (w *world) createApp(ctx context.Context, a *app) error {
	if _, err := w.client.CoreV1().Services(a.namespace).Create(ctx, newService(a.name), metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("making a Service: %w", err)
	}
	deployment := newDeployment(a.name, startsAwake(a.number))
	if _, err := w.client.AppsV1().Deployments(a.namespace).Create(ctx, deployment, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("making a Deployment: %w", err)
	}
	return nil
}

// count returns how many apps are as is says.
func (w *world) count(is func(*app) bool) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, a := range w.apps {
		if is(a) {
			n++
		}
	}
	return n
}

// sorted returns the apps in the order in which they were made.
func (w *world) sorted() []*app {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]*app, 0, len(w.apps))
	for _, a := range w.apps {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b *app) int { return a.number - b.number })
	return all
}

func intercepted(a *app) bool { return a.intercepted }
func asleep(a *app) bool      { return a.replicas == 0 }

// until waits until all apps are as is says, and tells how many of them are.
func (w *world) until(ctx context.Context, what string, limit time.Duration, is func(*app) bool) error {
	told := time.Now()
	return poll(ctx, limit, what, func() (bool, error) {
		n := w.count(is)
		if time.Since(told) > 15*time.Second {
			w.say("  waiting for %s: %d of %d", what, n, len(w.apps))
			told = time.Now()
		}
		return n == len(w.apps), nil
	})
}

// poll waits until is holds, or fails.
func poll(ctx context.Context, limit time.Duration, what string, is func() (bool, error)) error {
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, limit, true, func(context.Context) (bool, error) { return is() })
	if wait.Interrupted(err) {
		return fmt.Errorf("waiting for %s: %w", what, err)
	}
	return err
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
