// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/scale-to-zero/scale-to-zero/interceptor/busy"
)

// podMetrics is the resource that metrics-server serves.
func podMetrics() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "metrics.k8s.io", Version: "v1beta1", Resource: "pods"}
}

// CPU implements busy.Metrics.
//
// +kubebuilder:rbac:groups=metrics.k8s.io,resources=pods,verbs=list
func (c *Cluster) CPU(ctx context.Context, namespace, selector string) (milli int64, pods int, err error) {
	parsed, err := labels.Parse(selector)
	if err == nil && parsed.Empty() {
		err = errors.New("it selects all pods")
	}
	if err != nil {
		return 0, 0, fmt.Errorf("reading the label selector %q: %w", selector, err)
	}
	list, err := c.dynamic.Resource(podMetrics()).Namespace(namespace).List(ctx, metav1.ListOptions{LabelSelector: parsed.String()})
	switch {
	case apierrors.IsNotFound(err):
		return 0, 0, fmt.Errorf("%w: the cluster has no API %s", busy.ErrNoMetrics, podMetrics().GroupVersion())
	case apierrors.IsForbidden(err):
		return 0, 0, fmt.Errorf("%w that may be read: %w", busy.ErrNoMetrics, err)
	case err != nil:
		return 0, 0, fmt.Errorf("listing metrics of pods: %w", err)
	}
	var sum resource.Quantity
	for _, pod := range list.Items {
		used, err := podCPU(&pod)
		if err != nil {
			return 0, 0, fmt.Errorf("reading metrics of pod %s: %w", pod.GetName(), err)
		}
		sum.Add(used)
	}
	return sum.MilliValue(), len(list.Items), nil
}

// podCPU is the CPU that the containers of a pod use together.
func podCPU(pod *unstructured.Unstructured) (sum resource.Quantity, err error) {
	containers, _, err := unstructured.NestedSlice(pod.Object, "containers")
	if err != nil {
		return sum, err
	}
	for _, c := range containers {
		container, _ := c.(map[string]any)
		text, _, err := unstructured.NestedString(container, "usage", "cpu")
		if err != nil {
			return sum, err
		}
		used, err := resource.ParseQuantity(text) // a missing one is an error
		if err != nil {
			return sum, err
		}
		sum.Add(used)
	}
	return sum, nil
}
