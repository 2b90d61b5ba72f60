// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// rightLook is the pause before another look at an injected Service whose workload the interceptors may not wake yet.
const rightLook = time.Second

// right makes sure that the interceptors may wake the workload before a route leads to it. may is false if the plan has to wait.
//
// What is injected already stays so: KEDA may wake it, and the interceptors try again as long as a request waits.
func (in *injection) right() (may bool, q Question) {
	if !in.o.Install.Grants {
		return true, Question{}
	}
	published := len(in.front.Slices) > 0 && WakeableOf(in.front.Routes.Workload) == WakeableOf(in.routes.Workload)
	r := in.o.Answers.Right
	if r == nil {
		return false, Question{Kind: AskRight, Front: in.front.Service.Name, Workload: in.v.Workload, Published: published}
	}
	switch {
	case r.Lacks == "":
		if in.ended(ReasonNotGranted) {
			in.report(corev1.EventTypeNormal, ReasonAccepted, fmt.Sprintf("The interceptors may wake %s now", in.v.Workload.Ref()), in.o.Service)
		}
	case !in.redirected && !in.front.publishes():
		in.Phase = PhaseListening
		in.await(string(r.Lacks), slowRetry)
		return false, Question{}
	case r.Lasting:
		in.once(corev1.EventTypeWarning, ReasonNotGranted, "This Service stays redirected, but "+string(r.Lacks))
		in.after(slowRetry)
	case !published: // its workload is another one since now
		in.Phase, in.Soon = in.o.Memory.Phase, true
		return false, Question{}
	default:
		in.after(rightLook)
	}
	return true, Question{}
}
