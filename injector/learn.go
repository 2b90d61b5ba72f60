// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"maps"
	"slices"
	"time"

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
	// Known is set once Learned has been read or learned. Until then, the route slices have it.
	Known   bool
	Learned api.Learned
	// Wake is when the present or last wake began, and Called are the workloads that it has called since.
	Wake   time.Time
	Called map[string]bool
}

// learner plans what is learned about a workload.
type learner struct{ *workloadPlanner }

// learn keeps what the workload calls when it wakes. A call counts at once, so that it is not lost with an interceptor; that there was
// none is known when the workload falls asleep again.
func (p learner) learn() WorkloadQuestion {
	was, is := p.o.Memory.Life, p.Life
	l := p.o.Memory.Learning.clone()
	for i := 0; !l.Known && i < len(p.d.slices); i++ {
		l.Learned, _ = api.DecodeLearned(p.d.slices[i].Annotations[api.LearnedAnnotation]) // what cannot be read is learned again
		l.Known = len(l.Learned) > 0                                                       // a newly added Service has nothing
	}
	l.Known = true
	switch {
	case !p.learns():
		l.Learned, l.Called = nil, nil
	case is.FellAsleep(was) && was.Awake && l.Wake.Equal(was.Woken):
		p.miss(&l)
	case was.Asleep && !is.Asleep:
		l.Wake, l.Called = is.Woken, nil
	}
	if p.learns() && l.Wake.Equal(is.Woken) && !is.Asleep { // otherwise nobody has seen the wake begin
		for _, other := range slices.Sorted(maps.Keys(p.o.Calls)) {
			call := p.o.Calls[other]
			soon := !is.Awake || call.At.Before(is.Since.Add(api.CallsFor+aMoment))
			if soon && !call.At.Before(l.Wake) && !l.Called[other] {
				p.hit(&l, other, call)
			}
		}
	}
	p.Memory.Learning = l
	return NoWorkloadQuestion
}

// learns reports whether calls from the workload's pods teach anything: no Service forbids it, and no others call from their address.
func (p learner) learns() bool {
	template := p.o.Workload.Template
	return !p.d.noLearning && (template == nil || !template.Spec.HostNetwork)
}

func (l Learning) clone() Learning {
	l.Learned, l.Called = maps.Clone(l.Learned), maps.Clone(l.Called)
	return l
}

// hit takes in the first call of another workload in the present wake.
func (p learner) hit(l *Learning, other string, call Call) {
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
		p.tell(ReasonTogether, fmt.Sprintf("%s has called %s in %d of its wakes: from now on, waking it wakes %s too. "+
			"Annotation %slearn=\"false\" on a Service of either turns this off", p.o.Workload.Ref(), other, api.LearnAfter, other, Prefix))
	}
}

// miss takes in that the workload has fallen asleep without calling some of the others.
func (p learner) miss(l *Learning) {
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
			p.tell(ReasonTogether, fmt.Sprintf("%s was not seen to call %s in its last %d wakes: waking it no longer wakes %s",
				p.o.Workload.Ref(), other, api.ForgetAfter, other))
		}
	}
	l.Called = nil
}
