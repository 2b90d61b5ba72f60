// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// pause is why no request may wake a workload, or why it may not sleep: its owner has paused the ScaledObject with KEDA's annotations,
// or keeps the workload asleep with ours.
type pause struct {
	keda.Pause

	so *keda.ScaledObject
	// asleep is the object whose annotation keeps the workload asleep, as kubectl takes it; empty if none does.
	asleep string
}

// paused reads the pause from the annotations of the workload's ScaledObject, ours or its owner's, and of its Services.
func (p *workloadPlanner) paused() pause {
	if p.d.staysAsleep() {
		return pause{asleep: p.d.asleep}
	}
	so := p.o.ScaledObject
	if p.auto.ScaledObject != nil {
		so = p.auto.ScaledObject
	}
	if so == nil || !so.DeletionTimestamp.IsZero() || decodeTrigger(so.Annotations).Asleep {
		return pause{}
	}
	return pause{Pause: keda.PauseOf(so.Annotations), so: so}
}

// noWake reports whether no request may wake the workload.
func (p pause) noWake() bool { return p.NoWake || p.asleep != "" }

// why describes the pause to visitors, in one line. It is empty if a request may wake the workload.
func (p pause) why() string {
	switch {
	case p.asleep != "":
		return fmt.Sprintf("its owner keeps it asleep (annotation %sasleep)", Prefix)
	case p.NoWake:
		return fmt.Sprintf("ScaledObject %s is paused (%s)", p.so.Name, p)
	}
	return ""
}

// progress returns the pause for the interceptors.
func (p pause) progress(w Workload) *api.Pause {
	if !p.noWake() {
		return nil
	}
	return &api.Pause{Why: p.why(), Asleep: w.Replicas == 0, Kept: p.asleep != ""}
}

// note returns the type and the note of the event about the pause. The note is empty if nothing is paused.
func (p pause) note(w Workload) (eventType, note string) {
	what := "neither wakes it nor puts it to sleep. Requests get 503 while it has no replicas"
	switch {
	case p.asleep != "":
		return corev1.EventTypeNormal, fmt.Sprintf("Annotation %sasleep keeps %s at zero replicas. Requests get 503. Let it wake: %s",
			Prefix, w.Ref(), annotate(p.asleep, "asleep-"))
	case len(p.By) == 0:
		return "", ""
	case !p.NoWake:
		what = "does not put it to sleep"
	case !p.NoSleep:
		what = "does not wake it. Requests get 503 while it has no replicas"
	}
	return corev1.EventTypeWarning, fmt.Sprintf("ScaledObject %s of %s is paused (%s): scale-to-zero %s. Resume: "+
		"kubectl annotate scaledobject -n %s %s %s-", p.so.Name, w.Ref(), p, what, p.so.Namespace, p.so.Name, strings.Join(p.By, "- "))
}

// annotate returns the command that changes one of our annotations on an object. object and change are as kubectl takes them, change
// without Prefix.
func annotate(object, change string) string {
	return fmt.Sprintf("kubectl annotate %s %s%s", object, Prefix, change)
}

// kubectlService is a Service as kubectl takes it.
func kubectlService(s *corev1.Service) string {
	return fmt.Sprintf("service -n %s %s", s.Namespace, s.Name)
}
