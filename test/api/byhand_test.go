// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// warnings collects the API server's warnings.
type warnings struct {
	mu   sync.Mutex // protects text
	text []string
}

func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, text)
}

// take returns the warnings and forgets them.
func (w *warnings) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.text = nil }()
	return strings.Join(w.text, "\n")
}

// warned returns a client that collects the API server's warnings.
func warned(t *testing.T) (client.Client, *warnings) {
	t.Helper()
	w := &warnings{}
	config := rest.CopyConfig(env.Config)
	config.WarningHandler = w
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c, w
}

// TestReplicasByHand: whoever writes a count that the guard does not accept gets a warning.
func TestReplicasByHand(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.injected()
	a.sleeps()
	c, w := warned(t)
	const kept = "Deployment/web keeps 0 replicas: "
	for name, tc := range map[string]struct {
		write func() error
		want  bool
	}{
		"kubectl patch": {func() error {
			patch := client.RawPatch("application/strategic-merge-patch+json", []byte(`{"spec":{"replicas":1}}`))
			return c.Patch(t.Context(), a.deployment("web", 0), patch, client.FieldOwner("kubectl-patch"))
		}, true},
		"kubectl replace": {func() error {
			d := &appsv1.Deployment{}
			a.get("web", d)
			d.Spec.Replicas = new(int32(1))
			return c.Update(t.Context(), d, client.FieldOwner("kubectl-replace"))
		}, true},
		"kubectl rollout restart": {func() error {
			patch := client.RawPatch("application/strategic-merge-patch+json", []byte(`{"spec":{"template":{"metadata":`+
				`{"annotations":{"kubectl.kubernetes.io/restartedAt":"now"}}}}}`))
			return c.Patch(t.Context(), a.deployment("web", 0), patch, client.FieldOwner("kubectl-rollout"))
		}, false},
		"Helm": {func() error {
			patch := client.RawPatch("application/strategic-merge-patch+json", []byte(`{"spec":{"replicas":1}}`))
			return c.Patch(t.Context(), a.deployment("web", 0), patch, client.FieldOwner("helm"))
		}, false},
	} {
		if err := tc.write(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := w.take(); strings.Contains(got, kept) != tc.want || got == "" == tc.want {
			t.Errorf("%s: warned %q", name, got)
		}
		if n := a.replicas(); n != 0 {
			t.Errorf("%s: %d replicas", name, n)
		}
	}
	a.scaleAs("kubectl", 1)
	if n := a.replicas(); n != 1 {
		t.Errorf("kubectl scale: %d replicas", n)
	}
	// Nobody waits for this start; the interceptors learn of it from the progress alone.
	a.progress("it starts", at(api.StageScheduling))
}

// stopped is a clock that only a test moves. No two times are the same, so events get different names.
type stopped struct {
	start time.Time
	ahead atomic.Int64
}

func (c *stopped) now() time.Time {
	return c.start.Add(time.Duration(c.ahead.Add(int64(time.Microsecond))))
}
func (c *stopped) forward(d time.Duration) { c.ahead.Add(int64(d)) }

// TestScaledToZeroByHand: the event says that the workload was scaled by hand, where the API server records who did it or
// the interceptors know better. There is no record for the scale subresource, whose object leaves a count of zero out.
func TestScaledToZeroByHand(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	counts, c := &counts{active: true}, &stopped{start: time.Now()}
	control := planeOptions{interceptors: &interceptors{}, counts: counts, now: c.now}
	p := start(t, control)
	a := newApp(t, 1)
	a.injected()
	c.forward(time.Hour)
	awake := 0
	again := func() {
		t.Helper()
		a.ready(0)
		a.scaledSeen(1)
		a.ready(1)
		awake++
		eventually(t, "it is awake again", func() error {
			if got := events(t, a.ns, "Service", "web"); strings.Count(got, "Awake: ") != awake {
				return errors.New(got)
			}
			return nil
		})
	}
	use := func(pending int64, idle time.Duration) *injector.Use {
		return &injector.Use{Pending: pending, Idle: idle, Counted: 2 * time.Hour}
	}
	wakes := "The next request wakes it. To keep it there: kubectl annotate service -n " + a.ns + " web scale-to-zero/asleep=true\n"
	asleep := func(by string, use *injector.Use, text string) {
		t.Helper()
		counts.setUse(use)
		a.scaleAs(by, 0)
		a.told("Service", "web", "Asleep: Deployment/web "+text)
		a.told("Deployment", "web", "Asleep: Deployment/web "+text)
	}
	if err := kube.Patch(t.Context(), a.deployment("web", 0),
		client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"replicas":0}}`)), client.FieldOwner("kubectl-edit")); err != nil {
		t.Fatal(err)
	}
	a.told("Service", "web", "Asleep: Deployment/web was scaled to zero by kubectl-edit, not for lack of requests. "+wakes)
	again()
	c.forward(10 * time.Minute)
	asleep("keda", use(0, 5*time.Minute), "has gone to zero replicas after 10m awake: no requests for 5m; the next one wakes it\n")
	again()
	c.forward(11 * time.Minute)
	asleep("kubectl", use(1, 0), "has gone to zero replicas after 11m awake, in use until a moment ago. "+wakes)
	again()
	c.forward(12 * time.Minute)
	asleep("kubectl", use(0, 40*time.Second),
		"was scaled to zero after 12m awake, not for lack of requests: it had been idle for less than 41s, and sleeps after 5m. "+wakes)
	again()
	c.forward(13 * time.Minute)
	asleep("kubectl", use(0, time.Hour), "has gone to zero replicas after 13m awake: no requests for 5m; the next one wakes it\n")
	again()
	c.forward(20 * time.Second)
	asleep("kubectl", use(0, time.Hour),
		"was scaled to zero after 20s awake, not for lack of requests: it had been idle for less than 21s, and sleeps after 5m. "+wakes)
	again()
	c.forward(14 * time.Minute)
	asleep("kubectl", nil, "has gone to zero replicas after 14m awake. The next request wakes it\n")

	again()
	p.stop()
	if err := kube.Delete(t.Context(), &keda.ScaledObject{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "web-deployment"},
	}); err != nil {
		t.Fatal(err)
	}
	start(t, control) // the new controller does not know for how long it has been awake
	eventually(t, "it has seen the workload", a.scaled)
	asleep("kubectl", use(0, 50*time.Second),
		"was scaled to zero, not for lack of requests: it had been idle for less than 51s, and sleeps after 5m. "+wakes)
}

// TestAsleepWithoutKEDA distinguishes the controller's own scaling from scaling by hand.
func TestAsleepWithoutKEDA(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	withoutKEDA(t)
	counts, c := &counts{active: true}, &stopped{start: time.Now()}
	start(t, planeOptions{interceptors: &interceptors{}, counts: counts, now: c.now})
	a := newApp(t, 1)
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"2s"}}}`); err != nil {
		t.Fatal(err)
	}
	a.label(`"true"`)
	a.followInjection()
	a.told("Service", "web", "Injected: ")
	counts.setUse(&injector.Use{Idle: 2 * time.Second, Counted: time.Hour})
	c.forward(time.Hour)
	counts.set(false, 0)
	a.told("Service", "web", "Asleep: Deployment/web has gone to zero replicas: no requests for 2s; the next one wakes it\n")

	counts.set(true, 0)
	counts.setUse(&injector.Use{Idle: time.Second, Pending: 1, Counted: time.Hour})
	a.ready(0)
	a.scaledSeen(1)
	a.ready(1)
	a.told("Service", "web", "Awake: ")
	c.forward(time.Minute)
	a.scaleAs("kubectl", 0)
	a.told("Service", "web", "Asleep: Deployment/web has gone to zero replicas after 1m awake, in use until a moment ago. "+
		"The next request wakes it. "+
		"To keep it there: kubectl annotate service -n "+a.ns+" web scale-to-zero/asleep=true\n")
}

