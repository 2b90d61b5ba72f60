// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// injection injects one Front: make before break. First the real pods are listed and the interceptors listen. Then the interceptors
// get part of the traffic. Only then is admission asked to redirect all of it.
type injection struct {
	*planner

	front  *Front
	routes api.Routes
	// ready are the interceptors that clients of the Front can reach.
	ready []Interceptor
	// redirected is set once no traffic bypasses the interceptors any more, and taken once the interceptors have it.
	redirected, taken bool
	published         Published
	// complete is set if no ready interceptor should be published that is not.
	complete bool
	// missing is an IP family of the Front that has no published interceptor.
	missing corev1.IPFamily
}

// inject plans the injection. done is true if it is complete, so that the other Front may be restored.
func (p *planner) inject(f *Front) (done bool, q Question) {
	p.applyCompanions(f)
	in := &injection{planner: p, front: f}
	if q := in.route(); q.Kind != NoQuestion {
		return false, q
	}
	if full := p.o.Answers.Full; full != "" {
		in.Phase = cmp.Or(p.o.Memory.Phase, PhaseAbsent) // what it has stays as it is
		in.await(string(full), blockedMax)
		return false, Question{}
	}
	in.redirected = p.o.redirected(*f)
	in.taken = len(f.Slices) > 0 && in.redirected
	if may, q := in.right(); q.Kind != NoQuestion || !may {
		return false, q
	}
	if covered, q := in.cover(); q.Kind != NoQuestion || !covered {
		return false, q
	}
	in.ready = OfFamilies(p.o.Interceptors, f.Service.Spec.IPFamilies)
	if in.taken && len(in.ready) == 0 {
		in.failOpen() // watches report new interceptors and pods
		return true, Question{}
	}
	if q := in.publish(); q.Kind != NoQuestion {
		return false, q
	}
	if lacks := in.lacks(); lacks != "" {
		return in.listen(lacks, slowRetry), Question{}
	}
	if !in.redirected && !f.publishes() {
		return in.first()
	}
	return in.steady()
}

// applyCompanions makes the direct Service and, if the Front needs one, the alias Service.
func (p *planner) applyCompanions(f *Front) {
	p.apply(companion(DirectService(p.o.Service, p.v.Settings), p.o.Direct.Service))
	if !f.Alias {
		return
	}
	alias := AliasService(p.o.Service)
	p.apply(companion(alias, f.Service))
	if f.Service == nil {
		f.Service = alias
	}
}

func (p *planner) apply(o Object) {
	if o != nil {
		p.Apply = append(p.Apply, o)
	}
}

// companion returns the write that turns our Service have into want; nil if nothing has to be written. have is nil if there is no
// such Service yet. The IP families stay as created: they can only partly be changed, and the API server may add a family to the
// requested ones.
func companion(want, have *corev1.Service) Object {
	if have == nil {
		return want
	}
	updated := have.DeepCopy()
	updated.Labels, updated.Spec.Selector = want.Labels, want.Spec.Selector
	updated.Annotations = want.Annotations
	updated.Spec.Ports, updated.Spec.PublishNotReadyAddresses = want.Spec.Ports, want.Spec.PublishNotReadyAddresses
	updated.Spec.SessionAffinity = cmp.Or(want.Spec.SessionAffinity, corev1.ServiceAffinityNone) // the API server's default
	updated.Spec.SessionAffinityConfig = want.Spec.SessionAffinityConfig
	if equality.Semantic.DeepEqual(have, updated) {
		return nil
	}
	return updated
}

// route decides what the interceptors listen for. Each port keeps its number.
func (in *injection) route() Question {
	o := in.o
	names := make([]string, len(o.Service.Spec.Ports))
	for i, p := range o.Service.Spec.Ports {
		names[i] = p.Name
	}
	if o.Answers.Listen == nil && o.Answers.Full == "" {
		return Question{Kind: AskPorts, Front: in.front.Service.Name, Ports: names}
	}
	in.routes = NewRoutes(o.Service, in.v.Settings, in.v.Workload, o.Answers.Listen)
	in.routes.Reach = ReachOf(o.Service, o.Ingresses)
	exposedPorts(&in.routes, o.Service, in.v.Settings.Protocol, o.Ingresses)
	keepLearned(&in.routes, in.front.Routes, o.Spoken)
	return Question{}
}

