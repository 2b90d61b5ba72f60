// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// mirrors makes a cluster follow NetworkPolicies.
func (c *cluster) mirrors() *mirrorReconciler {
	o := &c.services.observer.Options
	o.FollowPolicies = true
	r := newMirror(*o, c, c.services.observer.workloads, c.services.observer.ports)
	c.services.observer.mirror = r
	c.create(&appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: "controller"},
		Spec:       appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "controller"}}},
	})
	return r
}

// round carries out a round of the mirror that was asked for, and reports whether one was.
func (c *cluster) round(r *mirrorReconciler) bool {
	c.t.Helper()
	select {
	case <-r.asked:
	default:
		return false
	}
	if _, err := r.Reconcile(c.t.Context(), r.request()); err != nil {
		c.t.Fatal(err)
	}
	return true
}

// friendly is a policy of namespace apps that lets only friends in to pods with these labels.
func friendly(name string, labels map[string]string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: labels},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
				PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": "friend"}},
			}}}},
		},
	}
}

// mirrored describes the interceptors' policies.
func (c *cluster) mirrored() string {
	c.t.Helper()
	var list networkingv1.NetworkPolicyList
	if err := c.List(c.t.Context(), &list, client.InNamespace("ours")); err != nil {
		c.t.Fatal(err)
	}
	var b strings.Builder
	for _, p := range list.Items {
		fmt.Fprintf(&b, "%s of %v:", strings.TrimPrefix(p.Name, "interceptors-"), p.Spec.PodSelector.MatchLabels)
		for _, rule := range p.Spec.Ingress {
			for _, port := range rule.Ports {
				if b.WriteString(" " + port.Port.String()); port.EndPort != nil {
					fmt.Fprintf(&b, "-%d", *port.EndPort)
				}
			}
			for _, from := range rule.From {
				fmt.Fprintf(&b, " from %v of %v", from.PodSelector.MatchLabels, from.NamespaceSelector.MatchLabels)
			}
			b.WriteString(";")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (c *cluster) listen() int32 {
	c.t.Helper()
	routes, ok := routesOf(c.routeSlice())
	if !ok {
		c.t.Fatal("no routes")
	}
	return routes.Ports[0].Listen
}

// follows is what the mirror says while only friends may call.
func (c *cluster) follows() string {
	port := c.listen()
	return fmt.Sprintf("routes of map[app:interceptor]: 1-%d %d-65535; from map[app:controller] of map[kubernetes.io/metadata.name:ours];\n"+
		"routes-13 of map[app:interceptor]: %d from map[role:friend] of map[kubernetes.io/metadata.name:apps];\n", port-1, port+1, port)
}

// TestCoverComesFirst: interceptors listen for an app only after their own policies bind its port.
func TestCoverComesFirst(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService(), friendly("web", map[string]string{"app": "web"}))
	r := c.mirrors()
	c.both(1)
	c.directSlice(true)
	c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
	for range 3 {
		c.both(1)
		if c.routeSlice() != nil {
			t.Fatal("interceptors listen before the port is bound")
		}
	}
	if !c.round(r) {
		t.Fatal("the mirror is not asked")
	}
	c.both(1)
	if c.routeSlice() != nil {
		t.Fatal("interceptors listen at once: the policy cannot be enforced yet")
	}
	c.now = c.now.Add(coverSettles)
	c.both(3)
	if s := c.service(); !injector.Intercepted(s) {
		t.Fatalf("not injected: %s", c.events())
	}
	if diff := cmp.Diff(c.follows(), c.mirrored()); diff != "" {
		t.Error(diff)
	}
}

// TestCutOffClients: an app is not redirected while a policy of any namespace lets clients connect to its pods and not to the
// interceptors. Once it is, such a policy is an event.
func TestCutOffClients(t *testing.T) {
	to := func(namespace string, labels map[string]string) networkingv1.NetworkPolicyPeer {
		return networkingv1.NetworkPolicyPeer{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
			PodSelector:       &metav1.LabelSelector{MatchLabels: labels},
		}
	}
	web, us := to("apps", map[string]string{"app": "web"}), to("ours", map[string]string{"app": "interceptor"})
	limited := func(namespace string, peers ...networkingv1.NetworkPolicyPeer) *networkingv1.NetworkPolicy {
		return &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "limited"},
			Spec: networkingv1.NetworkPolicySpec{
				PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
				Egress:      []networkingv1.NetworkPolicyEgressRule{{To: peers}},
			},
		}
	}
	for _, namespace := range []string{"apps", "clients"} {
		t.Run(namespace, func(t *testing.T) {
			policy := limited(namespace, web)
			c := newCluster(t, webDeployment(1), webService())
			c.create(policy)
			labelled := &corev1.Namespace{}
			if err := c.Get(t.Context(), client.ObjectKey{Name: "apps"}, labelled); err != nil {
				t.Fatal(err)
			}
			labelled.Labels = map[string]string{corev1.LabelMetadataName: "apps"}
			c.update(labelled)
			c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
				Name: "ours", Labels: map[string]string{corev1.LabelMetadataName: "ours"},
			}})
			r := c.mirrors()
			c.round(r)
			c.both(1)
			c.directSlice(true)
			c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
			c.now = c.now.Add(time.Minute)
			c.both(3)
			want := "InjectionSkipped on Service/web: Not injected: NetworkPolicy " + namespace +
				"/limited lets pods connect to this app's pods, and not to the interceptors of scale-to-zero, so these pods cannot call it " +
				"through them. Allow egress to pods app=interceptor in namespace ours " +
				"(namespaceSelector kubernetes.io/metadata.name=ours) there"
			if got := c.events(); !strings.Contains(got, want) || injector.Intercepted(c.service()) || c.routeSlice() != nil {
				t.Fatalf("events %s", got)
			}
			policy.Spec.Egress[0].To = append(policy.Spec.Egress[0].To, us)
			c.update(policy)
			c.both(3)
			if !injector.Intercepted(c.service()) {
				t.Fatalf("not injected: %s", c.events())
			}
			policy.Spec.Egress[0].To = []networkingv1.NetworkPolicyPeer{web}
			c.update(policy)
			c.both(2)
			if got := c.events(); !strings.Contains(got, "This Service stays redirected, but NetworkPolicy "+namespace+"/limited lets") ||
				!injector.Intercepted(c.service()) {
				t.Errorf("events %s", got)
			}
		})
	}
}

