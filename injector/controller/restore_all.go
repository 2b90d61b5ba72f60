// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// restoreLook is the pause between two looks while RestoreAll waits for the controllers.
const restoreLook = 100 * time.Millisecond

// RestoreOptions say what RestoreAll works on.
type RestoreOptions struct {
	// Namespace is where scale-to-zero runs, and Deployment is its controllers' Deployment there.
	Namespace, Deployment string
	// Lease and Secret were made by the controllers for themselves, so no chart removes them.
	Lease, Secret string
	// Authentication is the ClusterTriggerAuthentication that the controllers made for KEDA; empty if none.
	Authentication string
	// StartupCPU is set if the controllers may have raised CPU limits of pods.
	StartupCPU bool
	// Until is when the controllers resume normal work if RestoreAll is interrupted.
	Until time.Time
	Log   logr.Logger
}

// RestoreAll makes the running controllers restore every app, and waits until none of our objects is left at any app. Then it stops
// the controllers, so that they inject no app again while the chart is removed, and deletes the objects that the controllers made for
// themselves. After an interruption it may be run again. The error names what is left.
func RestoreAll(ctx context.Context, c client.Client, o RestoreOptions) error {
	own := &appsv1.Deployment{}
	key := client.ObjectKey{Namespace: o.Namespace, Name: o.Deployment}
	if err := c.Get(ctx, key, own); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("getting the controllers' deployment %s: %w", key, err)
	}
	running := own.UID != ""
	if running {
		until := o.Until.UTC().Format(time.RFC3339)
		text := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, injector.RestoringAnnotation, until)
		patch := client.RawPatch("application/merge-patch+json", text)
		if err := c.Patch(ctx, own, patch); err != nil {
			return fmt.Errorf("asking the controllers to restore every app: %w", err)
		}
	}
	if err := waitRestored(ctx, c, running, o); err != nil {
		return err
	}
	if running {
		if err := stop(ctx, c, own); err != nil {
			return err
		}
	}
	if err := removeWakeRoles(ctx, c); err != nil {
		return err
	}
	if o.Authentication != "" { // not earlier: KEDA was using it for the ScaledObjects
		if err := removeAuthentication(ctx, c, o.Authentication); err != nil {
			return err
		}
	}
	for _, made := range []client.Object{
		&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Lease}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Secret}},
	} {
		if err := c.Delete(ctx, made); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting what the controllers made: %w", err)
		}
	}
	return nil
}

