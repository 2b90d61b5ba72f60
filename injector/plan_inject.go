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

// injection injects one Front: make before break. The real pods are listed, the interceptors listen, they are
// sent traffic too, and only then is admission asked to redirect all of it.
type injection struct {
	*planner

	front  *Front
	routes api.Routes
	// ready are the interceptors that clients of the Front can reach.
	ready []Interceptor
	// redirected says that no traffic goes past the interceptors any more, and taken that they have it.
	redirected, taken bool
	published         Published
	// missing is an IP family of the Front without a published interceptor.
	missing corev1.IPFamily
}

// inject plans the injection. done says that it is complete, so that the other Front may be restored.
func (p *planner) inject(f *Front) (done bool, q Question) {
	p.applyCompanions(f)
	in := &injection{planner: p, front: f}
	if q := in.route(); q.Kind != NoQuestion {
		return false, q
	}
	in.redirected = p.o.redirected(*f)
	in.taken = len(f.Slices) > 0 && in.redirected
	in.ready = OfFamilies(p.o.Interceptors, f.Service.Spec.IPFamilies)
	if in.taken && len(in.ready) == 0 {
		in.failOpen() // watches report interceptors and pods that come
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

// applyCompanions makes the direct Service, and the alias Service if the Front is one.
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

// companion is what has to be written for a Service of ours to become what it should be; nil for nothing. have is nil if
// there is none yet. Its IP families stay those that it was made with: they can only partly be changed, and the API server
// may add one to what is asked for.
func companion(want, have *corev1.Service) Object {
	if have == nil {
		return want
	}
	updated := have.DeepCopy()
	updated.Labels, updated.Spec.Selector = want.Labels, want.Spec.Selector
	updated.Annotations = want.Annotations
	updated.Spec.Ports, updated.Spec.PublishNotReadyAddresses = want.Spec.Ports, want.Spec.PublishNotReadyAddresses
	updated.Spec.SessionAffinity = cmp.Or(want.Spec.SessionAffinity, corev1.ServiceAffinityNone) // as the API server has it
	updated.Spec.SessionAffinityConfig = want.Spec.SessionAffinityConfig
	if equality.Semantic.DeepEqual(have, updated) {
		return nil
	}
	return updated
}

// route says what the interceptors are to listen for, each port under the number that it has already.
func (in *injection) route() Question {
	o := in.o
	names := make([]string, len(o.Service.Spec.Ports))
	for i, p := range o.Service.Spec.Ports {
		names[i] = p.Name
	}
	if o.Answers.Listen == nil {
		return Question{Kind: AskPorts, Front: in.front.Service.Name, Ports: names}
	}
	in.routes = NewRoutes(o.Service, in.v.Settings, in.v.Workload, o.Answers.Listen)
	in.routes.Reach = ReachOf(o.Service, o.Ingresses)
	keepServerFirst(&in.routes, in.front.Routes, o.ServerFirst)
	return Question{}
}

// keepServerFirst marks the ports on which a server is known to speak first, or was when the slices were written. A port
// with a new number starts without the mark.
func keepServerFirst(routes *api.Routes, before api.Routes, learned map[int32]bool) {
	known := map[int32]bool{}
	for _, p := range before.Ports {
		known[p.Listen] = p.ServerFirst
	}
	for i := range routes.Ports {
		p := &routes.Ports[i]
		p.ServerFirst = p.Protocol == api.ProtocolAuto && (known[p.Listen] || learned[p.Listen])
	}
}

// publish finds out which interceptors answer on the routes' ports. Those that are published already are not dialed again:
// whether they are ready is for their own readiness probe to say.
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
	var unknown []string
	for _, i := range in.ready {
		for _, p := range in.routes.Ports {
			if a := address(i.Address, p.Listen); !known[a] {
				unknown = append(unknown, a)
			}
		}
	}
	if len(unknown) > 0 && in.o.Answers.Dialed == nil {
		return Question{Kind: AskDials, Addresses: unknown}
	}
	in.published = Publish(in.routes, in.ready, before, func(i Interceptor, p api.Port) bool {
		a := address(i.Address, p.Listen)
		return known[a] || in.o.Answers.Dialed[a]
	})
	in.missing = MissingFamily(in.published.Interceptors, in.front.Service.Spec.IPFamilies)
	return Question{}
}

func address(host string, port int32) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }

