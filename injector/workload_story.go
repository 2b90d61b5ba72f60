// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
)

// storyteller plans what is told of a workload's sleeping and waking.
type storyteller struct{ *workloadPlanner }

// live reports that the workload has fallen asleep or woken up since the last look.
func (p storyteller) live() WorkloadQuestion {
	o, w := p.o, p.o.Workload
	was := o.Memory.Life
	is := was.Next(o.Now, w.Replicas, p.serves(), p.d.unsafe || p.d.failOpen)
	if was.Known && was.Asleep && w.Replicas > 0 && !is.Awake {
		if o.Answers.Use == nil {
			return AskUse
		}
		if !was.Repeated && (ScaledByHand(w.ManagedFields) || o.Answers.Use.Use.unasked()) {
			is.Hand = w.Replicas
		}
	}
	p.Life = is
	if o.Install.KEDA && p.auto.HPA == nil && p.pause.why() == "" && len(p.d.services) > 0 {
		p.again = is.Crossed(was, o.Now)
		p.Life.Repeated = is.Repeated || p.again > 0
	}
	switch {
	case len(p.d.services) == 0, p.again > 0:
	case is.FellAsleep(was):
		p.Memory.Exceeded = "" // more replicas after that are another wish
		if o.Answers.Use == nil {
			return AskUse
		}
		p.tell(ReasonAsleep, p.slept(was, is, o.Answers.Use.Use).Note(w.Ref().String()))
	case is.Awoke(was):
		if o.Answers.Pods == nil {
			return AskPods
		}
		p.tell(ReasonAwake, p.awakeNote(*o.Answers.Pods))
	}
	return NoWorkloadQuestion
}

// awakeNote says how the workload has woken up.
func (p storyteller) awakeNote(pods Start) string {
	w, woken := p.o.Workload, p.Life.Woken
	ready := fmt.Sprintf("is ready (%d of %s)", w.ReadyReplicas, replicasText(w.Replicas))
	if w.ReadyReplicas == 0 {
		ready = "takes requests before it is ready, as one of its Services asks (publishNotReadyAddresses)"
	}
	note := fmt.Sprintf("%s %s, %s after it was scaled up", w.Ref(), ready, Rounded(p.o.Now.Sub(woken)))
	if stages := pods.Stages.Note(woken, p.early(), w.ReadyReplicas > 0); stages != "" {
		note += ": " + stages
	}
	return note
}

// slept describes how the workload has fallen asleep. was and is are its Life before and after.
func (p storyteller) slept(was, is Life, use *Use) Slept {
	now, w := p.o.Now, p.o.Workload
	s := Slept{
		By: ScaledBy(w.ManagedFields), Paused: p.pause.why(), Ready: was.Awake, Cooldown: p.d.cooldown(),
		ToKeep: "To keep it there: " + annotate(kubectlService(p.d.services[0]), "asleep=true"),
	}
	since := was.Since
	if !was.Awake {
		since = was.Woken
	}
	if was.Seen {
		s.For = now.Sub(since)
	}
	if use != nil {
		s.Use = new(*use)
		if !is.Bypassed.IsZero() {
			s.Use.Counted = min(use.Counted, now.Sub(is.Bypassed))
		}
	}
	return s
}
