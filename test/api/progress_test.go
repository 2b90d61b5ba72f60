// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// clock is a clock that a test can move.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

// pod makes a pod of the app and writes its status, as a kubelet would. It has a node if it has containers.
func (a *app) pod(name string, owner metav1.OwnerReference, status corev1.PodStatus) *corev1.Pod {
	a.t.Helper()
	owner.Controller = new(true)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: a.ns, Name: name, OwnerReferences: []metav1.OwnerReference{owner},
			Labels: map[string]string{"app": "web", appsv1.DefaultDeploymentUniqueLabelKey: "1"},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web:2"}}},
	}
	if len(status.ContainerStatuses) > 0 {
		p.Spec.NodeName = "node1"
	}
	create(a.t, p)
	return a.become(p, status)
}

// become writes a pod's status.
func (a *app) become(p *corev1.Pod, status corev1.PodStatus) *corev1.Pod {
	a.t.Helper()
	p.Status = status
	if err := kube.Status().Update(a.t.Context(), p); err != nil {
		a.t.Fatal(err)
	}
	return p
}

// replicaSet owns the pods of Deployment web.
func replicaSet() metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-1", UID: "1"}
}

func waiting(reason, message string) []corev1.ContainerStatus {
	return []corev1.ContainerStatus{
		{Name: "web", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}},
	}
}

func crashing() []corev1.ContainerStatus {
	s := waiting("CrashLoopBackOff", "back-off 20s restarting failed container=web")
	s[0].RestartCount, s[0].LastTerminationState.Terminated = 2, &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error"}
	return s
}

// progress waits until the route slice has the wanted progress, and returns it.
func (a *app) progress(what string, wanted func(api.Progress) bool) api.Progress {
	a.t.Helper()
	var p api.Progress
	eventually(a.t, what, func() error {
		s, _ := a.routeSlice()
		var err error
		if p, err = api.DecodeProgress(s.Annotations[api.ProgressAnnotation]); err != nil || !wanted(p) {
			return errors.Join(err, fmt.Errorf("progress %q", s.Annotations[api.ProgressAnnotation]))
		}
		return nil
	})
	return p
}

func starts(n int) func(api.Progress) bool {
	return func(p api.Progress) bool { return p.Stage == "" && p.Failing == "" && len(p.Starts) == n }
}

func at(stage string) func(api.Progress) bool {
	return func(p api.Progress) bool { return p.Stage == stage && p.Failing == "" }
}

func fails(reason string) func(api.Progress) bool {
	return func(p api.Progress) bool { return p.Reason == reason && p.Failing != "" && !p.Seen.IsZero() }
}

