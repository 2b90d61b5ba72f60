// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// forger attacks a victim in another namespace by EndpointSlices in his own.
type forger struct {
	stack

	victim *stack
	client client.Client
	bait   *corev1.Service // for which he makes route slices
	real   *discoveryv1.EndpointSlice
}

// newForger has an app of his own, mine, and a Service without an app. The victim has an awake app, web, and a sleeping one.
func newForger(t *testing.T) *forger {
	t.Helper()
	f := &forger{stack: stack{t: t, ns: newNamespace(t)}, victim: &stack{t: t, ns: newNamespace(t)}}
	f.victim.awakeApp("web")
	f.victim.app("sleeper", 8080, nil)
	f.awakeApp("mine")
	f.redirected("mine")
	f.victim.redirected("web")
	f.victim.redirected("sleeper")
	f.client = f.editor(rule("discovery.k8s.io", "endpointslices"), rule("", "endpoints"))
	f.bait = &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: "bait"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "main", Port: 80}}},
	}
	if err := f.client.Create(t.Context(), f.bait); err != nil {
		t.Fatal(err)
	}
	f.real = &discoveryv1.EndpointSlice{}
	if err := kube.Get(t.Context(), client.ObjectKey{Namespace: f.victim.ns, Name: "web-scale-to-zero-ipv4"}, f.real); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the victim's other app sleeps", func() error {
		if n := f.victim.replicas()["sleeper"]; n != 0 {
			return fmt.Errorf("it has %d replicas", n)
		}
		return nil
	})
	return f
}

// route returns a route slice that claims the victim's ports for the forger's pods. It is as the controller would write it.
func (f *forger) route(change func(*api.Routes)) *discoveryv1.EndpointSlice {
	f.t.Helper()
	routes, err := api.DecodeRoutes(f.real.Annotations[api.RoutesAnnotation])
	if err != nil {
		f.t.Fatal(err)
	}
	routes.Service, routes.ServiceUID, routes.Direct = "bait", string(f.bait.UID), "mine-direct"
	change(&routes)
	encoded, err := json.Marshal(routes)
	if err != nil {
		f.t.Fatal(err)
	}
	s := f.real.DeepCopy()
	s.ObjectMeta = metav1.ObjectMeta{
		Namespace: f.ns, Name: "bait-scale-to-zero-ipv4", Labels: s.Labels, Annotations: map[string]string{api.RoutesAnnotation: string(encoded)},
		OwnerReferences: s.OwnerReferences,
	}
	s.Labels[discoveryv1.LabelServiceName], s.Labels[api.ServiceLabel] = "bait", "bait"
	s.OwnerReferences[0].Name, s.OwnerReferences[0].UID = "bait", f.bait.UID
	return s
}

// elsewhere is the forged route whose workload is in the victim's namespace, by a path.
func (f *forger) elsewhere(listen int32) *discoveryv1.EndpointSlice {
	f.t.Helper()
	return f.route(func(r *api.Routes) {
		r.Workload.Name, r.Workload.Resource, r.Ports[0].Listen = "sleeper", "../"+f.victim.ns+"/deployments", listen
	})
}

// pods returns a direct slice of the forger's app with an endpoint of his choice.
func (f *forger) pods(address string, port int32, ref *corev1.ObjectReference) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, GenerateName: "mine-direct-", Labels: map[string]string{
			api.RoleLabel: api.RoleDirect, discoveryv1.LabelServiceName: "mine-direct", discoveryv1.LabelManagedBy: api.EndpointSliceController,
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{address}, TargetRef: ref}},
		Ports:       []discoveryv1.EndpointPort{{Name: new("main"), Port: &port}},
	}
}

// podOfVictim returns the address of the victim's app.
func (f *forger) podOfVictim() *corev1.Pod {
	f.t.Helper()
	var list corev1.PodList
	if err := kube.List(f.t.Context(), &list, client.InNamespace(f.victim.ns), client.MatchingLabels{"app": "web"}); err != nil {
		f.t.Fatal(err)
	}
	return &list.Items[0]
}