// stop scales the controllers to zero and waits until the last of their pods has gone. The Deployment's status does not say so: it
// does not count terminating pods, and a terminating controller writes its Lease and Secret again if it sees them deleted.
func stop(ctx context.Context, c client.Client, own *appsv1.Deployment) error {
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"replicas":0}}`))
	body := client.WithSubResourceBody(&autoscalingv1.Scale{})
	if err := c.SubResource("scale").Patch(ctx, own, patch, body, client.FieldOwner(injector.ManagedBy)); err != nil {
		return fmt.Errorf("scaling the controllers to zero: %w", err)
	}
	selector, err := metav1.LabelSelectorAsSelector(own.Spec.Selector)
	if err != nil {
		return fmt.Errorf("reading the selector of deployment %s/%s: %w", own.Namespace, own.Name, err)
	}
	var pods corev1.PodList
	err = wait.PollUntilContextCancel(ctx, restoreLook, true, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(own), own); client.IgnoreNotFound(err) != nil {
			return false, err
		} else if err == nil && own.Status.ObservedGeneration < own.Generation {
			return false, nil // more pods may still be created
		}
		err := c.List(ctx, &pods, client.InNamespace(own.Namespace), client.MatchingLabelsSelector{Selector: selector})
		return err == nil && len(pods.Items) == 0, err
	})
	if err != nil {
		return fmt.Errorf("waiting until the controllers have stopped: %w", err)
	}
	return nil
}

// removeWakeRoles deletes the Roles by which the interceptors may wake apps. The controllers delete them with the routes, but may have been
// stopped before, or refused.
func removeWakeRoles(ctx context.Context, c client.Client) error {
	all, err := readWakeRoles(ctx, c, "")
	if err != nil {
		return err
	}
	var objects []client.Object
	for i := range all.bindings {
		objects = append(objects, &all.bindings[i])
	}
	for i := range all.roles {
		objects = append(objects, &all.roles[i])
	}
	for _, o := range objects {
		if !injector.IsWakeRole(o) {
			continue
		}
		if err := c.Delete(ctx, o); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting what the interceptors may wake in namespace %s: %w", o.GetNamespace(), err)
		}
	}
	return nil
}

func waitRestored(ctx context.Context, c client.Client, running bool, o RestoreOptions) error {
	var left []string
	logged := time.Time{}
	err := wait.PollUntilContextCancel(ctx, restoreLook, true, func(ctx context.Context) (bool, error) {
		rest, err := remaining(ctx, c, time.Now())
		if err != nil {
			return false, err
		}
		if o.StartupCPU {
			pods, err := putCPUBack(ctx, c)
			if err != nil {
				return false, err
			}
			rest = append(rest, pods...)
		}
		left = rest
		if len(left) > 0 && !running {
			return false, fmt.Errorf("no controller is there to restore %s; install the chart again, then uninstall it", strings.Join(left, ", "))
		}
		if len(left) > 0 && time.Since(logged) > 5*time.Second {
			o.Log.Info("Waiting until every app is restored", "left", left)
			logged = time.Now()
		}
		return len(left) == 0, nil
	})
	if ctx.Err() != nil && len(left) > 0 {
		return fmt.Errorf("restoring every app: %s not done in time; see the events of these and the controllers' log", strings.Join(left,
			", "))
	}
	return err
}

// finalizing is how long KEDA has to remove its finalizer from a deleted ScaledObject. KEDA 2.21 may not try again after a conflict,
// as while a namespace is deleted. Nobody but the namespace's owner can do anything about that.
const finalizing = 30 * time.Second

// putCPUBack puts back the CPU limits of all pods whose limits are raised, and returns the names of those pods that cannot be changed.
// The controllers do so too, but they do not know of a mark that somebody else has written.
func putCPUBack(ctx context.Context, c client.Client) (left []string, err error) {
	pods, err := markedPods(ctx, c, "", "")
	if err != nil {
		return nil, err
	}
	for _, one := range injector.PutBack(pods) {
		if _, err := (podResizer{c}).resize(ctx, one); err != nil {
			left = append(left, "pod "+one.Pod.Namespace+"/"+one.Pod.Name)
		}
	}
	return left, nil
}

// remaining returns the names of the Services that still have objects of ours, of our ScaledObjects, and of others with our trigger.
func remaining(ctx context.Context, c client.Client, now time.Time) ([]string, error) {
	var slicesLeft discoveryv1.EndpointSliceList
	if err := c.List(ctx, &slicesLeft, client.MatchingLabels{api.RoleLabel: api.RoleRoute}); err != nil {
		return nil, fmt.Errorf("listing route slices: %w", err)
	}
	var scaledObjects keda.ScaledObjectList
	if err := c.List(ctx, &scaledObjects); err != nil && !meta.IsNoMatchError(err) {
		return nil, fmt.Errorf("listing scaledobjects: %w", err)
	}
	var services corev1.ServiceList
	if err := c.List(ctx, &services, client.MatchingLabels{injector.ManagedByLabel: injector.ManagedBy},
		client.HasLabels{injector.ServiceLabel}); err != nil {
		return nil, fmt.Errorf("listing our services: %w", err)
	}
	var left []string
	for _, s := range services.Items {
		left = append(left, "service "+s.Namespace+"/"+s.Labels[injector.ServiceLabel])
	}
	for i := range slicesLeft.Items {
		if s := &slicesLeft.Items[i]; injector.IsRouteSlice(s) { // what others label like ours is theirs to delete
			left = append(left, "service "+s.Namespace+"/"+s.Labels[injector.ServiceLabel])
		}
	}
	for i := range scaledObjects.Items {
		so := &scaledObjects.Items[i]
		if so.Labels[injector.ManagedByLabel] != injector.ManagedBy && !injector.Triggered(so) {
			continue
		}
		if at := so.DeletionTimestamp; at == nil || now.Sub(at.Time) < finalizing {
			left = append(left, "scaledobject "+so.Namespace+"/"+so.Name)
		}
	}
	slices.Sort(left)
	return slices.Compact(left), nil
}
