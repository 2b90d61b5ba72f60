// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// world is a small cluster: one app, with the objects that Kubernetes and scale-to-zero make for it. A test changes the world, plans,
// and carries the plan out in it.
type world struct {
	t   *testing.T
	now time.Time

	namespace  *corev1.Namespace
	service    *corev1.Service
	ingresses  []networkingv1.Ingress
	companions map[string]*corev1.Service
	slices     map[string]*discoveryv1.EndpointSlice // route slices
	foreign    string                                // the name of somebody else's Service

	workload     Workload
	gone         bool // the workload is gone
	skip         Skip // why there is no workload
	stack        map[string]bool
	forbidden    Skip
	listed       bool // Kubernetes has made a slice for the direct Service
	native       bool // Kubernetes lists a ready pod for the Service itself
	addresses    []string
	deaf         map[string]bool
	doubted      map[string]bool // interceptors that have restarted
	blocked      bool
	unasked      string // the code with which interceptors cannot be asked
	admission    bool
	keda         bool
	kept         bool
	restoringFor time.Duration
	follows      bool                        // NetworkPolicies are followed
	admits       bool                        // and interceptors let in
	uncovered    map[int32]bool              // interceptor ports that are not bound yet
	closed       Skip                        // why they never will be
	cutOff       Skip                        // which clients a redirection would cut off
	letIn        *networkingv1.NetworkPolicy // what would let the interceptors in
	added        *networkingv1.NetworkPolicy // what has been added for that
	grants       bool                        // the interceptors need the right to wake
	rights       map[Wakeable]WakeRight      // what they may not wake, and why
	use          *Use
	release      []corev1.Service
	siblings     []corev1.Service
	fails        int // which of the next writes fails; 0 means none

	memory  Memory
	version int
	asked   map[QuestionKind]int // by the last plan
	tried   bool                 // whether the ScaledObject was tried since the slices list nobody
	events  []string
}

// newWorld returns a world with an app of one ready pod, an opted-in Service, and two interceptors that listen.
func newWorld(t *testing.T, change ...func(*world)) *world {
	t.Helper()
	w := &world{
		t: t, now: time.Unix(1_800_000_000, 0).UTC(), namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "apps"}},
		service: service(), companions: map[string]*corev1.Service{}, slices: map[string]*discoveryv1.EndpointSlice{},
		workload: workload("Deployment", "web", map[string]string{"app": "web"}), listed: true, native: true,
		addresses: []string{"198.18.0.2", "198.18.0.3"}, deaf: map[string]bool{}, admission: true, keda: true,
	}
	w.workload.ReadyReplicas = 1
	w.service.CreationTimestamp = metav1.NewTime(w.now.Add(-time.Hour))
	for _, c := range change {
		c(w)
	}
	return w
}

// byIngress opts the app in only by an Ingress.
func byIngress(w *world) {
	delete(w.service.Labels, OptInLabel)
	w.ingresses = []networkingv1.Ingress{ingressTo("web", networkingv1.ServiceBackendPort{Number: 80})}
	w.ingresses[0].Namespace, w.ingresses[0].ResourceVersion = "apps", "1"
	w.ingresses[0].Labels = map[string]string{OptInLabel: "true"}
}

func asleep(w *world) {
	w.workload.Replicas, w.workload.ReadyReplicas, w.native = 0, 0, false
}

// object returns the workload as the API server has it.
func (w *world) object() Object {
	if w.gone {
		return nil
	}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
		Namespace: "apps", Name: w.workload.Name, UID: w.workload.UID,
		Annotations: w.workload.Annotations,
	}}
}

func (w *world) target() Target {
	t := Target{Workload: w.workload, Object: w.object(), Skip: w.skip, Forbidden: w.forbidden}
	if w.forbidden != "" || w.skip != "" || w.gone {
		t.Workload, t.Object = Workload{}, nil
	}
	return t
}

// direct returns the slices that Kubernetes keeps for the direct Service.
func (w *world) direct() []discoveryv1.EndpointSlice {
	if w.companions["web-direct"] == nil || !w.listed {
		return nil
	}
	s := discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}},
	}
	if w.workload.ReadyReplicas > 0 && !w.gone {
		s.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{"10.1.0.9"}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}}}
	}
	return []discoveryv1.EndpointSlice{s}
}

