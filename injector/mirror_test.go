// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func testMirror() Mirror {
	return Mirror{
		Namespace: "scale-to-zero", Name: "interceptor-routes", Low: 10000, High: 29999,
		Interceptors: map[string]string{"app": "interceptor"}, Controllers: map[string]string{"app": "controller"},
	}
}

func interceptorPod() peer {
	return peer{"scale-to-zero", map[string]string{"app": "interceptor"}, "10.9.0.1"}
}

func webPods(namespace string) Pods {
	return Pods{Namespace: namespace, Labels: map[string]string{"app": "web"}, Template: &corev1.PodTemplateSpec{
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{
			{Name: "http", ContainerPort: 8080},
			{Name: "admin", ContainerPort: 9000, Protocol: corev1.ProtocolTCP},
			{Name: "unknown", ContainerPort: 8080, Protocol: corev1.ProtocolUDP},
		}}}},
	}}
}

func policyFor(rules ...networkingv1.NetworkPolicyIngressRule) networkingv1.NetworkPolicy {
	p := networkingv1.NetworkPolicy{}
	p.Namespace, p.Name = "a1", "p"
	p.Spec.PodSelector.MatchLabels = map[string]string{"app": "web"}
	p.Spec.PolicyTypes, p.Spec.Ingress = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, rules
	return p
}

