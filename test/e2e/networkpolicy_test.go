// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// guarded is a stack of apps, one for each policy, and the pods that call them.
type guarded struct {
	stack

	other   string              // another namespace
	callers map[string][]string // by name: namespace and pod
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{stack: stack{t: t, ns: newNamespace(t)}, other: newNamespace(t)}
	g.callers = map[string][]string{"friend": {g.ns, "friend"}, "stranger": {g.ns, "stranger"}, "visitor": {g.other, "friend"}}
	for _, at := range g.callers {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: at[0], Name: at[1], Labels: map[string]string{"role": at[1]}},
			Spec: corev1.PodSpec{
				Containers:                    []corev1.Container{{Name: "client", Image: os.Getenv("E2E_APP_IMAGE"), Args: []string{"sleep"}}},
				TerminationGracePeriodSeconds: new(int64(1)),
			},
		}
		if err := kube.Create(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range g.callers {
		kubectl(t, "wait", "-n", at[0], "--for=condition=Ready", "pod/"+at[1], "--timeout=60s")
	}
	return g
}

// policies are the rules of each app besides the one for the interceptors; nil is an app without a policy.
func (g *guarded) policies() map[string]*networkingv1.NetworkPolicyIngressRule {
	friend := &corev1.Pod{}
	if err := kube.Get(g.t.Context(), client.ObjectKey{Namespace: g.ns, Name: "friend"}, friend); err != nil {
		g.t.Fatal(err)
	}
	from := func(p networkingv1.NetworkPolicyPeer) *networkingv1.NetworkPolicyIngressRule {
		return &networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{p}}
	}
	friends := &metav1.LabelSelector{MatchLabels: map[string]string{"role": "friend"}}
	nobody := &metav1.LabelSelector{MatchLabels: map[string]string{"role": "nobody"}}
	other := &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: g.other}}
	named := func(port string) *networkingv1.NetworkPolicyIngressRule {
		return &networkingv1.NetworkPolicyIngressRule{Ports: []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromString(port))}}}
	}
	numbered := from(networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}})
	numbered.Ports = []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromInt32(8000)), EndPort: new(int32(9000))}}
	return map[string]*networkingv1.NetworkPolicyIngressRule{
		"open":      nil,
		"closed":    from(networkingv1.NetworkPolicyPeer{PodSelector: nobody}),
		"pods":      from(networkingv1.NetworkPolicyPeer{PodSelector: friends}),
		"namespace": from(networkingv1.NetworkPolicyPeer{NamespaceSelector: other}),
		"both":      from(networkingv1.NetworkPolicyPeer{NamespaceSelector: other, PodSelector: friends}),
		"address":   from(networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: friend.Status.PodIP + "/32"}}),
		"but-one": from(networkingv1.NetworkPolicyPeer{
			IPBlock: &networkingv1.IPBlock{CIDR: "0.0.0.0/0", Except: []string{friend.Status.PodIP + "/32"}},
		}),
		"unnamed": named("elsewhere"),
		"range":   numbered,
	}
}

// guard adds the policy of an app, which lets the interceptors in too.
func (g *guarded) guard(app string, rule networkingv1.NetworkPolicyIngressRule) {
	us := networkingv1.NetworkPolicyPeer{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: release}},
		PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/component": "interceptor"}},
	}
	policy := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: g.ns, Name: app},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{us}}, rule},
		},
	}
	if err := kube.Create(g.t.Context(), policy); err != nil {
		g.t.Fatal(err)
	}
}

// calls returns who reaches an app.
func (g *guarded) calls(app string) string {
	var who []string
	for _, name := range slices.Sorted(maps.Keys(g.callers)) {
		at := g.callers[name]
		out, err := command(g.t.Context(), os.Getenv("KUBECTL"), "exec", "-n", at[0], at[1], "--", "/app", "get", "-timeout", "8s",
			"http://"+app+"."+g.ns+"/echo")
		if err == nil && strings.Contains(out, `"status":200`) {
			who = append(who, name)
		}
	}
	return strings.Join(who, " ")
}

// matrix returns who reaches each app, all apps at a time.
func (g *guarded) matrix(apps []string) map[string]string {
	var mu sync.Mutex
	out := map[string]string{}
	var all sync.WaitGroup
	for _, app := range apps {
		all.Go(func() {
			who := g.calls(app)
			mu.Lock()
			defer mu.Unlock()
			out[app] = who
		})
	}
	all.Wait()
	return out
}

// TestNetworkPolicies: who may call an app, and who may not, is the same without scale-to-zero, awake, asleep and without interceptors.
// The cluster has to enforce policies: `go run -C test/cluster . network-policies`.
func TestNetworkPolicies(t *testing.T) {
	if os.Getenv("E2E_NETWORK_POLICIES") == "" {
		t.Skip("E2E_NETWORK_POLICIES is not set: the cluster does not enforce NetworkPolicies")
	}
	g := newGuarded(t)
	policies := g.policies()
	apps := slices.Sorted(maps.Keys(policies))
	for _, app := range apps {
		g.app(app, 8080, nil)
		kubectl(t, "label", "service", "-n", g.ns, app, "scale-to-zero=false", "--overwrite")
		if rule := policies[app]; rule != nil {
			g.guard(app, *rule)
		}
	}
	kubectl(t, "wait", "-n", g.ns, "--for=condition=Available", "deployment", "--all", "--timeout=2m")
	want := map[string]string{
		"open": "friend stranger visitor", "closed": "", "pods": "friend", "namespace": "visitor", "both": "visitor", "address": "friend",
		"but-one": "stranger visitor", "unnamed": "", "range": "friend stranger",
	}
	same := func(when string) {
		t.Helper()
		if got := g.matrix(apps); !maps.Equal(got, want) {
			t.Errorf("%s: %v\nwant %v", when, got, want)
		}
	}
	same("without scale-to-zero")
	for _, app := range apps {
		kubectl(t, "annotate", "service", "-n", g.ns, app, "scale-to-zero/cooldown=10m", "--overwrite")
		kubectl(t, "label", "service", "-n", g.ns, app, "scale-to-zero=true", "--overwrite")
	}
	for _, app := range apps {
		g.redirected(app)
	}
	same("awake")
	without(t, release, release+"-interceptor", func() { same("without interceptors") })
	for _, app := range apps {
		kubectl(t, "annotate", "service", "-n", g.ns, app, "scale-to-zero/cooldown=3s", "--overwrite")
	}
	g.asleep()
	same("asleep")
	for app, n := range g.replicas() {
		if want[app] == "" {
			t.Errorf("somebody who may not call it has woken %s: %d replicas", app, n)
		}
	}
	kubectl(t, "delete", "networkpolicies", "-n", g.ns, "--all")
	eventually(t, "the interceptors' ports are open again", func() error {
		if left := kubectl(t, "get", "networkpolicies", "-n", release, "-o", "name"); strings.Contains(left, "interceptor-routes") {
			return errors.New(left)
		}
		return nil
	})
}