func (w *world) observe() Observation {
	o := Observation{
		Now: w.now, Service: w.service.DeepCopy(), Namespace: w.namespace, DirectSlices: w.direct(), Memory: w.memory,
		Install: Install{
			Namespace: "scale-to-zero", Scaler: Scaler{Address: "interceptors:9090"}, KEDA: w.keda, RestoringFor: w.restoringFor,
			AliasLinger: 30 * time.Second, Follows: w.follows, Admits: w.admits, Grants: w.grants,
		},
		Admission: w.added.DeepCopy(), Doubted: w.doubted,
	}
	for _, i := range w.ingresses {
		o.Ingresses = append(o.Ingresses, *i.DeepCopy())
	}
	companion := func(name string) Companion {
		if c := w.companions[name]; c != nil {
			return Companion{Service: c.DeepCopy()}
		}
		return Companion{Foreign: w.foreign == name}
	}
	o.Direct, o.Alias = companion("web-direct"), companion("web-scale-to-zero")
	for _, name := range slices.Sorted(keys(w.slices)) {
		o.Slices = append(o.Slices, *w.slices[name].DeepCopy())
	}
	for _, a := range w.addresses {
		o.Interceptors = append(o.Interceptors, Interceptor{Address: a})
	}
	return o
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// plan plans, and answers the questions.
func (w *world) plan() Plan {
	w.t.Helper()
	o := w.observe()
	w.asked = map[QuestionKind]int{}
	p, q := PlanService(o)
	for q.Kind != NoQuestion {
		if w.asked[q.Kind]++; w.asked[q.Kind] > 2 || w.asked[q.Kind] > 1 && q.Kind != AskRouted {
			w.t.Fatalf("question %d is asked again", q.Kind)
		}
		w.answer(&o, q)
		p, q = PlanService(o)
	}
	return p
}

func (w *world) answer(o *Observation, q Question) {
	a := &o.Answers
	around := func() *Surroundings {
		return &Surroundings{
			Services: append([]corev1.Service{*w.service}, w.siblings...), Ingresses: w.ingresses,
			InternalServices: w.namespace.Annotations[InternalServicesAnnotation] == "true",
		}
	}
	switch q.Kind {
	case AskSurroundings:
		a.Around = around()
	case AskStack:
		a.Stack = w.stack
	case AskSiblings:
		a.Siblings = around()
	case AskTarget:
		a.Target = new(w.target())
	case AskPorts:
		a.Listen = map[string]int32{}
		for i, name := range q.Ports {
			a.Listen[name] = 10000 + int32(i)
			if strings.HasSuffix(q.Front, "-scale-to-zero") {
				a.Listen[name] += 100
			}
		}
	case AskRight:
		a.Right = new(w.rights[WakeableOf(q.Workload.Ref())])
	case AskCover:
		a.Cover = w.cover(q)
	case AskServing:
		a.Serving = &Serving{At: map[string]bool{}}
		for _, address := range q.Addresses {
			host, _, _ := strings.Cut(address, ":")
			a.Serving.At[address] = !w.deaf[host]
		}
	case AskWay:
		a.Way = &Way{Failed: w.unasked, Allow: "US"}
		for range q.Addresses {
			a.Way.Found = append(a.Way.Found, []PortReach{{Name: "http", Ready: 1, Reached: !w.blocked, Port: "8080", Error: "i/o timeout"}})
		}
	case AskNative:
		a.Native = &w.native
	case AskRouted:
		if a.Routed == nil {
			a.Routed = map[string]Target{}
		}
		a.Routed[q.Name] = w.target()
	case AskKept:
		a.Kept = &w.kept
	case AskVisits:
		a.Visits = &Visits{Use: w.use, Release: w.release}
	case NoQuestion:
	}
}

// reconcile plans once and carries out the plan.
func (w *world) reconcile() Plan {
	w.t.Helper()
	p := w.plan()
	out, ok := w.execute(p)
	if ok {
		w.memory = out.Memory
		for _, r := range out.Reports {
			w.events = append(w.events, r.Reason+": "+r.Note)
		}
	}
	if Intercepted(w.service) && len(w.slicesOf("web")) == 0 {
		w.t.Fatalf("the Service is redirected to nobody, after %s", describe(p))
	}
	return p
}

// step reports whether the next write succeeds.
func (w *world) step() bool {
	if w.fails > 0 {
		w.fails--
		return w.fails > 0
	}
	return true
}

// execute carries a plan out as long as its writes succeed, and checks that no step comes before the one that it needs.
func (w *world) execute(p Plan) (Outcome, bool) {
	w.t.Helper()
	if p.Try != nil {
		if !w.step() {
			return p.Outcome, false
		}
		w.tried = true
	}
	for _, o := range p.Apply {
		if !w.step() {
			return p.Outcome, false
		}
		w.apply(o)
	}
	for _, ask := range p.Ask {
		if !w.step() {
			return p.Outcome, false
		}
		w.admit(ask)
		switch {
		case !ask.Done():
			return ask.Ignored, true
		case ask.Granted != nil:
			return *ask.Granted, true
		}
	}
	found := false
	for _, o := range p.Delete {
		if !w.step() {
			return p.Outcome, false
		}
		found = w.delete(o) || found
	}
	if found {
		for _, r := range p.Deleted {
			w.events = append(w.events, r.Reason+": "+r.Note)
		}
	}
	return p.Outcome, true
}

func (w *world) apply(o Object) {
	w.t.Helper()
	w.version++
	switch o := o.(type) {
	case *corev1.Service:
		if (o.ResourceVersion == "") != (w.companions[o.Name] == nil) {
			w.t.Fatalf("service %s is created or updated wrongly", o.Name)
		}
		o.ResourceVersion = strconv.Itoa(w.version)
		o.Spec.SessionAffinity = corev1.ServiceAffinityNone
		w.companions[o.Name] = o.DeepCopy()
	case *discoveryv1.EndpointSlice:
		have := w.slices[o.Name]
		if (o.ResourceVersion == "") != (have == nil) {
			w.t.Fatalf("slice %s is created or updated wrongly", o.Name)
		}
		if w.companions["web-direct"] == nil {
			w.t.Fatalf("slice %s comes before the direct Service", o.Name)
		}
		w.publishes(have, o)
		o.ResourceVersion = strconv.Itoa(w.version)
		if have == nil {
			o.CreationTimestamp = metav1.NewTime(w.now)
		} else {
			o.CreationTimestamp = have.CreationTimestamp
		}
		w.slices[o.Name] = o.DeepCopy()
	case *networkingv1.NetworkPolicy:
		if (o.ResourceVersion == "") != (w.added == nil) {
			w.t.Fatalf("policy %s is created or updated wrongly", o.Name)
		}
		o.ResourceVersion = strconv.Itoa(w.version)
		w.added = o.DeepCopy()
	default:
		w.t.Fatalf("%T is applied", o)
	}
}

// publishes checks a slice that lists interceptors for the first time.
func (w *world) publishes(before, after *discoveryv1.EndpointSlice) {
	w.t.Helper()
	if before != nil && len(before.Endpoints) > 0 || len(after.Endpoints) == 0 || after.Annotations[FailOpenAnnotation] != "" {
		return
	}
	redirected := Intercepted(w.service) || Aliased(&networkingv1.Ingress{}, "web")
	for _, i := range w.ingresses {
		redirected = redirected || Aliased(&i, "web")
	}
	switch {
	case before == nil && !redirected && w.asked[AskServing] == 0:
		w.t.Fatal("published without a dial")
	case redirected:
	case w.keda && !w.tried:
		w.t.Fatal("published before the ScaledObject was tried")
	case w.blocked && len(w.direct()) > 0 && HasReadyEndpoint(w.direct()):
		w.t.Fatal("published although the way to the pods is blocked")
	}
	w.tried = false
}

// admit is admission, with the real functions.
func (w *world) admit(ask Ask) {
	w.t.Helper()
	for _, write := range ask.Writes {
		if ask.Into && !w.listening(len(ask.Ingresses) > 0) {
			w.t.Fatal("asked to redirect before interceptors are published")
		}
		w.version++
		switch o := write.Object.(type) {
		case *corev1.Service:
			old := w.service.DeepCopy()
			setAnnotation(o, write.Key, write.Value)
			if w.admission {
				if err := Admit(o, old, true); err != nil {
					w.t.Fatal(err)
				}
			}
			w.service = o.DeepCopy()
		case *networkingv1.Ingress:
			i := slices.IndexFunc(w.ingresses, func(i networkingv1.Ingress) bool { return i.Name == o.Name })
			old := w.ingresses[i].DeepCopy()
			setAnnotation(o, write.Key, write.Value)
			if w.admission {
				if err := AdmitIngress(o, old, true); err != nil {
					w.t.Fatal(err)
				}
			}
			w.ingresses[i] = *o.DeepCopy()
		}
	}
}

func setAnnotation(o metav1.Object, key, value string) {
	annotations := map[string]string{}
	maps.Copy(annotations, o.GetAnnotations())
	if annotations[key] = value; value == "" {
		delete(annotations, key)
	}
	o.SetAnnotations(annotations)
}

// slicesOf returns the route slices of a Front.
func (w *world) slicesOf(front string) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for _, s := range w.slices {
		if s.Labels[discoveryv1.LabelServiceName] == front {
			out = append(out, s)
		}
	}
	return out
}

