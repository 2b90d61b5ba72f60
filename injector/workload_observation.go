// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// WorkloadObservation is everything that a plan for one workload depends on.
type WorkloadObservation struct {
	Now      time.Time
	Install  Install
	Workload Workload
	Object   Object
	// Asks are the route slices that name the workload, and what they belong to.
	Asks []Asking
	// ScaledObject is ours for the workload, or nil.
	ScaledObject *keda.ScaledObject
	Memory       WorkloadMemory
	Answers      WorkloadAnswers
}

// Asking is a route slice that asks something of a workload.
type Asking struct {
	Slice  *discoveryv1.EndpointSlice
	Routes api.Routes
	// Service is the opted-in one.
	Service *corev1.Service
	// Rewritten says that every opted-in Ingress leads to its alias Service.
	Rewritten bool
	// PodsListed says that its direct Service lists a pod that takes requests.
	PodsListed bool
}

// WorkloadMemory is what a controller remembers of a workload between two plans.
type WorkloadMemory struct {
	Life     Life
	Starting Starting
	// Followed says that Starting is known. If it is not, the route slices may say what another controller knew.
	Followed bool
	// Written is what we last wrote to its ScaledObject, if anything, and Undone the last note about a change that we undid.
	Written *keda.ScaledObjectSpec
	Undone  string
	// Exceeded is the last note about more replicas than allowed.
	Exceeded string
	// Restored says that an event has said that it gets its old replica count back.
	Restored bool
}

// WorkloadAnswers were found out for one plan. Nil is not asked yet.
type WorkloadAnswers struct {
	Use   *UseAnswer
	Count *CountAnswer
	Pods  *Start
	HPA   *HPAAnswer
}

// UseAnswer is when the workload was last used; Use is nil if the interceptors could not be asked.
type UseAnswer struct{ Use *Use }

// CountAnswer is what the interceptors count.
type CountAnswer struct {
	// Known is false if they could not be asked.
	Known   bool
	Active  bool
	Pending int64
}

// HPAAnswer is the HPA that KEDA made for the ScaledObject.
type HPAAnswer struct {
	Exists   bool
	Min, Max int32
}

// WorkloadQuestion is something that has to be found out before a plan can be made. Each is asked once at most.
type WorkloadQuestion int

// The questions. AskPods is about the start that is Starting in the question's plan.
const (
	NoWorkloadQuestion WorkloadQuestion = iota
	AskUse                              // when it was last used: WorkloadAnswers.Use
	AskCount                            // what the interceptors count: WorkloadAnswers.Count
	AskPods                             // how far its pods are: WorkloadAnswers.Pods
	AskHPA                              // what KEDA's HPA holds: WorkloadAnswers.HPA
)

// Objects are those whose events tell the workload's story: itself, and the Services that are redirected.
func (o WorkloadObservation) Objects() []Object {
	return newDemand(o.Asks).objects(o.Object)
}

// demand is what the Services that route to a workload ask of it.
type demand struct {
	services []*corev1.Service // redirected, and not being restored
	settings []Settings        // of these, and of those that are about to be redirected
	slices   []*discoveryv1.EndpointSlice
	// unsafe says that traffic goes past the interceptors: the workload must not sleep.
	unsafe bool
	// failOpen says that it does because no interceptor is ready: the workload must not sleep, nor be woken for that.
	failOpen bool
	// retiring says that a Service is being restored.
	retiring bool
	// published says that pods which are not ready take requests, since a Service wants that.
	published bool
	// unknown says that a route slice of an earlier version does not say what it asks for; it is about to be rewritten.
	unknown bool
	// hold is the longest time that a request may be held.
	hold time.Duration
}

func newDemand(asks []Asking) demand {
	var d demand
	seen := map[string]bool{} // a Service with two address types has two slices
	for _, a := range asks {
		d.slices = append(d.slices, a.Slice)
		d.hold = max(d.hold, time.Duration(a.Routes.HoldTimeout))
		if front := a.Slice.Labels[discoveryv1.LabelServiceName]; !seen[front] {
			seen[front] = true
			d.add(a)
		}
	}
	return d
}

func (d *demand) add(a Asking) {
	if a.Routes.Retiring {
		d.retiring = true
		return
	}
	settings, err := ScalingSettings(a.Slice, a.Routes)
	if err != nil {
		d.unknown = true
		return
	}
	d.settings = append(d.settings, settings)
	d.published = d.published || a.Service.Spec.PublishNotReadyAddresses && a.PodsListed
	alias := a.Slice.Labels[discoveryv1.LabelServiceName] != a.Service.Name
	if !Intercepted(a.Service) && (!alias || !a.Rewritten) {
		d.unsafe = true
		return
	}
	d.failOpen = d.failOpen || a.Slice.Annotations[FailOpenAnnotation] != ""
	d.services = append(d.services, a.Service)
}

// objects are a workload and the Services that are redirected.
func (d demand) objects(workload Object, also ...Object) []Object {
	objects := []Object{workload}
	for _, s := range d.services {
		objects = append(objects, s)
	}
	return present(append(objects, also...))
}

func (d demand) none() bool { return len(d.services) == 0 && !d.unsafe && !d.retiring && !d.unknown }

// cooldown is the longest of those asked for.
func (d demand) cooldown() time.Duration {
	var longest time.Duration
	for _, s := range d.settings {
		longest = max(longest, s.Cooldown)
	}
	return longest
}