// TestNeverAwake: a workload that was never ready has not been awake.
func TestNeverAwake(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	c := &clock{}
	start(t, planeOptions{interceptors: &interceptors{}, now: c.now})
	a := newApp(t, 1)
	a.injected()
	a.sleeps()
	a.scaledSeen(1)
	a.pod("web-1-a", replicaSet(), corev1.PodStatus{})
	a.progress("it starts", at(api.StageScheduling))
	c.forward(10 * time.Minute)
	a.scale(0)
	a.told("Service", "web", "Asleep: Deployment/web has gone to zero replicas: it never became ready in 10m")
	if got := events(t, a.ns, "Service", "web"); strings.Contains(got, " awake: ") {
		t.Errorf("events: %s", got)
	}
}

// TestSlowStartWithoutKEDA: the controller lets a start take its time, unless it cannot succeed.
func TestSlowStartWithoutKEDA(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	withoutKEDA(t)
	counts, c := &counts{active: true}, &clock{}
	start(t, planeOptions{interceptors: &interceptors{}, counts: counts, now: c.now})
	a := newApp(t, 1)
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"1s"}}}`); err != nil {
		t.Fatal(err)
	}
	a.label(`"true"`)
	a.followInjection()
	a.scaleAs(injector.ManagedBy, 0)
	a.told("Deployment", "web", "Asleep: ")
	a.ready(0)
	a.scaledSeen(1)
	pod := a.pod("web-1-a", replicaSet(), corev1.PodStatus{ContainerStatuses: waiting("ContainerCreating", "")})
	a.progress("it starts", at(api.StageStarting))
	counts.set(false, 0)
	c.forward(9 * time.Minute)
	a.become(pod, corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
		Name: "web", Started: new(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
	}}})
	a.progress("it is still starting", at(api.StageNotReady))
	if n := a.replicas(); n != 1 {
		t.Errorf("%d replicas while it starts", n)
	}
	a.become(pod, corev1.PodStatus{ContainerStatuses: waiting("InvalidImageName", "")})
	a.has(0)
}

// TestPaused: nothing wakes a workload that the owner of the ScaledObject has paused with KEDA's annotations, and an
// event says how to end the pause.
func TestPaused(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	p := start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.injected()
	annotate := func(key, value string) {
		t.Helper()
		so := &keda.ScaledObject{}
		a.get("web-deployment", so)
		patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, key, value))
		if err := kube.Patch(t.Context(), so, patch, client.FieldOwner("kubectl-annotate")); err != nil {
			t.Fatal(err)
		}
	}
	pausedFor := func(why string, asleep bool) func(api.Progress) bool {
		return func(p api.Progress) bool { return p.Paused != nil && p.Paused.Why == why && p.Paused.Asleep == asleep }
	}
	notPaused := func(p api.Progress) bool { return p.Paused == nil }
	const why = `ScaledObject web-deployment is paused (autoscaling.keda.sh/paused: "true")`
	annotate(keda.PausedAnnotation, `"true"`)
	a.progress("awake", pausedFor(why, false))
	note := `Paused: ScaledObject web-deployment of Deployment/web is paused (autoscaling.keda.sh/paused: "true"): ` +
		`scale-to-zero neither wakes it nor puts it to sleep. ` +
		"Requests get 503 while it has no replicas. Resume: kubectl annotate scaledobject -n " + a.ns +
		" web-deployment autoscaling.keda.sh/paused-\n"
	for kind, name := range map[string]string{"Service": "web", "Deployment": "web", "ScaledObject": "web-deployment"} {
		a.told(kind, name, note)
	}
	a.scaleAs("kubectl", 0)
	a.progress("at zero", pausedFor(why, true))
	a.told("Service", "web", "Asleep: Deployment/web has gone to zero replicas: "+why+". Requests get 503 until that ends")
	p.stop()
	start(t, planeOptions{interceptors: &interceptors{}})
	annotate(keda.PausedAnnotation, "null")
	a.progress("resumed", notPaused)
	a.told("Service", "web", "Resumed: Deployment/web is no longer paused: the next request wakes it")

	annotate(keda.PausedReplicasAnnotation, `"0"`)
	a.progress("paused at zero", pausedFor(`ScaledObject web-deployment is paused (autoscaling.keda.sh/paused-replicas: "0")`, true))
	annotate(keda.PausedReplicasAnnotation, `"2"`)
	a.progress("KEDA brings it up", notPaused)
	a.told("Service", "web", `is paused (autoscaling.keda.sh/paused-replicas: "2"): scale-to-zero does not put it to sleep. Resume: `)
	annotate(keda.PausedReplicasAnnotation, "null")
	annotate(keda.PausedScaleOutAnnotation, `"true"`)
	a.told("Service", "web", `is paused (autoscaling.keda.sh/paused-scale-out: "true"): scale-to-zero does not wake it. Requests get 503`)
	if got := events(t, a.ns, "Service", "web"); strings.Count(got, note) != 1 {
		t.Errorf("events: %s", got)
	}
	a.label("null") // which ends it
	a.has(1)
}

// TestScaledObjectIsOurs: whoever changes our ScaledObject gets a warning, and one event says that the change was undone.
// Fields that are not ours stay.
func TestScaledObjectIsOurs(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.injected()
	c, w := warned(t)
	cron := keda.Trigger{
		Type: "cron", Metadata: map[string]string{"timezone": "UTC", "start": "0 8 * * *", "end": "0 18 * * *", "desiredReplicas": "1"},
	}
	undone := func() int { return strings.Count(events(t, a.ns, "Service", "web"), "ScaledObjectReset: ") }
	change := func(change func(*keda.ScaledObject)) {
		t.Helper()
		so := &keda.ScaledObject{}
		a.get("web-deployment", so)
		before := so.DeepCopy()
		change(so)
		if err := c.Patch(t.Context(), so, client.MergeFrom(before), client.FieldOwner("kubectl-edit")); err != nil {
			t.Fatal(err)
		}
	}
	addCron := func(so *keda.ScaledObject) { so.Spec.Triggers = append(slices.Clone(so.Spec.Triggers), cron) }
	gone := func() {
		t.Helper()
		eventually(t, "the trigger is gone", func() error {
			so := &keda.ScaledObject{}
			if a.get("web-deployment", so); len(so.Spec.Triggers) != 1 {
				return fmt.Errorf("triggers %v", so.Spec.Triggers)
			}
			return nil
		})
	}
	const text = "scale-to-zero owns ScaledObject web-deployment and has undone a change of spec.triggers. Triggers of your own"
	change(addCron)
	if got := w.take(); !strings.HasPrefix(got, "scale-to-zero owns ScaledObject web-deployment and undoes this change of spec.triggers. ") {
		t.Errorf("warned %q", got)
	}
	gone()
	a.told("Service", "web", text)
	a.told("ScaledObject", "web-deployment", text)
	change(addCron)
	gone()
	change(func(so *keda.ScaledObject) { so.Spec.MaxReplicaCount = new(int32(7)) })
	a.told("Service", "web", "has undone a change of spec.maxReplicaCount.")
	if n := undone(); n != 2 {
		t.Errorf("%d events for two different changes: %s", n, events(t, a.ns, "Service", "web"))
	}
	w.take()
	change(func(so *keda.ScaledObject) { so.Annotations["autoscaling.keda.sh/force-activation"] = "true" })
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/max-replicas":"5"}}}`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "our own change", func() error {
		so := &keda.ScaledObject{}
		if a.get("web-deployment", so); *so.Spec.MaxReplicaCount != 5 || so.Annotations["autoscaling.keda.sh/force-activation"] == "" {
			return fmt.Errorf("at most %d replicas, annotations %v", *so.Spec.MaxReplicaCount, so.Annotations)
		}
		return nil
	})
	if got := w.take(); got != "" || undone() != 2 {
		t.Errorf("got %q: a warning about their field, or none about ours", got)
	}
}

