// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// restore plans the restoration of a Front, in an order that loses no request. First the route slices say that they retire, so that
// the workload gets its replicas back. The slices are deleted only after Kubernetes lists a ready pod for the Service. idle is true
// if there is nothing to wait for.
//
// If the other Front is wanted, it keeps the workload, and the workload is not restored.
func (p *planner) restore(f *Front) (idle bool, q Question) {
	p.Phase = PhaseAbsent
	if !p.present(*f) {
		return true, Question{}
	}
	p.Phase = PhaseRestoring
	retiring := p.retire(f)
	if !f.Alias && (p.o.Service.Annotations[RedirectAnnotation] != "" || Intercepted(p.o.Service)) {
		// Kubernetes lists the pods again only without the sentinel. Until then, only the route slices serve.
		p.write(retiring)
		p.askBack(f)
		return false, Question{}
	}
	ref := f.Routes.Workload.String()
	found, known := p.o.Answers.Routed[ref]
	if !known && len(f.Slices) > 0 {
		return false, Question{Kind: AskRouted, Name: ref}
	}
	if found.Forbidden != "" && p.v.Scope != ScopeService {
		// The workload may be asleep. Without the route slices, nothing would ever wake it.
		p.write(retiring)
		p.once(corev1.EventTypeWarning, ReasonRestoring, "Not restored yet: "+string(found.Forbidden))
		p.after(KindRetry)
		return false, Question{}
	}
	if p.giveUp(f, found, retiring) && !f.Alias {
		// Delete the slices only with the next plan, so that interceptors see the reason first.
		p.write(retiring)
		p.Soon = true
		return false, Question{}
	}
	back, q := p.podsBack(found)
	if q.Kind != NoQuestion {
		return false, q
	}
	if !back && !f.late(p.o.Now) && len(f.Slices) > 0 {
		p.write(retiring)
		p.reportStart(f, found)
		p.Soon = true
		return false, Question{}
	}
	if f.Alias {
		if !p.leave(f, retiring) {
			return false, Question{}
		}
	}
	p.remove(f, found, back)
	return true, Question{}
}

// reportStart reports that the restoration waits for the app's start, if that lasts.
func (p *planner) reportStart(f *Front, w Target) {
	eventType, held := corev1.EventTypeNormal, "has no ready pod; requests are held until it has one"
	if progress, err := api.DecodeProgress(f.Slices[0].Annotations[api.ProgressAnnotation]); err == nil && progress.Failing != "" {
		eventType, held = corev1.EventTypeWarning, "cannot start: "+progress.Failing+". Requests get 503"
	}
	note := fmt.Sprintf("Not restored yet: %s %s. After %s the Service goes without scale-to-zero in any case",
		f.Routes.Workload, held, Short(time.Duration(f.Routes.HoldTimeout)))
	if p.waited("a ready pod", p.o.Now) >= reportAfter {
		p.Outcome.once(eventType, ReasonRestoring, note, present([]Object{p.o.Service, w.Object})...)
	}
}

// present reports whether any object of ours is left of the Front.
func (p *planner) present(f Front) bool {
	if len(f.Slices) > 0 {
		return true
	}
	if f.Alias {
		return f.Service != nil || len(p.o.aliasedIngresses()) > 0
	}
	return p.o.Service.Annotations[RedirectAnnotation] != "" || Intercepted(p.o.Service)
}

// retire returns the route slices that have to change, with the time at which the restoration began.
func (p *planner) retire(f *Front) map[int]*discoveryv1.EndpointSlice {
	changed := map[int]*discoveryv1.EndpointSlice{}
	for i := range f.Slices {
		if f.Slices[i].Annotations[SinceAnnotation] != "" && (f.Routes.Retiring || p.v.Scope != ScopeNone) {
			continue
		}
		f.Routes.Retiring = p.v.Scope == ScopeNone
		s := f.Slices[i].DeepCopy()
		s.Annotations[SinceAnnotation] = p.o.Now.UTC().Format(time.RFC3339)
		changed[i] = s
	}
	encodeInto(changed, f.Routes)
	return changed
}

// encodeInto writes routes into the slices.
func encodeInto(changed map[int]*discoveryv1.EndpointSlice, routes api.Routes) {
	for _, s := range changed {
		s.Annotations[api.RoutesAnnotation] = encodeRoutes(routes)
	}
}

// write plans the writes of the changed slices.
func (p *planner) write(changed map[int]*discoveryv1.EndpointSlice) {
	for _, i := range slices.Sorted(maps.Keys(changed)) {
		p.apply(changed[i])
	}
}

// giveUp makes the interceptors fail the requests that they hold for a workload that no longer exists. It reports whether they still
// have to learn of that. The route slices may stay for a while, because an Ingress still sends traffic to the alias Service.
func (p *planner) giveUp(f *Front, w Target, changed map[int]*discoveryv1.EndpointSlice) bool {
	if p.v.Scope != ScopeNone || w.Object != nil || w.Forbidden != "" || f.Routes.Gone != "" || f.Routes.Workload.Name == "" ||
		len(f.Slices) == 0 {
		return false
	}
	f.Routes.Gone = f.Routes.Workload.String() + " does not exist any more"
	for i := range f.Slices {
		if changed[i] == nil {
			changed[i] = f.Slices[i].DeepCopy()
		}
	}
	encodeInto(changed, f.Routes)
	return true
}

