// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
)

const within = 20 * time.Second

// fakeSink remembers the present state.
type fakeSink struct {
	mu       sync.Mutex // protects all below
	services map[string]route.Service
	order    []string
	peers    []peer.Peer
	themes   []string // in the order of the calls
	synced   int      // how many services there were when Synced was called; -1 before
}

func newFakeSink() *fakeSink { return &fakeSink{services: map[string]route.Service{}, synced: -1} }

func (s *fakeSink) SetService(v route.Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.services[v.Namespace+"/"+v.Name] = v
	s.order = append(s.order, v.Name)
}

func (s *fakeSink) RemoveService(namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.services, namespace+"/"+name)
}

func (s *fakeSink) SetPeers(p []peer.Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers = p
}

func (s *fakeSink) SetTheme(namespace, source string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.themes = append(s.themes, namespace+": "+source)
}

func (s *fakeSink) Synced() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced = len(s.services)
}

// web is the Service of the tests.
func (s *fakeSink) web() (route.Service, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.services["shop/web"]
	return v, ok
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); time.Now().Before(end); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatalf("not %s within %s", what, within)
}

func routes(name string) api.Routes {
	return api.Routes{
		Service: name, ServiceUID: "u-" + name, Direct: name + "-direct",
		Workload: api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: name},
		Ports:    []api.Port{{Name: "http", Port: 80, Listen: 10000, Protocol: api.ProtocolAuto}},
		Cooldown: api.Duration(time.Minute), HoldTimeout: api.Duration(time.Minute),
	}
}

func endpointSlice(name, service, role string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	es := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID("uid-" + name), Generation: 1,
			Labels:            map[string]string{api.RoleLabel: role, discoveryv1.LabelServiceName: service},
			CreationTimestamp: metav1.NewTime(time.Unix(1000, 0)),
		},
		Endpoints: endpoints,
	}
	if role != api.RoleRoute {
		es.Labels[discoveryv1.LabelManagedBy] = api.EndpointSliceController
	}
	return es
}

func routeSlice(t *testing.T, name string, r api.Routes, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	t.Helper()
	family := "IPv4"
	if strings.HasSuffix(name, "-v6") {
		family = "IPv6"
	}
	es := endpointSlice(api.RouteSliceName(r.Service, family), r.Service, api.RoleRoute, endpoints...)
	es.AddressType = discoveryv1.AddressType(family)
	es.Labels[discoveryv1.LabelManagedBy], es.Labels["app.kubernetes.io/managed-by"] = api.ManagedBy, api.ManagedBy
	es.Labels[api.ServiceLabel] = r.Service
	es.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: r.Service, UID: types.UID(r.ServiceUID)}}
	value, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	es.Annotations = map[string]string{api.RoutesAnnotation: value}
	return es
}

func withPort(es *discoveryv1.EndpointSlice, port int32) *discoveryv1.EndpointSlice {
	es.Ports = append(es.Ports, discoveryv1.EndpointPort{Name: new("http"), Port: &port})
	return es
}

func an(addr string, change ...func(*discoveryv1.Endpoint)) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{addr}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "pod-" + addr}}
	for _, f := range change {
		f(&e)
	}
	return e
}

func ready(v bool) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) { e.Conditions.Ready = &v }
}

func terminating(e *discoveryv1.Endpoint) {
	yes := true
	e.Conditions.Terminating = &yes
}

func ofPod(name string) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) { e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Name: name} }
}

// watchAll runs the watch on a fake API server with these objects.
func watchAll(t *testing.T, objects ...runtime.Object) (*fake.Clientset, *fakeSink, *Cluster) {
	t.Helper()
	client := fake.NewClientset(objects...)
	c := NewForClients(client, nil, Options{Namespace: "shop", PodName: "me", PodIP: "10.0.0.1", Log: logr.Discard()})
	sink := newFakeSink()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Watch(ctx, sink) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("watching: %v", err)
		}
	})
	eventually(t, "synced", func() bool {
		sink.mu.Lock()
		defer sink.mu.Unlock()
		return sink.synced >= 0
	})
	return client, sink, c
}