// listening reports whether the slices of the Front list interceptors.
func (w *world) listening(alias bool) bool {
	front := "web"
	if alias {
		front = "web-scale-to-zero"
	}
	return slices.ContainsFunc(w.slicesOf(front), func(s *discoveryv1.EndpointSlice) bool { return len(s.Endpoints) > 0 })
}

func (w *world) delete(o Object) (found bool) {
	w.t.Helper()
	switch o := o.(type) {
	case *discoveryv1.EndpointSlice:
		front := o.Labels[discoveryv1.LabelServiceName]
		if front == "web" && Intercepted(w.service) {
			w.t.Fatal("a slice is deleted while the Service is redirected to it")
		}
		for _, i := range w.ingresses {
			if front != "web" && Aliased(&i, "web") {
				w.t.Fatal("a slice is deleted while an Ingress leads to it")
			}
		}
		routes, _ := api.DecodeRoutes(o.Annotations[api.RoutesAnnotation])
		late := w.now.Sub(o.CreationTimestamp.Time) > time.Duration(routes.HoldTimeout)
		if !w.gone && routes.Retiring && Remembered(w.workload.Annotations) > 0 && !w.kept && !w.serving() && !late {
			w.t.Fatal("a slice is deleted before its workload is restored")
		}
		found = w.slices[o.Name] != nil
		delete(w.slices, o.Name)
	case *corev1.Service:
		if o.Name == "web-direct" && len(w.slices) > 0 {
			w.t.Fatal("the direct Service is deleted before the route slices")
		}
		delete(w.companions, o.Name)
	case *networkingv1.NetworkPolicy:
		w.added = nil
	}
	return found
}