// TestMirrorFollows: what becomes of a policy, of the app and of our own policies is followed, in both directions.
func TestMirrorFollows(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	r := c.mirrors()
	c.round(r) // the first one; nothing has to settle
	c.injected()
	follow := func(what, want string) {
		t.Helper()
		for range 2 {
			r.ask()
			c.round(r)
		}
		if diff := cmp.Diff(want, c.mirrored()); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	follow("no policy", "")
	other := friendly("other", map[string]string{"app": "other"})
	c.create(other)
	follow("a policy of other pods", "")
	policy := friendly("web", map[string]string{"app": "web"})
	c.create(policy)
	follow("a policy", c.follows())
	own := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: "interceptors-routes"}}
	if err := c.Delete(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	follow("our policy is deleted", c.follows())
	policy.Spec.Ingress = append(policy.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{
		Ports: []networkingv1.NetworkPolicyPort{{Protocol: new(corev1.ProtocolTCP), Port: new(intstr.FromString("web"))}},
	})
	c.update(policy)
	follow("a rule about a port with a name that no container has", c.follows())
	d := c.deployment()
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "web", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 80}}}}
	c.update(d)
	follow("a container has it", "")
	d.Spec.Template.Spec.Containers[0].Ports[0].ContainerPort = 81
	c.update(d)
	follow("it has another number", c.follows())
	s := c.service()
	s.Spec.Ports[0].TargetPort = intstr.FromInt32(81)
	c.update(s)
	follow("the Service leads there", "")
	s.Spec.Ports[0].TargetPort = intstr.FromInt32(80)
	c.update(s)
	follow("and back", c.follows())
	if err := c.Delete(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	follow("the policy is deleted", "")
}

