// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package keda has the part of KEDA's ScaledObject (keda.sh/v1alpha1, as of KEDA 2.21) that the injector reads and writes. KEDA's own
// Go module would more than double the module graph.
package keda

import (
	"time"

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

// ScaledObjectSpec says how the workload is scaled. It has only the fields that we read or set.
type ScaledObjectSpec struct {
	ScaleTargetRef ScaleTarget `json:"scaleTargetRef"`
	// PollingInterval, CooldownPeriod and InitialCooldownPeriod are in seconds.
	PollingInterval       *int32 `json:"pollingInterval,omitempty"`
	CooldownPeriod        *int32 `json:"cooldownPeriod,omitempty"`
	InitialCooldownPeriod *int32 `json:"initialCooldownPeriod,omitempty"`
	// IdleReplicaCount is the count while no trigger is active, and MinReplicaCount then the smallest one while a trigger is. Without it,
	// MinReplicaCount is both. KEDA allows only 0, below MinReplicaCount.
	IdleReplicaCount *int32    `json:"idleReplicaCount,omitempty"`
	MinReplicaCount  *int32    `json:"minReplicaCount,omitempty"`
	MaxReplicaCount  *int32    `json:"maxReplicaCount,omitempty"`
	Advanced         *Advanced `json:"advanced,omitempty"`
	Triggers         []Trigger `json:"triggers"`
}

// The defaults of KEDA 2.21, in seconds.
const (
	defaultPollingInterval = 30
	defaultCooldownPeriod  = 300
	defaultMaxReplicaCount = 100
)

// Polling returns how often KEDA asks the triggers.
func (s *ScaledObjectSpec) Polling() time.Duration {
	return secondsOr(s.PollingInterval, defaultPollingInterval)
}

// Cooldown returns how long KEDA waits after the last poll that found a trigger active before it puts the workload to sleep.
func (s *ScaledObjectSpec) Cooldown() time.Duration {
	return secondsOr(s.CooldownPeriod, defaultCooldownPeriod)
}

// Idle returns the replica count while no trigger is active.
func (s *ScaledObjectSpec) Idle() int32 {
	if s.IdleReplicaCount != nil {
		return *s.IdleReplicaCount
	}
	return countOr(s.MinReplicaCount, 0)
}

// Woken returns the replica count with which KEDA wakes the workload.
func (s *ScaledObjectSpec) Woken() int32 { return max(1, countOr(s.MinReplicaCount, 0)) }

// Max returns the largest replica count.
func (s *ScaledObjectSpec) Max() int32 { return countOr(s.MaxReplicaCount, defaultMaxReplicaCount) }

// Formula is scalingModifiers.formula, by which alone KEDA then decides; empty if there is none.
func (s *ScaledObjectSpec) Formula() string {
	if s.Advanced == nil || s.Advanced.ScalingModifiers == nil {
		return ""
	}
	return s.Advanced.ScalingModifiers.Formula
}

func secondsOr(n *int32, otherwise int32) time.Duration {
	return time.Duration(countOr(n, otherwise)) * time.Second
}

func countOr(n *int32, otherwise int32) int32 {
	if n == nil {
		return otherwise
	}
	return *n
}

// Advanced is the part of spec.advanced that we read. It is never written: a patch has only what differs.
type Advanced struct {
	ScalingModifiers *ScalingModifiers `json:"scalingModifiers,omitempty"`
}

// ScalingModifiers combine the triggers' metrics.
type ScalingModifiers struct {
	Formula string `json:"formula,omitempty"`
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
	// AuthenticationRef names what KEDA authenticates itself with.
	AuthenticationRef *AuthenticationRef `json:"authenticationRef,omitempty"`
}

// ClusterTriggerAuthenticationKind is the kind of what KEDA authenticates itself with in all namespaces.
const ClusterTriggerAuthenticationKind = "ClusterTriggerAuthentication"

// AuthenticationRef names a TriggerAuthentication, or a ClusterTriggerAuthentication if Kind says so.
type AuthenticationRef struct {
	Name string `json:"name"`
	Kind string `json:"kind,omitempty"`
}

// ScaledObjectList is a list of ScaledObjects.
type ScaledObjectList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []ScaledObject `json:"items"`
}
