// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// coverLook is the pause before another look at ports of an injected Service that the policies do not bind yet.
const coverLook = time.Second

// cover makes sure that the NetworkPolicies of the app's namespace bind the interceptor ports before anybody can reach the app through
// them. Interceptors listen on a port only after that. covered is false if the plan has to wait.
//
// Nor is the app redirected while a policy, in whatever namespace, lets clients connect to its pods and not to the interceptors: an app
// that stays awake harms less than clients that cannot reach it.
//
// A Service that is injected already stays so. Its new ports wait.
func (in *injection) cover() (covered bool, q Question) {
	if !in.o.Install.Follows && !in.o.Install.Admits {
		return true, Question{}
	}
	c := in.o.Answers.Cover
	if c == nil {
		return false, Question{Kind: AskCover, Front: in.front.Service.Name, Routes: in.routes, Workload: in.v.Workload}
	}
	in.admit(c.Admission)
	if c.Lacks == "" && c.CutOff == "" {
		in.ended(ReasonPolicies)
		return true, Question{}
	}
	if !in.redirected && !in.front.publishes() {
		in.Phase = PhaseListening
		in.await(string(cmp.Or(c.Lacks, c.CutOff)), slowRetry)
		return false, Question{}
	}
	if c.Lacks == "" {
		in.once(corev1.EventTypeWarning, ReasonPolicies, "This Service stays redirected, but "+string(c.CutOff))
		return true, Question{}
	}
	in.after(coverLook)
	if c.Lasting {
		in.once(corev1.EventTypeWarning, ReasonPolicies, "This Service stays redirected, but "+string(c.Lacks))
		in.After = slowRetry
	}
	bound := slices.DeleteFunc(slices.Clone(in.routes.Ports), func(p api.Port) bool {
		return !c.Ports[p.Listen] && !slices.ContainsFunc(in.front.Routes.Ports, func(b api.Port) bool { return b.Listen == p.Listen })
	})
	if len(bound) > 0 {
		in.routes.Ports = bound
	}
	return true, Question{}
}

// admit adds, changes or removes our NetworkPolicy that lets the interceptors in.
func (in *injection) admit(want *networkingv1.NetworkPolicy) {
	have := in.o.Admission
	switch {
	case !in.o.Install.Admits:
	case want == nil:
		in.dropAdmission()
	case have == nil:
		in.apply(want)
	case !equality.Semantic.DeepEqual(have.Spec, want.Spec):
		want.ResourceVersion = have.ResourceVersion
		in.apply(want)
	}
}

// dropAdmission removes our NetworkPolicy. By itself it would isolate pods that nobody else's policy selects.
func (p *planner) dropAdmission() {
	if p.o.Admission != nil && p.o.Install.Admits {
		p.Delete = append(p.Delete, p.o.Admission)
	}
}
