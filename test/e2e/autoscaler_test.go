// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// besideAutoscaler sets the one Helm value, and waits until the Service is injected and the autoscaler of the chart is left in charge.
func (a *airflow) besideAutoscaler() {
	a.t.Helper()
	a.upgrade("--reuse-values", "--set-string", "webserver.labels.scale-to-zero=true")
	eventually(a.t, "the Service is intercepted, beside the autoscaler", func() error {
		if s := a.service(); !injector.Intercepted(s) {
			return fmt.Errorf("selector %v", s.Spec.Selector)
		}
		if got := a.deployment().Annotations[injector.AutoscalerAnnotation]; got == "" {
			return errors.New("no autoscaler is known")
		}
		return nil
	})
	err := kube.Get(a.t.Context(), client.ObjectKey{Namespace: a.ns, Name: webserver + "-deployment"}, &keda.ScaledObject{})
	if client.IgnoreNotFound(err) != nil || err == nil {
		a.t.Errorf("a ScaledObject of ours beside the autoscaler: %v", err)
	}
}

func (a *airflow) hpa() *autoscalingv2.HorizontalPodAutoscaler {
	a.t.Helper()
	hpa := &autoscalingv2.HorizontalPodAutoscaler{}
	a.get(webserver, hpa)
	return hpa
}

// hpaValues make the chart have an HPA, and scaledObjectValues a ScaledObject.
func hpaValues() []string {
	return []string{"--set", "webserver.hpa.enabled=true", "--set", "webserver.hpa.minReplicaCount=2"}
}

func scaledObjectValues() []string {
	return []string{"--set-json", `webserver.scaledObject={
		"minReplicaCount":0,"maxReplicaCount":4,"pollingInterval":2,"cooldownPeriod":3,
		"triggers":[{"type":"cron","metadata":{"timezone":"UTC","start":"0 0 29 2 *","end":"1 0 29 2 *","desiredReplicas":"2"}},
			{"type":"cpu","metricType":"Utilization","metadata":{"value":"80"}}]}`}
}

// newAutoscaled installs the chart with an autoscaler of its own.
func newAutoscaled(t *testing.T, helm string, values []string) *airflow {
	t.Helper()
	a := newAirflow(t, helm, "--set-string", "webserver.resources.requests.cpu=20m")
	// KEDA's webhook refuses a ScaledObject with a CPU trigger while its cache lacks the Deployment.
	a.upgrade(append(values, "--reuse-values")...)
	return a
}

// autoscaler returns the spec of the chart's autoscaler.
func (a *airflow) autoscaler(kind string) string {
	a.t.Helper()
	return kubectl(a.t, "get", kind, "-n", a.ns, webserver, "-o", "jsonpath={.spec}")
}

// has waits until the app has that many replicas.
func (a *airflow) has(n int32) {
	a.t.Helper()
	eventually(a.t, fmt.Sprintf("it has %d replicas", n), func() error {
		if got := *a.deployment().Spec.Replicas; got != n {
			return fmt.Errorf("it has %d", got)
		}
		return nil
	})
}

// answers sends one request, which has to be answered.
func (a *airflow) answers() {
	a.t.Helper()
	if got := get(a.t, a.url("/echo"))[0]; got.Status != 200 {
		a.t.Errorf("%d %s", got.Status, got.Body)
	}
}

