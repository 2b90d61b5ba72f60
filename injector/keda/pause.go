// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package keda

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Annotations with which the owner of a ScaledObject pauses it, or keeps the workload up (KEDA 2.21).
const (
	PausedAnnotation          = "autoscaling.keda.sh/paused"
	PausedReplicasAnnotation  = "autoscaling.keda.sh/paused-replicas"
	PausedScaleInAnnotation   = "autoscaling.keda.sh/paused-scale-in"
	PausedScaleOutAnnotation  = "autoscaling.keda.sh/paused-scale-out"
	ForceActivationAnnotation = "autoscaling.keda.sh/force-activation"
)

// Pause says what KEDA does not do for a paused ScaledObject.
type Pause struct {
	// NoWake is set if KEDA does not scale the workload up from zero, and NoSleep if it does not scale the workload to zero.
	NoWake, NoSleep bool
	// By has the keys of the pausing annotations, sorted.
	By []string

	annotations map[string]string
}

// PauseOf reads the annotations of a ScaledObject as KEDA does: a boolean that does not parse is true, and any value of
// PausedReplicasAnnotation pauses.
func PauseOf(annotations map[string]string) Pause {
	p := Pause{annotations: annotations}
	set := func(key string) bool {
		value, found := annotations[key]
		on, err := strconv.ParseBool(value)
		if found && (on || err != nil) {
			p.By = append(p.By, key)
			return true
		}
		return false
	}
	if value, found := annotations[PausedReplicasAnnotation]; found {
		p.By = append(p.By, PausedReplicasAnnotation)
		n, err := strconv.ParseInt(value, 10, 32)
		p.NoSleep, p.NoWake = true, err != nil || n <= 0 // KEDA scales the workload to any other count
	}
	if set(PausedAnnotation) {
		p.NoSleep, p.NoWake = true, p.NoWake || len(p.By) == 1
	}
	p.NoSleep = set(PausedScaleInAnnotation) || p.NoSleep
	p.NoSleep = set(ForceActivationAnnotation) || p.NoSleep
	p.NoWake = set(PausedScaleOutAnnotation) || p.NoWake
	slices.Sort(p.By)
	return p
}

// String returns the annotations with their values.
func (p Pause) String() string {
	texts := make([]string, len(p.By))
	for i, key := range p.By {
		texts[i] = fmt.Sprintf("%s: %q", key, p.annotations[key])
	}
	return strings.Join(texts, ", ")
}