// TestCallers is the truth table of what an app's policies say of its interceptor port.
func TestCallers(t *testing.T) {
	t.Parallel()
	friend := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": "friend"}}}
	team := networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "b"}}}
	office := networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "192.0.2.0/24", Except: []string{"192.0.2.9/32"}}}
	from := func(peers ...networkingv1.NetworkPolicyPeer) networkingv1.NetworkPolicyIngressRule {
		return networkingv1.NetworkPolicyIngressRule{From: peers}
	}
	on := func(rule networkingv1.NetworkPolicyIngressRule, ports ...any) networkingv1.NetworkPolicyIngressRule {
		for _, p := range ports {
			one := networkingv1.NetworkPolicyPort{Protocol: new(corev1.ProtocolTCP)}
			switch p := p.(type) {
			case int:
				one.Port = new(intstr.FromInt32(int32(p)))
			case string:
				one.Port = new(intstr.FromString(p))
			case [2]int32:
				one.Port, one.EndPort = new(intstr.FromInt32(p[0])), new(p[1])
			case corev1.Protocol:
				one.Protocol = new(p)
			}
			rule.Ports = append(rule.Ports, one)
		}
		return rule
	}
	other, egress, elsewhere := policyFor(), policyFor(), policyFor()
	other.Spec.PodSelector.MatchLabels = map[string]string{"app": "db"}
	egress.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	elsewhere.Namespace = "b1"
	const friendText = `{"podSelector":{"matchLabels":{"role":"friend"}},` +
		`"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"a1"}}}`
	const teamText = `{"namespaceSelector":{"matchLabels":{"team":"b"}}}`
	const officeText = `{"ipBlock":{"cidr":"192.0.2.0/24","except":["192.0.2.9/32"]}}`
	for name, tc := range map[string]struct {
		policies []networkingv1.NetworkPolicy
		want     string
	}{
		"no policy":                {nil, "everybody"},
		"of other pods":            {[]networkingv1.NetworkPolicy{other}, "everybody"},
		"of egress":                {[]networkingv1.NetworkPolicy{egress}, "everybody"},
		"of another namespace":     {[]networkingv1.NetworkPolicy{elsewhere}, "everybody"},
		"without rules":            {[]networkingv1.NetworkPolicy{policyFor()}, "nobody"},
		"an empty rule":            {[]networkingv1.NetworkPolicy{policyFor(from())}, "everybody"},
		"pods of the namespace":    {[]networkingv1.NetworkPolicy{policyFor(from(friend))}, friendText},
		"namespaces":               {[]networkingv1.NetworkPolicy{policyFor(from(team))}, teamText},
		"addresses":                {[]networkingv1.NetworkPolicy{policyFor(from(office))}, officeText},
		"a union over rules":       {[]networkingv1.NetworkPolicy{policyFor(from(friend), from(team))}, teamText + "," + friendText},
		"a union over policies":    {[]networkingv1.NetworkPolicy{policyFor(from(friend)), policyFor(from(team))}, teamText + "," + friendText},
		"nobody and somebody":      {[]networkingv1.NetworkPolicy{policyFor(), policyFor(from(friend))}, friendText},
		"everybody and somebody":   {[]networkingv1.NetworkPolicy{policyFor(from(friend)), policyFor(from())}, "everybody"},
		"the same twice":           {[]networkingv1.NetworkPolicy{policyFor(from(friend, friend))}, friendText},
		"the port's number":        {[]networkingv1.NetworkPolicy{policyFor(on(from(friend), 8080))}, friendText},
		"the Service's number":     {[]networkingv1.NetworkPolicy{policyFor(on(from(friend), 80))}, "nobody"},
		"the port's name":          {[]networkingv1.NetworkPolicy{policyFor(on(from(friend), "http"))}, friendText},
		"another port's name":      {[]networkingv1.NetworkPolicy{policyFor(on(from(friend), "admin"))}, "nobody"},
		"a name of another kind":   {[]networkingv1.NetworkPolicy{policyFor(on(from(friend), "unknown"))}, "nobody"},
		"a range with the port":    {[]networkingv1.NetworkPolicy{policyFor(on(from(friend), [2]int32{8000, 8080}))}, friendText},
		"a range without the port": {[]networkingv1.NetworkPolicy{policyFor(on(from(friend), [2]int32{8081, 9000}))}, "nobody"},
		"all TCP ports":            {[]networkingv1.NetworkPolicy{policyFor(on(from(friend), corev1.ProtocolTCP))}, friendText},
		"all UDP ports":            {[]networkingv1.NetworkPolicy{policyFor(on(from(friend), corev1.ProtocolUDP))}, "nobody"},
		"everybody on the port":    {[]networkingv1.NetworkPolicy{policyFor(on(from(), 8080))}, "everybody"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for target, port := range map[string]corev1.ServicePort{
				"number": {Port: 80, TargetPort: intstr.FromInt32(8080)}, "name": {Port: 80, TargetPort: intstr.FromString("http")},
				"none": {Port: 8080},
			} {
				c := webPods("a1").Callers(tc.policies, port)
				got := c.key
				switch {
				case !c.Bound:
					got = "everybody"
				case len(c.Peers) == 0:
					got = "nobody"
				}
				if got != tc.want {
					t.Errorf("target port by %s: %s, want %s", target, got, tc.want)
				}
			}
		})
	}
	host := webPods("a1")
	host.Template.Spec.HostNetwork = true
	if c := host.Callers([]networkingv1.NetworkPolicy{policyFor()}, corev1.ServicePort{Port: 8080}); c.Bound {
		t.Error("policies do not apply to pods in the host's network")
	}
	unnamed := webPods("a1").Callers([]networkingv1.NetworkPolicy{policyFor(on(from(friend), 8080))},
		corev1.ServicePort{Port: 80, TargetPort: intstr.FromString("gone")})
	if !unnamed.Bound || len(unnamed.Peers) > 0 {
		t.Errorf("a port that no container has: %+v", unnamed)
	}
}

// mirrored is an app of a random cluster.
type mirrored struct {
	pods   Pods
	port   corev1.ServicePort
	number int32 // the pods' port
	listen int32
}

func randomApps(r policyMaker) []mirrored {
	var out []mirrored
	for i, namespace := range []string{"a1", "a2", "b1"} {
		for k, port := range []corev1.ServicePort{
			{Port: 80, TargetPort: intstr.FromString("http")}, {Port: 9000}, {Port: 90, TargetPort: intstr.FromInt32(8081)},
		} {
			// Some ports are neighbours, so that ranges grow together.
			listen := int32(10000 + 10*r.IntN(3)*i + 3*i + k)
			out = append(out, mirrored{webPods(namespace), port, []int32{8080, 9000, 8081}[k], listen})
		}
	}
	return out
}