// TestNotReadyAddresses: pods that take requests before they are ready go on doing so, and count as awake.
func TestNotReadyAddresses(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.ready(0)
	if err := a.patch(`{"spec":{"publishNotReadyAddresses":true}}`); err != nil {
		t.Fatal(err)
	}
	a.label(`"true"`)
	eventually(t, "the direct Service publishes them too", func() error {
		direct := &corev1.Service{}
		if err := kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: "web-direct"}, direct); err != nil {
			return err
		}
		if !direct.Spec.PublishNotReadyAddresses {
			return errors.New("it does not")
		}
		return nil
	})
	a.directSlice(false)
	a.told("Service", "web", "Kubernetes has not listed the pods of Service web-direct yet")
	if err := a.intercepted(); err == nil {
		t.Error("it is intercepted before its pods are known")
	}
	a.followInjection()
	a.scale(0)
	a.told("Service", "web", "Asleep: Deployment/web was scaled to zero after ")
	a.directSlice(false)
	a.scale(1)
	a.directSlice(true)
	a.told("Service", "web", "Awake: Deployment/web takes requests before it is ready")
	if err := a.patch(`{"spec":{"publishNotReadyAddresses":false}}`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the direct Service follows", func() error {
		direct := &corev1.Service{}
		if a.get("web-direct", direct); direct.Spec.PublishNotReadyAddresses {
			return errors.New("it publishes them")
		}
		return nil
	})
	a.label("null")
	a.ready(1)
	a.nativeSlice(true)
	eventually(t, "it is restored", func() error { return a.gone("web-scale-to-zero-ipv4", &discoveryv1.EndpointSlice{}) })
}
