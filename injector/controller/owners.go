// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// maxOwned bounds how many of a Service's pods are looked at: one of the workload's own is enough.
const maxOwned = 20

// owns reports whether one of the pods that the Service selects belongs to the workload: it controls the pod, or the Deployment or the
// StatefulSet that does.
//
// +kubebuilder:rbac:groups="",resources=pods,verbs=list
func (ws *workloadClient) owns(ctx context.Context, service *corev1.Service, w injector.Workload) (bool, error) {
	var pods corev1.PodList
	err := ws.live.List(ctx, &pods, client.InNamespace(service.Namespace), client.MatchingLabels(injector.OriginalSelector(service)),
		client.Limit(maxOwned))
	if err != nil {
		return false, fmt.Errorf("listing the pods of %s: %w", client.ObjectKeyFromObject(service), err)
	}
	for i := range pods.Items {
		owner := metav1.GetControllerOfNoCopy(&pods.Items[i])
		if owner == nil {
			continue
		}
		owned := owner.UID == w.UID
		if !owned {
			if owned, err = ws.controls(ctx, &pods.Items[i], owner, w.UID); err != nil {
				return false, err
			}
		}
		if owned {
			return true, nil
		}
	}
	return false, nil
}

// controls reports whether workload controls the StatefulSet or the Deployment behind a pod. The name of a Deployment's ReplicaSet is
// that of the Deployment and a hash, which the pod has as a label.
func (ws *workloadClient) controls(ctx context.Context, pod *corev1.Pod, owner *metav1.OwnerReference, workload types.UID) (bool, error) {
	kind, name := owner.Kind, owner.Name
	if kind == "ReplicaSet" {
		kind, name = "Deployment", strings.TrimSuffix(name, "-"+pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey])
	}
	if kind != "Deployment" && kind != "StatefulSet" || !strings.HasPrefix(owner.APIVersion, appsv1.GroupName+"/") {
		return false, nil
	}
	object := newObject(kind)
	err := ws.client.Get(ctx, types.NamespacedName{Namespace: pod.Namespace, Name: name}, object)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("getting the owner of pod %s: %w", client.ObjectKeyFromObject(pod), err)
	}
	above := metav1.GetControllerOfNoCopy(object)
	return err == nil && above != nil && above.UID == workload, nil
}