func (m mirrored) under(policies []networkingv1.NetworkPolicy) MirroredPort {
	return MirroredPort{Namespace: m.pods.Namespace, Listen: m.listen, Callers: m.pods.Callers(policies, m.port)}
}

// TestMirrorSaysTheSame compares what policies say of an app's pods with what the mirror says of the interceptors' ports, for many
// policies and every kind of client.
func TestMirrorSaysTheSame(t *testing.T) {
	t.Parallel()
	m := testMirror()
	named := map[string]int32{"http": 8080, "admin": 9000}
	denied := 0
	for seed := range uint64(200) {
		r := policyMaker{rand.New(rand.NewPCG(seed, 1))}
		var policies []networkingv1.NetworkPolicy
		for _, namespace := range []string{"a1", "a2", "b1"} {
			for range r.IntN(4) {
				policies = append(policies, r.policy(namespace))
			}
		}
		apps := randomApps(r)
		var ports []MirroredPort
		for _, a := range apps {
			ports = append(ports, a.under(policies))
		}
		mirror, refused := m.Policies(ports)
		if len(refused) > 0 {
			t.Fatal("a small rule is refused")
		}
		for _, a := range apps {
			for _, from := range sources() {
				pod := peer{a.pods.Namespace, a.pods.Labels, "10.8.0.1"}
				want, got := admits(policies, pod, named, a.number, from), admits(mirror, interceptorPod(), nil, a.listen, from)
				if want != got {
					t.Fatalf("seed %d: %s to %s:%d is %t, and %t by its interceptor port %d", seed, from, a.pods.Namespace, a.number, want, got, a.listen)
				}
				if !want {
					denied++
				}
			}
			if !admits(mirror, interceptorPod(), nil, a.listen, peer{"scale-to-zero", m.Controllers, "10.9.0.2"}) {
				t.Fatalf("seed %d: the controller is locked out of port %d", seed, a.listen)
			}
		}
		for _, own := range []int32{1, 8081, 9090, 9999, 30000, 65535} {
			if !admits(mirror, interceptorPod(), nil, own, peer{address: "203.0.113.1"}) {
				t.Fatalf("seed %d: port %d of the interceptors is closed", seed, own)
			}
		}
	}
	if denied < 1000 {
		t.Errorf("only %d denials: the test says nothing", denied)
	}
}

// TestMirrorSteps: on the way from one set of policies to another, nobody is locked out who may always connect, and nobody gets in who
// never may.
func TestMirrorSteps(t *testing.T) {
	t.Parallel()
	m := testMirror()
	steps := 0
	for seed := range uint64(150) {
		r := policyMaker{rand.New(rand.NewPCG(seed, 2))}
		apps := randomApps(r)
		state := func() []networkingv1.NetworkPolicy {
			var policies []networkingv1.NetworkPolicy
			for _, namespace := range []string{"a1", "a2", "b1"} {
				for range r.IntN(3) {
					policies = append(policies, r.policy(namespace))
				}
			}
			var ports []MirroredPort
			for _, a := range apps {
				if r.IntN(3) > 0 {
					ports = append(ports, a.under(policies))
				}
			}
			out, _ := m.Policies(ports)
			return out
		}
		have, want := state(), state()
		if r.IntN(4) == 0 {
			have = nil
		}
		now := slices.Clone(have)
		for _, step := range m.Steps(have, want) {
			steps++
			now = slices.DeleteFunc(now, func(p networkingv1.NetworkPolicy) bool { return p.Name == step.Policy.Name })
			if !step.Delete {
				now = append(now, step.Policy)
			}
			for _, port := range []int32{8081, 10000, 10001, 10002, 10003, 10004, 10005, 10006, 10007, 10013, 10023} {
				for _, from := range sources() {
					before, after := admits(have, interceptorPod(), nil, port, from), admits(want, interceptorPod(), nil, port, from)
					if got := admits(now, interceptorPod(), nil, port, from); got != before && got != after {
						t.Fatalf("seed %d: %s to port %d is %t while it turns from %t to %t", seed, from, port, got, before, after)
					}
				}
			}
		}
		if len(m.Steps(now, want)) > 0 {
			t.Fatalf("seed %d: the steps do not lead to what is wanted", seed)
		}
	}
	if steps < 200 {
		t.Errorf("only %d steps: the test says nothing", steps)
	}
}

