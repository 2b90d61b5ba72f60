// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// redirection is that of app web in namespace a1, whose pods listen on 8080, to the interceptors' port 10000.
func redirection() Redirection {
	us := interceptorPod()
	return Redirection{
		App: Destination{Pods: webPods("a1"), NamespaceLabels: namespaceLabels("a1"), Addresses: []string{"10.1.0.9"}},
		Interceptors: Destination{
			Pods: Pods{Namespace: us.namespace, Labels: us.labels}, NamespaceLabels: namespaceLabels(us.namespace), Addresses: []string{us.address},
		},
		Ports: []RedirectedPort{{8080, 10000}},
	}
}

// egressOf is a policy about egress of pods with these labels.
func egressOf(namespace, name string, of map[string]string, rules ...networkingv1.NetworkPolicyEgressRule) networkingv1.NetworkPolicy {
	p := networkingv1.NetworkPolicy{}
	p.Namespace, p.Name, p.Spec.PodSelector.MatchLabels = namespace, name, of
	p.Spec.PolicyTypes, p.Spec.Egress = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, rules
	return p
}

// toward is a rule about these ports; 0 is all.
func toward(port int32, peers ...networkingv1.NetworkPolicyPeer) networkingv1.NetworkPolicyEgressRule {
	r := networkingv1.NetworkPolicyEgressRule{To: peers}
	if port > 0 {
		r.Ports = []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromInt32(port))}}
	}
	return r
}

func podsLike(labels map[string]string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: labels}}
}

func podsOf(namespace string, labels map[string]string) networkingv1.NetworkPolicyPeer {
	peer := podsLike(labels)
	peer.NamespaceSelector = inNamespace(namespace)
	return peer
}

func block(cidr string, except ...string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr, Except: except}}
}

