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
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// Object is an object of the API server.
type Object interface {
	metav1.Object
	runtime.Object
}

// Observation is everything that a plan for one Service depends on. What is always needed is read first; the answers are
// filled in when PlanService asks for them.
type Observation struct {
	Now     time.Time
	Install Install

	Service   *corev1.Service
	Namespace *corev1.Namespace
	// Ingresses have the Service or its alias as a backend, in the order of their names: of two that are opted in with
	// different settings, the later one's count.
	Ingresses []networkingv1.Ingress
	// Direct and Alias are its companions.
	Direct, Alias Companion
	// Slices are its route slices, and DirectSlices those that Kubernetes keeps for the direct Service.
	Slices, DirectSlices []discoveryv1.EndpointSlice
	// Leftovers belong to a Service of the same name that was deleted. Kubernetes would delete them too, in its own time.
	Leftovers []Object
	// Interceptors are the ready ones.
	Interceptors []Interceptor
	// ServerFirst are the interceptor ports on which a server turned out to speak first.
	ServerFirst map[int32]bool
	Memory      Memory
	Answers     Answers
}

// Install is this installation of scale-to-zero.
type Install struct {
	// Namespace is where it runs.
	Namespace string
	// ScalerAddress is where KEDA finds the interceptors.
	ScalerAddress string
	// KEDA says that KEDA is installed.
	KEDA bool
	// RestoringFor is how much longer every app is to be restored; 0 is the normal state.
	RestoringFor time.Duration
	// AliasLinger is how long an alias Service stays after the last Ingress has left it.
	AliasLinger time.Duration
}

// Companion is a Service that we make beside the user's.
type Companion struct {
	// Service is nil if there is none.
	Service *corev1.Service
	// Foreign says that a Service of somebody else has its name.
	Foreign bool
}

// Memory is what a controller remembers of a Service between two plans. Losing it repeats an event at worst.
type Memory struct {
	Phase Phase
	// Waits is what the Service waits for, and Since when that began.
	Waits string
	Since time.Time
	// Blocked is why interceptors could not connect to its pods when there last were any. While such an app has no ready
	// pod, as in a rollout, it must not pass for one that is asleep.
	Blocked Skip
	// Reported is the last note of each lasting state that was reported, by the event's reason.
	Reported map[string]string
}

// Answers are what was found out for one plan. Nil is not asked yet.
type Answers struct {
	Around   *Surroundings // of the Service's pods
	Target   *Target
	Listen   map[string]int32 // interceptor ports by the names of the Service's
	Dialed   map[string]bool  // by address, whether it listens
	Way      *Way
	Native   *bool // whether Kubernetes lists a ready pod behind the Service itself
	Routed   map[string]Target
	Kept     *bool         // whether another Service routes to the workload
	Siblings *Surroundings // of the workload's pods
	Visits   *Visits
	Stack    map[string]bool // the Services asked for that exist, and whether they are injected
}

// Target is the workload that a Service leads to.
type Target struct {
	Workload Workload
	// Object is the workload as the API server has it. It is nil if it is not there, on its way out, or may not be read.
	Object Object
	// Skip is why there is none. Retry says that no watch reports when this changes.
	Skip  Skip
	Retry bool
	// Forbidden is why it may not be read. It may well exist, and be asleep.
	Forbidden Skip
	// HPAs and ScaledObjects scale it. ScaledObjects has the one with the name of ours, whoever made it.
	HPAs          []autoscalingv2.HorizontalPodAutoscaler
	ScaledObjects []keda.ScaledObject
}

// Way is what the interceptors found out about their way to the pods.
type Way struct {
	Found [][]PortReach
	// Failed is the gRPC code with which an interceptor could not be asked; empty if all were.
	Failed string
	// Allow says which pods a NetworkPolicy has to let in.
	Allow string
}

// Visits is whether an app has been visited of late.
type Visits struct {
	// Use is nil if the interceptors could not be asked.
	Use *Use
	// Release are the Services that were installed together with it.
	Release []corev1.Service
}

// Question is something that has to be found out before a plan can be made. Each is asked once at most.
type Question struct {
	Kind QuestionKind
	// Settings are for AskTarget.
	Settings Settings
	// Front is the name of the Service whose route slices AskPorts and AskWay are about, and Ports its ports' names.
	Front string
	Ports []string
	// Addresses are what AskDials is to dial, and the interceptors that AskWay is to ask.
	Addresses []string
	// Workload is the one for AskRouted and AskKept, and AskVisits and AskSiblings.
	Workload Workload
	Name     string
	// Names are of the Services that AskStack is about.
	Names []string
}

// QuestionKind says what is asked.
type QuestionKind int

// The questions.
const (
	NoQuestion      QuestionKind = iota
	AskSurroundings              // what exposes the Service's pods: Answers.Around
	AskTarget                    // its workload, and who scales that: Answers.Target
	AskPorts                     // interceptor ports: Answers.Listen
	AskDials                     // which interceptors listen: Answers.Dialed
	AskWay                       // whether they reach the pods: Answers.Way
	AskNative                    // whether the Service lists a ready pod: Answers.Native
	AskRouted                    // the workload that route slices name: Answers.Routed
	AskKept                      // whether another Service routes to it: Answers.Kept
	AskSiblings                  // Services of the same workload: Answers.Siblings
	AskVisits                    // when it was last used: Answers.Visits
	AskStack                     // the Services that are to wake with it: Answers.Stack
)