// serving reports whether a Front keeps the workload.
func (w *world) serving() bool {
	for _, s := range w.slices {
		if routes, err := api.DecodeRoutes(s.Annotations[api.RoutesAnnotation]); err == nil && !routes.Retiring {
			return true
		}
	}
	return false
}

// kubernetes does the work of Kubernetes' controllers, and of our workload controller.
func (w *world) kubernetes() {
	serving := w.serving()
	redirected := Intercepted(w.service)
	for i := range w.ingresses {
		redirected = redirected || Aliased(&w.ingresses[i], "web")
	}
	switch {
	case serving && redirected && Remembered(w.workload.Annotations) == 0:
		w.workload.Annotations = map[string]string{ReplicasAnnotation: "1"}
	case len(w.slices) > 0 && !serving:
		w.workload.Replicas, w.workload.ReadyReplicas, w.workload.Annotations = 1, 1, nil
	}
	w.listed = true
	w.native = !Intercepted(w.service) && w.workload.ReadyReplicas > 0 && !w.gone
}

// run reconciles until nothing changes, while everything works. The pause between two looks passes.
func (w *world) run() Plan {
	w.t.Helper()
	var p Plan
	for range 60 {
		before := w.state()
		p = w.reconcile()
		w.kubernetes()
		if after := w.state(); after == before && p.After == 0 && !p.Soon {
			return p
		}
		w.now = w.now.Add(max(p.After, 2*time.Second))
		if p.After == 0 && !p.Soon && w.state() == before {
			return p
		}
		if p.Phase == PhaseRedirected && w.state() == before && !p.Soon && p.After > slowRetry {
			return p // it waits for an app's first visitors
		}
	}
	w.t.Fatalf("it does not settle: %s", describe(p))
	return p
}

// state returns everything that a plan can change.
func (w *world) state() string {
	var b strings.Builder
	fmt.Fprintln(&b, w.service.Annotations, w.service.Spec.Selector)
	for _, i := range w.ingresses {
		_, now := Backends(&i)
		fmt.Fprintln(&b, i.Annotations, now)
	}
	for _, name := range slices.Sorted(keys(w.companions)) {
		fmt.Fprintln(&b, name)
	}
	for _, name := range slices.Sorted(keys(w.slices)) {
		s := w.slices[name]
		fmt.Fprintln(&b, name, s.Annotations, len(s.Endpoints), len(s.Ports))
	}
	fmt.Fprintln(&b, w.workload.Replicas, w.workload.Annotations, w.native)
	return b.String()
}

// describe returns a plan in one line.
func describe(p Plan) string {
	var parts []string
	if p.Try != nil {
		parts = append(parts, "try "+p.Try.Name)
	}
	for _, o := range p.Apply {
		verb := "update"
		if o.GetResourceVersion() == "" {
			verb = "create"
		}
		what := verb + " " + o.GetName()
		if s, ok := o.(*discoveryv1.EndpointSlice); ok {
			what += fmt.Sprintf("(%d)", len(s.Endpoints))
		}
		parts = append(parts, what)
	}
	for _, ask := range p.Ask {
		for _, write := range ask.Writes {
			parts = append(parts, fmt.Sprintf("ask %s %s=%s", write.Object.GetName(), strings.TrimPrefix(write.Key, Prefix), write.Value))
		}
	}
	for _, o := range p.Delete {
		parts = append(parts, "delete "+o.GetName())
	}
	if len(p.FreePorts) > 0 {
		parts = append(parts, "free "+strings.Join(p.FreePorts, ","))
	}
	for _, r := range p.Reports {
		parts = append(parts, "report "+r.Reason)
	}
	switch {
	case p.Soon:
		parts = append(parts, "soon")
	case p.After > 0:
		parts = append(parts, "after "+p.After.String())
	}
	return string(p.Phase) + ": " + strings.Join(parts, ", ")
}