// askBack asks admission to send traffic where the author of the Service, or of its Ingresses, wants it.
func (p *planner) askBack(f *Front) {
	ask := Ask{Service: p.o.Service}
	if f.Alias {
		ask.Ingresses = p.o.aliasedIngresses()
		for _, i := range ask.Ingresses {
			aliases := Aliases(i)
			if aliases[p.o.Service.Name] == "" {
				// The annotation, and with it the author's name for the backend, was lost while admission was down.
				aliases[p.o.Service.Name] = AliasServiceName(p.o.Service.Name)
				ask.Writes = append(ask.Writes, Annotation{i, AliasesAnnotation, EncodeAliases(aliases)})
			}
			delete(aliases, p.o.Service.Name)
			ask.Writes = append(ask.Writes, Annotation{i, AliasesAnnotation, EncodeAliases(aliases)})
		}
	} else {
		ask.Writes = []Annotation{{p.o.Service, RedirectAnnotation, ""}}
	}
	p.Soon = true
	ask.Ignored = p.clone()
	ask.Ignored.once(corev1.EventTypeWarning, ReasonRestoring,
		"Not restored yet: scale-to-zero's admission webhook did not answer, so requests still go through the interceptors; trying "+
			"again", p.o.Service)
	p.Ask = append(p.Ask, ask)
}

// podsBack reports whether the traffic can go back: the workload is restored, and Kubernetes lists a ready pod for both the Service
// and the direct Service. It also returns true if no pod can come: there is no workload, or the Service no longer selects pods, or
// the Service itself selects the interceptors.
func (p *planner) podsBack(w Target) (bool, Question) {
	o := p.o
	if p.v.Scope == ScopeService || w.Object == nil || len(OriginalSelector(o.Service)) == 0 ||
		o.Service.Spec.Type == corev1.ServiceTypeExternalName {
		return true, Question{}
	}
	if o.Answers.Native == nil {
		return false, Question{Kind: AskNative}
	}
	// The requests that interceptors hold go to the pods of the direct Service, whose slices are written separately.
	if !*o.Answers.Native || len(o.DirectSlices) > 0 && !HasReadyEndpoint(o.DirectSlices) {
		return false, Question{}
	}
	if Remembered(w.Workload.Annotations) == 0 || p.v.Scope != ScopeNone {
		return true, Question{}
	}
	if o.Answers.Kept == nil {
		return false, Question{Kind: AskKept, Workload: w.Workload}
	}
	return *o.Answers.Kept, Question{}
}

// leave moves the Ingresses off the alias Service, and then keeps the alias for a while: ingress controllers notice late, and some
// read Ingresses and EndpointSlices at different moments. done is true once nobody uses the alias any more.
func (p *planner) leave(f *Front, retiring map[int]*discoveryv1.EndpointSlice) (done bool) {
	if len(p.o.aliasedIngresses()) > 0 {
		p.write(retiring)
		p.askBack(f)
		return false
	}
	if f.Service == nil {
		return true
	}
	since, err := time.Parse(time.RFC3339, f.Service.Annotations[UnusedAnnotation])
	left := p.o.Install.AliasLinger
	if err != nil {
		unused := f.Service.DeepCopy()
		if unused.Annotations == nil {
			unused.Annotations = map[string]string{}
		}
		unused.Annotations[UnusedAnnotation] = p.o.Now.UTC().Format(time.RFC3339)
		p.apply(unused)
	} else {
		left += time.Second - p.o.Now.Sub(since) // the annotation has whole seconds
	}
	if left <= 0 {
		return true
	}
	p.Phase = PhaseLingering
	p.write(retiring)
	p.after(left)
	return false
}

// remove deletes our objects of a Front. An interceptor sees the route slices disappear before the slices of the direct Service,
// because they are deleted in this order and one watch reports both. It serves the remaining requests with the pods that it knew.
func (p *planner) remove(f *Front, w Target, back bool) {
	p.Phase = PhaseAbsent
	for i := range f.Slices {
		p.Delete = append(p.Delete, &f.Slices[i])
	}
	name := p.o.Service.Name
	if f.Alias {
		name = AliasServiceName(name)
		if f.Service != nil {
			p.Delete = append(p.Delete, f.Service)
		}
	}
	p.FreePorts = append(p.FreePorts, name)
	if p.v.Scope != ScopeNone {
		return
	}
	p.forget()
	if len(f.Slices) == 0 {
		return
	}
	why := "it is no longer opted in"
	switch {
	case p.v.Skip != "":
		why = string(p.v.Skip)
	case p.o.Install.RestoringFor > 0:
		why = "scale-to-zero is being uninstalled"
	}
	note := fmt.Sprintf("Requests to Service %s go to its pods again, without scale-to-zero: %s. ", p.o.Service.Name, why)
	switch {
	case w.Object == nil:
		note = fmt.Sprintf("Service %s is as it was before scale-to-zero: %s does not exist any more", p.o.Service.Name, f.Routes.Workload)
	case !back:
		note += fmt.Sprintf("%s was scaled to %s; none is ready yet", f.Routes.Workload, replicasText(w.Workload.Replicas))
	default:
		note += fmt.Sprintf("%s has %s", f.Routes.Workload, replicasText(w.Workload.Replicas))
	}
	if kept := p.o.Answers.Kept; w.Object != nil && kept != nil && *kept {
		note += ". It still sleeps when nobody uses its other Services, and requests to this one do not wake it"
	}
	p.Deleted = append(p.Deleted, Report{
		Type: corev1.EventTypeNormal, Reason: ReasonRestored, Note: note,
		Objects: present([]Object{p.o.Service, w.Object}),
	})
}
