// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// appsVersion is the group and version of Kubernetes' built-in kinds.
const appsVersion = "apps/v1"

// WorkloadKinds returns the built-in kinds that can be scaled to zero.
func WorkloadKinds() []string { return []string{"Deployment", "StatefulSet"} }

// Workload is what runs the pods behind a Service. It has everything that matters about it, whatever its kind.
type Workload struct {
	metav1.ObjectMeta

	APIVersion, Kind string
	// Resource is the API server's resource name of the kind; empty for a built-in one.
	Resource string
	// PodLabels are the labels of the pod template; they are unknown for a custom resource.
	PodLabels map[string]string
	// Template is the pod template; nil for a custom resource.
	Template *corev1.PodTemplateSpec
	// Selector selects the pods, in the format of the scale subresource; empty if it is unknown.
	Selector string
	// Refused is why Kubernetes cannot create pods, according to the workload's status. The status of a StatefulSet does not say so.
	Refused string
	// Replicas is the count in the spec, and ReadyReplicas how many there are.
	Replicas, ReadyReplicas int32
}

// NewWorkload returns the Workload of a Deployment, a StatefulSet or a DaemonSet, and false for anything else.
func NewWorkload(object any) (Workload, bool) {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return Workload{
			ObjectMeta: o.ObjectMeta, APIVersion: appsVersion, Kind: "Deployment", PodLabels: o.Spec.Template.Labels,
			Template: &o.Spec.Template, Selector: selector(o.Spec.Selector), Refused: refused(o), Replicas: replicas(o.Spec.Replicas),
			ReadyReplicas: o.Status.ReadyReplicas,
		}, true
	case *appsv1.StatefulSet:
		return Workload{
			ObjectMeta: o.ObjectMeta, APIVersion: appsVersion, Kind: "StatefulSet", PodLabels: o.Spec.Template.Labels,
			Template: &o.Spec.Template, Selector: selector(o.Spec.Selector), Replicas: replicas(o.Spec.Replicas),
			ReadyReplicas: o.Status.ReadyReplicas,
		}, true
	case *appsv1.DaemonSet:
		return Workload{
			ObjectMeta: o.ObjectMeta, APIVersion: appsVersion, Kind: "DaemonSet", PodLabels: o.Spec.Template.Labels,
			Replicas: o.Status.DesiredNumberScheduled, ReadyReplicas: o.Status.NumberReady,
		}, true
	default:
		return Workload{}, false
	}
}

func selector(s *metav1.LabelSelector) string {
	if parsed, err := metav1.LabelSelectorAsSelector(s); err == nil && s != nil {
		return parsed.String()
	}
	return ""
}

func refused(d *appsv1.Deployment) string {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue && c.Reason == "FailedCreate" &&
			d.Status.ObservedGeneration >= d.Generation {
			return c.Message
		}
	}
	return ""
}

// Ref returns the workload's name as in the routes.
func (w Workload) Ref() api.Workload {
	return api.Workload{APIVersion: w.APIVersion, Kind: w.Kind, Name: w.Name, UID: string(w.UID), Resource: w.Resource}
}

func (w Workload) matches(selector map[string]string) bool {
	for k, v := range selector {
		if got, ok := w.PodLabels[k]; !ok || got != v {
			return false
		}
	}
	return len(selector) > 0
}

// replicas returns the count of a spec. A missing count means 1.
func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

// ParseWorkload reads the format of api.Workload.String, which users write too: Kind/name for a built-in kind, or Kind.group/name.
func ParseWorkload(s string) (kind schema.GroupKind, name string, ok bool) {
	qualified, name, found := strings.Cut(s, "/")
	kind = schema.ParseGroupKind(qualified)
	switch {
	case !found || kind.Kind == "" || len(validation.IsDNS1123Subdomain(name)) > 0:
		return kind, name, false
	case kind.Group != "":
		return kind, name, len(validation.IsDNS1123Subdomain(kind.Group)) == 0
	default:
		return kind, name, slices.Contains(WorkloadKinds(), kind.Kind)
	}
}
