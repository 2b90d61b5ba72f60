// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// redirect asks admission to redirect the Front's traffic, once Kubernetes lists the workload's pods.
func (in *injection) redirect() Question {
	lacks, q := in.podsListed()
	if q.Kind != NoQuestion {
		return q
	}
	if lacks != "" {
		in.await(string(lacks), slowRetry)
		return Question{}
	}
	o := in.o
	ask := Ask{Into: true, Service: o.Service}
	objects := []Object{o.Service}
	what, undo := "Requests to Service "+o.Service.Name, UndoOptIn("service", o.Service)
	optedIn := o.optedInIngresses()
	if in.front.Alias {
		ask.Ingresses = optedIn
		for _, i := range optedIn {
			aliases := Aliases(i)
			aliases[o.Service.Name] = in.front.Service.Name
			ask.Writes = append(ask.Writes, Annotation{i, AliasesAnnotation, EncodeAliases(aliases)})
			objects = append(objects, i)
		}
		what, undo = fmt.Sprintf("Requests through %s to Service %s", ingressesText(optedIn), o.Service.Name), UndoOptIn("ingress", optedIn[0])
	} else {
		ask.Writes = []Annotation{{o.Service, RedirectAnnotation, RedirectReady}}
		for _, i := range optedIn { // these Ingresses would keep it opted in
			undo += " && " + UndoOptIn("ingress", i)
		}
	}
	ignored := in.clone()
	ignored.Soon = true
	ignored.once(corev1.EventTypeWarning, ReasonSkipped, "Not injected yet: scale-to-zero's admission webhook did not answer. "+
		"Requests still go straight to the pods and the app stays awake; trying again", o.Service)
	ask.Ignored = ignored

	note := fmt.Sprintf("%s (%s) now go through scale-to-zero; %s sleeps after %s without one and wakes on the next.",
		what, portsText(in.routes), in.v.Workload.Ref(), Short(in.v.Settings.Cooldown))
	if in.front.Alias {
		note += " Clients that call the Service directly do not wake it."
	} else {
		note += fmt.Sprintf(" kubectl port-forward, logs and exec find no pods behind service/%s now: use %s.", o.Service.Name,
			kubectlName(in.v.Workload))
	}
	granted := in.clone()
	before := granted.Memory.Reported[ReasonInjected]
	granted.Memory = Memory{Phase: PhaseRedirected}
	if before != "" {
		granted.Memory.Reported = map[string]string{ReasonInjected: before}
	}
	if granted.isNew(ReasonInjected, note) { // the undo may change before the cache shows that traffic is redirected
		granted.report(corev1.EventTypeNormal, ReasonInjected, note+" Undo: "+undo, append(objects, in.v.Object)...)
	}
	cautions{in}.warnOfFront(&granted)
	if q := (cautions{in}).warn(&granted); q.Kind != NoQuestion {
		return q
	}
	ask.Granted = &granted
	in.Ask = append(in.Ask, ask)
	in.Forget = true
	return Question{}
}

// failOpen sends a redirected Front's traffic to the app's own pods while no interceptor is ready, so that an outage of ours does not
// become one of the app. The workload's plan keeps such an app awake. A sleeping app stays asleep: if all apps woke at once, a small
// cluster could break down.
func (in *injection) failOpen() {
	in.Phase = PhaseFailedOpen
	open := RouteSlices(in.front.Service, in.o.Service, in.routes, in.v.Settings, Published{})
	note := fmt.Sprintf("No interceptor of scale-to-zero is ready; requests go to the pods of %s directly, and it stays awake until "+
		"one is", in.v.Workload.Ref())
	if FailOpen(open, in.o.Service, in.o.DirectSlices) {
		in.writeSlices(open)
	} else {
		// Keep the slices: they help nobody but do no harm, and a listed interceptor may still be draining.
		note = fmt.Sprintf("No interceptor of scale-to-zero is ready; %s stays asleep, and requests to it fail until one is", in.v.Workload.Ref())
	}
	in.ended(ReasonInjected)
	in.once(corev1.EventTypeWarning, ReasonNoInterceptor, note)
}

// warnOfFamily reports that one of the Front's IP families has no interceptor, if that lasts. The slices of the families are not
// written at the same moment.
func (in *injection) warnOfFamily() {
	note := fmt.Sprintf("No interceptor of scale-to-zero can be reached over %s; requests over it fail until one can, others succeed",
		in.missing)
	if in.waited(note, in.o.Now) < reportAfter {
		in.Soon = true
		return
	}
	in.ended(ReasonInjected)
	in.once(corev1.EventTypeWarning, ReasonNoInterceptor, note)
	in.After = slowRetry
}

// cautions are what the owner of a redirected Service may not expect.
type cautions struct{ *injection }

// warnOfFront reports what the proxies in front of the Service can no longer do for it: keep a client at one pod, keep traffic close,
// and show the client's address to the pods.
func (in cautions) warnOfFront(out *Outcome) {
	through := in.o.optedInIngresses()
	if !in.front.Alias {
		through = in.o.directIngresses()
		note, lost := ClientAddress(in.o.Service, in.routes)
		out.lasting(severity(lost), ReasonClientAddress, note, in.o.Service)
	}
	note, lost := Closeness(in.o.Service, in.v.Workload)
	out.lasting(severity(lost), ReasonCloseness, note, in.o.Service)
	out.lasting(corev1.EventTypeWarning, ReasonAffinity, AffinityLost(in.o.Service, through, in.v.Settings, in.v.Workload), in.o.Service)
}