// sleeps puts the app to sleep.
func (a *app) sleeps() {
	a.t.Helper()
	asleep := func() int { return strings.Count(events(a.t, a.ns, "Deployment", "web"), "Asleep: ") }
	before := asleep()
	a.scale(0)
	a.ready(0)
	eventually(a.t, "it sleeps", func() error {
		if n := asleep(); n == before {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
}

// TestStartIsFollowed: the route slice has the progress of a start, and how long the last starts took. Another controller
// continues where one stops.
func TestStartIsFollowed(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	c := &clock{}
	p := start(t, planeOptions{interceptors: &interceptors{}, now: c.now})
	a := newApp(t, 1)
	a.injected()
	for n := range 6 {
		a.sleeps()
		a.progress("asleep", starts(min(n, 5)))
		a.scale(1)
		pod := a.pod(fmt.Sprint("web-1-", n), replicaSet(), corev1.PodStatus{})
		a.progress("a pod", at(api.StageScheduling))
		if n == 0 {
			bound := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "node1"}}
			if err := kube.SubResource("binding").Create(t.Context(), pod, bound); err != nil {
				t.Fatal(err)
			}
			a.get(pod.Name, pod)
			a.progress("a node", at(api.StageStarting))
			a.become(pod, corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
				Name: "web", Started: new(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
			}}})
			a.progress("it runs", at(api.StageNotReady))
		}
		c.forward(time.Duration(n+1) * time.Minute)
		a.ready(1)
		a.progress("ready", starts(min(n+1, 5)))
		if err := kube.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
			t.Fatal(err)
		}
		if n == 2 {
			p.stop()
			p = start(t, planeOptions{interceptors: &interceptors{}, now: c.now})
			if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"20s"}}}`); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the new controller has reconciled it", func() error {
				if _, routes := a.routeSlice(); routes.Cooldown.String() != "20s" {
					return fmt.Errorf("cool-down is %s", routes.Cooldown)
				}
				return nil
			})
		}
	}
	got := a.progress("ready", starts(5))
	for i, took := range got.Starts {
		if minutes := int(time.Duration(took).Minutes()); minutes != 6-i {
			t.Errorf("start %d took %s", i, took)
		}
	}
}

// TestStartIsLeftAlone for half a second, since work done then competes with the start.
func TestStartIsLeftAlone(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	c := &clock{}
	var stopped atomic.Pointer[time.Time]
	start(t, planeOptions{interceptors: &interceptors{}, now: func() time.Time {
		if at := stopped.Load(); at != nil {
			return at.Add(time.Duration(c.ahead.Load()))
		}
		return c.now()
	}})
	a := newApp(t, 1)
	a.injected()
	a.sleeps()
	stopped.Store(new(time.Now()))
	a.scale(1)
	a.pod("web-1-a", replicaSet(), corev1.PodStatus{})
	most := int32(5)
	// reconciled returns once the workload has been reconciled at least once since the call.
	reconciled := func() {
		t.Helper()
		for range 2 { // of which the second is written after the first reconcile
			most++
			if err := a.patch(fmt.Sprintf(`{"metadata":{"annotations":{"scale-to-zero/max-replicas":"%d"}}}`, most)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the ScaledObject is rewritten", func() error {
				so := &keda.ScaledObject{}
				a.get("web-deployment", so)
				if *so.Spec.MaxReplicaCount != most {
					return fmt.Errorf("it has at most %d replicas", *so.Spec.MaxReplicaCount)
				}
				return nil
			})
		}
	}
	reconciled()
	a.progress("nobody has looked", starts(0))
	c.forward(499 * time.Millisecond)
	reconciled()
	a.progress("nobody has looked", starts(0))
	c.forward(time.Millisecond)
	a.progress("a pod", at(api.StageScheduling))
}

// TestStartFails because its image does not exist. Clients get the reason at once, and again as long as it lasts; one
// event reports it.
func TestStartFails(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	c := &clock{}
	p := start(t, planeOptions{interceptors: &interceptors{}, now: c.now})
	a := newApp(t, 1)
	a.injected()
	a.sleeps()
	a.scale(1)
	first := a.pod("web-1-a", replicaSet(), corev1.PodStatus{
		ContainerStatuses: waiting("ImagePullBackOff", `Back-off pulling image "web:2": ErrImagePull: web:2: not found`),
	})
	got := a.progress("it fails", fails("ImagePullBackOff"))
	if want := "its image web:2 cannot be pulled: there is no such image"; got.Failing != want || got.Stage != api.StagePulling {
		t.Errorf("got %+v, want %s", got, want)
	}
	once := func() {
		t.Helper()
		for _, kind := range []string{"Service", "Deployment"} {
			a.told(kind, "web",
				"StartFailed: Deployment/web cannot start: its image web:2 cannot be pulled: there is no such image. "+
					"Requests get 503 until it can. Check")
			if got := events(t, a.ns, kind, "web"); strings.Count(got, "StartFailed: ") != 1 {
				t.Errorf("events of the %s: %s", kind, got)
			}
		}
	}
	once()
	renewed := func() {
		t.Helper()
		c.forward(11 * time.Second)
		before := got.Seen
		got = a.progress("it is renewed", func(p api.Progress) bool { return fails("ImagePullBackOff")(p) && p.Seen.After(before) })
	}
	renewed()
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"20s"}}}`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the route slice is rewritten", func() error {
		s, routes := a.routeSlice()
		if s.Annotations[api.ProgressAnnotation] == "" {
			t.Fatal("this removed its progress")
		}
		if routes.Cooldown.String() != "20s" {
			return fmt.Errorf("cool-down is %s", routes.Cooldown)
		}
		return nil
	})
	p.stop()
	start(t, planeOptions{interceptors: &interceptors{}, now: c.now})
	renewed()
	once()
	a.pod("web-1-b", replicaSet(), corev1.PodStatus{}) // of a rollout
	a.progress("another pod may start", at(api.StageScheduling))
	if err := kube.Delete(t.Context(), first, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	a.ready(1)
	a.progress("it is ready; nothing is to be learned of how long that took", starts(0))
	a.told("Service", "web", "Awake: ")
	// An app that was awake, and whose pod does not come back.
	a.ready(0)
	second := a.pod("web-1-c", replicaSet(), corev1.PodStatus{ContainerStatuses: crashing()})
	if err := kube.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "web-1-b"}},
		client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	a.progress("it crashes", fails("CrashLoopBackOff"))
	a.told("Service", "web", "See kubectl logs -n "+a.ns+" web-1-c -c web --previous")
	a.ready(1)
	a.told("Service", "web", "Awake: Deployment/web is ready again (1 of 1 replica)")
	a.become(second, corev1.PodStatus{ContainerStatuses: crashing()})
	a.ready(0)
	a.progress("it crashes again", fails("CrashLoopBackOff"))
	a.sleeps()
	a.progress("asleep", starts(0))
	a.scale(1)
	a.progress("it crashes in the next start", fails("CrashLoopBackOff"))
	eventually(t, "there is one event for each start", func() error {
		if got := events(t, a.ns, "Service", "web"); strings.Count(got, "has ended 3 times") != 3 {
			return errors.New(got)
		}
		return nil
	})
	a.ready(1)
	a.progress("how long it took to mend it is no duration of a start", starts(0))
}

