// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"maps"
	"slices"
	"time"
)

// Reasons of the controllers' events. WakeRequested comes from the interceptors.
const (
	ReasonInjected  = "Injected"
	ReasonSkipped   = "InjectionSkipped"
	ReasonRestoring = "Restoring"
	ReasonRestored  = "Restored"
	ReasonAwake     = "Awake"
	ReasonAsleep    = "Asleep"

	ReasonStartFailed   = "StartFailed"   // an app cannot start, and its clients get an error that says so
	ReasonNoInterceptor = "NoInterceptor" // no interceptor serves an injected Service
	ReasonSiblings      = "ServiceNotOptedIn"
	ReasonForbidden     = "WorkloadForbidden"
	ReasonUnvisited     = "NoVisitorYet"
	ReasonAnnotation    = "AnnotationNotRewritten"
	ReasonAffinity      = "AffinityLost"
	ReasonClientAddress = "ClientAddress"
	ReasonCloseness     = "TrafficDistribution"

	ReasonRefused  = "WriteRefused" // by the API server
	ReasonAccepted = "WriteAccepted"

	ReasonPaused  = "Paused" // a ScaledObject, by its owner
	ReasonResumed = "Resumed"
	ReasonUndone  = "ScaledObjectReset" // changes of fields that we own

	ReasonStack      = "WakeWithIncomplete"  // some of the Services that are to wake together cannot
	ReasonAutoscaler = "Autoscaler"          // what else scales an app, and what is left to us
	ReasonWindow     = "AwakeWindow"         // of an annotation has begun, or has ended
	ReasonExceeded   = "MaxReplicasExceeded" // by somebody else
	ReasonTogether   = "WakesTogether"       // with another workload that it is known to call, or no longer

	ReasonPolicies    = "NetworkPolicyNotFollowed" // on the interceptors' pods
	ReasonNotGranted  = "WakeNotGranted"           // to the interceptors
	ReasonWithoutKEDA = "ScalingWithoutKEDA"       // although KEDA is installed

	ReasonStartupCPU = "StartupCPURefused" // an app starts without the CPU that its Service asks for
)

// Report is an event to emit on each of the objects.
type Report struct {
	Type, Reason, Note string
	Objects            []Object
	// Lasting is set if the event is about a lasting state. The event's name is derived from its note, so that a restarted controller
	// does not repeat an event that still exists.
	Lasting bool
}

// Outcome is the result of a plan, or of one of admission's answers.
type Outcome struct {
	Reports []Report
	Memory  Memory
	// Soon asks for another look after a growing pause, and After for one at a certain time. Neither is needed if a watch reports the
	// change. Spread is set if others wait for the same thing.
	Soon   bool
	After  time.Duration
	Spread bool
}

// clone returns a copy that can be changed independently.
func (out Outcome) clone() Outcome {
	out.Reports = slices.Clone(out.Reports)
	out.Memory.Reported = maps.Clone(out.Memory.Reported)
	return out
}

// after asks for a look in d, unless an earlier one is planned. 0 asks for nothing.
func (out *Outcome) after(d time.Duration) {
	if d > 0 && (out.After == 0 || d < out.After) {
		out.After = d
	}
}

// waited returns how long the Service has been waiting for the same thing: since the first plan that gave this reason.
func (out *Outcome) waited(reason string, now time.Time) time.Duration {
	if out.Memory.Waits != reason {
		out.Memory.Waits, out.Memory.Since = reason, now
	}
	return now.Sub(out.Memory.Since)
}

// report emits an event.
func (out *Outcome) report(eventType, reason, note string, objects ...Object) {
	out.Reports = append(out.Reports, Report{Type: eventType, Reason: reason, Note: note, Objects: present(objects)})
}

// once emits an event, unless it repeats the last one with that reason.
func (out *Outcome) once(eventType, reason, note string, objects ...Object) bool {
	if !out.isNew(reason, note) {
		return false
	}
	out.report(eventType, reason, note, objects...)
	return true
}

// isNew reports whether note differs from the last one with that reason, and remembers it.
func (out *Outcome) isNew(reason, note string) bool {
	if out.Memory.Reported[reason] == note {
		return false
	}
	if out.Memory.Reported == nil {
		out.Memory.Reported = map[string]string{}
	}
	out.Memory.Reported[reason] = note
	return true
}

// lasting is once for a lasting state. An empty note means that the state is over.
func (out *Outcome) lasting(eventType, reason, note string, objects ...Object) {
	if note == "" {
		out.ended(reason)
	} else if out.once(eventType, reason, note, objects...) {
		out.Reports[len(out.Reports)-1].Lasting = true
	}
}

// ended reports whether a state was reported, and forgets that it was.
func (out *Outcome) ended(reason string) bool {
	_, known := out.Memory.Reported[reason]
	delete(out.Memory.Reported, reason)
	return known
}

// present returns the objects that are not nil.
func present(objects []Object) []Object {
	return slices.DeleteFunc(slices.Clone(objects), func(o Object) bool { return o == nil })
}