// unhurt checks that everybody gets the answers of his own app, and that the victim's other app sleeps.
func (f *forger) unhurt(when string) {
	f.t.Helper()
	f.victim.answers("web", when)
	f.answers("mine", when)
	if n := f.victim.replicas()["sleeper"]; n != 0 {
		f.t.Errorf("%s: the victim's sleeping app has %d replicas", when, n)
	}
}

// TestHostileSlices: a tenant who may write EndpointSlices and Endpoints gets no traffic but his own, and wakes nobody else's app. It is
// not parallel to the other tests, since it switches a policy off.
func TestHostileSlices(t *testing.T) {
	f := newForger(t)
	f.unhurt("before")
	const onlyController, onlyKubernetes = "only scale-to-zero's controller writes", "only Kubernetes' endpointslice-controller writes"
	mine := f.route(func(*api.Routes) {})
	pod := f.podOfVictim()
	ref := &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name}
	for name, tc := range map[string]struct {
		slice *discoveryv1.EndpointSlice
		why   string
	}{
		"a route":                        {mine, onlyController},
		"a path as a resource":           {f.elsewhere(30123), onlyController},
		"pods: the API server":           {f.pods("10.0.0.1", 6443, nil), onlyKubernetes},
		"pods: the victim's":             {f.pods(pod.Status.PodIP, 8080, ref), onlyKubernetes},
		"pods: an interceptor's health":  {f.pods(interceptors(t)[0], 8081, nil), onlyKubernetes},
		"a route, without our role":      {withoutRole(mine), onlyController},
		"pods, with routes annotated to": {annotated(f.pods(pod.Status.PodIP, 8080, ref), mine), onlyController},
	} {
		denied(t, name, f.client.Create(t.Context(), tc.slice.DeepCopy()), tc.why)
	}
	own := &discoveryv1.EndpointSlice{}
	if err := kube.Get(t.Context(), client.ObjectKey{Namespace: f.ns, Name: "mine-scale-to-zero-ipv4"}, own); err != nil {
		t.Fatal(err)
	}
	changed := own.DeepCopy()
	changed.Annotations[api.RoutesAnnotation] = mine.Annotations[api.RoutesAnnotation]
	denied(t, "changing one's own route", f.client.Update(t.Context(), changed), onlyController)
	denied(t, "deleting one's own route", f.client.Delete(t.Context(), own), onlyController)
	f.mirrored(mine)
	f.unhurt("with the policy")
	t.Run("without the policy", func(t *testing.T) { f.in(t).withoutPolicy() })
}

func withoutRole(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	s = s.DeepCopy()
	delete(s.Labels, api.RoleLabel)
	return s
}

func annotated(s, like *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	s.Annotations = like.Annotations
	return s
}

// in is the forger of a subtest.
func (f *forger) in(t *testing.T) *forger {
	t.Helper()
	c := *f
	c.t, c.victim = t, &stack{t: t, ns: f.victim.ns}
	return &c
}

// mirrored makes Endpoints that Kubernetes would mirror to a slice like this one. It may mirror only those that look like nobody's.
func (f *forger) mirrored(s *discoveryv1.EndpointSlice) {
	f.t.Helper()
	plain := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: "plain"}, Spec: f.bait.Spec}
	plain.Spec.ClusterIP, plain.Spec.ClusterIPs = "", nil
	for _, o := range []client.Object{plain, f.endpoints("bait", s.Labels, s.Annotations), f.endpoints("plain", nil, nil)} {
		if err := f.client.Create(f.t.Context(), o); err != nil {
			f.t.Fatal(err)
		}
	}
	mirrors := func(service string) int {
		var list discoveryv1.EndpointSliceList
		of := client.MatchingLabels{discoveryv1.LabelServiceName: service}
		if err := kube.List(f.t.Context(), &list, client.InNamespace(f.ns), of); err != nil {
			f.t.Fatal(err)
		}
		return len(list.Items)
	}
	eventually(f.t, "plain Endpoints are mirrored", func() error {
		if mirrors("plain") == 0 {
			return errors.New("they are not")
		}
		return nil
	})
	if mirrors("bait") > 0 {
		f.t.Error("Endpoints with labels of ours are mirrored")
	}
}

