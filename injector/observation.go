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

// Observation is everything that a plan for one Service depends on. The facts that are always needed are read first. Answers is
// filled in when PlanService asks.
type Observation struct {
	Now     time.Time
	Install Install

	Service   *corev1.Service
	Namespace *corev1.Namespace
	// Ingresses have the Service or its alias as a backend, sorted by name. If two opted-in ones have different settings, the later
	// one's apply.
	Ingresses []networkingv1.Ingress
	// Direct and Alias are the Service's companions.
	Direct, Alias Companion
	// Slices are the Service's route slices. DirectSlices are the EndpointSlices that Kubernetes keeps for the direct Service.
	Slices, DirectSlices []discoveryv1.EndpointSlice
	// Leftovers belong to a deleted Service of the same name. Kubernetes would delete them too, but later.
	Leftovers []Object
	// Extensions are the extensions of the API server that the Service serves, as Kind/name: admission webhooks, for example.
	Extensions []string
	// Admission is our NetworkPolicy that lets the interceptors in; nil if there is none.
	Admission *networkingv1.NetworkPolicy
	// Interceptors are the ready interceptors.
	Interceptors []Interceptor
	// Doubted are the addresses of those that have restarted since they last said which routes of the Service they serve.
	Doubted map[string]bool
	// Spoken is what interceptors have learned about the ports that speak whatever their clients do.
	Spoken  Spoken
	Memory  Memory
	Answers Answers
}

// Spoken has interceptor ports by what turned out to be spoken there.
type Spoken struct {
	// ServerFirst are those on which the server speaks before its client.
	ServerFirst map[int32]bool
	// HTTP are those on which the app has answered requests.
	HTTP map[int32]bool
}

// Install is this installation of scale-to-zero.
type Install struct {
	// Namespace is where scale-to-zero runs.
	Namespace string
	// Scaler is how KEDA reaches the interceptors.
	Scaler Scaler
	// KEDA is set if KEDA is installed and can ask the interceptors. If it is installed and cannot, NoKEDA says why.
	KEDA   bool
	NoKEDA string
	// StartupCPU is set if CPU limits may be raised while an app starts.
	StartupCPU bool
	// Follows is set if the interceptors' ports are bound by the apps' NetworkPolicies, and Admits if policies that let the interceptors
	// in are added in the apps' namespaces.
	Follows, Admits bool
	// Grants is set if the interceptors get the right to wake a workload from the controllers, and have no other.
	Grants bool
	// RestoringFor is for how much longer every app has to be restored; normally 0.
	RestoringFor time.Duration
	// AliasLinger is how long an alias Service stays after the last Ingress has stopped using it.
	AliasLinger time.Duration
}

// Companion is a Service that we make in addition to the user's Service.
type Companion struct {
	// Service is nil if there is none.
	Service *corev1.Service
	// Foreign is set if somebody else's Service has the companion's name.
	Foreign bool
}

// Memory is what a controller remembers about a Service between two plans. If it is lost, at worst an event is repeated.
type Memory struct {
	Phase Phase
	// Waits is what the Service waits for, and Since when the wait began.
	Waits string
	Since time.Time
	// Blocked is why the interceptors could not connect to the app's pods when it last had any. While the app has no ready pod, for
	// example in a rollout, it must not be mistaken for one that is asleep.
	Blocked Skip
	// Reported holds the last reported note about each lasting state, by the event's reason.
	Reported map[string]string
}

// Answers are what was found out for one plan. Nil means not asked yet.
type Answers struct {
	Around   *Surroundings // surroundings of the Service's pods
	Target   *Target
	Listen   map[string]int32 // interceptor ports by the names of the Service's ports
	Full     Skip             // why the Service gets no interceptor ports
	Right    *WakeRight
	Cover    *Cover
	Serving  *Serving
	Way      *Way
	Native   *bool // whether Kubernetes lists a ready pod for the Service itself
	Routed   map[string]Target
	Kept     *bool         // whether another Service routes to the workload
	Siblings *Surroundings // surroundings of the workload's pods
	Visits   *Visits
	Stack    map[string]bool // the Services asked for that exist, and whether they are injected
}

