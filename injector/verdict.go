// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// KindRetry is the pause before another look for a workload whose kind the API server does not know, or that we may not read: no
// watch reports when this changes.
const KindRetry = 10 * time.Second

// Scope is the part of a Service's traffic that should be redirected.
type Scope int

// The scopes.
const (
	ScopeNone Scope = iota
	ScopeService
	ScopeIngresses // only traffic through opted-in Ingresses
)

// Verdict says whether and how a Service should be injected.
type Verdict struct {
	Scope Scope
	// Skip is why an opted-in Service is not injected.
	Skip Skip
	// Lost is the Scope that is wanted, if Scope is ScopeNone only because the workload is missing.
	Lost Scope
	// General is set if only the Namespace opts the Service in, together with all others.
	General bool
	// Retry is when to look again, if the reason can pass without a watch reporting it.
	Retry    time.Duration
	Settings Settings
	Workload Workload
	Object   Object // the workload, for events
	// Autoscaler is what else scales the workload.
	Autoscaler Autoscaler
}

// wanted returns the Front that the verdict asks for, and the other one.
func (v Verdict) wanted(self, alias *Front) (wanted, other *Front) {
	if v.Scope == ScopeIngresses {
		return alias, self
	}
	return self, alias
}

// judge decides about the Service. Its own label counts first, then its Namespace's, and then those of its Ingresses.
func (p *planner) judge() (Verdict, Question) {
	o, v := p.o, Verdict{}
	if generallyOptedIn(o.Service, o.Namespace) && o.Answers.Around == nil {
		return v, Question{Kind: AskSurroundings}
	}
	optedIn := o.optedInIngresses()
	v.Scope, v.Skip = optIn(o.Service, o.Namespace, len(optedIn) > 0, o.around())
	v.General = v.Scope != ScopeIngresses && generallyOptedIn(o.Service, o.Namespace)
	if v.Scope == ScopeNone {
		return v, Question{}
	}
	if o.Install.RestoringFor > 0 {
		v.Scope, v.Skip, v.Retry = ScopeNone, "", o.Install.RestoringFor
		return v, Question{}
	}
	if v.Settings, v.Skip = o.settings(v.Scope, optedIn); v.Skip == "" {
		if o.Answers.Target == nil {
			return v, Question{Kind: AskTarget, Settings: v.Settings}
		}
		p.judgeTarget(&v)
	}
	if v.Skip == "" && v.Scope != ScopeNone {
		front, _ := v.wanted(&p.self, &p.alias)
		if v.Skip = front.blocked(); v.Skip != "" {
			v.Retry = slowRetry // its way is proven again once it is restored
		}
	}
	if v.Skip != "" {
		v.Scope = ScopeNone
	}
	return v, Question{}
}

func (o *Observation) around() Surroundings {
	if o.Answers.Around == nil {
		return Surroundings{}
	}
	return *o.Answers.Around
}

// generallyOptedIn reports whether only the Namespace opts a Service in.
func generallyOptedIn(service *corev1.Service, namespace *corev1.Namespace) bool {
	own, err := OptedIn(service)
	all, _ := OptedIn(namespace)
	return err == nil && all && !own && !OptedOut(service)
}

// optIn reads labels and annotations. around matters only if the Namespace is opted in. byIngress is set if an opted-in Ingress
// routes to the Service: even if the Service itself cannot be injected, its traffic through Ingresses can.
func optIn(service *corev1.Service, namespace *corev1.Namespace, byIngress bool, around Surroundings) (Scope, Skip) {
	own, err := OptedIn(service)
	if err != nil {
		return ScopeNone, Skip(err.Error())
	}
	taken, skip := ScopeNone, Skip("")
	if own {
		taken = ScopeService
	} else if !OptedOut(service) {
		all, err := OptedIn(namespace)
		switch {
		case err != nil:
			skip = Skip("namespace " + namespace.Name + ": " + err.Error())
		case all:
			if skip = JudgeNamespaced(service, around); skip == "" {
				taken = ScopeService
			}
		}
	}
	if byIngress && (taken == ScopeNone || OnlyByIngress(service)) {
		return ScopeIngresses, ""
	}
	return taken, skip
}