// TestMirrorIgnoresForgedSlices: a slice of somebody else that claims an app's port does not open or close it.
func TestMirrorIgnoresForgedSlices(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService(), friendly("web", map[string]string{"app": "web"}))
	r := c.mirrors()
	c.both(1)
	c.round(r)
	c.now = c.now.Add(coverSettles)
	c.injected()
	want := c.follows()
	for _, namespace := range []string{"apps", "theirs"} {
		forged := c.routeSlice().DeepCopy()
		forged.ResourceVersion, forged.UID, forged.Namespace, forged.Name = "", "", namespace, "forged"
		forged.Labels["kubernetes.io/service-name"] = "forged"
		c.create(forged)
	}
	closed := friendly("closed", nil)
	closed.Namespace, closed.Spec.Ingress = "theirs", nil
	c.create(closed)
	web := webService()
	web.Namespace = "theirs"
	c.create(web)
	r.ask()
	c.round(r)
	if diff := cmp.Diff(want, c.mirrored()); diff != "" {
		t.Error(diff)
	}
}

// TestMirrorRefused: while the API server refuses our policies, bound apps are skipped with the reason, and others are injected.
func TestMirrorRefused(t *testing.T) {
	for name, bound := range map[string]bool{"bound": true, "open": false} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, webDeployment(1), webService())
			r := c.mirrors()
			c.round(r)
			if bound {
				c.create(friendly("web", map[string]string{"app": "web"}))
			}
			refused := apierrors.NewForbidden(schema.GroupResource{Resource: "networkpolicies"}, "x", errors.New("denied by policy"))
			c.refuses = func(verb string, o runtime.Object) error {
				if _, ok := o.(*networkingv1.NetworkPolicy); ok && verb == "create" {
					return refused
				}
				return nil
			}
			c.both(1)
			c.directSlice(true)
			c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
			for range 3 {
				select {
				case <-r.asked:
					if _, err := r.Reconcile(t.Context(), r.request()); err == nil && bound {
						t.Error("a refused write is no error")
					}
				default:
				}
				c.both(1)
				c.now = c.now.Add(10 * time.Second)
			}
			if got := injector.Intercepted(c.service()); got == bound {
				t.Errorf("injected: %t; %s", got, c.events())
			}
			if bound {
				c.told("InjectionSkipped on Service/web: Not injected: NetworkPolicies are not followed on the interceptors' pods, because a write " +
					"in namespace ours is refused: ")
			}
		})
	}
}

// TestAdmission: where a policy isolates an app's pods, one more lets the interceptors in, and goes with the opt-in or with the last of
// the others.
func TestAdmission(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	c.mirrors()
	c.services.observer.FollowPolicies, c.services.observer.AdmitInterceptors = false, true
	const name = "web-scale-to-zero"
	ours := func() *networkingv1.NetworkPolicy { return get(c, name, &networkingv1.NetworkPolicy{}) }
	c.injected()
	if ours() != nil {
		t.Fatal("a policy isolates pods that nobody has isolated")
	}
	policy := friendly("web", map[string]string{"app": "web"})
	c.create(policy)
	c.both(1)
	got := ours()
	if got == nil {
		t.Fatal("no policy lets the interceptors in")
	}
	if owner := metav1.GetControllerOf(got); owner == nil || owner.UID != c.service().UID {
		t.Errorf("its owner is %v", owner)
	}
	if err := c.Delete(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	c.both(1)
	if ours() != nil {
		t.Fatal("it stays when nobody isolates the pods any more")
	}
	policy.ResourceVersion = ""
	c.create(policy)
	c.both(1)
	if ours() == nil {
		t.Fatal("it does not come again")
	}
	s := c.service()
	delete(s.Labels, injector.OptInLabel)
	c.update(s)
	c.both(2)
	c.podsBack()
	c.both(3)
	if ours() != nil || c.routeSlice() != nil {
		t.Fatalf("it stays after the opt-out: %v, %v; %s", ours(), c.routeSlice(), c.events())
	}
	theirs := friendly(name, map[string]string{"app": "db"})
	c.create(theirs)
	s = c.service()
	s.Labels = map[string]string{injector.OptInLabel: "true"}
	c.update(s)
	c.both(3)
	if ours().Spec.PodSelector.MatchLabels["app"] != "db" {
		t.Error("somebody else's policy of that name is changed")
	}
}
