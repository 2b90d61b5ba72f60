// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	autoscalingclient "k8s.io/client-go/kubernetes/typed/autoscaling/v2"
)

// disturbance is an action that is taken now and then.
type disturbance struct {
	name  string
	every time.Duration // mean interval; 0 disables it
	do    func(ctx context.Context, rng *rand.Rand) error
}

func (w *world) disturbances() []disturbance {
	o := w.options
	return []disturbance{
		{"rollouts", o.rollout, func(ctx context.Context, rng *rand.Rand) error {
			return w.restart(ctx, w.namespace, w.any(rng).name)
		}},
		{"pods deleted", o.killPods, w.killPods},
		{"scaled out and in", o.scale, w.scale},
		{"HPAs made and deleted", o.handOver, func(ctx context.Context, rng *rand.Rand) error { return w.handOver(ctx, w.any(rng)) }},
		{"restarts of KEDA", o.kedaRestart, func(ctx context.Context, _ *rand.Rand) error {
			return w.restart(ctx, o.keda, "keda-operator")
		}},
		{"ends of the leading controller", o.failover, func(ctx context.Context, _ *rand.Rand) error { return w.failover(ctx) }},
	}
}

// disturb does d at random times until ctx ends.
func (w *world) disturb(ctx context.Context, d disturbance, rng *rand.Rand) {
	if d.every == 0 {
		return
	}
	// The client refuses a request that it could send only after a deadline. That is no problem of what is tested.
	endless, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	for {
		pause := time.NewTimer(min(time.Duration(rng.ExpFloat64()*float64(d.every)), 3*d.every))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
		begun := time.Now()
		switch err := d.do(endless, rng); {
		case err == nil:
			w.report.disturb(d.name)
		case ctx.Err() == nil && w.report.lostNode(begun, time.Now()) != "":
			w.report.disturb("failed " + d.name)
		case ctx.Err() == nil:
			w.report.problem("%s: %v", d.name, err)
		}
	}
}

func (w *world) any(rng *rand.Rand) *app { return w.apps[rng.IntN(len(w.apps))] }

// restart is `kubectl rollout restart`.
func (w *world) restart(ctx context.Context, namespace, deployment string) error {
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`,
		time.Now().Format(time.RFC3339Nano))
	if _, err := w.client.AppsV1().Deployments(namespace).Patch(ctx, deployment, types.StrategicMergePatchType, []byte(patch),
		metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("restarting %s: %w", deployment, err)
	}
	return nil
}

// killPods deletes an app's pods, as `kubectl delete pod` does.
func (w *world) killPods(ctx context.Context, rng *rand.Rand) error {
	err := w.client.CoreV1().Pods(w.namespace).DeleteCollection(ctx, metav1.DeleteOptions{},
		metav1.ListOptions{LabelSelector: "app=" + w.any(rng).name})
	if err != nil {
		return fmt.Errorf("deleting pods: %w", err)
	}
	return nil
}

// scale scales an app to two replicas, and some time later to none. Beside an HPA, that is the HPA's to do.
func (w *world) scale(ctx context.Context, rng *rand.Rand) error {
	a := w.any(rng)
	if err := w.bounds(ctx, a, 2, 2); err != nil {
		return err
	}
	a.until(ctx, time.Now().Add(30*time.Second), func() bool { return a.replicas == 2 && len(a.pods) == 2 })
	a.until(ctx, time.Now().Add(draw(rng, 3*time.Second)), func() bool { return false })
	return w.bounds(context.WithoutCancel(ctx), a, 0, 1)
}

func (w *world) bounds(ctx context.Context, a *app, low, high int) error {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"scale-to-zero/min-replicas":"%d","scale-to-zero/max-replicas":"%d"}}}`, low, high)
	if _, err := w.client.CoreV1().Services(w.namespace).Patch(ctx, a.name, types.MergePatchType, []byte(patch),
		metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("annotating %s: %w", a.name, err)
	}
	patch = fmt.Sprintf(`{"spec":{"minReplicas":%d}}`, max(1, low))
	if _, err := w.autoscalers().Patch(ctx, a.name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil &&
		!apierrors.IsNotFound(err) {
		return fmt.Errorf("changing the HPA of %s: %w", a.name, err)
	}
	return nil
}

func (w *world) autoscalers() autoscalingclient.HorizontalPodAutoscalerInterface {
	return w.client.AutoscalingV2().HorizontalPodAutoscalers(w.namespace)
}

// handOver deletes an app's HPA, or makes one.
func (w *world) handOver(ctx context.Context, a *app) error {
	err := w.autoscalers().Delete(ctx, a.name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		_, err = w.autoscalers().Create(ctx, &autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Name: a.name},
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: a.name},
				MaxReplicas:    3,
			},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		return fmt.Errorf("handing %s to or from an HPA: %w", a.name, err)
	}
	return nil
}

// failover stops the controller that is the leader.
func (w *world) failover(ctx context.Context) error {
	d, err := w.component(ctx, "controller")
	if err != nil {
		return err
	}
	leases, err := w.client.CoordinationV1().Leases(d.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("finding the leader: %w", err)
	}
	for _, l := range leases.Items {
		if l.Spec.HolderIdentity == nil || !strings.HasPrefix(*l.Spec.HolderIdentity, d.Name) {
			continue
		}
		pod, _, _ := strings.Cut(*l.Spec.HolderIdentity, "_")
		if err := w.client.CoreV1().Pods(d.Namespace).Delete(ctx, pod, metav1.DeleteOptions{}); err != nil {
			return fmt.Errorf("deleting the leader: %w", err)
		}
		return nil
	}
	return nil // it has released the lease and no other controller has taken it yet
}

// component finds a Deployment of scale-to-zero.
func (w *world) component(ctx context.Context, name string) (*appsv1.Deployment, error) {
	list, err := w.client.AppsV1().Deployments(w.options.product).List(ctx, metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/name=scale-to-zero,app.kubernetes.io/component=" + name,
	})
	if err != nil {
		return nil, fmt.Errorf("finding the %s: %w", name, err)
	}
	if len(list.Items) != 1 {
		return nil, fmt.Errorf("finding the %s: there are %d in namespace %s", name, len(list.Items), w.options.product)
	}
	return &list.Items[0], nil
}

// podsOf returns a Deployment's pods by their UIDs, and how many of them are ready and not ending.
func (w *world) podsOf(ctx context.Context, d *appsv1.Deployment) (map[types.UID]bool, int, error) {
	list, err := w.client.CoreV1().Pods(d.Namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
	if err != nil {
		return nil, 0, fmt.Errorf("listing the pods of %s: %w", d.Name, err)
	}
	all, ready := map[types.UID]bool{}, 0
	for _, p := range list.Items {
		all[p.UID] = true
		if p.DeletionTimestamp != nil {
			continue
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				ready++
			}
		}
	}
	return all, ready, nil
}