// keepLearned marks the ports of which the interceptors have learned what they speak, now or when the slices were written. A port with
// a new number starts without the marks.
func keepLearned(routes *api.Routes, before api.Routes, learned Spoken) {
	known := map[int32]api.Port{}
	for _, p := range before.Ports {
		known[p.Listen] = p
	}
	for i := range routes.Ports {
		p := &routes.Ports[i]
		auto, kept := p.Protocol == api.ProtocolAuto, known[p.Listen]
		p.ServerFirst = auto && (kept.ServerFirst || learned.ServerFirst[p.Listen])
		p.SpokeHTTP = auto && (kept.SpokeHTTP || learned.HTTP[p.Listen])
	}
}

// publish finds out which interceptors serve the routes. Interceptors that are already published are not asked again, unless they have
// restarted since: their own readiness probe decides whether they are ready. If such a one cannot be asked, it stays published for now.
func (in *injection) publish() Question {
	known := map[string]bool{}
	var before []api.Port
	for _, s := range in.front.Slices {
		for _, p := range s.Ports {
			before = append(before, api.Port{Name: *p.Name, Listen: *p.Port})
			for _, endpoint := range s.Endpoints {
				known[address(endpoint.Addresses[0], *p.Port)] = true
			}
		}
	}
	candidates := in.candidates(known)
	var unknown []string
	for _, i := range candidates {
		for _, p := range in.routes.Ports {
			if a := address(i.Address, p.Listen); !known[a] || in.o.Doubted[i.Address] {
				unknown = append(unknown, a)
			}
		}
	}
	serving := in.o.Answers.Serving
	if serving == nil {
		if len(unknown) > 0 {
			return Question{Kind: AskServing, Front: in.front.Service.Name, Routes: in.routes, Addresses: unknown}
		}
		serving = &Serving{}
	}
	in.published = Publish(in.routes, candidates, before, func(i Interceptor, p api.Port) bool {
		a := address(i.Address, p.Listen)
		if serves, said := serving.At[a]; said {
			return serves
		}
		return known[a]
	})
	in.complete = len(in.published.Interceptors) == len(in.ready)
	if in.alone() {
		families := in.front.Service.Spec.IPFamilies
		in.published.Interceptors = only(in.published.Interceptors, families)
		in.complete = slices.Equal(in.published.Interceptors, only(candidates, families))
	}
	in.complete = in.complete && !slices.ContainsFunc(unknown, func(a string) bool {
		_, said := serving.At[a]
		return known[a] && !said
	})
	in.missing = MissingFamily(in.published.Interceptors, in.front.Service.Spec.IPFamilies)
	return Question{}
}

// alone reports whether a single interceptor has to carry the workload's requests, because only that one can count what a pod has.
func (in *injection) alone() bool { return in.routes.MaxPendingPerPod > 0 }

// candidates are the interceptors of which it has to be known whether they answer, in the order in which they are taken. If one of
// them is enough and the first answers, the others do not matter.
func (in *injection) candidates(known map[string]bool) []Interceptor {
	if !in.alone() {
		return in.ready
	}
	all := ranked(in.ready, in.o.Service.Namespace, in.routes.Workload)
	first := only(all, in.front.Service.Spec.IPFamilies)
	for _, i := range first {
		for _, p := range in.routes.Ports {
			if !known[address(i.Address, p.Listen)] {
				return all
			}
		}
	}
	return first
}

func address(host string, port int32) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }

// lacks says why the interceptors cannot take the Front's traffic; empty if they can. If an IP family has no interceptor, redirecting
// would take the pods away from its clients. Once the Front is redirected, the other families go on.
func (in *injection) lacks() string {
	complete := len(in.published.Ports) == len(in.routes.Ports) && len(in.published.Interceptors) > 0
	if complete && (in.missing == "" || in.redirected) {
		return ""
	}
	if len(in.o.Interceptors) == 0 {
		return "no interceptor of scale-to-zero is ready"
	}
	if family := MissingFamily(in.o.Interceptors, in.front.Service.Spec.IPFamilies); family != "" {
		return fmt.Sprintf("it has an %s address, and no interceptor of scale-to-zero with one is ready", family)
	}
	switch serving := in.o.Answers.Serving; {
	case serving == nil || serving.Failed == "":
	case serving.Old:
		return "the interceptors of scale-to-zero are of an older version than its controller; it is injected once they are replaced"
	default:
		return fmt.Sprintf("scale-to-zero's controller cannot ask its interceptors over gRPC which routes they serve (%s); "+
			"does a NetworkPolicy in namespace %s forbid it?", serving.Failed, in.o.Install.Namespace)
	}
	return fmt.Sprintf("no interceptor answers scale-to-zero's controller on %s over %s yet; does a NetworkPolicy forbid it?",
		listensText(in.routes), in.missing)
}

