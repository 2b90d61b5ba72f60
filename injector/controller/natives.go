// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// nativeSlices is the manager of a Service's own EndpointSlices: Kubernetes' controller.
const nativeSlices = "endpointslice-controller.k8s.io"

// natives follows the EndpointSlices that Kubernetes keeps for the few Services that are being restored. The cache omits these
// slices: they matter only once in a Service's life, and there are as many as Services in the cluster.
type natives struct {
	client  client.WithWatch
	changed chan event.TypedGenericEvent[*corev1.Service]
	ctx     context.Context // the context of the watches, which outlives a reconcile
	stop    context.CancelFunc

	running  sync.WaitGroup
	mu       sync.Mutex // protects followed
	followed map[types.NamespacedName]*followed
}

// followed is one Service whose slices are watched.
type followed struct {
	stop  func()
	ready map[string]bool // by slice: whether it lists a ready pod; protected by natives.mu
}

func newNatives(ctx context.Context, c client.WithWatch) *natives {
	n := &natives{client: c, changed: make(chan event.TypedGenericEvent[*corev1.Service]), followed: map[types.NamespacedName]*followed{}}
	n.ctx, n.stop = context.WithCancel(ctx)
	return n
}

// Start implements manager.Runnable. It ends the watches when the manager ends.
func (n *natives) Start(ctx context.Context) error {
	<-ctx.Done()
	n.end()
	return nil
}

// end ends all watches, and waits until they have ended.
func (n *natives) end() {
	n.stop()
	n.mu.Lock()
	for _, f := range n.followed {
		f.stop()
	}
	n.mu.Unlock()
	n.running.Wait()
}

// ready reports whether Kubernetes lists a ready pod for the Service itself. The first call lists the Service's slices and starts a
// watch. From then on the Service is reconciled when the result changes, until forget is called.
//
// Only one goroutine at a time reconciles a Service, so nobody else starts the same watch meanwhile.
func (n *natives) ready(ctx context.Context, service types.NamespacedName) (bool, error) {
	n.mu.Lock()
	f := n.followed[service]
	n.mu.Unlock()
	if f == nil {
		var err error
		if f, err = n.follow(ctx, service); err != nil {
			return false, err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return f.any(), nil
}

// any reports whether one of the slices lists a ready pod.
func (f *followed) any() bool {
	for _, ready := range f.ready {
		if ready {
			return true
		}
	}
	return false
}

// follow lists a Service's slices, and watches them from that version on.
func (n *natives) follow(ctx context.Context, service types.NamespacedName) (*followed, error) {
	own := []client.ListOption{client.InNamespace(service.Namespace), client.MatchingLabels{
		discoveryv1.LabelServiceName: service.Name, discoveryv1.LabelManagedBy: nativeSlices,
	}}
	var list discoveryv1.EndpointSliceList
	if err := n.client.List(ctx, &list, own...); err != nil {
		return nil, fmt.Errorf("listing endpoint slices of %s: %w", service, err)
	}
	f := &followed{ready: map[string]bool{}}
	for _, s := range list.Items {
		f.ready[s.Name] = injector.HasReadyEndpoint([]discoveryv1.EndpointSlice{s})
	}
	since := slices.Concat(own, []client.ListOption{&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.ResourceVersion}}})
	//nolint:contextcheck // the watch goes on after this reconcile
	w, err := n.client.Watch(n.ctx, &discoveryv1.EndpointSliceList{}, since...)
	if err != nil {
		return nil, fmt.Errorf("watching endpoint slices of %s: %w", service, err)
	}
	f.stop = w.Stop
	n.mu.Lock()
	n.followed[service] = f
	n.mu.Unlock()
	n.running.Go(func() { n.run(service, f, w) })
	return f, nil
}

// run records what a watch reports. If the watch ends by itself, the next poll starts another.
func (n *natives) run(service types.NamespacedName, f *followed, w watch.Interface) {
	for e := range w.ResultChan() {
		s, ok := e.Object.(*discoveryv1.EndpointSlice)
		if !ok {
			break // an error, for example that the version is too old
		}
		n.mu.Lock()
		before := f.any()
		f.ready[s.Name] = e.Type != watch.Deleted && injector.HasReadyEndpoint([]discoveryv1.EndpointSlice{*s})
		after := f.any()
		n.mu.Unlock()
		if before != after {
			n.report(service)
		}
	}
	w.Stop()
	n.mu.Lock()
	ended := n.followed[service] == f
	if ended {
		delete(n.followed, service)
	}
	n.mu.Unlock()
	if ended {
		n.report(service)
	}
}

// report makes the Service be reconciled.
func (n *natives) report(service types.NamespacedName) {
	o := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: service.Namespace, Name: service.Name}}
	select {
	case n.changed <- event.TypedGenericEvent[*corev1.Service]{Object: o}:
	case <-n.ctx.Done():
	}
}

// forget ends the watch of a Service, if there is one.
func (n *natives) forget(service types.NamespacedName) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if f := n.followed[service]; f != nil {
		delete(n.followed, service)
		f.stop()
	}
}
