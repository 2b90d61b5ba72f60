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
	// reportAfter is how long a Service may lack what it needs before an event says so: Helm creates Services before workloads.
	reportAfter = 5 * time.Second
	// goneFor is how long the workload of an injected Service has to be gone before the Service is restored: somebody may
	// replace it by another one of its name, as `kubectl replace --force` does.
	goneFor = time.Second
	// slowRetry is the pause before what has been lacking for longer is looked at again.
	slowRetry = 5 * time.Second
	// blockedMax is the longest pause between two looks at a way that is blocked: no watch reports when a policy opens it.
	blockedMax = time.Minute
	// blockedFor is how long the way to the first pods of an app has to be blocked before the app is restored. The network
	// of a new pod may not be ready everywhere.
	blockedFor = 10 * time.Second
	// blockedLook is the pause between two looks meanwhile.
	blockedLook = time.Second
)

// Plan is what to do for one Service, in the order of the fields. What fails ends it: nothing that follows is done, nothing
// is reported, and Memory stays as it was.
type Plan struct {
	Phase Phase
	// Injecting says that the Service is to be injected and is not yet.
	Injecting bool
	// Sweep is deleted first: it belongs to a Service that is gone.
	Sweep []Object
	// Try is a ScaledObject for the API server to look at and not keep. An app whose ScaledObject is refused would be taken
	// over and never sleep.
	Try *keda.ScaledObject
	// Apply is created, or updated where it has a resource version.
	Apply []Object
	// Ask are requests to admission. One that is not granted ends the plan with its Ignored.
	Ask []Ask
	// Delete is deleted. Deleted is reported if one of the objects was still there.
	Delete  []Object
	Deleted []Report
	// FreePorts are the Fronts whose interceptor ports become free.
	FreePorts []string
	// Forget says that no write is waited for any more.
	Forget bool
	Outcome
}

// Ask are annotations of the user's Service or Ingresses. Admission changes the object itself in that same write, so that
// the change stays its author's. Without admission nothing happens but the annotation.
type Ask struct {
	Writes []Annotation
	// Into says that traffic is to be redirected to the interceptors, and not back.
	Into bool
	// Service is the opted-in one; the request is about its Ingresses if there are any.
	Service   *corev1.Service
	Ingresses []*networkingv1.Ingress
	// Granted, if set, ends the plan in place of its own Outcome. Ignored ends it if admission did nothing.
	Granted *Outcome
	Ignored Outcome
}

// Annotation is one annotation to write, or to remove where Value is empty.
type Annotation struct {
	Object     Object
	Key, Value string
}

// Done says whether admission did what was asked, as the objects show after the writes.
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

// PlanService plans what to do for a Service, as the table at Phase says. If a question is returned, the plan cannot be made
// before it is answered. Planning again what has been carried out plans nothing.
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

// comesBack says that the workload of an injected Service has gone a moment ago, so that everything stays as it is for now.
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

// steps redirects the wanted Front first, and then restores what is not wanted.
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

// restoreAll restores both Fronts, and then reports why nothing is taken.
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
	p.after(p.v.Retry)
	eventType := corev1.EventTypeWarning
	if p.v.General { // its Namespace is opted in, and not this Service in particular
		eventType = corev1.EventTypeNormal
	}
	switch young := reportAfter - p.o.Now.Sub(p.o.Service.CreationTimestamp.Time); {
	case p.v.Skip == "":
		p.forget() // opted in again, the Service gets its events again
	case young > 0:
		p.After = young
	default:
		p.once(eventType, ReasonSkipped, "Not injected: "+string(p.v.Skip))
	}
	return Question{}
}

// once is Outcome.once on the Service.
func (p *planner) once(eventType, reason, note string) {
	p.Outcome.once(eventType, reason, note, p.o.Service)
}

// forget begins the Service's story anew.
func (p *planner) forget() {
	p.Memory = Memory{}
	p.Forget = true
}

// replicasOf is a count in words.
func replicasOf(ready, of int32) string { return fmt.Sprintf("%d of %s", ready, replicasText(of)) }