// TestBesideHPA: an HPA from 2 to 5 by CPU is left as it is. The app sleeps, wakes with two replicas, has five under load, sleeps, wakes
// with five, and is the HPA's alone again when the label goes.
func TestBesideHPA(t *testing.T) {
	t.Parallel()
	if out, err := command(t.Context(), os.Getenv("KUBECTL"), "get", "--raw", "/apis/metrics.k8s.io/v1beta1"); err != nil {
		t.Skipf("this cluster has no metrics.k8s.io, by which an HPA scales: %s%v", out, err)
	}
	a := newAirflow(t, "HELM", "--set", "webserver.hpa.enabled=true", "--set", "webserver.hpa.minReplicaCount=2",
		"--set-json", `webserver.hpa.metrics=[{"type":"Resource","resource":{"name":"cpu",
			"target":{"type":"Utilization","averageUtilization":70}}}]`,
		"--set-string", "webserver.resources.requests.cpu=20m", "--set-string", "webserver.resources.limits.cpu=100m")
	before := a.hpa()
	a.besideAutoscaler()
	a.asleep()
	a.answers()
	a.has(2)
	a.cooldown("20m")
	// A minute of load: metrics-server and the HPA look a few times in that.
	done := background(t, "-n", "360", "-c", "6", "-timeout", "2m", a.url("/burn?for=1s"))
	a.has(5)
	for _, one := range <-done {
		if one.Status != 200 {
			t.Errorf("under load: %d %s", one.Status, one.Body)
		}
	}
	a.cooldown("3s")
	a.asleep()
	a.answers()
	a.has(5)
	a.asleep()
	a.label("scale-to-zero-")
	for _, one := range get(t, "-n", "20", "-c", "4", a.url("/echo")) {
		if one.Status != 200 {
			t.Errorf("on the way back: %d %s", one.Status, one.Body)
		}
	}
	eventually(t, "nothing of ours is left", func() error {
		annotations := a.deployment().Annotations
		if annotations[injector.ReplicasAnnotation]+annotations[injector.AutoscalerAnnotation] != "" {
			return fmt.Errorf("annotations %v", annotations)
		}
		return a.remains()
	})
	if d := cmp.Diff(before.Spec, a.hpa().Spec); d != "" || a.hpa().UID != before.UID {
		t.Errorf("the HPA is not what it was (-before +after):\n%s", d)
	}
}

// TestAutoscalerComesAndGoes creates and deletes an HPA under constant requests, awake and asleep: the app changes hands, and no request
// is lost.
func TestAutoscalerComesAndGoes(t *testing.T) {
	t.Parallel()
	a := newAirflow(t, "HELM", "--set", "webserver.replicas=2")
	a.optIn()
	beside := func() error {
		err := kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: webserver + "-deployment"}, &keda.ScaledObject{})
		if client.IgnoreNotFound(err) != nil || err == nil {
			return errors.Join(err, errors.New("the ScaledObject of ours is there"))
		}
		if got := a.deployment().Annotations[injector.AutoscalerAnnotation]; got != "HorizontalPodAutoscaler/mine" {
			return fmt.Errorf("the autoscaler is %q", got)
		}
		return nil
	}
	alone := func() error {
		if got := a.deployment().Annotations[injector.AutoscalerAnnotation]; got != "" {
			return fmt.Errorf("the autoscaler is %q", got)
		}
		return kube.Get(t.Context(), client.ObjectKey{Namespace: a.ns, Name: webserver + "-deployment"}, &keda.ScaledObject{})
	}
	for name, prepare := range map[string]struct {
		state func()
		load  []string
	}{
		"asleep": {a.asleep, []string{"-n", "1", a.url("/echo")}},
		"awake":  {func() {}, []string{"-n", "200", "-c", "4", a.url("/slow?for=100ms")}},
	} {
		for _, change := range []struct {
			command []string
			then    func() error
		}{
			{[]string{"autoscale", "-n", a.ns, "deployment/" + webserver, "--name=mine", "--min=2", "--max=3", "--cpu=80%"}, beside},
			{[]string{"delete", "-n", a.ns, "hpa/mine"}, alone},
		} {
			prepare.state()
			done := background(t, prepare.load...)
			kubectl(t, change.command...)
			eventually(t, name+", "+change.command[0], change.then)
			for _, one := range <-done {
				if one.Status != 200 {
					t.Errorf("%s, %s: %d %s", name, change.command[0], one.Status, one.Body)
				}
			}
		}
	}
}