func TestWatchCombinesSlices(t *testing.T) {
	_, sink, _ := watchAll(t,
		routeSlice(t, "web-v4", routes("web"), an("10.0.0.1")),
		routeSlice(t, "web-v6", routes("web"), an("fd00::1", ready(true))),
		withPort(endpointSlice("web-direct-1", "web-direct", api.RoleDirect,
			an("10.1.0.1", ofPod("p1")), an("10.1.0.2", ready(false)), an("10.1.0.3", terminating)), 8080),
		withPort(endpointSlice("web-direct-2", "web-direct", api.RoleDirect,
			an("fd00::2", ready(true)), an("fd00::3", ofPod("p1"))), 8081),
		endpointSlice("peers", "interceptors", api.RoleInterceptor,
			an("10.0.0.1", ofPod("me")), an("10.0.0.2", ofPod("you"), ready(false)), an("10.0.0.3", ofPod("they"), terminating)),
		endpointSlice("peers-v6", "interceptors", api.RoleInterceptor, an("fd00::9", ofPod("you")), an("fd00::8", ofPod("me"))),
	)
	if sink.synced != 1 {
		t.Errorf("%d services were set before Synced, want 1", sink.synced)
	}
	got, _ := sink.web()
	want := map[string][]string{"http": {"10.1.0.1:8080", "[fd00::2]:8081"}}
	if diff := cmp.Diff(want, got.Endpoints); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string][]string{"http": {"10.1.0.2:8080"}}, got.Unready); diff != "" {
		t.Errorf("unready (-want +got):\n%s", diff)
	}
	if want := []string{"10.1.0.1", "10.1.0.2", "fd00::2", "fd00::3"}; !slices.Equal(got.IPs, want) {
		t.Errorf("pods have %v, want %v", got.IPs, want)
	}
	if got.Pods != 4 || !got.Published || got.SleepID == "" {
		t.Errorf("pods %d, published %v, sleep %q", got.Pods, got.Published, got.SleepID)
	}
	sink.mu.Lock()
	defer sink.mu.Unlock()
	others := []peer.Peer{{Name: "they", Addr: "10.0.0.3", Unready: true}, {Name: "you", Addr: "10.0.0.2", Unready: true}}
	if diff := cmp.Diff(others, sink.peers); diff != "" {
		t.Errorf("peers (-want +got):\n%s", diff)
	}
}

func TestWatchFollowsChanges(t *testing.T) {
	client, sink, _ := watchAll(t)
	slices := client.DiscoveryV1().EndpointSlices("shop")
	ctx := t.Context()
	must := func(_ *discoveryv1.EndpointSlice, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// The fake API server may lose objects that are created between its list and its watch.
	eventually(t, "watching", func() bool {
		for _, a := range client.Actions() {
			if a.GetVerb() == "watch" {
				return true
			}
		}
		return false
	})
	must(slices.Create(ctx, withPort(endpointSlice("d", "web-direct", api.RoleDirect), 8080), metav1.CreateOptions{}))
	own := routeSlice(t, "r", routes("web"), an("10.0.0.1"))
	must(slices.Create(ctx, own, metav1.CreateOptions{}))
	eventually(t, "set", func() bool { s, ok := sink.web(); return ok && s.Published && len(s.Endpoints["http"]) == 0 })
	asleep, _ := sink.web()

	direct := withPort(endpointSlice("d", "web-direct", api.RoleDirect, an("10.1.0.1")), 8080)
	direct.Generation = 2
	must(slices.Update(ctx, direct, metav1.UpdateOptions{}))
	eventually(t, "awake", func() bool { s, _ := sink.web(); return len(s.Endpoints["http"]) == 1 })
	if awake, _ := sink.web(); awake.SleepID == asleep.SleepID {
		t.Error("the sleep has the same name after it ended")
	}

	failing := own.DeepCopy()
	failing.Annotations[api.ProgressAnnotation] = `{"stage":"pulling","failing":"no such image","starts":["3s"]}`
	must(slices.Update(ctx, failing, metav1.UpdateOptions{}))
	want := api.Progress{Stage: api.StagePulling, Failing: "no such image", Starts: []api.Duration{api.Duration(3 * time.Second)}}
	eventually(t, "failing", func() bool { s, _ := sink.web(); return cmp.Equal(want, s.Progress) })
	failing.Annotations[api.ProgressAnnotation] = `{"stage":"unknown","failing":"no such image"}`
	must(slices.Update(ctx, failing, metav1.UpdateOptions{}))
	eventually(t, "not failing for what cannot be read", func() bool {
		s, _ := sink.web()
		return cmp.Equal(api.Progress{}, s.Progress)
	})

	broken := own.DeepCopy()
	broken.Annotations[api.RoutesAnnotation] = "{"
	must(slices.Update(ctx, broken, metav1.UpdateOptions{}))
	unready := routeSlice(t, "r", routes("web"), an("10.0.0.1", ready(false)))
	must(slices.Update(ctx, unready, metav1.UpdateOptions{}))
	eventually(t, "unpublished", func() bool { s, ok := sink.web(); return ok && !s.Published })

	if err := slices.Delete(ctx, "web-scale-to-zero-ipv4", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "removed", func() bool { _, ok := sink.web(); return !ok })
}

// Both claim the same port. The older one has to come first, whatever its name.
func TestOlderServiceFirst(t *testing.T) {
	young, old := routeSlice(t, "a", routes("a")), routeSlice(t, "b", routes("b"))
	old.CreationTimestamp = metav1.NewTime(time.Unix(500, 0))
	_, sink, _ := watchAll(t, young, old)
	sink.mu.Lock()
	defer sink.mu.Unlock()
	if diff := cmp.Diff([]string{"b", "a"}, sink.order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestScale(t *testing.T) {
	for name, tc := range map[string]struct {
		kind     string
		replicas int32
		patched  bool
		fails    bool
	}{
		"deployment asleep":  {kind: "Deployment", patched: true},
		"deployment awake":   {kind: "Deployment", replicas: 2},
		"statefulset asleep": {kind: "StatefulSet", patched: true},
		"something else":     {kind: "Rollout", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset()
			resource := strings.ToLower(tc.kind) + "s"
			patched := ""
			client.PrependReactor("get", resource, func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: tc.replicas}}, nil
			})
			client.PrependReactor("patch", resource, func(a clienttesting.Action) (bool, runtime.Object, error) {
				p := a.(clienttesting.PatchAction)
				patched = p.GetSubresource() + " " + p.GetName() + " " + string(p.GetPatch())
				return true, nil, nil
			})
			c := NewForClients(client, nil, Options{Log: logr.Discard()})
			scaled, err := c.Scale(t.Context(), "shop", api.Workload{Kind: tc.kind, Name: "web"}, 3)
			if (err != nil) != tc.fails || scaled != tc.patched {
				t.Errorf("got %v, %v", scaled, err)
			}
			if want := map[bool]string{true: `scale web {"spec":{"replicas":3}}`}[tc.patched]; patched != want {
				t.Errorf("patched %q, want %q", patched, want)
			}
		})
	}
}