// listen makes interceptors listen while the Front still lacks some. They are not published until they can serve all clients of the
// Front, except for an alias.
func (in *injection) listen(lacks string, longest time.Duration) (done bool) {
	in.Phase = PhaseListening
	if in.front.failsOpen() {
		in.Phase, in.Soon = PhaseFailedOpen, true // until an interceptor listens, the pods serve
		return true
	}
	if !in.redirected && !in.front.Alias {
		in.published = Published{}
	}
	in.applySlices()
	if in.taken {
		in.Phase, in.Soon = PhaseRedirected, true
		return false
	}
	in.await(lacks, longest)
	return false
}

// prove returns what the interceptors found out about their way to the pods. With a sleeping app there is nothing to prove it with;
// it is proven when the first pods are ready.
func (in *injection) prove() (Proof, Question) {
	listed := ReadyPorts(in.o.DirectSlices)
	if len(listed) == 0 {
		return Proof{Nothing: true}, Question{}
	}
	way := in.o.Answers.Way
	if way == nil {
		q := Question{Kind: AskWay, Front: in.front.Service.Name}
		for _, i := range in.published.Interceptors {
			q.Addresses = append(q.Addresses, i.Address)
		}
		return Proof{}, q
	}
	if way.Failed != "" {
		return Proof{Lacks: Skip(fmt.Sprintf("scale-to-zero's controller cannot ask its interceptors over gRPC "+
			"whether they reach the pods (%s); "+
			"does a NetworkPolicy in namespace %s forbid it?", way.Failed, in.o.Install.Namespace))}, Question{}
	}
	return Prove(way.Found, listed, way.Allow), Question{}
}

// mark records in the slices whether the way is proven.
func (in *injection) mark(proof Proof) {
	switch {
	case proof.Nothing:
		in.front.Unproven = UnprovenYet
	case proof.Lacks == "":
		in.front.Unproven = ""
	}
}

// first publishes the interceptors for the first time. From then on they get part of the traffic, and first asks for the rest of it.
func (in *injection) first() (done bool, q Question) {
	proof, q := in.prove()
	if q.Kind != NoQuestion {
		return false, q
	}
	in.mark(proof)
	lacks, longest := in.latest(proof), blockedMax
	if lacks == "" {
		longest = slowRetry
		if lacks, q = in.podsListed(); q.Kind != NoQuestion {
			return false, q
		}
	}
	if lacks != "" {
		in.Phase, in.published = PhaseProving, Published{}
		in.applySlices()
		in.await(string(lacks), longest)
		return false, Question{}
	}
	if in.o.Install.KEDA && in.v.Autoscaler.none() && len(in.o.Answers.Target.ScaledObjects) == 0 {
		replicas := max(1, in.v.Workload.Replicas)
		in.Try = ScaledObject(in.v.Workload, NewScaling([]Settings{in.v.Settings}, replicas), replicas, in.o.Install.Scaler)
	}
	return in.steady()
}

// latest remembers a proof, and returns what speaks against the injection.
func (in *injection) latest(proof Proof) Skip {
	switch {
	case proof.Blocked:
		in.Memory.Blocked = proof.Lacks
	case proof.Nothing:
		return in.Memory.Blocked
	case proof.Lacks == "":
		in.Memory.Blocked = ""
	}
	return proof.Lacks
}

