// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"cmp"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// WorkloadObservation is everything that a plan for one workload depends on.
type WorkloadObservation struct {
	Now      time.Time
	Install  Install
	Workload Workload
	Object   Object
	// Asks are the route slices that name the workload, with the objects to which they belong.
	Asks []Asking
	// ScaledObject is our ScaledObject for the workload, or nil.
	ScaledObject *keda.ScaledObject
	// HPAs and ScaledObjects are those that scale the workload, ours and KEDA's included.
	HPAs          []autoscalingv2.HorizontalPodAutoscaler
	ScaledObjects []keda.ScaledObject
	// Calls are the latest calls of other workloads soon after a wake, by the other's name in api.Learned.
	Calls map[string]Call
	// Early is when the workload last began to take requests before Kubernetes called a pod ready, according to its own probes; zero if
	// that is not known.
	Early   time.Time
	Memory  WorkloadMemory
	Answers WorkloadAnswers
}

// Asking is a route slice that makes demands on a workload.
type Asking struct {
	Slice  *discoveryv1.EndpointSlice
	Routes api.Routes
	// Service is the opted-in Service.
	Service *corev1.Service
	// Rewritten is set if every opted-in Ingress uses the alias Service.
	Rewritten bool
	// PodsListed is set if the direct Service lists a pod that takes requests.
	PodsListed bool
}

// WorkloadMemory is what a controller remembers about a workload between two plans.
type WorkloadMemory struct {
	Life     Life
	Starting Starting
	// Followed is set if Starting is known. If it is not, the route slices may say what another controller knew.
	Followed bool
	// Written is what we last wrote to the ScaledObject, if anything. Undone is the last note about a change that we have undone.
	Written *keda.ScaledObjectSpec
	Undone  string
	// Autoscaler is the last note about what scales the workload beside us, and Untriggered that about a trigger that admission has not
	// added.
	Autoscaler, Untriggered string
	// Window is the last note about the windows in which it is kept awake.
	Window string
	// Exceeded is the last note about more replicas than allowed.
	Exceeded string
	Learning Learning
	// Restored says that an event has said that it gets its old replica count back.
	Restored bool
	// CPU is kept even if the rest of a plan fails, as Life is.
	CPU StartupCPU
}

// WorkloadAnswers are what was found out for one plan. Nil means not asked yet.
type WorkloadAnswers struct {
	Use   *UseAnswer
	Count *CountAnswer
	Pods  *Start
	HPA   *HPAAnswer
	// Listed are the pods that the workload's selector selects, and Marked those of its pods that have the mark RaisedCPU.
	Listed, Marked *PodsAnswer
}

// PodsAnswer are pods as they are now.
type PodsAnswer struct{ Pods []corev1.Pod }

// UseAnswer says when the workload was last used. Use is nil if the interceptors could not be asked.
type UseAnswer struct{ Use *Use }

// CountAnswer is what the interceptors count.
type CountAnswer struct {
	// Known is false if the interceptors could not be asked.
	Known   bool
	Active  bool
	Pending int64
	// Idle is the time since the last request.
	Idle time.Duration
	// Rate is how many requests a second have arrived in the last minute; 0 if that is not counted.
	Rate float64
}

// HPAAnswer is the HPA that KEDA made for the ScaledObject.
type HPAAnswer struct {
	Exists   bool
	Min, Max int32
}

// WorkloadQuestion is something that has to be found out before a plan can be made. Each question is asked at most once.
type WorkloadQuestion int

// The questions. AskPods is about the start in Starting of the question's plan.
const (
	NoWorkloadQuestion WorkloadQuestion = iota
	AskUse                              // when the workload was last used: WorkloadAnswers.Use
	AskCount                            // what the interceptors count: WorkloadAnswers.Count
	AskPods                             // how far the pods have come: WorkloadAnswers.Pods
	AskHPA                              // what KEDA's HPA holds: WorkloadAnswers.HPA
	AskPodList                          // the pods themselves: WorkloadAnswers.Listed
	AskMarkedPods                       // the pods whose CPU limits are raised: WorkloadAnswers.Marked
)

// Objects returns the objects on which the workload's events are emitted: the workload, and the Services that are redirected.
func (o WorkloadObservation) Objects() []Object {
	return newDemand(o.Asks).objects(o.Object)
}

// demand is what the Services that route to a workload demand of it.
type demand struct {
	services []*corev1.Service // redirected, and not being restored
	settings []Settings        // of services, and of Services that are about to be redirected
	slices   []*discoveryv1.EndpointSlice
	// unsafe is set if traffic bypasses the interceptors: the workload must not sleep.
	unsafe bool
	// failOpen is set if traffic bypasses the interceptors because none is ready: the workload must not sleep, but must not be woken for
	// that either.
	failOpen bool
	// retiring is set if a Service is being restored.
	retiring bool
	// noLearning is set if a Service does not want the workload to wake others because it calls them.
	noLearning bool
	// published is set if a Service makes pods take requests before they are ready.
	published bool
	// unknown is set if a route slice, written by an earlier version, does not state its demands. It is about to be rewritten.
	unknown bool
	// hold is the longest time that a request may be held.
	hold time.Duration
	// asleep is the object whose annotation keeps the workload at zero replicas, as kubectl takes it; empty if there is none.
	asleep string
	// windows are the times in which a Service keeps the workload awake.
	windows api.Windows
	// startupCPU is the highest CPU limit that a redirected Service asks for while the workload starts; zero if none does.
	startupCPU resource.Quantity
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
	d.noLearning = d.noLearning || a.Routes.NoLearning
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
	// A Service has two Fronts while the opt-in moves from its Ingresses to the Service itself, or back.
	if !slices.ContainsFunc(d.services, func(s *corev1.Service) bool { return s.Name == a.Service.Name }) {
		d.services = append(d.services, a.Service)
	}
	if settings.Asleep {
		d.asleep = cmp.Or(settings.AsleepBy, kubectlService(a.Service))
	}
	if windows, err := api.ParseWindows(a.Routes.Awake); err == nil && a.Routes.Awake != "" {
		d.windows = d.windows.Join(windows)
	}
	if cpu, ok := parseStartupCPU(settings.StartupCPU); ok && cpu.Cmp(d.startupCPU) > 0 {
		d.startupCPU = cpu
	}
}

// objects returns a workload and the Services that are redirected.
func (d demand) objects(workload Object, also ...Object) []Object {
	objects := []Object{workload}
	for _, s := range d.services {
		objects = append(objects, s)
	}
	return present(append(objects, also...))
}

// staysAsleep reports whether the workload has to be at zero replicas.
func (d demand) staysAsleep() bool { return d.asleep != "" && !d.unsafe && !d.retiring }

// keepsAwake reports whether a Service keeps the workload awake at a time, even without requests.
func (d demand) keepsAwake(now time.Time) bool { return d.windows.Contains(now) && !d.staysAsleep() }

func (d demand) none() bool { return len(d.services) == 0 && !d.unsafe && !d.retiring && !d.unknown }

// cooldown returns the longest demanded cool-down.
func (d demand) cooldown() time.Duration {
	var longest time.Duration
	for _, s := range d.settings {
		longest = max(longest, s.Cooldown)
	}
	return longest
}
