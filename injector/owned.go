// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// Anybody may write our labels on objects of their own. So what marks an object as ours is the label together with an owner that we give
// it: the Service or the workload for which it was made.

// CompanionOf returns the name of the Service for which we made a Service, and false if somebody else made it, whatever its labels.
func CompanionOf(service *corev1.Service) (name string, ours bool) {
	owner := metav1.GetControllerOfNoCopy(service)
	if owner == nil || owner.Kind != "Service" || owner.APIVersion != "v1" || service.Labels[ManagedByLabel] != ManagedBy {
		return "", false
	}
	return owner.Name, service.Name == DirectServiceName(owner.Name) || service.Name == AliasServiceName(owner.Name)
}

// OwnScaledObject reports whether we made a ScaledObject for the workload. If somebody has taken its owner away, it is known by the
// replica count that it remembers.
func OwnScaledObject(so *keda.ScaledObject, w Workload) bool {
	if so.Labels[ManagedByLabel] != ManagedBy || so.Name != ScaledObjectName(w.Ref()) {
		return false
	}
	owner := metav1.GetControllerOfNoCopy(so)
	if owner == nil {
		return Remembered(so.Annotations) > 0
	}
	return owner.Kind == w.Kind && owner.Name == w.Name
}

// ChangedFields returns the fields of a ScaledObject's spec that we own and that differ. The other fields, such as advanced and
// fallback, are the user's.
func ChangedFields(before, after keda.ScaledObjectSpec) []string {
	var changed []string
	for _, f := range []struct {
		name          string
		before, after any
	}{
		{"scaleTargetRef", before.ScaleTargetRef, after.ScaleTargetRef},
		{"pollingInterval", before.PollingInterval, after.PollingInterval},
		{"cooldownPeriod", before.CooldownPeriod, after.CooldownPeriod},
		{"initialCooldownPeriod", before.InitialCooldownPeriod, after.InitialCooldownPeriod},
		{"idleReplicaCount", before.IdleReplicaCount, after.IdleReplicaCount},
		{"minReplicaCount", before.MinReplicaCount, after.MinReplicaCount},
		{"maxReplicaCount", before.MaxReplicaCount, after.MaxReplicaCount},
		{"triggers", before.Triggers, after.Triggers},
	} {
		if !equality.Semantic.DeepEqual(f.before, f.after) {
			changed = append(changed, "spec."+f.name)
		}
	}
	return changed
}

// instead says what to do instead of a change of these fields that is undone.
func instead(changed []string) string {
	if slices.Contains(changed, "spec.triggers") {
		return "Triggers of your own are not supported"
	}
	return "Set " + Prefix + "cooldown, min-replicas, max-replicas or target-pending-requests on the Service"
}

// UndoneWarning is for a user who changes a field that we own of our ScaledObject.
func UndoneWarning(name string, changed []string) string {
	return fmt.Sprintf("scale-to-zero owns ScaledObject %s and undoes this change of %s. %s.", name, strings.Join(changed, ", "),
		instead(changed))
}

// UndoneNote is the note of the event about an undone change.
func UndoneNote(name string, changed []string) string {
	return fmt.Sprintf("scale-to-zero owns ScaledObject %s and has undone a change of %s. %s", name, strings.Join(changed, ", "),
		instead(changed))
}