// steady handles a Front whose interceptors are published, or about to be.
func (in *injection) steady() (done bool, q Question) {
	in.Phase = PhaseRedirecting
	if in.redirected {
		in.Phase = PhaseRedirected
	}
	if (in.redirected || in.front.publishes()) && in.front.Unproven != "" {
		proof, q := in.prove()
		if q.Kind != NoQuestion {
			return false, q
		}
		in.mark(proof)
		if proof.Blocked {
			in.blocked(proof.Lacks)
			return true, Question{}
		}
		if proof.Lacks != "" {
			in.after(slowRetry) // no watch reports when a proof becomes possible
		}
	}
	in.applySlices()
	if in.taken && in.missing != "" {
		in.warnOfFamily()
		return true, Question{}
	}
	if !in.complete {
		in.After = slowRetry // no watch reports when a ready interceptor begins to listen
	}
	if !in.taken {
		return false, in.redirect()
	}
	if in.front.Unproven == "" {
		in.Memory.Waits = "" // nothing is missing any more
	}
	cautions{in}.warnOfFront(&in.Outcome)
	return true, cautions{in}.warn(&in.Outcome)
}

// blocked restores an app that was injected while asleep and whose pods turn out to be unreachable for the interceptors. Its visitors
// would wait in vain, although they were served before the injection. The route slices keep the reason for the next plan.
func (in *injection) blocked(why Skip) {
	if in.waited(string(why), in.o.Now) < blockedFor {
		in.applySlices()
		in.After = blockedLook
		return
	}
	in.front.Unproven = string(why)
	in.applySlices()
}

// applySlices writes the route slices in their desired state.
func (in *injection) applySlices() {
	in.writeSlices(RouteSlices(in.front.Service, in.o.Service, in.routes, in.v.Settings, in.published))
}

func (in *injection) writeSlices(wanted []discoveryv1.EndpointSlice) {
	for i := range wanted {
		want := &wanted[i]
		if in.front.Unproven != "" {
			want.Annotations[UnprovenAnnotation] = in.front.Unproven
		}
		n := slices.IndexFunc(in.front.Slices, func(s discoveryv1.EndpointSlice) bool { return s.Name == want.Name })
		if n < 0 {
			in.apply(want)
			continue
		}
		have := &in.front.Slices[n]
		for _, key := range []string{api.ProgressAnnotation, api.LearnedAnnotation} { // the workload's plan writes these
			if value, ok := have.Annotations[key]; ok {
				want.Annotations[key] = value
			}
		}
		if !equality.Semantic.DeepEqual(have.Annotations, want.Annotations) || !equality.Semantic.DeepEqual(have.Labels, want.Labels) ||
			!equality.Semantic.DeepEqual(have.Ports, want.Ports) || !equality.Semantic.DeepEqual(have.Endpoints, want.Endpoints) {
			want.ResourceVersion = have.ResourceVersion
			in.apply(want)
		}
	}
}

// await looks again, soon at first and then ever more rarely, with pauses of at most longest. It reports what is missing for longer
// than a usual installation takes.
func (in *injection) await(lacks string, longest time.Duration) {
	waited := in.waited(lacks, in.o.Now)
	if waited < reportAfter {
		in.Soon = true
		return
	}
	in.once(corev1.EventTypeWarning, ReasonSkipped, "Not injected: "+lacks)
	in.After, in.Spread = min(max(waited/2, slowRetry), longest), true
}

// podsListed says what is missing until Kubernetes lists the workload's pods for the direct Service. The interceptors have to know
// the pods before the first request arrives.
func (in *injection) podsListed() (Skip, Question) {
	o, w := in.o, in.v.Workload
	direct := DirectServiceName(o.Service.Name)
	switch {
	case len(o.DirectSlices) == 0:
		return Skip(fmt.Sprintf("Kubernetes has not made an EndpointSlice for Service %s yet", direct)), Question{}
	case HasReadyEndpoint(o.DirectSlices):
		return "", Question{}
	case w.ReadyReplicas > 0:
		return Skip(fmt.Sprintf("%s has ready pods, but none is behind this Service", w.Ref())), Question{}
	case !o.Service.Spec.PublishNotReadyAddresses:
		return "", Question{}
	case o.Answers.Native == nil:
		return "", Question{Kind: AskNative}
	case !*o.Answers.Native:
		return "", Question{}
	}
	return Skip(fmt.Sprintf("Kubernetes has not listed the pods of Service %s yet, which take requests before they are ready",
		direct)), Question{}
}
