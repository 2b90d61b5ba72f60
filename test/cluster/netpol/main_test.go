// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
)

// As a node, this program enforces policies until its input ends. As a pod it listens, or connects to the address.
const (
	asNode    = "NETPOL_TEST_NODE"
	asServer  = "NETPOL_TEST_LISTEN"
	podPrefix = "198.18.64."
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asNode) != "":
		ctx, stop := context.WithCancel(context.Background())
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop()
		}()
		if err := enforce(ctx, fake.NewClientset(objects()...), "node"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case os.Getenv(asServer) != "":
		serve()
	default:
		os.Exit(m.Run())
	}
}

// pods are those of the test, by their last address byte.
func pods() map[int]*corev1.Pod {
	out := map[int]*corev1.Pod{}
	for n, p := range map[int]struct{ namespace, app string }{
		2: {"a", "web"}, 3: {"a", "friend"}, 4: {"a", "stranger"}, 5: {"b", "friend"},
	} {
		out[n] = &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: fmt.Sprint(p.app, n), Labels: map[string]string{"app": p.app}},
			Spec:       corev1.PodSpec{NodeName: "node"},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: fmt.Sprint(podPrefix, n)}}},
		}
	}
	return out
}

// objects let only friends of namespace a, and address 6, in to the app.
func objects() []runtime.Object {
	out := []runtime.Object{&networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "web"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
				{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "friend"}}},
				{IPBlock: &networkingv1.IPBlock{CIDR: podPrefix + "6/32"}},
			}}},
		},
	}}
	for _, namespace := range []string{"a", "b"} {
		out = append(out, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	}
	for _, p := range pods() {
		out = append(out, p)
	}
	return out
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// in returns a command of this program in a network namespace.
func in(ctx context.Context, namespace string, env ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", namespace, os.Args[0])
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	return cmd
}

// node makes a node with a bridge and a network namespace for each address, as CNI does.
func node(t *testing.T, last int) (name func(n int) string) {
	t.Helper()
	name = func(n int) string { return fmt.Sprintf("netpol-%d-%d", os.Getpid(), n) }
	for n := 1; n <= last; n++ {
		ip(t, "netns add "+name(n))
		t.Cleanup(func() { ip(t, "netns delete "+name(n)) })
	}
	router := "-n " + name(1) + " "
	ip(t, router+"link add cni0 type bridge")
	ip(t, router+"addr add "+podPrefix+"1/24 dev cni0")
	ip(t, router+"link set cni0 up")
	ip(t, router+"link set lo up")
	for n := 2; n <= last; n++ {
		ip(t, fmt.Sprintf("%slink add v%d type veth peer name eth0 netns %s", router, n, name(n)))
		ip(t, fmt.Sprintf("%slink set v%d master cni0 up", router, n))
		ip(t, fmt.Sprintf("-n %s addr add %s%d/24 dev eth0", name(n), podPrefix, n))
		ip(t, "-n "+name(n)+" link set eth0 up")
	}
	calls := exec.Command("ip", "netns", "exec", name(1), "sysctl", "-w", "net.bridge.bridge-nf-call-iptables=1")
	if out, err := calls.CombinedOutput(); err != nil {
		t.Skipf("bridges do not pass packets to iptables: %s", out)
	}
	return name
}

// TestEnforced connects from pods and from outside, with and without the enforcer.
func TestEnforced(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	name := node(t, 7)
	server := in(t.Context(), name(2), asServer+"="+podPrefix+"2:8080")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	reaches := func(n int) bool {
		return in(t.Context(), name(n), asServer+"=connect "+podPrefix+"2:8080").Run() == nil
	}
	for deadline := time.Now().Add(30 * time.Second); !reaches(3); {
		if time.Now().After(deadline) {
			t.Fatal("nobody reaches the app")
		}
	}
	if !reaches(4) {
		t.Fatal("a stranger does not reach the app before policies are enforced")
	}
	enforcer := in(t.Context(), name(1), asNode+"=1")
	input, err := enforcer.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := enforcer.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); reaches(4); {
		if time.Now().After(deadline) {
			t.Fatal("a stranger still reaches the app")
		}
	}
	for n, want := range map[int]bool{3: true, 4: false, 5: false, 6: true, 7: false} {
		if got := reaches(n); got != want {
			t.Errorf("address %d reaches the app: %t, want %t", n, got, want)
		}
	}
	_ = input.Close()
	if err := enforcer.Wait(); err != nil {
		t.Errorf("the enforcer ended with %v", err)
	}
	if !reaches(4) {
		t.Error("rules are left behind")
	}
}