// Target is the workload behind a Service.
type Target struct {
	Workload Workload
	// Object is the workload as the API server has it. It is nil if the workload does not exist, is being deleted, or may not be read.
	Object Object
	// Skip is why there is no workload. Retry is set if no watch reports when this changes.
	Skip  Skip
	Retry bool
	// Forbidden is why the workload may not be read. The workload may well exist, and be asleep.
	Forbidden Skip
	// Owns is set if one of the pods that the Service selects belongs to the workload, according to the pod's owners. It is found out only
	// of a workload that a Service names and whose pods' labels are not known.
	Owns bool
	// HPAs and ScaledObjects are those that scale the workload. ScaledObjects also has the one with the name of ours, whoever made it.
	HPAs          []autoscalingv2.HorizontalPodAutoscaler
	ScaledObjects []keda.ScaledObject
}

// Serving is which interceptors serve a Service's routes.
type Serving struct {
	// At has, by address, whether the interceptor there says that the port is the route's, and accepts connections on it. It lacks those
	// that could not be asked.
	At map[string]bool
	// Failed is the gRPC code of the failure if an interceptor could not be asked; otherwise empty. Old is set if the interceptor is of a
	// version that cannot answer.
	Failed string
	Old    bool
}

// Way is what the interceptors found out about whether they can reach the pods.
type Way struct {
	Found [][]PortReach
	// Failed is the gRPC code of the failure if an interceptor could not be asked; otherwise empty.
	Failed string
	// Allow says which pods a NetworkPolicy has to allow.
	Allow string
}

// WakeRight says whether the interceptors may wake a workload.
type WakeRight struct {
	// Lacks is why they may not, and Lasting is set if waiting does not help.
	Lacks   Skip
	Lasting bool
}

// Cover says how far the NetworkPolicies of an app's namespace are followed by those of the interceptors' pods.
type Cover struct {
	// Ports are the interceptor ports on which they are.
	Ports map[int32]bool
	// Lacks is why they are not on all of them, and Lasting is set if waiting does not help.
	Lacks   Skip
	Lasting bool
	// CutOff is which clients may connect to the pods and not to the interceptors, and what to do; empty if there are none.
	CutOff Skip
	// Admission is the policy that lets the interceptors in, if one is needed.
	Admission *networkingv1.NetworkPolicy
}

// Visits is what is known about an app's recent visits.
type Visits struct {
	// Use is nil if the interceptors could not be asked.
	Use *Use
	// Release are the Services of the same release.
	Release []corev1.Service
}

// Question is something that has to be found out before a plan can be made. Each question is asked at most once.
type Question struct {
	Kind QuestionKind
	// Settings are for AskTarget.
	Settings Settings
	// Front names the Service whose route slices AskPorts, AskRight, AskCover, AskServing and AskWay are about, and Ports the names of its
	// ports.
	Front string
	Ports []string
	// Addresses are the interceptors' addresses, with a port, for AskServing, and the interceptors to ask for AskWay.
	Addresses []string
	// Routes are for AskCover and AskServing.
	Routes api.Routes
	// Workload is for AskRight, AskCover, AskRouted, AskKept, AskVisits and AskSiblings. Published is for AskRight: the Front's slices lead
	// to the workload already.
	Workload  Workload
	Published bool
	Name      string
	// Names are of the Services that AskStack is about.
	Names []string
}

// QuestionKind says what is asked.
type QuestionKind int

// The questions.
const (
	NoQuestion      QuestionKind = iota
	AskSurroundings              // what exposes the Service's pods: Answers.Around
	AskTarget                    // the workload, and what scales it: Answers.Target
	AskPorts                     // interceptor ports: Answers.Listen, or Answers.Full
	AskRight                     // whether the interceptors may wake the workload: Answers.Right
	AskCover                     // whether the interceptor ports are bound as the pods are: Answers.Cover
	AskServing                   // which interceptors serve the routes: Answers.Serving
	AskWay                       // whether interceptors reach the pods: Answers.Way
	AskNative                    // whether the Service lists a ready pod: Answers.Native
	AskRouted                    // the workload that route slices name: Answers.Routed
	AskKept                      // whether another Service routes to the workload: Answers.Kept
	AskSiblings                  // Services of the same workload: Answers.Siblings
	AskVisits                    // when it was last used: Answers.Visits
	AskStack                     // the Services that are to wake with it: Answers.Stack
)

