// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

// Phase is how far the injection or the restoration of a Service has come.
//
// A Service is injected through one Front: the Service itself, or the alias Service to which its Ingresses are redirected. The table
// has every decision of PlanService. The first row whose observation is true applies. Its plan leads to the next phase. The plan is
// made again when something changes, so a step that fails, or whose effect is not in the cache yet, is planned again.
//
//	wanted, and observed                             phase        plan                                            next
//	-----------------------------------------------  -----------  ----------------------------------------------  -----------
//	redirected, and no interceptor is ready          FailedOpen   list the app's own ready pods in the slices     Redirected
//	no interceptor answers on every port             Listening    write companions, and slices that list nobody,  Proving
//	                                                              so that interceptors listen; dial again
//	nobody published, and the way to the ready pods  Proving      ask the interceptors again to connect to them   Redirecting
//	is blocked, or the pods are not listed
//	way proven, or no pod to prove it with           Redirecting  try the ScaledObject; list the interceptors;    Redirected
//	                                                              then ask admission to redirect all traffic
//	redirected, and the workload is gone             Redirected   wait a moment: it may be replaced                Restoring
//	redirected while asleep, and the way is blocked  Redirected   write why into the slices: not wanted any more  Restoring
//	redirected                                       Redirected   keep slices and companions up to date;          –
//	                                                              restore the other Front
//	-----------------------------------------------  -----------  ----------------------------------------------  -----------
//	not wanted, and observed                         phase        plan                                            next
//	-----------------------------------------------  -----------  ----------------------------------------------  -----------
//	nothing of ours is left                          Absent       report why the Service is skipped               –
//	the slices do not say that they retire           Restoring    say so: the workload is restored                Restoring
//	the Service has our annotation or the sentinel   Restoring    ask admission to remove both                    Restoring
//	no ready pod listed, hold timeout not over       Restoring    wait; requests are held meanwhile               Restoring
//	an Ingress leads to the alias Service            Restoring    ask admission for its own backend               Lingering
//	an Ingress has just left the alias Service       Lingering    wait: ingress controllers take their time       Absent
//	none of the above                                Absent       delete the slices, and then the companions      Absent
//
// The steps of a plan are carried out in order. If one fails, the later ones are skipped. A Front that is no longer wanted is
// restored only after the wanted Front, if there is one, is redirected.
type Phase string

// The phases.
const (
	PhaseAbsent      Phase = "Absent"
	PhaseListening   Phase = "Listening"
	PhaseProving     Phase = "Proving"
	PhaseRedirecting Phase = "Redirecting"
	PhaseRedirected  Phase = "Redirected"
	PhaseFailedOpen  Phase = "FailedOpen"
	PhaseRestoring   Phase = "Restoring"
	PhaseLingering   Phase = "Lingering"
)
