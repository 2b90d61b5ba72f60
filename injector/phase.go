// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

// Phase is how far the take-over of a Service has come, or its return.
//
// A Service is taken over by one Front: the Service itself, or the alias Service to which its Ingresses are redirected. The
// table is everything that PlanService decides. It is read from the top: the first row whose observation is true counts. The
// plan of a row brings the next row about and is made again when something changes, so a step that fails, or whose effect the
// cache does not show yet, is planned again.
//
//	wanted  observed                                        phase       plan                                        next
//	------  ----------------------------------------------  ----------  ------------------------------------------  ----------
//	yes     traffic redirected, no interceptor ready        FailedOpen  list the app's ready pods in the slices     Redirected
//	yes     not every port answered by some interceptor     Listening   write companions and slices that list       Proving
//	                                                                    nobody, so that interceptors listen; dial
//	yes     not published; the way to the ready pods is     Proving     ask the interceptors to connect to the pods Publishing
//	        blocked, or the pods are not listed
//	yes     proven, or nothing to prove it with (asleep)    Publishing  try the ScaledObject; list the interceptors Redirecting
//	                                                                    in the slices
//	yes     published, traffic not redirected               Redirecting ask admission to redirect                   Redirected
//	yes     traffic redirected                              Redirected  keep slices and companions up to date;      –
//	                                                                    restore the other Front
//	yes     redirected, asleep until now, way is blocked    Redirected  write the reason into the slices: from now  Restoring
//	                                                                    on the Service is not wanted
//
//	no      nothing of ours left                            Absent      report why it is skipped                    –
//	no      slices do not say that they retire              Restoring   say so: the workload gets its replicas back Restoring
//	no      the Service carries our annotation or sentinel  Restoring   ask admission to take them off              Restoring
//	no      no ready pod listed, hold timeout not over      Restoring   wait; requests are held meanwhile           Restoring
//	no      Ingresses lead to the alias Service             Restoring   ask admission to give them their backends   Lingering
//	no      the alias Service was in use a moment ago       Lingering   wait: ingress controllers take their time   Absent
//	no      none of the above                               Absent      delete the slices, then the companions      Absent
//
// Publishing and Redirecting are planned together, in this order. A Front that is not wanted is restored only after the
// other one, if that is wanted, is Redirected.
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