func (f *forger) endpoints(name string, labels, annotations map[string]string) client.Object {
	return &corev1.Endpoints{ //nolint:staticcheck // they are deprecated, and mirrored all the same
		ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: name, Labels: labels, Annotations: annotations},
		Subsets: []corev1.EndpointSubset{{ //nolint:staticcheck // as above
			Addresses: []corev1.EndpointAddress{{IP: "10.1.2.3"}}, Ports: []corev1.EndpointPort{{Name: "main", Port: 8080}},
		}},
	}
}

// withoutPolicy does it all again while no policy refuses it.
func (f *forger) withoutPolicy() {
	t := f.t
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{}
	if err := kube.Get(t.Context(), client.ObjectKey{Name: release + "-slices"}, binding); err != nil {
		t.Fatal(err)
	}
	if err := kube.Delete(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		binding.ResourceVersion, binding.UID = "", ""
		if err := kube.Create(context.Background(), binding); err != nil { // the test's own context has ended
			t.Error(err)
		}
	})
	path := f.elsewhere(30123)
	eventually(t, "the policy is off", func() error { return f.client.Create(t.Context(), path.DeepCopy(), client.DryRunAll) })

	f.make(path)
	for _, pod := range []string{"0", "1"} {
		f.leftOut(pod, path.Name)
	}
	for _, ip := range interceptors(t) {
		if got, err := tryGet(t.Context(), "-timeout", "3s", "http://"+ip+":30123/"); err == nil {
			t.Errorf("an interceptor listens for a forged route: %+v", got)
		}
	}
	f.unhurt("with a path as a resource")
	f.delete(path)

	claim := f.route(func(*api.Routes) {})
	f.make(claim)
	f.unhurt("with a forged route")
	kubectl(t, "delete", "pods", "-n", release, "-l", "app.kubernetes.io/component=interceptor")
	kubectl(t, "rollout", "status", "-n", release, "deployment/"+release+"-interceptor", "--timeout=2m")
	f.unhurt("with a forged route, and interceptors that have just started")
	f.delete(claim)

	pod := f.podOfVictim()
	for name, s := range map[string]*discoveryv1.EndpointSlice{
		"the API server":       f.pods("10.0.0.1", 6443, nil),
		"the victim's pod":     f.pods(pod.Status.PodIP, 8080, &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name}),
		"an address of nobody": f.pods(pod.Status.PodIP, 8080, nil),
		"a health port":        f.pods("127.0.0.1", 8081, &corev1.ObjectReference{Kind: "Pod", Namespace: f.ns, Name: "mine"}),
		"an interceptor": f.pods(interceptors(t)[0], 8081,
			&corev1.ObjectReference{Kind: "Pod", Namespace: f.ns, Name: "mine"}),
	} {
		switch err := f.client.Create(t.Context(), s); {
		case apierrors.IsInvalid(err): // Kubernetes itself refuses loopback
		case err != nil:
			t.Fatal(err)
		}
		f.unhurt(name + " as a pod")
	}
}

func (f *forger) make(s *discoveryv1.EndpointSlice) {
	f.t.Helper()
	if err := f.client.Create(f.t.Context(), s); err != nil {
		f.t.Fatal(err)
	}
}

func (f *forger) delete(s *discoveryv1.EndpointSlice) {
	f.t.Helper()
	if err := client.IgnoreNotFound(f.client.Delete(f.t.Context(), s)); err != nil {
		f.t.Fatal(err)
	}
}

// leftOut waits until an interceptor has logged that it leaves the slice out.
func (f *forger) leftOut(pod, slice string) {
	f.t.Helper()
	name := kubectl(f.t, "get", "pods", "-n", release, "-l", "app.kubernetes.io/component=interceptor", "-o",
		"jsonpath={.items["+pod+"].metadata.name}")
	eventually(f.t, name+" leaves the slice out", func() error {
		out, err := command(f.t.Context(), os.Getenv("KUBECTL"), "logs", "-n", release, name)
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if strings.Contains(line, "Leaving out") && strings.Contains(line, f.ns) && strings.Contains(line, slice) {
				return nil
			}
		}
		return fmt.Errorf("%s has not said so", name)
	})
}
