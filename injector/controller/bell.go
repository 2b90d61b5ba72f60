// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// bell makes a controller reconcile objects that no watch reports. Nobody who rings it has to wait for the controller.
type bell struct {
	rung chan event.TypedGenericEvent[types.NamespacedName] // holds one element

	mu    sync.Mutex // protects names
	names map[types.NamespacedName]bool
}

func newBell() *bell {
	return &bell{
		rung:  make(chan event.TypedGenericEvent[types.NamespacedName], 1),
		names: map[types.NamespacedName]bool{},
	}
}

func (b *bell) ring(namespace string, names ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range names {
		b.names[types.NamespacedName{Namespace: namespace, Name: name}] = true
	}
	select {
	case b.rung <- event.TypedGenericEvent[types.NamespacedName]{}:
	default: // all names are about to be taken
	}
}

// take returns requests for what it was rung for.
func (b *bell) take() []reconcile.Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]reconcile.Request, 0, len(b.names))
	for name := range b.names {
		out = append(out, reconcile.Request{NamespacedName: name})
	}
	clear(b.names)
	return out
}

func (b *bell) source() source.Source {
	return source.Channel(b.rung, handler.TypedEnqueueRequestsFromMapFunc(
		func(context.Context, types.NamespacedName) []reconcile.Request { return b.take() }))
}