// TestStartIsRefused by the API server, and by the scheduler: nobody is told before the failure is certain.
func TestStartIsRefused(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	c := &clock{}
	start(t, planeOptions{interceptors: &interceptors{}, now: c.now})
	const quota = `pods "web-1-a" is forbidden: exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0`
	// certain moves the clock until the start fails.
	certain := func(a *app) {
		t.Helper()
		began := c.now()
		a.progress("it fails", func(p api.Progress) bool {
			c.forward(time.Second / 4)
			return fails("FailedCreate")(p)
		})
		if took := c.now().Sub(began); took < 8*time.Second {
			t.Errorf("that was certain after %s", took)
		}
	}
	t.Run("Deployment", func(t *testing.T) {
		a := newApp(t, 1)
		a.injected()
		a.sleeps()
		a.scale(1)
		d := &appsv1.Deployment{}
		a.get("web", d)
		d.Status.ObservedGeneration = d.Generation
		d.Status.Conditions = []appsv1.DeploymentCondition{
			{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: quota},
		}
		if err := kube.Status().Update(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		certain(a)
		a.told("Service", "web", "cannot start: Kubernetes refuses its pod: exceeded quota: none")
	})
	t.Run("StatefulSet", func(t *testing.T) {
		a := newApp(t, 1)
		set := a.statefulSet(1)
		a.label(`"true"`)
		a.followInjection()
		scaled := func(n int32) {
			t.Helper()
			s := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: n}}
			if err := kube.SubResource("scale").Update(t.Context(), set, client.WithSubResourceBody(s)); err != nil {
				t.Fatal(err)
			}
		}
		scaled(0)
		a.told("StatefulSet", "web", "Asleep: ")
		event := func(message string, at time.Time) {
			t.Helper()
			create(t, &corev1.Event{
				ObjectMeta:     metav1.ObjectMeta{Namespace: a.ns, GenerateName: "web-"},
				InvolvedObject: corev1.ObjectReference{APIVersion: "apps/v1", Kind: "StatefulSet", Namespace: a.ns, Name: "web", UID: set.UID},
				Reason:         "FailedCreate", Message: message, LastTimestamp: metav1.NewTime(at),
			})
		}
		event("the one before", c.now().Add(-time.Minute))
		scaled(1)
		event("create Pod web-0 in StatefulSet web failed error: "+quota, c.now())
		certain(a)
		a.told("StatefulSet", "web", "StartFailed: StatefulSet/web cannot start: Kubernetes refuses its pod: exceeded quota: none")
	})
	t.Run("a node is coming", func(t *testing.T) {
		a := newApp(t, 1)
		a.injected()
		a.sleeps()
		pod := a.pod("web-1-a", replicaSet(), corev1.PodStatus{Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
			LastTransitionTime: metav1.NewTime(c.now().Add(-time.Minute)), Message: "0/1 nodes are available: 1 Insufficient cpu.",
		}}})
		coming := &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: a.ns, GenerateName: "web-"},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: a.ns, Name: pod.Name, UID: pod.UID}, Reason: "TriggeredScaleUp",
		}
		create(t, coming)
		a.scale(1)
		if p := a.progress("it is looked at", func(p api.Progress) bool { return p.Stage != "" }); p.Failing != "" {
			t.Errorf("it fails: %+v", p)
		}
		if err := kube.Delete(t.Context(), coming); err != nil {
			t.Fatal(err)
		}
		a.progress("none is coming", fails("Unschedulable"))
	})
}

// TestProgressReachesLaterServices of the same workload.
func TestProgressReachesLaterServices(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.injected()
	a.sleeps()
	a.scale(1)
	a.pod("web-1-a", replicaSet(), corev1.PodStatus{})
	a.progress("a pod", at(api.StageScheduling))
	second := a.service()
	second.Name, second.Labels[injector.OptInLabel] = "web2", "true"
	create(t, second)
	eventually(t, "the second Service says it too", func() error {
		s := &discoveryv1.EndpointSlice{}
		if err := kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: injector.RouteSliceName("web2", "IPv4")}, s); err != nil {
			return err
		}
		if p, err := api.DecodeProgress(s.Annotations[api.ProgressAnnotation]); err != nil || p.Stage != api.StageScheduling {
			return errors.Join(err, fmt.Errorf("progress %+v", p))
		}
		return nil
	})
}
