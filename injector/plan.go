// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

const (
	// reportAfter is how long a Service may lack something before an event says so: Helm creates Services before workloads.
	reportAfter = 5 * time.Second
	// goneFor is how long the workload of an injected Service has to be gone before the Service is restored. Somebody may replace the
	// workload by a new one with the same name, as `kubectl replace --force` does.
	goneFor = time.Second
	// slowRetry is the pause between two looks at something that has been missing for a while.
	slowRetry = 5 * time.Second
	// blockedMax is the longest pause between two looks at a blocked way: no watch reports when a policy opens it.
	blockedMax = time.Minute
	// blockedFor is how long the way to an app's first pods has to be blocked before the app is restored. The network of a new pod may
	// not be ready on every node yet.
	blockedFor = 10 * time.Second
	// blockedLook is the pause between two looks during blockedFor.
	blockedLook = time.Second
)

// Plan is what to do for one Service, in the order of the fields. A failure ends the plan: later steps are skipped, nothing is
// reported, and Memory stays unchanged.
type Plan struct {
	Phase Phase
	// Injecting is set if the Service should be injected and is not yet.
	Injecting bool
	// Sweep is deleted first: it belongs to a deleted Service.
	Sweep []Object
	// Try is a ScaledObject for a dry run at the API server. If the API server refused an app's ScaledObject only after the injection,
	// the app would never sleep.
	Try *keda.ScaledObject
	// Apply is created, or updated if it has a resource version.
	Apply []Object
	// Ask are requests to admission. If one is not granted, its Ignored ends the plan.
	Ask []Ask
	// Delete is deleted. Deleted is reported if one of the objects still existed.
	Delete  []Object
	Deleted []Report
	// FreePorts are the Fronts whose interceptor ports are freed.
	FreePorts []string
	// Forget is set if the controller need not wait for its writes any more.
	Forget bool
	Outcome
}

// Ask is a request to admission by annotations of the user's Service or Ingresses. Admission changes the object itself during the
// same write, so its author still owns the change. Without admission, only the annotation is written.
type Ask struct {
	Writes []Annotation
	// Into is set to redirect traffic to the interceptors, and not set to redirect it back.
	Into bool
	// Service is the opted-in Service. If there are Ingresses, the request is about these.
	Service   *corev1.Service
	Ingresses []*networkingv1.Ingress
	// Granted, if set, replaces the plan's own Outcome and ends the plan. Ignored ends it if admission did nothing.
	Granted *Outcome
	Ignored Outcome
}

// Annotation is an annotation to write, or to remove if Value is empty.
type Annotation struct {
	Object     Object
	Key, Value string
}

// Done reports whether admission has granted the request, according to the objects after the writes.
func (a Ask) Done() bool {
	switch {
	case len(a.Ingresses) == 0:
		return Intercepted(a.Service) == a.Into
	case a.Into:
		return Rewritten(a.Ingresses, a.Service.Name)
	default:
		for _, i := range a.Ingresses {
			if Aliased(i, a.Service.Name) {
				return false
			}
		}
		return true
	}
}

// PlanService plans what to do for a Service, by the table at Phase. If it returns a question, the plan cannot be made before the
// question is answered. Once a plan has been carried out, planning again yields nothing to do.
func PlanService(o Observation) (Plan, Question) {
	p := &planner{o: &o}
	p.Memory = o.Memory
	p.Outcome = p.clone()
	p.self, p.alias = o.fronts()
	p.Sweep = o.Leftovers
	v, q := p.judge()
	if q.Kind != NoQuestion {
		return Plan{}, q
	}
	p.v = v
	if p.comesBack() {
		return p.Plan, Question{}
	}
	if q := p.steps(); q.Kind != NoQuestion {
		return Plan{}, q
	}
	p.Memory.Phase = p.Phase
	return p.Plan, Question{}
}

// planner makes a Plan.
type planner struct {
	Plan

	o           *Observation
	v           Verdict
	self, alias Front
}

// comesBack reports whether the workload of an injected Service has only just gone. Everything stays as it is for now.
func (p *planner) comesBack() bool {
	if p.v.Lost == ScopeNone {
		return false
	}
	front, _ := Verdict{Scope: p.v.Lost}.wanted(&p.self, &p.alias)
	if len(front.Slices) == 0 || front.Routes.Retiring {
		return false
	}
	left := goneFor - p.waited("the workload is gone", p.o.Now)
	if left <= 0 {
		return false
	}
	p.Phase = p.Memory.Phase
	p.after(left)
	return true
}

// steps redirects the wanted Front first, and then restores the other one.
func (p *planner) steps() Question {
	if p.v.Scope == ScopeNone {
		return p.restoreAll()
	}
	wanted, other := p.v.wanted(&p.self, &p.alias)
	p.Injecting = !p.o.redirected(*wanted)
	done, q := p.inject(wanted)
	if q.Kind != NoQuestion || !done {
		return q
	}
	if q := p.warnUnvisited(*wanted); q.Kind != NoQuestion {
		return q
	}
	phase := p.Phase
	_, q = p.restore(other)
	p.Phase = phase
	p.after(p.v.Retry)
	return q
}

// restoreAll restores both Fronts, and then reports why the Service is not injected.
func (p *planner) restoreAll() Question {
	self, q := p.restore(&p.self)
	if q.Kind != NoQuestion {
		return q
	}
	phase := p.Phase
	alias, q := p.restore(&p.alias)
	if q.Kind != NoQuestion {
		return q
	}
	if !self {
		p.Phase = phase
	}
	if !self || !alias {
		return Question{}
	}
	p.Phase = PhaseAbsent
	if p.o.Direct.Service != nil {
		p.Delete = append(p.Delete, p.o.Direct.Service)
	}
	p.dropAdmission()
	p.after(p.v.Retry)
	eventType := corev1.EventTypeWarning
	if p.v.General { // the opt-in is the Namespace's, and not this Service's in particular
		eventType = corev1.EventTypeNormal
	}
	switch young := reportAfter - p.o.Now.Sub(p.o.Service.CreationTimestamp.Time); {
	case p.v.Skip == "":
		p.forget() // if the Service is opted in again, it gets its events again
	case young > 0:
		p.After = young
	default:
		p.once(eventType, ReasonSkipped, "Not injected: "+string(p.v.Skip))
	}
	return Question{}
}

// once is Outcome.once for the Service.
func (p *planner) once(eventType, reason, note string) {
	p.Outcome.once(eventType, reason, note, p.o.Service)
}

// forget clears what is remembered about the Service.
func (p *planner) forget() {
	p.Memory = Memory{}
	p.Forget = true
}

// replicasOf puts a replica count into words.
func replicasOf(ready, of int32) string { return fmt.Sprintf("%d of %s", ready, replicasText(of)) }