// Two interceptors that see the same wake write one event on each object, with the fields that kubectl shows.
func TestOneEventForOneWake(t *testing.T) {
	client, _, first := watchAll(t)
	second := NewForClients(client, nil, Options{Namespace: "shop", PodName: "you", Log: logr.Discard()})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- second.Watch(ctx, newFakeSink()) }()
	defer func() { cancel(); <-done }()
	wake := scaler.Wake{
		Namespace: "shop", Service: "web", ServiceUID: "u1", SleepID: "s1", Message: "GET / from 192.0.2.1: waking Deployment/web",
		Workload: api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "u2"},
	}
	begin := time.Now()
	first.WakeRequested(wake)
	second.WakeRequested(wake)
	creates := func() (n int) {
		for _, a := range client.Actions() {
			if a.Matches("create", "events") {
				n++
			}
		}
		return n
	}
	eventually(t, "four attempts", func() bool { return creates() == 4 })
	if took := time.Since(begin); took < writeDelay {
		t.Errorf("they were written after %s, while the app started", took)
	}
	list, err := client.CoreV1().Events("shop").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 2 {
		t.Fatalf("got %d events, %v; want 2", len(list.Items), err)
	}
	seen := map[string]string{}
	for _, e := range list.Items {
		seen[e.InvolvedObject.Kind+"/"+e.InvolvedObject.Name+"/"+string(e.InvolvedObject.UID)] = e.Message
		if when := e.LastTimestamp.Sub(begin); when < 0 || when >= writeDelay || e.Reason != "WakeRequested" ||
			e.Type != corev1.EventTypeNormal || e.Count != 1 {
			t.Errorf("event %+v", e)
		}
	}
	if diff := cmp.Diff(map[string]string{"Service/web/u1": wake.Message, "Deployment/web/u2": wake.Message}, seen); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	again := wake
	for _, again.SleepID = range []string{"s2", "s3"} {
		second.WakeRequested(again)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	done <- nil
	list, err = client.CoreV1().Events("shop").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 6 {
		t.Errorf("the one that has ended has left %d events, %v; want those of the next two sleeps too", len(list.Items)-2, err)
	}
}

