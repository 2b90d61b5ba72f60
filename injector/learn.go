// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// Call is that a pod of a workload called another workload soon after its own had woken.
type Call struct {
	At time.Time
	// Asleep is set if the other workload had no ready pod.
	Asleep bool
}

// Learning is what a workload is known to call when it wakes, and what it has called in its present wake.
type Learning struct {
	// Known is set if Learned is. If it is not, the route slices say what another controller knew.
	Known   bool
	Learned api.Learned
	// Wake is when the present or last wake began, and Called are the workloads that it has called since.
	Wake   time.Time
	Called map[string]bool
}

// learn keeps what the workload calls when it wakes. A call counts at once, so that it is not lost with an interceptor; that there was
// none is known when the workload falls asleep again.
func (p *workloadPlanner) learn() WorkloadQuestion {
	was, is := p.o.Memory.Life, p.Life
	l := p.o.Memory.Learning.clone()
	for i := 0; !l.Known && i < len(p.d.slices); i++ {
		l.Learned, _ = api.DecodeLearned(p.d.slices[i].Annotations[api.LearnedAnnotation]) // what cannot be read is learned again
		l.Known = len(l.Learned) > 0                                                       // a newly added Service has nothing
	}
	l.Known = true
	switch {
	case p.d.noLearning:
		l.Learned, l.Called = nil, nil
	case is.FellAsleep(was) && was.Awake && l.Wake.Equal(was.Woken):
		p.miss(&l)
	case !is.Asleep && is.Seen:
		if !l.Wake.Equal(is.Woken) {
			l.Wake, l.Called = is.Woken, nil
		}
		for _, other := range slices.Sorted(maps.Keys(p.o.Calls)) {
			if call := p.o.Calls[other]; !call.At.Before(l.Wake) && !l.Called[other] {
				p.hit(&l, other, call)
			}
		}
	}
	p.Memory.Learning = l
	return NoWorkloadQuestion
}

func (l Learning) clone() Learning {
	l.Learned, l.Called = maps.Clone(l.Learned), maps.Clone(l.Called)
	return l
}

// hit takes in the first call of another workload in the present wake.
func (p *workloadPlanner) hit(l *Learning, other string, call Call) {
	if l.Called == nil {
		l.Called = map[string]bool{}
	}
	l.Called[other] = true
	calls, known := l.Learned[other]
	if !known && (!call.Asleep || len(l.Learned) >= api.MaxLearned) {
		return
	}
	together := calls.Together()
	calls.Missed = 0
	if call.Asleep && !together {
		calls.Found++
	}
	if l.Learned == nil {
		l.Learned = api.Learned{}
	}
	l.Learned[other] = calls
	if calls.Together() && !together {
		p.report(corev1.EventTypeNormal, ReasonTogether, fmt.Sprintf("%s calls %s when it wakes: from now on, %s wakes with it. "+
			"Annotation %slearn=\"false\" on a Service of either turns this off", p.o.Workload.Ref(), other, other, Prefix))
	}
}

// miss takes in that the workload has fallen asleep without calling some of the others.
func (p *workloadPlanner) miss(l *Learning) {
	for _, other := range slices.Sorted(maps.Keys(l.Learned)) {
		calls := l.Learned[other]
		if l.Called[other] {
			continue
		}
		calls.Missed++
		l.Learned[other] = calls
		if calls.Missed < api.ForgetAfter {
			continue
		}
		delete(l.Learned, other)
		if calls.Together() {
			p.report(corev1.EventTypeNormal, ReasonTogether, fmt.Sprintf("%s has not called %s in its last %d wakes: %s no longer wakes with it",
				p.o.Workload.Ref(), other, api.ForgetAfter, other))
		}
	}
	l.Called = nil
}