// TestCutOff is the truth table of which policies cut clients off.
func TestCutOff(t *testing.T) {
	t.Parallel()
	type policies = []networkingv1.NetworkPolicy
	web, client, every := map[string]string{"app": "web"}, map[string]string{"app": "client"}, map[string]string(nil)
	us := podsOf("scale-to-zero", map[string]string{"app": "interceptor"})
	everybody := networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{}}
	ingress := egressOf("a1", "p", every, toward(0, podsLike(web)))
	ingress.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	toWeb, allToWeb := egressOf("b1", "p", client, toward(0, podsOf("a1", web))), egressOf("b1", "p", every, toward(0, podsOf("a1", web)))
	q := func(namespace string, of map[string]string) networkingv1.NetworkPolicy {
		return egressOf(namespace, "q", of, toward(0, us))
	}
	toNamespace := egressOf("b1", "p", every, toward(0, podsOf("a1", every)))
	blocks := func(peers ...networkingv1.NetworkPolicyPeer) policies {
		return policies{egressOf("b1", "p", every, toward(0, peers...))}
	}
	asleep := func(r *Redirection) { r.App.Addresses = nil }
	unready := func(r *Redirection) { r.Interceptors.Addresses = nil }
	second := func(r *Redirection) { r.Interceptors.Addresses = append(r.Interceptors.Addresses, "10.9.0.2") }
	outside := func(r *Redirection) { r.Outside = true }
	named := egressOf("b1", "p", client, networkingv1.NetworkPolicyEgressRule{
		To: []networkingv1.NetworkPolicyPeer{podsOf("a1", web)}, Ports: []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromString("http"))}},
	})
	for name, tc := range map[string]struct {
		policies policies
		change   func(*Redirection)
		want     string
	}{
		"none":                           {},
		"of ingress":                     {policies: policies{ingress}},
		"all are denied":                 {policies: policies{egressOf("a1", "p", every)}},
		"all are allowed":                {policies: policies{egressOf("a1", "p", every, toward(0))}},
		"all on the app's port":          {policies: policies{egressOf("a1", "p", every, toward(8080))}, want: "a1/p"},
		"the app":                        {policies: policies{toWeb}, want: "b1/p"},
		"the app, by its port":           {policies: policies{egressOf("b1", "p", client, toward(8080, podsOf("a1", web)))}, want: "b1/p"},
		"the app, by its port's name":    {policies: policies{named}, want: "b1/p"},
		"the app's namespace":            {policies: policies{toNamespace}, want: "b1/p"},
		"its own namespace":              {policies: policies{egressOf("a1", "p", every, toward(0, podsLike(every)))}, want: "a1/p"},
		"the own namespace of others":    {policies: policies{egressOf("b1", "p", every, toward(0, podsLike(every)))}},
		"all namespaces":                 {policies: policies{egressOf("b1", "p", every, toward(0, everybody))}},
		"another app":                    {policies: policies{egressOf("b1", "p", every, toward(0, podsOf("a1", client)))}},
		"another port":                   {policies: policies{egressOf("b1", "p", every, toward(9000, podsOf("a1", web)))}},
		"both":                           {policies: policies{egressOf("b1", "p", client, toward(0, podsOf("a1", web), us))}},
		"both, each on its port":         {policies: policies{egressOf("b1", "p", client, toward(8080, podsOf("a1", web)), toward(10000, us))}},
		"both on the app's port":         {policies: policies{egressOf("b1", "p", client, toward(8080, podsOf("a1", web), us))}, want: "b1/p"},
		"the interceptors by another":    {policies: policies{toWeb, q("b1", every)}},
		"by another for the same":        {policies: policies{toWeb, q("b1", client)}},
		"by another for other pods":      {policies: policies{toWeb, q("b1", web)}, want: "b1/p"},
		"by another for some of them":    {policies: policies{allToWeb, q("b1", client)}, want: "b1/p"},
		"by another in another place":    {policies: policies{allToWeb, q("b2", every)}, want: "b1/p"},
		"an address of the app":          {policies: blocks(block("10.1.0.0/16")), want: "b1/p"},
		"addresses of both":              {policies: blocks(block("10.0.0.0/8"))},
		"addresses but ours":             {policies: blocks(block("10.0.0.0/8", "10.9.0.0/16")), want: "b1/p"},
		"addresses but the app's":        {policies: blocks(block("10.0.0.0/8", "10.1.0.0/16"))},
		"addresses of nobody":            {policies: blocks(block("192.0.2.0/24"), block("x"))},
		"an address of the app's asleep": {policies: blocks(block("10.1.0.0/16")), change: asleep},
		"of one interceptor":             {policies: blocks(podsOf("a1", web), block("10.9.0.1/32")), change: second, want: "b1/p"},
		"while no interceptor is ready":  {policies: policies{toWeb}, change: unready},
		"of our own":                     {policies: policies{egressOf("scale-to-zero", "p", every, toward(0, podsOf("a1", web)))}},
		"by an Ingress, its own":         {policies: policies{egressOf("a1", "p", every, toward(0, podsLike(every)))}, change: outside},
		"by an Ingress, another's":       {policies: policies{toNamespace}, change: outside, want: "b1/p"},
		"on the host network": {policies: policies{toNamespace}, change: func(r *Redirection) {
			r.App.Template = &corev1.PodTemplateSpec{Spec: corev1.PodSpec{HostNetwork: true}}
		}},
		"a second port": {policies: policies{egressOf("b1", "p", every, toward(9000, podsOf("a1", web)))}, change: func(r *Redirection) {
			r.Ports = append(r.Ports, RedirectedPort{9000, 10001})
		}, want: "b1/p"},
		"several": {policies: policies{
			egressOf("b2", "q", every, toward(0, podsOf("a1", web))), allToWeb, egressOf("b1", "o", every),
		}, want: "b1/p b2/q"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := redirection()
			if tc.change != nil {
				tc.change(&r)
			}
			if got := strings.Join(r.CutOff(tc.policies), " "); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// mayCall evaluates policies as the API describes them: whether a pod may connect to another one.
func mayCall(policies []networkingv1.NetworkPolicy, from, to peer, named map[string]int32, port int32) bool {
	isolated := false
	for _, p := range policies {
		if p.Namespace != from.namespace || !picksPod(&p.Spec.PodSelector, from.labels) ||
			!slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) {
			continue
		}
		isolated = true
		for _, rule := range p.Spec.Egress {
			if admitsPort(rule.Ports, named, port) && admitsPeer(rule.To, p.Namespace, to) {
				return true
			}
		}
	}
	return !isolated
}

// TestNobodyIsCutOffUnseen: if no policy is said to cut clients off, whoever may connect to the pods may connect to the interceptors.
func TestNobodyIsCutOffUnseen(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3000) {
		r := policyMaker{rand.New(rand.NewPCG(seed, 2))}
		var policies []networkingv1.NetworkPolicy
		for range r.IntN(4) {
			p := r.policy(r.one("a1", "a2", "b1"))
			p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
			for _, rule := range p.Spec.Ingress {
				if r.IntN(3) == 0 {
					rule.From = append(rule.From, podsOf("scale-to-zero", map[string]string{"app": "interceptor"}))
				}
				if r.IntN(3) == 0 {
					rule.Ports = append(rule.Ports, networkingv1.NetworkPolicyPort{Port: new(intstr.FromInt32(10000))})
				}
				p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: rule.From, Ports: rule.Ports})
			}
			p.Spec.Ingress = nil
			policies = append(policies, p)
		}
		web := peer{"a1", map[string]string{"app": "web"}, netip.MustParseAddr("10.1.0.9").String()}
		if len(redirection().CutOff(policies)) > 0 {
			continue
		}
		for _, namespace := range []string{"a1", "a2", "b1"} {
			for _, labels := range []map[string]string{nil, {"app": "web"}, {"app": "db", "role": "friend"}, {"role": "db"}} {
				from := peer{namespace, labels, "10.2.0.1"}
				if mayCall(policies, from, web, map[string]int32{"http": 8080, "admin": 9000}, 8080) &&
					!mayCall(policies, from, interceptorPod(), nil, 10000) {
					t.Fatalf("seed %d: pods %v of %s are cut off by %+v", seed, labels, namespace, policies)
				}
			}
		}
	}
}