// Events that are being written or wait at the end are still written, unless that takes too long.
func TestEventsAtTheEnd(t *testing.T) {
	const wakes = 3
	for name, tc := range map[string]struct {
		answers bool
		want    int64
		logs    bool
	}{
		"an API server that answers": {true, 2 * wakes, false},
		"one that does not":          {false, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			arrived, release := make(chan struct{}, 1), make(chan struct{})
			var created atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // otherwise the server does not notice that the client goes
				select {
				case arrived <- struct{}{}:
				default:
				}
				select {
				case <-release:
				case <-r.Context().Done():
					return
				}
				created.Add(1)
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusCreated)
				_, _ = io.WriteString(w, `{"kind":"Event","apiVersion":"v1"}`)
			}))
			defer server.Close()
			var logged atomic.Int64
			log := funcr.New(func(string, string) { logged.Add(1) }, funcr.Options{})
			c, err := New(&rest.Config{Host: server.URL}, Options{Log: log})
			if err != nil {
				t.Fatal(err)
			}
			for i := range wakes {
				c.WakeRequested(scaler.Wake{
					Namespace: "shop", Service: "web", SleepID: strconv.Itoa(i),
					Workload: api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
				})
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				c.events.run(ctx)
			}()
			<-arrived
			cancel()
			if tc.answers {
				close(release)
			}
			<-done
			if got := created.Load(); got != tc.want || (logged.Load() > 0) != tc.logs {
				t.Errorf("%d events were written, want %d; %d lines were logged", got, tc.want, logged.Load())
			}
		})
	}
}

func TestEventsNeverBlock(t *testing.T) {
	c := NewForClients(fake.NewClientset(), nil, Options{Log: logr.Discard()})
	for range 2 * maxQueued {
		c.WakeRequested(scaler.Wake{})
	}
	if len(c.events.queue) != maxQueued {
		t.Errorf("%d are queued", len(c.events.queue))
	}
}

// TestScaleCustomResource tests that a workload of a kind that is not built in is woken by the API server's name for the kind.
func TestScaleCustomResource(t *testing.T) {
	rollout := api.Workload{APIVersion: "argoproj.io/v1alpha1", Kind: "Rollout", Name: "web", Resource: "rollouts"}
	for name, tc := range map[string]struct {
		replicas int64
		want     string
	}{
		"asleep": {0, `argoproj.io/v1alpha1 rollouts/scale shop/web {"spec":{"replicas":2}}`},
		"awake":  {2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			custom := dynamicfake.NewSimpleDynamicClient(runtime.NewScheme())
			custom.PrependReactor("get", "rollouts", func(a clienttesting.Action) (bool, runtime.Object, error) {
				if a.GetSubresource() != "scale" {
					return false, nil, nil
				}
				return true, &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"replicas": tc.replicas}}}, nil
			})
			patched := ""
			custom.PrependReactor("patch", "rollouts", func(a clienttesting.Action) (bool, runtime.Object, error) {
				p := a.(clienttesting.PatchAction)
				patched = fmt.Sprintf("%s %s/%s %s/%s %s", p.GetResource().GroupVersion(), p.GetResource().Resource, p.GetSubresource(),
					p.GetNamespace(), p.GetName(), p.GetPatch())
				return true, &unstructured.Unstructured{Object: map[string]any{}}, nil
			})
			c := NewForClients(fake.NewClientset(), custom, Options{Log: logr.Discard()})
			scaled, err := c.Scale(t.Context(), "shop", rollout, 2)
			if err != nil || scaled != (tc.want != "") || patched != tc.want {
				t.Errorf("got %t, %v, patched %q; want %q", scaled, err, patched, tc.want)
			}
		})
	}
}

// Themes come from ConfigMaps with one name, each version once, and disappear with them.
func TestWatchThemes(t *testing.T) {
	configMap := func(namespace, name string, data map[string]string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}
	}
	sink := newFakeSink()
	s := &themes{sink: sink, log: logr.Discard(), told: map[string][32]byte{}}
	first := configMap("shop", themeName, map[string]string{themeKey: "a"})
	other := configMap("shop", "other", map[string]string{themeKey: "x"})
	second := configMap("shop", themeName, map[string]string{themeKey: "b"})
	empty := configMap("bank", themeName, nil)
	for _, err := range []error{
		s.Replace([]any{first, other}, ""), s.Replace([]any{first}, ""), s.Update(first), s.Update(other), s.Delete(other),
		s.Add(empty), s.Update(second), s.Update(second), s.Delete(second), s.Delete(second),
		s.Add(second), s.Replace([]any{empty}, ""),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"shop: a", "bank: ", "shop: b", "shop: ", "shop: b", "shop: "}, sink.themes); diff != "" {
		t.Errorf("themes (-want +got):\n%s", diff)
	}

	client, sink, _ := watchAll(t, first)
	eventually(t, "set", func() bool {
		sink.mu.Lock()
		defer sink.mu.Unlock()
		return cmp.Equal([]string{"shop: a"}, sink.themes)
	})
	asked := ""
	for _, a := range client.Actions() {
		if l, ok := a.(clienttesting.ListAction); ok && a.GetResource().Resource == "configmaps" {
			asked = l.GetListRestrictions().Fields.String()
		}
	}
	if asked != "metadata.name="+themeName {
		t.Errorf("it lists by %q", asked)
	}
}