// Front is where a Service's traffic comes in and can be redirected: the Service itself or, if only its Ingresses are opted in, the
// alias Service.
type Front struct {
	Alias bool
	// Service is the one whose traffic the route slices take. It is nil as long as there is no alias Service.
	Service *corev1.Service
	Slices  []discoveryv1.EndpointSlice
	// Routes is what the slices say; zero if they contain nothing readable.
	Routes api.Routes
	// Unproven is the slices' UnprovenAnnotation.
	Unproven string
}

// fronts assigns the route slices to their Fronts.
func (o *Observation) fronts() (self, alias Front) {
	self, alias = Front{Service: o.Service}, Front{Alias: true, Service: o.Alias.Service}
	for _, s := range o.Slices {
		f := &self
		if s.Labels[discoveryv1.LabelServiceName] != o.Service.Name {
			f = &alias
		}
		f.Slices = append(f.Slices, s)
		f.Unproven = cmp.Or(f.Unproven, s.Annotations[UnprovenAnnotation])
		if routes, ok := RoutesOf(&s); ok {
			f.Routes = routes
		}
	}
	return self, alias
}

// publishes reports whether the route slices list any endpoint, so that traffic goes there.
func (f Front) publishes() bool {
	return slices.ContainsFunc(f.Slices, func(s discoveryv1.EndpointSlice) bool { return len(s.Endpoints) > 0 })
}

// failsOpen reports whether the route slices list the app's own pods.
func (f Front) failsOpen() bool {
	return slices.ContainsFunc(f.Slices, func(s discoveryv1.EndpointSlice) bool { return s.Annotations[FailOpenAnnotation] != "" })
}

// blocked returns the reason to restore the Service if nothing but a blocked way speaks against its injection.
func (f Front) blocked() Skip {
	if f.Unproven == UnprovenYet {
		return ""
	}
	return Skip(f.Unproven)
}

// late reports whether restoring has taken longer than a request may be held without any pod coming back: no request waits any more.
func (f Front) late(now time.Time) bool {
	return slices.ContainsFunc(f.Slices, func(s discoveryv1.EndpointSlice) bool {
		since, err := time.Parse(time.RFC3339, s.Annotations[SinceAnnotation])
		return err == nil && now.Sub(since) > time.Duration(f.Routes.HoldTimeout)
	})
}

// redirected reports whether no traffic of the Front bypasses the interceptors any more.
func (o *Observation) redirected(f Front) bool {
	if f.Alias {
		return o.rewritten()
	}
	return Intercepted(o.Service)
}

// OptedInIngresses returns the opted-in Ingresses that have the Service as a backend, by its own name or its alias.
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

// aliasedIngresses returns the Ingresses that use the alias Service.
func (o *Observation) aliasedIngresses() []*networkingv1.Ingress {
	return pick(o.Ingresses, func(i *networkingv1.Ingress) bool { return Aliased(i, o.Service.Name) })
}

// directIngresses returns the Ingresses that use the Service itself.
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

// rewritten reports whether every opted-in Ingress sends its traffic for the Service to the alias.
func (o *Observation) rewritten() bool {
	return Rewritten(o.optedInIngresses(), o.Service.Name)
}

// Rewritten reports whether none of the Ingresses sends traffic to the Service itself.
func Rewritten(ingresses []*networkingv1.Ingress, service string) bool {
	return !slices.ContainsFunc(ingresses, func(i *networkingv1.Ingress) bool {
		_, now := Backends(i)
		return slices.Contains(now, service)
	})
}

// Aliased reports whether an Ingress uses the alias Service of a Service, or has been asked to.
func Aliased(ingress *networkingv1.Ingress, service string) bool {
	_, now := Backends(ingress)
	return Aliases(ingress)[service] != "" || slices.Contains(now, AliasServiceName(service))
}