// TestCutOffText says which policies it is and what to do, without end.
func TestCutOffText(t *testing.T) {
	t.Parallel()
	var many []string
	for n := range 5 {
		many = append(many, fmt.Sprintf("b%d/p", n))
	}
	for want, policies := range map[string][]string{
		"": nil,
		"NetworkPolicy b0/p lets pods connect to this app's pods, and not to the interceptors of scale-to-zero, so these pods cannot call it " +
			"through them. Allow egress to US there": many[:1],
		"NetworkPolicies b0/p, b1/p let pods connect to this app's pods, and not to the interceptors of scale-to-zero, so these pods cannot " +
			"call it through them. Allow egress to US in each": many[:2],
		"NetworkPolicies b0/p, b1/p, b2/p and 2 more let pods connect to this app's pods, and not to the interceptors of scale-to-zero, so " +
			"these pods cannot call it through them. Allow egress to US in each": many,
	} {
		if got := string(CutOffText(policies, "US")); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// TestCutOffComesFirst: an app is not redirected while clients would be cut off, and says which; one that is redirected stays so, and
// says it once.
func TestCutOffComesFirst(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*world){"a Service": func(*world) {}, "an Ingress": byIngress, "asleep": asleep} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, change, func(w *world) { w.follows, w.cutOff = true, "NetworkPolicy b1/p lets pods connect" })
			for range 10 {
				if p := w.reconcile(); p.Phase != PhaseListening || !p.Soon && p.After == 0 {
					t.Fatalf("it does not look again: %s", describe(p))
				}
				w.kubernetes()
				w.now = w.now.Add(2 * reportAfter)
			}
			if len(w.slices) > 0 {
				t.Fatalf("interceptors listen on %s", w.listens())
			}
			if got := strings.Join(w.events, "\n"); got != "InjectionSkipped: Not injected: NetworkPolicy b1/p lets pods connect" {
				t.Errorf("events: %s", got)
			}
			w.cutOff = ""
			w.run()
			if !w.listening(name == "an Ingress") {
				t.Fatalf("not injected: %v", w.events)
			}
			w.events, w.cutOff = nil, "NetworkPolicy b2/q lets pods connect"
			w.run()
			w.reconcile()
			if !w.listening(name == "an Ingress") {
				t.Error("it is not redirected any more")
			}
			const want = "NetworkPolicyNotFollowed: This Service stays redirected, but NetworkPolicy b2/q lets pods connect"
			if got := strings.Join(w.events, "\n"); got != want {
				t.Errorf("events: %s", got)
			}
			w.cutOff = ""
			w.run()
			w.events, w.cutOff = nil, "NetworkPolicy b2/q lets pods connect"
			w.reconcile()
			if len(w.events) != 1 {
				t.Errorf("it is not told again after it was over: %v", w.events)
			}
		})
	}
}