// TestMirrorRepairs: a base policy that somebody has deleted or changed comes back first.
func TestMirrorRepairs(t *testing.T) {
	t.Parallel()
	m := testMirror()
	friend := policyFor(networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}})
	app := mirrored{webPods("a1"), corev1.ServicePort{Port: 8080}, 8080, 10000}
	want, _ := m.Policies([]MirroredPort{app.under([]networkingv1.NetworkPolicy{friend})})
	if len(want) != 2 {
		t.Fatalf("%d policies, want a base and a shard", len(want))
	}
	for name, have := range map[string][]networkingv1.NetworkPolicy{"without base": want[1:], "without shard": want[:1], "nothing": nil} {
		steps := m.Steps(have, want)
		if len(steps) == 0 {
			t.Errorf("%s: no step", name)
		}
		if last := steps[0]; name == "without base" && (last.Policy.Name != m.Name || len(steps) != 1) {
			t.Errorf("%s: %+v", name, steps)
		}
	}
	if last := m.Steps(want, nil); !last[len(last)-1].Delete || last[len(last)-1].Policy.Name != m.Name {
		t.Errorf("the base policy is not the last to go: %+v", last)
	}
}

// TestMirrorOfNothing: where no policy binds an app, and the interceptors' own ports are not restricted, there is no policy.
func TestMirrorOfNothing(t *testing.T) {
	t.Parallel()
	m := testMirror()
	open := []MirroredPort{{Namespace: "a1", Listen: 10000}, {Namespace: "a2", Listen: 10001}}
	if policies, _ := m.Policies(open); len(policies) > 0 {
		t.Errorf("policies without need: %+v", policies)
	}
	m.Own = []networkingv1.NetworkPolicyIngressRule{{
		Ports: []networkingv1.NetworkPolicyPort{portRange(8081, 8081)},
	}, {
		Ports: []networkingv1.NetworkPolicyPort{portRange(9090, 9090)},
		From:  []networkingv1.NetworkPolicyPeer{{NamespaceSelector: inNamespace("keda")}},
	}}
	policies, _ := m.Policies(open)
	outside, keda := peer{address: "203.0.113.1"}, peer{"keda", nil, "10.3.0.1"}
	for port, want := range map[int32][2]bool{
		8081: {true, true}, 9090: {false, true}, 10000: {true, true}, 29999: {true, true}, 9999: {false, false}, 30000: {false, false},
	} {
		got := [2]bool{admits(policies, interceptorPod(), nil, port, outside), admits(policies, interceptorPod(), nil, port, keda)}
		if got != want {
			t.Errorf("port %d from outside and from keda: %v, want %v", port, got, want)
		}
	}
}

// TestMirrorConflict: a port that two routes claim is closed, unless both have the same callers.
func TestMirrorConflict(t *testing.T) {
	t.Parallel()
	m := testMirror()
	all := []networkingv1.NetworkPolicy{policyFor(networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{
		{NamespaceSelector: &metav1.LabelSelector{}},
	}})}
	bound := MirroredPort{Namespace: "a1", Listen: 10000, Callers: webPods("a1").Callers(all, corev1.ServicePort{Port: 8080})}
	open := MirroredPort{Namespace: "a2", Listen: 10000}
	for name, tc := range map[string]struct {
		ports []MirroredPort
		want  bool
	}{
		"once": {[]MirroredPort{bound}, true}, "twice": {[]MirroredPort{bound, bound}, true},
		"bound and open": {[]MirroredPort{bound, open}, false}, "open and bound": {[]MirroredPort{open, bound}, false},
	} {
		policies, _ := m.Policies(tc.ports)
		if got := admits(policies, interceptorPod(), nil, 10000, peer{"a1", nil, "10.0.0.1"}); got != tc.want {
			t.Errorf("%s: %t, want %t", name, got, tc.want)
		}
	}
}

