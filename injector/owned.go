// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

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
