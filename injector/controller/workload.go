package controller

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// listWorkloads returns all workloads of a namespace, those that cannot be scaled included.
func listWorkloads(ctx context.Context, c client.Reader, namespace string) ([]injector.Workload, error) {
	var deployments appsv1.DeploymentList
	var statefulSets appsv1.StatefulSetList
	var daemonSets appsv1.DaemonSetList
	for _, list := range []client.ObjectList{&deployments, &statefulSets, &daemonSets} {
		if err := c.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return nil, fmt.Errorf("listing workloads of namespace %s: %w", namespace, err)
		}
	}
	var out []injector.Workload
	for i := range deployments.Items {
		out = add(out, &deployments.Items[i])
	}
	for i := range statefulSets.Items {
		out = add(out, &statefulSets.Items[i])
	}
	for i := range daemonSets.Items {
		out = add(out, &daemonSets.Items[i])
	}
	return out, nil
}

func add(to []injector.Workload, object client.Object) []injector.Workload {
	if w, ok := injector.NewWorkload(object); ok && w.DeletionTimestamp.IsZero() {
		return append(to, w)
	}
	return to
}

// getWorkload returns a Deployment or StatefulSet, or nil when it is not there or on its way out.
func getWorkload(ctx context.Context, c client.Reader, key client.ObjectKey, kind string) (client.Object, injector.Workload, error) {
	object := newObject(kind)
	if object == nil {
		return nil, injector.Workload{}, nil
	}
	if err := c.Get(ctx, key, object); apierrors.IsNotFound(err) {
		return nil, injector.Workload{}, nil
	} else if err != nil {
		return nil, injector.Workload{}, fmt.Errorf("getting %s %s: %w", kind, key, err)
	}
	w, _ := injector.NewWorkload(object)
	if !w.DeletionTimestamp.IsZero() {
		return nil, injector.Workload{}, nil
	}
	return object, w, nil
}

func newObject(kind string) client.Object {
	switch kind {
	case "Deployment":
		return &appsv1.Deployment{}
	case "StatefulSet":
		return &appsv1.StatefulSet{}
	default:
		return nil
	}
}

// scale sets a workload's replica count through its scale subresource, as `kubectl scale` does.
func scale(ctx context.Context, c client.Client, object client.Object, n int32) error {
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n))
	err := c.SubResource("scale").Patch(ctx, object, patch, client.WithSubResourceBody(&autoscalingv1.Scale{}))
	if err != nil {
		return fmt.Errorf("scaling %s to %d: %w", client.ObjectKeyFromObject(object), n, err)
	}
	return nil
}