// TestChartsWithAutoscalers upgrades charts with an HPA or a ScaledObject of their own, by either Helm, in each state. The autoscaler stays
// the chart's, a ScaledObject has our trigger only while the app is opted in, and an upgrade wakes nothing.
func TestChartsWithAutoscalers(t *testing.T) {
	for name, tc := range map[string]struct {
		helm   string
		values []string
		kind   string
		wakes  int32
	}{
		"an HPA, Helm 4":         {"HELM", hpaValues(), "hpa", 2},
		"an HPA, Helm 3":         {"HELM3", hpaValues(), "hpa", 2},
		"a ScaledObject, Helm 4": {"HELM", scaledObjectValues(), "scaledobject", 1},
		"a ScaledObject, Helm 3": {"HELM3", scaledObjectValues(), "scaledobject", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAutoscaled(t, tc.helm, tc.values)
			spec := func() string {
				t.Helper()
				return a.autoscaler(tc.kind)
			}
			before := spec()
			var flags []string
			if tc.helm == "HELM" {
				flags = []string{"--server-side=true"}
			}
			upgrade := func(note string) {
				t.Helper()
				a.upgrade(append(flags, "--reuse-values", "--set", "webserver.service.annotations.note="+note)...)
			}
			wantSpec := func(optedIn bool) {
				t.Helper()
				got := spec()
				if triggered := strings.Contains(got, `"name":"scale-to-zero"`); triggered != (optedIn && tc.kind == "scaledobject") {
					t.Errorf("opted in %t: %s", optedIn, got)
				} else if !triggered && got != before {
					t.Errorf("opted in %t: %s, before %s", optedIn, got, before)
				}
			}
			a.besideAutoscaler()
			a.asleep()
			upgrade("one")
			if n := *a.deployment().Spec.Replicas; n != 0 {
				t.Errorf("an upgrade woke it: %d replicas", n)
			}
			wantSpec(true)
			a.answers()
			a.has(tc.wakes)
			upgrade("two")
			wantSpec(true)
			a.answers()
			a.asleep()
			a.label("scale-to-zero-")
			a.answers()
			eventually(t, "everything is back", a.remains)
			eventually(t, "the autoscaler is what it was", func() error {
				if got := spec(); got != before {
					return errors.New(got)
				}
				return nil
			})
			a.upgrade(append(flags, "--reuse-values", "--set-string", "webserver.labels.scale-to-zero=false")...)
			wantSpec(false)
		})
	}
}

// TestKeptAsleep keeps an app asleep for maintenance: requests get a 503 that says so, and nothing else wakes it.
func TestKeptAsleep(t *testing.T) {
	t.Parallel()
	a := newAirflow(t, "HELM", "--set-string", "webserver.service.annotations.scale-to-zero/cooldown=20m")
	a.optIn()
	a.answers()
	kubectl(t, "annotate", "service", "-n", a.ns, webserver, injector.Prefix+"asleep=true")
	a.has(0)
	eventually(t, "requests are refused", func() error {
		const why = "is asleep: its owner has paused it"
		if got := get(t, a.url("/echo"))[0]; got.Status != 503 || !strings.Contains(got.Body, why) {
			return fmt.Errorf("%d %s", got.Status, got.Body)
		}
		return nil
	})
	kubectl(t, "scale", "deployment", "-n", a.ns, webserver, "--replicas=1")
	a.has(0)
	kubectl(t, "annotate", "service", "-n", a.ns, webserver, injector.Prefix+"asleep-")
	eventually(t, "it wakes again", func() error {
		if got := get(t, a.url("/echo"))[0]; got.Status != 200 {
			return fmt.Errorf("%d %s", got.Status, got.Body)
		}
		return nil
	})
	if got := a.events("Service", webserver); count(got, injector.ReasonPaused) != 1 || count(got, injector.ReasonResumed) != 1 {
		t.Errorf("events %q", got)
	}
}