func severity(lost bool) string {
	if lost {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}

// warn reports what the Service's owner may not expect after a successful injection: that interceptors are back, that annotations
// were left unchanged, and that other Services select the same pods and bypass the interceptors.
func (in cautions) warn(out *Outcome) Question {
	if in.o.Answers.Siblings == nil {
		return Question{Kind: AskSiblings, Workload: in.v.Workload}
	}
	o, around := in.o, *in.o.Answers.Siblings
	if out.ended(ReasonNoInterceptor) || in.front.failsOpen() {
		out.once(corev1.EventTypeNormal, ReasonInjected,
			fmt.Sprintf("Requests to Service %s go through scale-to-zero again: an interceptor is ready", o.Service.Name), o.Service, in.v.Object)
	}
	if in.front.Alias {
		in.warnOfAnnotations(out)
	}
	siblings := Siblings(in.v.Workload, around.Services, func(s *corev1.Service) bool {
		taken, _ := optIn(s, o.Namespace, false, around)
		return taken == ScopeService || s.Name == o.Service.Name
	})
	if len(siblings) > 0 {
		out.once(corev1.EventTypeWarning, ReasonSiblings, fmt.Sprintf(
			"%s also serves Service %s, whose requests are neither counted nor wake it: while it sleeps, they find no pod. Label that "+
				"%s=true too, or send its clients here",
			in.v.Workload.Ref(), strings.Join(siblings, ", "), OptInLabel), o.Service)
	}
	return in.warnOfStack(out)
}

// warnOfAnnotations reports annotations of opted-in Ingresses that still seem to name the Service, although the Ingress now reaches
// it by its alias.
func (in cautions) warnOfAnnotations(out *Outcome) {
	service := in.o.Service
	var notes []string
	objects := []Object{service}
	for _, i := range in.o.optedInIngresses() {
		if keys := NamedElsewhere(i, service.Name); len(keys) > 0 {
			notes = append(notes, fmt.Sprintf("%s of Ingress %s", strings.Join(keys, ", "), i.Name))
			objects = append(objects, i)
		}
	}
	if len(notes) == 0 {
		return
	}
	out.once(corev1.EventTypeWarning, ReasonAnnotation, fmt.Sprintf(
		"Not rewritten: %s. Service %s seems to be named there, and the Ingress now reaches it as %s. To send these requests through "+
			"scale-to-zero too, opt in the Service instead of the Ingress: kubectl label service -n %s %s %s=true",
		strings.Join(notes, "; "), service.Name, in.front.Service.Name, service.Namespace, service.Name, OptInLabel), objects...)
}

// warnUnvisited warns once, halfway to the first sleep, about an app that may never have visitors: its Service was opted in together
// with others, by its Namespace or apparently with a whole chart, nothing exposes it outside the cluster, and no request comes. Often
// the Service belongs to a worker, for its logs or metrics, and no request will ever wake it.
func (p *planner) warnUnvisited(f Front) Question {
	o, v := p.o, p.v
	if v.Scope != ScopeService || v.Settings.MinReplicas > 0 || len(f.Slices) == 0 {
		return Question{}
	}
	cooldown := v.Settings.Cooldown
	age := o.Now.Sub(f.Slices[0].CreationTimestamp.Time)
	switch {
	case age < cooldown/2:
		p.after(cooldown/2 - age)
		return Question{}
	case age >= cooldown:
		return Question{}
	case o.Answers.Siblings == nil:
		return Question{Kind: AskSiblings, Workload: v.Workload}
	case o.Answers.Siblings.Reached(o.Service):
		return Question{}
	case o.Answers.Visits == nil:
		return Question{Kind: AskVisits, Workload: v.Workload}
	case !v.General && !OptedInTogether(o.Service, o.Answers.Visits.Release):
		return Question{}
	}
	within := age * 3 / 4 // interceptors count in whole seconds, and begin a little after the slices' creation
	if o.Answers.Visits.Use == nil || o.Answers.Visits.Use.within(within) {
		p.after(cooldown / 4)
		return Question{}
	}
	p.once(corev1.EventTypeWarning, ReasonUnvisited, fmt.Sprintf(
		"Service %s has had no request recently, and no Ingress, Gateway API route, load balancer or node port exposes it. It was "+
			"opted in together with others. "+
			"Unless a request comes, %s sleeps after %s, and then only a request wakes it. "+
			"If it works without requests, as a worker or a scheduler does, keep it awake: kubectl annotate service -n %s %s %smin-replicas=1",
		o.Service.Name, v.Workload.Ref(), Short(cooldown), o.Service.Namespace, o.Service.Name, Prefix))
	return Question{}
}

// kubectlName returns the workload as an argument for kubectl.
func kubectlName(w Workload) string {
	kind, name, _ := strings.Cut(w.Ref().String(), "/")
	return strings.ToLower(kind) + "/" + name
}

func ingressesText(ingresses []*networkingv1.Ingress) string {
	names := make([]string, len(ingresses))
	for i, ingress := range ingresses {
		names[i] = "Ingress " + ingress.Name
	}
	return strings.Join(names, ", ")
}

func portsText(routes api.Routes) string {
	return numbersText(routes, func(p api.Port) int32 { return p.Port })
}

func listensText(routes api.Routes) string {
	return numbersText(routes, func(p api.Port) int32 { return p.Listen })
}

func numbersText(routes api.Routes, number func(api.Port) int32) string {
	s := make([]string, len(routes.Ports))
	for i, p := range routes.Ports {
		s[i] = strconv.Itoa(int(number(p)))
	}
	if len(s) == 1 {
		return "port " + s[0]
	}
	return "ports " + strings.Join(s, ", ")
}
