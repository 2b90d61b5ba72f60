// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// changes waits until a change of the Service is reported.
func changes(t *testing.T, n *natives) {
	t.Helper()
	select {
	case e := <-n.changed:
		if e.Object.Namespace != "apps" || e.Object.Name != "web" {
			t.Errorf("an event about %s/%s", e.Object.Namespace, e.Object.Name)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is reported")
	}
}

// TestNatives tests that the slices of a Service are listed once and then watched, until they are forgotten.
func TestNatives(t *testing.T) {
	c := newCluster(t)
	web := types.NamespacedName{Namespace: "apps", Name: "web"}
	ready := func(want bool) {
		t.Helper()
		if got, err := c.natives.ready(t.Context(), web); err != nil || got != want {
			t.Fatalf("ready: %t, %v", got, err)
		}
	}
	ready(false)
	c.directSlice(true) // it belongs to another Service
	c.nativeSlice(false)
	c.nativeSlice(true)
	changes(t, c.natives)
	ready(true)
	if err := c.Delete(t.Context(), &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Namespace: "apps",
		Name:      "web-native",
	}}); err != nil {
		t.Fatal(err)
	}
	changes(t, c.natives)
	ready(false)
	c.natives.forget(web)
	c.natives.forget(web)
	c.nativeSlice(true)
	ready(true) // by a second list
	c.natives.mu.Lock()
	stop := c.natives.followed[web].stop
	c.natives.mu.Unlock()
	stop() // like a watch that ends after a long time
	changes(t, c.natives)
	ready(true)
}

// TestNativesFail tests that a failed list or watch is an error, and that the next poll tries again.
func TestNativesFail(t *testing.T) {
	c := newCluster(t)
	web := types.NamespacedName{Namespace: "apps", Name: "web"}
	for n := 1; n <= 2; n++ {
		c.failAt = n
		if _, err := c.natives.ready(t.Context(), web); err == nil || len(c.natives.followed) > 0 {
			t.Errorf("%s fails: %v", c.failed, err)
		}
	}
	if _, err := c.natives.ready(t.Context(), web); err != nil {
		t.Error(err)
	}
}

// TestNativesEnd tests that the watches end with the manager.
func TestNativesEnd(t *testing.T) {
	c := newCluster(t)
	n := newNatives(t.Context(), c)
	if _, err := n.ready(t.Context(), types.NamespacedName{Namespace: "apps", Name: "web"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Start(ctx); err != nil {
		t.Error(err)
	}
}
