// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// autoscaled plans for a workload that has an autoscaler of its owner's, or has just lost it.
type autoscaled struct{ *workloadPlanner }

// changeHands notices that another autoscaler than before is in charge of the workload, or none any more. remembered is the count that
// the workload gets back: whatever the autoscaler has left.
func (p autoscaled) changeHands(remembered *int32) {
	w, now := p.o.Workload, p.auto.String()
	before := w.Annotations[AutoscalerAnnotation]
	note := p.auto.note(w, p.d.settings)
	if before != now {
		p.Autoscaler = &now
	}
	if before != "" && now == "" {
		if w.Replicas > 0 {
			*remembered = w.Replicas
		}
		note = fmt.Sprintf("%s does not scale %s any more: scale-to-zero does, up to %s", before, w.Ref(),
			replicasText(NewScaling(p.d.settings, *remembered).MaxReplicas))
	}
	last := p.Memory.Autoscaler
	p.Memory.Autoscaler = note
	if p.aside == "" && note != "" && note != last && (before != now || last != "") {
		p.report(corev1.EventTypeNormal, ReasonAutoscaler, note)
	}
}

// scale does our part beside the autoscaler.
func (p autoscaled) scale(remembered int32) WorkloadQuestion {
	o, d, w := p.o, p.d, p.o.Workload
	if o.ScaledObject != nil {
		p.Delete = o.ScaledObject // KEDA leaves the replica count as it is
	}
	if remembered == 0 {
		remembered = max(1, w.Replicas)
	}
	p.remember(remembered)
	if p.aside != "" {
		return NoWorkloadQuestion // its Services are about to be restored
	}
	scaling := p.keptUp(NewScaling(d.settings, remembered), nil)
	p.askForTrigger(scaling)
	if p.force() || p.auto.HPA == nil {
		return NoWorkloadQuestion
	}
	return p.scaleByCounts(scaling)
}

// askForTrigger makes somebody else's ScaledObject have our trigger, once all traffic goes through the interceptors.
func (p autoscaled) askForTrigger(s Scaling) {
	so := p.auto.ScaledObject
	if so == nil || p.d.unsafe || len(p.d.services) == 0 {
		return
	}
	want := triggerRequest{
		Metadata:          triggerMetadata(p.o.Workload, s, inactiveAfter(so), p.o.Install.Scaler),
		AuthenticationRef: p.o.Install.Scaler.authenticationRef(), Asleep: p.d.staysAsleep(),
	}
	var unadmitted bool
	p.Trigger, unadmitted = askForTrigger(so, want)
	note := ""
	if unadmitted {
		note = fmt.Sprintf("ScaledObject %s has no trigger of scale-to-zero yet, since scale-to-zero's admission webhook did not answer; trying "+
			"again. Until then KEDA neither wakes %s for requests nor keeps it up for them", so.Name, p.o.Workload.Ref())
		p.after(slowRetry)
	}
	if note != "" && note != p.Memory.Untriggered {
		p.report(corev1.EventTypeWarning, ReasonAutoscaler, note, so)
	}
	p.Memory.Untriggered = note
}

// giveBack gives a workload with replicas back to the autoscaler as it is. One without replicas gets some first: an HPA would leave
// it at zero. n is the count that it had.
func (p autoscaled) giveBack(n int32) WorkloadQuestion {
	w, so := p.o.Workload, p.o.ScaledObject
	switch {
	case so != nil && so.DeletionTimestamp.IsZero():
		p.Delete, p.Soon = so, true
	case so != nil:
		p.release()
	}
	if theirs := p.auto.ScaledObject; theirs != nil && len(p.o.Asks) == 0 {
		p.Trigger = withdrawTrigger(theirs)
		if _, asked := theirs.Annotations[TriggerAnnotation]; p.Trigger != nil && !asked {
			p.after(slowRetry) // admission did not answer, and no watch reports when it does
		}
	} else if theirs != nil {
		// KEDA keeps the workload up by our trigger until no request is held any more.
		before := decodeTrigger(theirs.Annotations)
		p.Trigger, _ = askForTrigger(theirs, triggerRequest{Metadata: before.Metadata, AuthenticationRef: before.AuthenticationRef})
	}
	if w.Replicas == 0 && n > 0 && !p.pause.NoWake { // what its owner has paused at zero stays there
		p.scaleBack(p.auto.within(n))
		return NoWorkloadQuestion
	}
	if n > 0 {
		p.disclaim()
	}
	p.Forget = so == nil
	return NoWorkloadQuestion
}