// Front is one way by which a Service's traffic comes in and can be redirected: the Service itself, or, where only its
// Ingresses are opted in, the alias Service.
type Front struct {
	Alias bool
	// Service is the one whose traffic the route slices take. It is nil while there is no alias Service.
	Service *corev1.Service
	Slices  []discoveryv1.EndpointSlice
	// Routes are what the slices say; zero if they say nothing that can be read.
	Routes api.Routes
	// Unproven is their UnprovenAnnotation.
	Unproven string
}

// fronts sorts the route slices by the Front that they belong to.
func (o *Observation) fronts() (self, alias Front) {
	self, alias = Front{Service: o.Service}, Front{Alias: true, Service: o.Alias.Service}
	for _, s := range o.Slices {
		f := &self
		if s.Labels[discoveryv1.LabelServiceName] != o.Service.Name {
			f = &alias
		}
		f.Slices = append(f.Slices, s)
		f.Unproven = cmp.Or(f.Unproven, s.Annotations[UnprovenAnnotation])
		if routes, err := api.DecodeRoutes(s.Annotations[api.RoutesAnnotation]); err == nil {
			f.Routes = routes
		}
	}
	return self, alias
}

// publishes says that the route slices list somebody, to whom traffic goes.
func (f Front) publishes() bool {
	return slices.ContainsFunc(f.Slices, func(s discoveryv1.EndpointSlice) bool { return len(s.Endpoints) > 0 })
}

// failsOpen says that the route slices list the app's own pods.
func (f Front) failsOpen() bool {
	return slices.ContainsFunc(f.Slices, func(s discoveryv1.EndpointSlice) bool { return s.Annotations[FailOpenAnnotation] != "" })
}

// blocked is why the Service is to be restored although nothing else stands against it.
func (f Front) blocked() Skip {
	if f.Unproven == UnprovenYet {
		return ""
	}
	return Skip(f.Unproven)
}

// late says that pods have not come back for as long as a request may be held: nobody is left to wait for them.
func (f Front) late(now time.Time) bool {
	return slices.ContainsFunc(f.Slices, func(s discoveryv1.EndpointSlice) bool {
		since, err := time.Parse(time.RFC3339, s.Annotations[SinceAnnotation])
		return err == nil && now.Sub(since) > time.Duration(f.Routes.HoldTimeout)
	})
}

// redirected says that no traffic of the Front goes past the interceptors any more.
func (o *Observation) redirected(f Front) bool {
	if f.Alias {
		return o.rewritten()
	}
	return Intercepted(o.Service)
}

// OptedInIngresses are the opted-in ones that have the Service as a backend, by whichever name.
func OptedInIngresses(all []networkingv1.Ingress, service string) []*networkingv1.Ingress {
	return pick(all, func(i *networkingv1.Ingress) bool {
		author, _ := Backends(i)
		optedIn, err := OptedIn(i)
		return err == nil && optedIn && slices.Contains(author, service) && i.DeletionTimestamp.IsZero()
	})
}

func (o *Observation) optedInIngresses() []*networkingv1.Ingress {
	return OptedInIngresses(o.Ingresses, o.Service.Name)
}

// aliasedIngresses are those that lead to the alias Service.
func (o *Observation) aliasedIngresses() []*networkingv1.Ingress {
	return pick(o.Ingresses, func(i *networkingv1.Ingress) bool { return Aliased(i, o.Service.Name) })
}

// directIngresses are those that lead to the Service itself.
func (o *Observation) directIngresses() []*networkingv1.Ingress {
	return pick(o.Ingresses, func(i *networkingv1.Ingress) bool {
		_, now := Backends(i)
		return slices.Contains(now, o.Service.Name)
	})
}

func pick(all []networkingv1.Ingress, picks func(*networkingv1.Ingress) bool) []*networkingv1.Ingress {
	var found []*networkingv1.Ingress
	for i := range all {
		if picks(&all[i]) {
			found = append(found, &all[i])
		}
	}
	return found
}

// rewritten says that every opted-in Ingress sends its traffic for the Service to the alias.
func (o *Observation) rewritten() bool {
	return Rewritten(o.optedInIngresses(), o.Service.Name)
}

// Rewritten says that none of the Ingresses sends traffic to the Service itself.
func Rewritten(ingresses []*networkingv1.Ingress, service string) bool {
	return !slices.ContainsFunc(ingresses, func(i *networkingv1.Ingress) bool {
		_, now := Backends(i)
		return slices.Contains(now, service)
	})
}

// Aliased says that an Ingress leads, or is asked to lead, to the alias Service of a Service.
func Aliased(ingress *networkingv1.Ingress, service string) bool {
	_, now := Backends(ingress)
	return Aliases(ingress)[service] != "" || slices.Contains(now, AliasServiceName(service))
}