// lacks says why the interceptors do not take the Front's traffic; empty if they can. To redirect it would take away the
// pods of a missing IP family; once it is redirected, the others go on.
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
	return fmt.Sprintf("no interceptor answers scale-to-zero's controller on %s over %s yet; does a NetworkPolicy forbid it?",
		listensText(in.routes), in.missing)
}

// listen has interceptors listen that are not all that the Front needs yet. Until all of its clients can be served by them,
// they are not published, except to those of an alias.
func (in *injection) listen(lacks string, longest time.Duration) (done bool) {
	in.Phase = PhaseListening
	if in.front.failsOpen() {
		in.Phase, in.Soon = PhaseFailedOpen, true // until one listens, the pods are better than nobody
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

// prove is what the interceptors found out about their way to the pods. An app that is asleep leaves nothing to prove it
// with: that is done when its first pods are ready.
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

// mark keeps in the slices whether the way is proven.
func (in *injection) mark(proof Proof) {
	switch {
	case proof.Nothing:
		in.front.Unproven = UnprovenYet
	case proof.Lacks == "":
		in.front.Unproven = ""
	}
}

// first publishes the interceptors for the first time, from which moment on they get a part of the traffic, and asks for
// the rest of it.
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
	if in.o.Install.KEDA && len(in.o.Answers.Target.ScaledObjects) == 0 {
		replicas := max(1, in.v.Workload.Replicas)
		in.Try = ScaledObject(in.v.Workload, NewScaling([]Settings{in.v.Settings}, replicas), replicas, in.o.Install.ScalerAddress)
	}
	return in.steady()
}

// latest notes a proof, and returns what stands against taking the Service over.
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

// steady is a Front whose interceptors are published, or about to be.
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
			in.after(slowRetry) // no watch reports when it can be proven
		}
	}
	in.applySlices()
	if in.taken && in.missing != "" {
		in.warnOfFamily()
		return true, Question{}
	}
	if len(in.published.Interceptors) < len(in.ready) {
		in.After = slowRetry // no watch reports that one which is ready listens at last
	}
	if !in.taken {
		return false, in.redirect()
	}
	if in.front.Unproven == "" {
		in.Memory.Waits = "" // it has all that it needs
	}
	in.warnOfFront(&in.Outcome)
	return true, in.warn(&in.Outcome)
}

// blocked restores an app that was injected asleep and whose pods turn out to be out of the interceptors' reach: a visitor
// would wait in vain, and was served before. The route slices keep the reason, for the next plan to judge by.
func (in *injection) blocked(why Skip) {
	if in.waited(string(why), in.o.Now) < blockedFor {
		in.applySlices()
		in.After = blockedLook
		return
	}
	in.front.Unproven = string(why)
	in.applySlices()
}

// applySlices writes the route slices as they should be.
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
		if progress, ok := have.Annotations[api.ProgressAnnotation]; ok { // which is the workload's to write
			want.Annotations[api.ProgressAnnotation] = progress
		}
		if !equality.Semantic.DeepEqual(have.Annotations, want.Annotations) || !equality.Semantic.DeepEqual(have.Labels, want.Labels) ||
			!equality.Semantic.DeepEqual(have.Ports, want.Ports) || !equality.Semantic.DeepEqual(have.Endpoints, want.Endpoints) {
			want.ResourceVersion = have.ResourceVersion
			in.apply(want)
		}
	}
}

// await looks again, soon at first and ever more rarely up to longest. What is lacking for longer than it takes everything
// to come up is reported.
func (in *injection) await(lacks string, longest time.Duration) {
	waited := in.waited(lacks, in.o.Now)
	if waited < reportAfter {
		in.Soon = true
		return
	}
	in.once(corev1.EventTypeWarning, ReasonSkipped, "Not injected: "+lacks)
	in.After, in.Spread = min(max(waited/2, slowRetry), longest), true
}

// podsListed says what is missing until Kubernetes lists the workload's pods behind the direct Service, so that the
// interceptors know them before the first request comes.
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