// settings returns the settings of the Service, with its Namespace's as defaults and those of its Ingresses on top. The Skip is about
// invalid settings, which were written while admission was down, or about the Service itself.
func (o *Observation) settings(scope Scope, optedIn []*networkingv1.Ingress) (Settings, Skip) {
	layers := []map[string]string{o.Namespace.Annotations, o.Service.Annotations}
	names := []string{"namespace " + o.Namespace.Name, kubectlService(o.Service)}
	if scope == ScopeIngresses {
		for _, i := range optedIn {
			layers = append(layers, i.Annotations)
			names = append(names, fmt.Sprintf("ingress -n %s %s", i.Namespace, i.Name))
		}
	}
	s, err := ParseSettings(Layer(layers...))
	for i, annotations := range layers {
		if _, says := annotations[Prefix+"asleep"]; says && s.Asleep {
			s.AsleepBy = names[i]
		}
	}
	if err == nil {
		err = CheckPorts(o.Service)
	}
	if err == nil {
		err = s.Busy.check(o.Service, s.Protocol)
	}
	if err != nil {
		return s, Skip(err.Error())
	}
	if skip := JudgeService(o.Service, o.Install.Namespace, scope == ScopeIngresses, o.routingTo()); skip != "" {
		return s, skip
	}
	return s, o.called()
}

// called says why a Service that the API server itself calls must not sleep.
func (o *Observation) called() Skip {
	if len(o.Extensions) == 0 {
		return ""
	}
	return Skip(fmt.Sprintf("the API server calls it for %s: while it sleeps, writes may fail, also those that would wake it; opt it out",
		strings.Join(o.Extensions, " and ")))
}

// routingTo returns the names of the Ingresses that send traffic to the Service, by its own name or its alias.
func (o *Observation) routingTo() []string {
	var names []string
	for i := range o.Ingresses {
		if author, _ := Backends(&o.Ingresses[i]); slices.Contains(author, o.Service.Name) {
			names = append(names, o.Ingresses[i].Name)
		}
	}
	return names
}

// judgeTarget decides whether the workload may be scaled.
func (p *planner) judgeTarget(v *Verdict) {
	o, t := p.o, p.o.Answers.Target
	front, _ := v.wanted(&p.self, &p.alias)
	if t.Forbidden != "" {
		v.Retry = KindRetry
		if kept := front.Routes.Workload; kept.String() == v.Settings.Workload {
			// If the Service were restored, the workload might sleep forever: nobody could wake it.
			v.Workload = keptWorkload(o.Service.Namespace, kept)
			p.once(corev1.EventTypeWarning, ReasonForbidden, "This Service stays redirected as it is: "+string(t.Forbidden))
			return
		}
		v.Skip = t.Forbidden
		return
	}
	p.ended(ReasonForbidden)
	if t.Skip != "" {
		v.Skip, v.Lost = t.Skip, v.Scope
		if t.Retry {
			v.Retry = KindRetry
		}
		return
	}
	v.Workload, v.Object = t.Workload, t.Object
	if v.Settings.Workload != "" {
		if v.Skip = o.otherPods(t); v.Skip != "" {
			if t.Workload.Template == nil {
				v.Retry = KindRetry // no watch reports the pods of a custom resource
			}
			return
		}
	}
	v.Autoscaler, v.Skip = FindAutoscaler(v.Workload, t.HPAs, t.ScaledObjects)
	if v.Skip = o.Install.judge(v.Autoscaler, v.Skip); v.Skip == "" {
		v.Skip = o.nameTaken(v.Scope)
	}
	v.Settings = v.Autoscaler.settings(v.Settings)
	if v.Skip == "" && t.Object == nil {
		v.Scope = ScopeNone // it was deleted a moment ago; the deletion leads to another plan
	}
}

// keptWorkload returns a workload as route slices name it.
func keptWorkload(namespace string, w api.Workload) Workload {
	return Workload{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: w.Name, UID: types.UID(w.UID)},
		APIVersion: w.APIVersion, Kind: w.Kind, Resource: w.Resource,
	}
}

// nameTaken says whether somebody else's Service has the name of one of our companions.
func (o *Observation) nameTaken(scope Scope) Skip {
	name := ""
	switch {
	case o.Direct.Foreign:
		name = DirectServiceName(o.Service.Name)
	case scope == ScopeIngresses && o.Alias.Foreign:
		name = AliasServiceName(o.Service.Name)
	default:
		return ""
	}
	return Skip(fmt.Sprintf("scale-to-zero needs the Service name %s, which another Service has; rename or delete that one", name))
}
