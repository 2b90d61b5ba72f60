// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"strings"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// pause is what the owner of a workload's ScaledObject has paused with KEDA's annotations.
type pause struct {
	keda.Pause

	so *keda.ScaledObject
}

// pauseOf reads the pause from our ScaledObject of a workload, which may be nil.
func pauseOf(so *keda.ScaledObject) pause {
	if so == nil || !so.DeletionTimestamp.IsZero() {
		return pause{}
	}
	return pause{keda.PauseOf(so.Annotations), so}
}

// why describes the pause to visitors, in one line. It is empty if a request may wake the workload.
func (p pause) why() string {
	if !p.NoWake {
		return ""
	}
	return fmt.Sprintf("ScaledObject %s is paused (%s)", p.so.Name, p)
}

// progress returns the pause for the interceptors.
func (p pause) progress(w Workload) *api.Pause {
	if !p.NoWake {
		return nil
	}
	return &api.Pause{Why: p.why(), Asleep: w.Replicas == 0}
}

// note returns the note of the event about the pause. It is empty if nothing is paused.
func (p pause) note(w Workload) string {
	what := "neither wakes it nor puts it to sleep. Requests get 503 with this while it has no replicas"
	switch {
	case len(p.By) == 0:
		return ""
	case !p.NoWake:
		what = "does not put it to sleep"
	case !p.NoSleep:
		what = "does not wake it. Requests get 503 with this while it has no replicas"
	}
	return fmt.Sprintf("ScaledObject %s of %s is paused (%s): scale-to-zero %s. Resume: kubectl annotate scaledobject -n %s %s %s-",
		p.so.Name, w.Ref(), p, what, p.so.Namespace, p.so.Name, strings.Join(p.By, "- "))
}

// toKeep says how to keep a workload without replicas.
func (p pause) toKeep() string {
	if p.so == nil {
		return fmt.Sprintf("To keep it there, opt it out first (label %s=false)", OptInLabel)
	}
	return fmt.Sprintf("To keep it there: kubectl annotate scaledobject -n %s %s %s=0", p.so.Namespace, p.so.Name,
		keda.PausedReplicasAnnotation)
}