// An interceptor that may not read themes still does everything else.
func TestWatchWithoutThemes(t *testing.T) {
	client := fake.NewClientset(routeSlice(t, "web", routes("web"), an("10.0.0.1")))
	client.PrependReactor("list", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(corev1.Resource("configmaps"), "", nil)
	})
	c := NewForClients(client, nil, Options{Namespace: "shop", Log: logr.Discard()})
	sink := newFakeSink()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Watch(ctx, sink) }()
	eventually(t, "set", func() bool { _, ok := sink.web(); return ok })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A forbidden write is distinguished from a failed one, and all interceptors together write one warning.
func TestRefusedScale(t *testing.T) {
	for name, tc := range map[string]struct {
		get, patch       error
		refused, noRight bool
	}{
		"a quota":  {nil, apierrors.NewForbidden(corev1.Resource("deployments"), "web", errors.New("exceeded quota")), true, false},
		"a policy": {nil, apierrors.NewInvalid(schema.GroupKind{Kind: "Scale"}, "web", nil), true, false},
		"no right to see": {apierrors.NewForbidden(corev1.Resource("deployments"), "web", errors.New(
			`User "system:serviceaccount:a:b" cannot get resource "deployments/scale" in API group "apps" in the namespace "c"`)), nil, true, true},
		"no right to scale": {nil, apierrors.NewForbidden(corev1.Resource("deployments"), "web", errors.New(
			`User "system:serviceaccount:a:b" cannot patch resource "deployments/scale" in API group "apps" in the namespace "c"`)), true, true},
		"no answer": {nil, apierrors.NewTimeoutError("slow", 1), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset()
			client.PrependReactor("get", "deployments", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, &autoscalingv1.Scale{}, tc.get
			})
			client.PrependReactor("patch", "deployments", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, tc.patch
			})
			c := NewForClients(client, nil, Options{Log: logr.Discard()})
			_, err := c.Scale(t.Context(), "shop", api.Workload{Kind: "Deployment", Name: "web"}, 1)
			var refused *scaler.RefusedError
			if err == nil || errors.As(err, &refused) != tc.refused {
				t.Errorf("got %v", err)
			}
			if refused != nil && refused.NoRight != tc.noRight {
				t.Errorf("no right: %t, want %t", refused.NoRight, tc.noRight)
			}
		})
	}
}

func TestOneWarning(t *testing.T) {
	client, _, first := watchAll(t)
	second := NewForClients(client, nil, Options{Namespace: "shop", PodName: "you", Log: logr.Discard()})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- second.Watch(ctx, newFakeSink()) }()
	warning := scaler.Warning{
		Namespace: "shop", Service: "web", ServiceUID: "u1", Reason: "PodsUnreachable", ID: "unreachable-s1",
		Message:  "does a NetworkPolicy forbid it?",
		Workload: api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "u2"},
	}
	first.Warn(warning)
	second.Warn(warning)
	eventually(t, "four attempts", func() bool {
		n := 0
		for _, a := range client.Actions() {
			if a.Matches("create", "events") {
				n++
			}
		}
		return n == 4
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	list, err := client.CoreV1().Events("shop").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 2 {
		t.Fatalf("got %d events, %v; want 2", len(list.Items), err)
	}
	for _, e := range list.Items {
		if e.Type != corev1.EventTypeWarning || e.Reason != warning.Reason || e.Message != warning.Message {
			t.Errorf("event %+v", e)
		}
	}
}

// An interceptor whose patch is refused because another one was faster has nothing to report.
func TestScaleThatComesTooLate(t *testing.T) {
	client := fake.NewClientset()
	replicas := int32(0)
	client.PrependReactor("get", "deployments", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: replicas}}, nil
	})
	client.PrependReactor("patch", "deployments", func(clienttesting.Action) (bool, runtime.Object, error) {
		replicas = 2 // by another interceptor, at the same moment
		return true, nil, apierrors.NewForbidden(corev1.Resource("deployments/scale"), "web", errors.New("interceptors may only scale from 0"))
	})
	c := NewForClients(client, nil, Options{Log: logr.Discard()})
	if scaled, err := c.Scale(t.Context(), "shop", api.Workload{Kind: "Deployment", Name: "web"}, 2); scaled || err != nil {
		t.Errorf("got %v, %v", scaled, err)
	}
}