// TestMirrorSize measures the policies of 1,000 apps and more: few objects, each well below what etcd takes.
func TestMirrorSize(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		apps, namespaces, rules int // rules is how many different ones a namespace has
		most                    int // bytes of the largest object
	}{
		"one namespace, one rule":        {1000, 1, 1, 110_000},
		"a namespace each":               {1000, 1000, 1, 60_000},
		"all different":                  {1000, 50, 20, 60_000},
		"5,000 ports":                    {5000, 1000, 1, 300_000},
		"everything in one, 3,000 rules": {3000, 1, 3000, 900_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := testMirror()
			r := rand.New(rand.NewPCG(1, 1))
			listens := r.Perm(20_000)
			var ports []MirroredPort
			for i := range tc.apps {
				namespace := fmt.Sprint("team-", i%tc.namespaces)
				p := policyFor(networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{
					{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint("friend-", i/tc.namespaces%tc.rules)}}},
					{NamespaceSelector: inNamespace("ingress-nginx")},
				}})
				p.Namespace = namespace
				ports = append(ports, MirroredPort{
					Namespace: namespace, Listen: int32(10000 + listens[i]),
					Callers: webPods(namespace).Callers([]networkingv1.NetworkPolicy{p}, corev1.ServicePort{Port: 8080}),
				})
			}
			policies, refused := m.Policies(ports)
			largest, entries := 0, 0
			for _, p := range policies {
				text, err := json.Marshal(p)
				if err != nil {
					t.Fatal(err)
				}
				largest, entries = max(largest, len(text)), entries+len(p.Spec.Ingress)
			}
			t.Logf("%d ports: %d objects, %d rules, the largest of %d bytes", len(ports), len(policies), entries, largest)
			if len(policies) > 1+mirrorShards || largest > tc.most || len(refused) > 0 {
				t.Errorf("%d objects, the largest of %d bytes, %d ports refused", len(policies), largest, len(refused))
			}
			again, _ := m.Policies(reversed(ports))
			if len(m.Steps(policies, again)) > 0 {
				t.Error("the order of the routes changes the policies")
			}
		})
	}
}

func reversed[T any](s []T) []T {
	s = slices.Clone(s)
	slices.Reverse(s)
	return s
}

// TestMirrorTooLarge: whoever writes more rules than fit pays alone for it, and the ports of what is left out are closed.
func TestMirrorTooLarge(t *testing.T) {
	t.Parallel()
	m := testMirror()
	var ports []MirroredPort
	add := func(namespace string, listen int32, size int) {
		p := policyFor(networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{
			{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": strings.Repeat("x", size) + fmt.Sprint(listen)}}},
		}})
		p.Namespace = namespace
		ports = append(ports, MirroredPort{
			Namespace: namespace, Listen: listen,
			Callers: webPods(namespace).Callers([]networkingv1.NetworkPolicy{p}, corev1.ServicePort{Port: 8080}),
		})
	}
	victim := "a1"
	attacker := ""
	for i := range 10_000 {
		if attacker = fmt.Sprint("attacker-", i); shardOf(attacker) == shardOf(victim) {
			break
		}
	}
	add(victim, 10000, 10)
	for i := range int32(50) {
		add(attacker, 10001+i, 30_000)
	}
	policies, refused := m.Policies(ports)
	if len(refused) == 0 || refused[10000] {
		t.Fatalf("refused: %v", refused)
	}
	for _, p := range policies {
		if text, _ := json.Marshal(p); len(text) > 1_000_000 {
			t.Errorf("%s has %d bytes", p.Name, len(text))
		}
	}
	for port := range refused {
		for _, from := range sources() {
			if admits(policies, interceptorPod(), nil, port, from) {
				t.Errorf("%s gets in on the refused port %d", from, port)
			}
		}
	}
}
