// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package keda has the part of KEDA's ScaledObject (keda.sh/v1alpha1, as of KEDA 2.21) that the injector reads and writes. KEDA's own
// Go module would more than double the module graph.
package keda

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of ScaledObject.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: "keda.sh", Version: "v1alpha1"}
}

// AddToScheme registers the types.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion(), &ScaledObject{}, &ScaledObjectList{})
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}

// Finalizer is the finalizer of KEDA 2.21: a deleted ScaledObject stays until KEDA has cleaned up.
const Finalizer = "finalizer.keda.sh"

// ScaledObject scales one workload.
type ScaledObject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec ScaledObjectSpec `json:"spec"`
}

// ScaledObjectSpec says how the workload is scaled. It has only the fields that we set: we read the ScaledObjects of others, but
// never write them.
type ScaledObjectSpec struct {
	ScaleTargetRef ScaleTarget `json:"scaleTargetRef"`
	// PollingInterval, CooldownPeriod and InitialCooldownPeriod are in seconds.
	PollingInterval       *int32    `json:"pollingInterval,omitempty"`
	CooldownPeriod        *int32    `json:"cooldownPeriod,omitempty"`
	InitialCooldownPeriod *int32    `json:"initialCooldownPeriod,omitempty"`
	MinReplicaCount       *int32    `json:"minReplicaCount,omitempty"`
	MaxReplicaCount       *int32    `json:"maxReplicaCount,omitempty"`
	Triggers              []Trigger `json:"triggers"`
}

// ScaleTarget names the workload.
type ScaleTarget struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind,omitempty"`
	Name       string `json:"name"`
}

// TargetKind returns the kind. Like KEDA, it assumes a Deployment if none is given.
func (t ScaleTarget) TargetKind() string {
	if t.Kind == "" {
		return "Deployment"
	}
	return t.Kind
}

// Trigger says what to scale by.
type Trigger struct {
	Type       string            `json:"type"`
	Name       string            `json:"name,omitempty"`
	MetricType string            `json:"metricType,omitempty"`
	Metadata   map[string]string `json:"metadata"`
}

// ScaledObjectList is a list of ScaledObjects.
type ScaledObjectList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []ScaledObject `json:"items"`
}
