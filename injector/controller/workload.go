// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// kindRetry is how often it is looked for a kind that the API server does not know, or that we may not read.
const kindRetry = 10 * time.Second

// workload is what is scaled: what there is to know of it, and the object itself. object is nil if it is not there or on
// its way out, or if it may not be read.
type workload struct {
	injector.Workload

	object client.Object
	// serves says that its pods take requests: one is ready, or a Service publishes them before they are.
	serves bool
	// forbidden is why it may not be read. It may well be there, and asleep.
	forbidden injector.Skip
}

// workloads reads them, whatever their kind.
type workloads struct {
	client client.Client // built-in kinds come from its cache, custom resources from the API server
	// watchKind has both controllers notice changes of a kind that is not built in; it may be called often.
	watchKind func(schema.GroupVersionKind) error

	mu      sync.Mutex // protects watched
	watched []schema.GroupVersionKind
}

// list returns all workloads of a namespace of built-in kinds, those that cannot be scaled included.
func (ws *workloads) list(ctx context.Context, namespace string) ([]injector.Workload, error) {
	var deployments appsv1.DeploymentList
	var statefulSets appsv1.StatefulSetList
	var daemonSets appsv1.DaemonSetList
	var out []injector.Workload
	for _, list := range []client.ObjectList{&deployments, &statefulSets, &daemonSets} {
		if err := ws.client.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return nil, fmt.Errorf("listing workloads of namespace %s: %w", namespace, err)
		}
		err := meta.EachListItem(list, func(o runtime.Object) error {
			if w, ok := injector.NewWorkload(o); ok && w.DeletionTimestamp.IsZero() {
				out = append(out, w)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("reading workloads of namespace %s: %w", namespace, err)
		}
	}
	return out, nil
}

// get returns the workload with that name, as api.Workload.String has written it.
func (ws *workloads) get(ctx context.Context, namespace, ref string) (workload, error) {
	kind, name, ok := injector.ParseWorkload(ref)
	if !ok {
		return workload{}, nil
	}
	if kind.Group != "" {
		w, _, err := ws.custom(ctx, namespace, kind, name)
		return w, err
	}
	object := newObject(kind.Kind)
	if err := ws.client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, object); apierrors.IsNotFound(err) {
		return workload{}, nil
	} else if err != nil {
		return workload{}, fmt.Errorf("getting %s in namespace %s: %w", ref, namespace, err)
	}
	w, _ := injector.NewWorkload(object)
	if !w.DeletionTimestamp.IsZero() {
		return workload{}, nil
	}
	return workload{Workload: w, object: object}, nil
}

// custom returns a workload of a kind that is not built in. A Skip says why it cannot be read, or not be scaled.
func (ws *workloads) custom(ctx context.Context, namespace string, kind schema.GroupKind, name string) (workload, injector.Skip, error) {
	mapping, err := ws.client.RESTMapper().RESTMapping(kind)
	if meta.IsNoMatchError(err) {
		return workload{}, injector.Skip(fmt.Sprintf("the API server knows no kind %s, which annotation %sworkload names; it is taken over when there is one", kind, injector.Prefix)), nil
	}
	if err != nil {
		return workload{}, "", fmt.Errorf("looking for kind %s: %w", kind, err)
	}
	object, scale := &unstructured.Unstructured{}, newScale()
	object.SetGroupVersionKind(mapping.GroupVersionKind)
	object.SetNamespace(namespace)
	object.SetName(name)
	for _, read := range []func() error{
		func() error { return ws.client.Get(ctx, client.ObjectKeyFromObject(object), object) },
		func() error { return ws.client.SubResource("scale").Get(ctx, object, scale) },
		func() error { return ws.watch(mapping.GroupVersionKind) },
	} {
		switch err := read(); {
		case apierrors.IsForbidden(err):
			skip := injector.Skip(fmt.Sprintf("scale-to-zero may not read and scale %s.%s; add it to the chart's value customWorkloads", mapping.Resource.Resource, kind.Group))
			return workload{forbidden: skip}, skip, nil
		case apierrors.IsNotFound(err) && object.GetUID() != "":
			return workload{}, injector.Skip(fmt.Sprintf("%s has no scale subresource, so it cannot be scaled", kind)), nil
		case apierrors.IsNotFound(err):
			return workload{}, "", nil
		case err != nil:
			return workload{}, "", fmt.Errorf("getting %s/%s in namespace %s: %w", kind, name, namespace, err)
		}
	}
	if object.GetDeletionTimestamp() != nil {
		return workload{}, "", nil
	}
	w := injector.Workload{APIVersion: mapping.GroupVersionKind.GroupVersion().String(), Kind: kind.Kind, Resource: mapping.Resource.Resource}
	w.ObjectMeta = metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: object.GetUID(), Annotations: object.GetAnnotations(), ManagedFields: object.GetManagedFields(),
	}
	w.Replicas = int32(number(scale.Object, "spec", "replicas"))              //nolint:gosec // the API server has it as an int32
	w.ReadyReplicas = int32(number(object.Object, "status", "readyReplicas")) //nolint:gosec // as above
	w.Selector, _, _ = unstructured.NestedString(scale.Object, "status", "selector")
	return workload{Workload: w, object: object}, "", nil
}

// number reads a number of an object that a JSON decoder has read, or 0.
func number(object map[string]any, path ...string) int64 {
	n, _, _ := unstructured.NestedInt64(object, path...)
	return n
}

func (ws *workloads) watch(kind schema.GroupVersionKind) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if slices.Contains(ws.watched, kind) {
		return nil
	}
	if err := ws.watchKind(kind); err != nil {
		return fmt.Errorf("watching %s: %w", kind, err)
	}
	ws.watched = append(ws.watched, kind)
	return nil
}

func newObject(kind string) client.Object {
	if kind == "StatefulSet" {
		return &appsv1.StatefulSet{}
	}
	return &appsv1.Deployment{}
}

// newScale returns a Scale for a custom resource's client.
func newScale() *unstructured.Unstructured {
	s := &unstructured.Unstructured{}
	s.SetGroupVersionKind(autoscalingv1.SchemeGroupVersion.WithKind("Scale"))
	return s
}

// scale sets a workload's replica count through its scale subresource, as `kubectl scale` does.
func scale(ctx context.Context, c client.Client, object client.Object, n int32) error {
	var body client.Object = &autoscalingv1.Scale{}
	if _, custom := object.(*unstructured.Unstructured); custom {
		body = newScale()
	}
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n))
	err := c.SubResource("scale").Patch(ctx, object, patch, client.WithSubResourceBody(body), client.FieldOwner(injector.ManagedBy))
	if err != nil {
		return fmt.Errorf("scaling %s to %d: %w", client.ObjectKeyFromObject(object), n, err)
	}
	return nil
}

// remember writes injector.ReplicasAnnotation to the workload, or takes it off when n is 0.
func remember(ctx context.Context, c client.Client, w workload, n int32) error {
	if injector.Remembered(w.Annotations) == n {
		return nil
	}
	value := "null"
	if n > 0 {
		value = fmt.Sprintf(`"%d"`, n)
	}
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, injector.ReplicasAnnotation, value))
	object := w.object.DeepCopyObject().(client.Object)
	if err := c.Patch(ctx, object, patch, client.FieldOwner(injector.ManagedBy)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("annotating %s of namespace %s: %w", w.Ref(), w.Namespace, err)
	}
	return nil
}

// key is the name of a workload's request.
func key(namespace string, ref fmt.Stringer) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: ref.String()}
}
