// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// follower plans what those who wait for a start are told.
type follower struct{ *workloadPlanner }

// follow records how far the workload's start has come, for those who wait for it, and reports if it cannot start.
//
// Pods are not watched. They are listed once the workload has had replicas but none ready for firstLook, and then ever more rarely.
func (p follower) follow() WorkloadQuestion {
	o, d, w := p.o, p.d, p.o.Workload
	s := p.starting()
	before := s
	advice := ""
	switch {
	case w.Replicas == 0 && p.again == 0:
		s = s.idle(true)
	case w.Replicas == 0: // it is scaled up again
	case len(d.services) == 0 && !d.retiring: // nobody waits here
		s = s.idle(false)
	case w.ReadyReplicas > 0:
		s = p.over(s)
	default:
		s = s.begun(o.Now)
		wait := s.untilLook(o.Now)
		if s.Progress.Stage == "" && p.Life.Hand > 0 {
			// Nobody waits for it. The interceptors learn of it by this alone, and KEDA asks them whether it may sleep.
			s.Progress.Stage = api.StageScheduling
			p.after(wait)
			break
		}
		if wait > 0 {
			p.after(wait)
			break
		}
		s.Looked = o.Now
		if o.Answers.Pods == nil {
			p.Memory.Starting = s
			return AskPods
		}
		look := *o.Answers.Pods
		if look.Ready || d.published && look.Failing == "" {
			s = p.over(s)
			s.Reported = before.Reported // until the status says so too
			p.after(KindRetry)           // the status may never say so
			break
		}
		s, advice = s.next(look, o.Now), look.Advice
		p.after(s.nextLook(o.Now))
	}
	s.Progress.Paused = p.pause.progress(w)
	if len(p.d.settings) > 0 {
		s.Progress.WakeTo = p.wakeTo()
	}
	p.reportPause(before.Progress.Paused)
	p.reportStart(&s, before, advice)
	p.Memory.Starting, p.Memory.Followed = s, true
	return NoWorkloadQuestion
}

// wakeTo returns how many replicas an interceptor wakes the workload with; 0 if one.
func (p follower) wakeTo() int32 {
	if wake := p.wakeCount(); wake > 1 && p.remembered() > 0 {
		return wake
	}
	return 0
}

// over ends a start: a pod takes requests now, or has done so for a while by the word of its own probes.
func (p follower) over(s Starting) Starting {
	at, running := p.early(), time.Time{}
	if at.IsZero() {
		at = p.o.Now
	}
	if p.o.Answers.Pods != nil {
		running = p.o.Answers.Pods.Stages.Running
	}
	return s.over(at, running)
}

// starting returns what is known about the workload's start, if necessary from what another controller has written.
func (p follower) starting() Starting {
	s, known := p.o.Memory.Starting, p.o.Memory.Followed
	for i := 0; !known && i < len(p.d.slices); i++ {
		if progress, err := api.DecodeProgress(p.d.slices[i].Annotations[api.ProgressAnnotation]); err == nil {
			s, known = StartingFrom(progress) // a newly added Service has none
		}
	}
	return s
}

// write plans writing the annotations to those route slices that differ, according to the cache.
func (p *workloadPlanner) write() WorkloadQuestion {
	p.Progress, _ = p.Memory.Starting.Progress.Encode() // it cannot fail: text, numbers and times always encode
	if p.Progress == "{}" {
		p.Progress = ""
	}
	p.Learned, _ = p.Memory.Learning.Learned.Encode() // nor can this
	for _, s := range p.d.slices {
		if s.Annotations[api.ProgressAnnotation] != p.Progress || s.Annotations[api.LearnedAnnotation] != p.Learned {
			p.Slices = append(p.Slices, s)
		}
	}
	return NoWorkloadQuestion
}

// reportPause reports when a pause begins, changes or ends. before is the pause in the route slices, which an earlier controller has
// already reported.
func (p follower) reportPause(before *api.Pause) {
	w, last := p.o.Workload, p.Life.Paused
	eventType, note := p.pause.note(w)
	p.Life.Paused = note
	switch {
	case note == last && (note != "" || before == nil), last == "" && p.pause.noWake() && before != nil && before.Why == p.pause.why():
	case note != "" && p.pause.so == nil:
		p.report(eventType, ReasonPaused, note)
	case note != "":
		p.report(eventType, ReasonPaused, note, p.pause.so)
	case len(p.d.services) == 0: // it is being restored
	case w.Replicas == 0 && p.d.keepsAwake(p.o.Now):
		p.report(corev1.EventTypeNormal, ReasonResumed, fmt.Sprintf("%s is no longer paused", w.Ref())) // another event says what wakes it
	case w.Replicas == 0:
		p.report(corev1.EventTypeNormal, ReasonResumed, fmt.Sprintf("%s is no longer paused: the next request wakes it", w.Ref()))
	default:
		p.report(corev1.EventTypeNormal, ReasonResumed, fmt.Sprintf("%s is no longer paused: it sleeps when nobody uses it", w.Ref()))
	}
}

// reportStart reports why the workload cannot start, once for each reason. It also reports that the workload can start again, unless
// another event says so.
func (p follower) reportStart(s *Starting, before Starting, advice string) {
	w := p.o.Workload
	switch {
	case s.unreported():
		s.Reported = append(slices.Clone(s.Reported), s.Progress.Reason)
		p.report(corev1.EventTypeWarning, ReasonStartFailed,
			fmt.Sprintf("%s cannot start: %s. Requests get 503 until it can. %s", w.Ref(), s.Progress.Failing, advice))
	case w.ReadyReplicas > 0 && len(before.Reported) > 0 && !p.awoke():
		p.report(corev1.EventTypeNormal, ReasonAwake, fmt.Sprintf("%s is ready again (%s)", w.Ref(), replicasOf(w.ReadyReplicas, w.Replicas)))
	}
}

// awoke reports whether the plan has an event that says that the workload has woken up.
func (p follower) awoke() bool {
	return slices.ContainsFunc(p.Story, func(r Report) bool { return r.Reason == ReasonAwake })
}
