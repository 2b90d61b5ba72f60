// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

func restoreOptions(c *cluster) RestoreOptions {
	return RestoreOptions{
		Namespace: "ours", Deployment: "controller", Lease: "lease", Secret: "certificate", Until: c.now.Add(time.Hour),
		Log: logr.Discard(),
	}
}

func ownDeployment() *appsv1.Deployment {
	d := webDeployment(2)
	d.Namespace, d.Name = "ours", "controller"
	d.Spec.Selector.MatchLabels, d.Spec.Template.Labels = map[string]string{"app": "controller"}, map[string]string{"app": "controller"}
	return d
}

// TestRestoreAll tests that RestoreAll tells the controllers, waits until nothing is left, stops the controllers, and deletes what
// they made.
func TestRestoreAll(t *testing.T) {
	c := newCluster(t, ownDeployment(),
		&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: "lease"}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: "certificate"}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: "controller-1", Labels: map[string]string{"app": "controller"}}},
	)
	own := types.NamespacedName{Namespace: "ours", Name: "controller"}
	lists := 0
	c.refuses = func(verb string, o runtime.Object) error {
		if _, pods := o.(*corev1.PodList); !pods || verb != "list" {
			return nil
		}
		if lists++; lists == 2 { // the last pod ends
			go func() {
				_ = c.Delete(context.Background(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: "controller-1"}})
			}()
		}
		return nil
	}
	if err := RestoreAll(t.Context(), c, restoreOptions(c)); err != nil {
		t.Fatal(err)
	}
	d := &appsv1.Deployment{}
	if err := c.Get(t.Context(), own, d); err != nil || *d.Spec.Replicas != 0 || d.Annotations[injector.RestoringAnnotation] == "" {
		t.Errorf("%v; %d replicas, annotations %v", err, *d.Spec.Replicas, d.Annotations)
	}
	for _, o := range []client.Object{&coordinationv1.Lease{}, &corev1.Secret{}} {
		name := "lease"
		if _, secret := o.(*corev1.Secret); secret {
			name = "certificate"
		}
		if err := c.Get(t.Context(), types.NamespacedName{Namespace: "ours", Name: name}, o); !apierrors.IsNotFound(err) {
			t.Errorf("%T is left: %v", o, err)
		}
	}
	if err := RestoreAll(t.Context(), c, restoreOptions(c)); err != nil {
		t.Errorf("a second run: %v", err)
	}
}

// TestRestoreAllIsInterrupted tests that the error names what is left, and that nothing is restored without a controller.
func TestRestoreAllIsInterrupted(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	c.injected()
	for name, running := range map[string]bool{"in time": true, "no controller is there to restore": false} {
		if running {
			c.create(ownDeployment())
		} else if err := c.Delete(t.Context(), ownDeployment()); client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		err := RestoreAll(ctx, c, restoreOptions(c))
		cancel()
		if running {
			if err := c.Delete(t.Context(), ownDeployment()); err != nil {
				t.Fatal(err)
			}
		}
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(),
			"scaledobject apps/web-deployment, service apps/web") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRestoreAllFails tests that the failure of any call is an error.
func TestRestoreAllFails(t *testing.T) {
	calls := 0
	for n := 1; ; n++ {
		c := newCluster(t, ownDeployment())
		c.failAt = n
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := RestoreAll(ctx, c, restoreOptions(c))
		cancel()
		if c.failAt > 0 {
			break
		}
		calls++
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s fails, and that is %v", c.failed, err)
		}
	}
	if calls < 6 {
		t.Errorf("only %d calls were tried", calls)
	}
}
