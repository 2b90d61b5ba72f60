// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/scale"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// workloadClient reads and scales workloads of any kind. Permissions for custom resources come from the chart's customWorkloads.
//
// +kubebuilder:rbac:groups=apps,resources=deployments;statefulsets,verbs=get;list;watch
// +kubebuilder:rbac:groups=apps,resources=daemonsets,verbs=list;watch
// +kubebuilder:rbac:groups=apps,resources=deployments/scale;statefulsets/scale,verbs=patch
type workloadClient struct {
	client client.Reader // reads built-in kinds from its cache, and custom resources from the API server
	live   client.Reader // reads pods from the API server
	mapper meta.RESTMapper
	scales scale.ScalesGetter
	// watchKind makes both controllers notice changes of a kind that is not built in.
	watchKind func(schema.GroupVersionKind) error

	mu      sync.Mutex // protects watched
	watched []schema.GroupVersionKind
}

// find returns the workload behind a Service, or a Skip if there is none.
func (ws *workloadClient) find(ctx context.Context, service *corev1.Service, s injector.Settings) (injector.Target, error) {
	var candidates []injector.Workload
	var err error
	if s.Workload == "" {
		candidates, err = ws.selected(ctx, service)
	} else {
		named, failed := ws.get(ctx, service.Namespace, s.Workload)
		if failed != nil || named.Skip != "" || named.Forbidden != "" || named.Object != nil {
			return named, failed
		}
	}
	if err != nil {
		return injector.Target{}, err
	}
	w, skip := injector.FindWorkload(service, s, candidates)
	if skip != "" {
		return injector.Target{Skip: skip}, nil
	}
	return ws.get(ctx, service.Namespace, w.Ref().String())
}

// selected returns the workloads of built-in kinds with one of the labels that the Service selects. No other built-in workload can be
// behind the Service.
func (ws *workloadClient) selected(ctx context.Context, service *corev1.Service) ([]injector.Workload, error) {
	selector := pairs(injector.OriginalSelector(service))
	if len(selector) == 0 {
		return nil, nil
	}
	var out []injector.Workload
	for _, list := range []client.ObjectList{&appsv1.DeploymentList{}, &appsv1.StatefulSetList{}, &appsv1.DaemonSetList{}} {
		// A matching workload has every label of the selector, so one label finds them all.
		if err := ws.client.List(ctx, list, client.InNamespace(service.Namespace), client.MatchingFields{byPodLabel: selector[0]}); err != nil {
			return nil, fmt.Errorf("listing workloads of namespace %s: %w", service.Namespace, err)
		}
		_ = meta.EachListItem(list, func(o runtime.Object) error { // it does not fail for a list
			if w, ok := injector.NewWorkload(o); ok && w.DeletionTimestamp.IsZero() {
				out = append(out, w)
			}
			return nil
		})
	}
	return out, nil
}

// get returns the workload with the name ref, in the format of api.Workload.String.
func (ws *workloadClient) get(ctx context.Context, namespace, ref string) (injector.Target, error) {
	kind, name, ok := injector.ParseWorkload(ref)
	if !ok {
		return injector.Target{}, nil
	}
	if kind.Group != "" {
		return ws.custom(ctx, namespace, kind, name)
	}
	object := newObject(kind.Kind)
	if err := ws.client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, object); apierrors.IsNotFound(err) {
		return injector.Target{}, nil
	} else if err != nil {
		return injector.Target{}, fmt.Errorf("getting %s in namespace %s: %w", ref, namespace, err)
	}
	w, _ := injector.NewWorkload(object)
	if !w.DeletionTimestamp.IsZero() {
		return injector.Target{}, nil
	}
	return injector.Target{Workload: w, Object: object}, nil
}

// custom returns a workload of a kind that is not built in.
func (ws *workloadClient) custom(ctx context.Context, namespace string, kind schema.GroupKind, name string) (injector.Target, error) {
	mapping, err := ws.mapper.RESTMapping(kind)
	if meta.IsNoMatchError(err) {
		return injector.Target{Retry: true, Skip: injector.Skip(fmt.Sprintf(
			"the API server knows no kind %s, which annotation %s names; it is injected once there is one", kind, workloadIs))}, nil
	}
	if err != nil {
		return injector.Target{}, fmt.Errorf("looking for kind %s: %w", kind, err)
	}
	w := injector.Workload{APIVersion: mapping.GroupVersionKind.GroupVersion().String(), Kind: kind.Kind, Resource: mapping.Resource.Resource}
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(mapping.GroupVersionKind)
	for _, read := range []func() error{
		func() error {
			return ws.client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, object)
		},
		func() error {
			s, err := ws.scales.Scales(namespace).Get(ctx, mapping.Resource.GroupResource(), name, metav1.GetOptions{})
			if err == nil {
				w.Replicas, w.Selector = s.Spec.Replicas, s.Status.Selector
			}
			return err
		},
		func() error { return ws.watch(mapping.GroupVersionKind) },
	} {
		switch err := read(); {
		case apierrors.IsForbidden(err):
			return injector.Target{Forbidden: injector.Skip(fmt.Sprintf(
				"scale-to-zero may not read and scale %s.%s; add it to the chart's value customWorkloads", mapping.Resource.Resource, kind.Group))}, nil
		case apierrors.IsNotFound(err) && object.GetUID() != "":
			return injector.Target{Retry: true, Skip: injector.Skip(fmt.Sprintf("%s has no scale subresource, so it cannot be scaled", kind))}, nil
		case apierrors.IsNotFound(err):
			return injector.Target{}, nil
		case err != nil:
			return injector.Target{}, fmt.Errorf("getting %s/%s in namespace %s: %w", kind, name, namespace, err)
		}
	}
	if object.GetDeletionTimestamp() != nil {
		return injector.Target{}, nil
	}
	w.ObjectMeta = metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: object.GetUID(), Annotations: object.GetAnnotations(), ManagedFields: object.GetManagedFields(),
	}
	w.PodLabels, _, _ = unstructured.NestedStringMap(object.Object, "spec", "template", "metadata", "labels")
	ready, _, _ := unstructured.NestedInt64(object.Object, "status", "readyReplicas")
	w.ReadyReplicas = int32(ready) //nolint:gosec // the API server has it as an int32
	return injector.Target{Workload: w, Object: object}, nil
}

// watch starts to watch a kind, once.
func (ws *workloadClient) watch(kind schema.GroupVersionKind) error {
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

// scale sets a workload's replica count through its scale subresource, as `kubectl scale` does.
func (ws *workloadClient) scale(ctx context.Context, w injector.Workload, n int32) error {
	gv, err := schema.ParseGroupVersion(w.APIVersion)
	if err != nil {
		return fmt.Errorf("reading the version of %s: %w", w.Ref(), err)
	}
	resource := gv.WithResource(w.Resource)
	if w.Resource == "" {
		resource.Resource = map[string]string{"Deployment": "deployments", "StatefulSet": "statefulsets"}[w.Kind]
	}
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n)
	_, err = ws.scales.Scales(w.Namespace).Patch(ctx, resource, w.Name, types.MergePatchType, patch,
		metav1.PatchOptions{FieldManager: injector.ManagedBy})
	return err
}

func newObject(kind string) client.Object {
	if kind == "StatefulSet" {
		return &appsv1.StatefulSet{}
	}
	return &appsv1.Deployment{}
}

// key returns the name of a workload's request.
func key(namespace string, ref fmt.Stringer) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: ref.String()}
}
