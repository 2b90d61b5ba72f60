// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
)

// TestCycle is the main job: with one Helm value, the app sleeps, wakes, answers and sleeps again, whoever calls it by
// whichever name. Its objects stay as the chart made them. Probes do not wake it.
func TestCycle(t *testing.T) {
	t.Parallel()
	a := newAirflow(t, "HELM")
	before := a.service()
	var ingressBefore networkingv1.Ingress
	a.get("airflow-ingress", &ingressBefore)
	a.optIn()
	for _, url := range []string{
		"http://" + before.Spec.ClusterIP + ":8080/echo?x=1%2F2",
		a.url("/echo?x=1%2F2"),
		"http://" + webserver + "." + a.ns + ".svc.cluster.local:8080/echo?x=1%2F2",
	} {
		a.asleep()
		if probe := get(t, "-H", "User-Agent: kube-probe/1.34", url)[0]; probe.Status != 200 || !strings.Contains(probe.Body, "is asleep") ||
			probe.Held != "" {
			t.Errorf("%s: a probe got %+v", url, probe)
		}
		got := get(t, url)[0]
		var echo struct {
			App, Host, Path string
			Query           map[string][]string
		}
		if err := json.Unmarshal([]byte(got.Body), &echo); err != nil || got.Status != 200 {
			t.Fatalf("%s: status %d, body %q: %v", url, got.Status, got.Body, err)
		}
		if got.Held == "" {
			t.Errorf("%s: the answer does not say that it was held", url)
		}
		if !strings.HasPrefix(echo.App, webserver+"-") || !strings.Contains(url, echo.Host) || echo.Query["x"][0] != "1/2" {
			t.Errorf("%s: the app was asked otherwise: %+v", url, echo)
		}
	}
	a.asleep()
	after := a.service()
	if d := cmp.Diff(before.Spec.Ports, after.Spec.Ports); d != "" {
		t.Errorf("the Service's ports changed (-before +after):\n%s", d)
	}
	var ingress networkingv1.Ingress
	a.get("airflow-ingress", &ingress)
	if d := cmp.Diff(ingressBefore.Spec, ingress.Spec); d != "" {
		t.Errorf("the Ingress changed (-before +after):\n%s", d)
	}
	for _, o := range [][2]string{{"Service", webserver}, {"Deployment", webserver}} {
		got := a.events(o[0], o[1])
		for reason, want := range map[string]int{"Injected": 1, "WakeRequested": 3, "Awake": 3, "Asleep": 4} {
			if n := count(got, reason); n != want {
				t.Errorf("%s has %d events %s, want %d: %q", o[0], n, reason, want, got)
			}
		}
	}
	if got := a.events("Deployment", "airflow-scheduler"); count(got, "Asleep") != 0 {
		t.Errorf("the scheduler was touched: %q", got)
	}
}

// TestBodyWhileAsleep sends 10 MiB before there is a pod to read it.
func TestBodyWhileAsleep(t *testing.T) {
	t.Parallel()
	a := newAirflow(t, "HELM")
	a.optIn()
	a.asleep()
	const size = 10 << 20
	got := get(t, "-X", "POST", "-bytes", fmt.Sprint(size), a.url("/upload"))[0]
	var echo struct {
		BodyBytes  int64
		BodySha256 string
	}
	if err := json.Unmarshal([]byte(got.Body), &echo); err != nil || got.Status != 200 {
		t.Fatalf("status %d, body %q: %v", got.Status, got.Body, err)
	}
	var pods []string
	eventually(t, "a pod is ready by the kubelet's word too", func() error {
		if pods = a.podIPs(); len(pods) == 0 {
			return errors.New("none is")
		}
		return nil
	})
	direct := get(t, "-X", "POST", "-bytes", fmt.Sprint(size), "http://"+pods[0]+":8080/upload")[0]
	var want struct {
		BodyBytes  int64
		BodySha256 string
	}
	if err := json.Unmarshal([]byte(direct.Body), &want); err != nil {
		t.Fatal(err)
	}
	if echo != want || echo.BodyBytes != size {
		t.Errorf("the app got %+v while asleep, and %+v from the same client directly", echo, want)
	}
}

// TestCrowdWakesOnce: 100 requests at once to a sleeping app are all answered, and cause one wake.
func TestCrowdWakesOnce(t *testing.T) {
	t.Parallel()
	a := newAirflow(t, "HELM")
	a.optIn()
	a.asleep()
	upBefore := scaledUp(a)
	got := get(t, "-n", "100", "-c", "100", a.url("/echo"))
	if len(got) != 100 {
		t.Errorf("%d answers", len(got))
	}
	for _, one := range got {
		if one.Status != 200 {
			t.Errorf("status %d: %s", one.Status, one.Body)
		}
	}
	if n := count(a.events("Service", webserver), "WakeRequested"); n != 1 {
		t.Errorf("%d wakes were requested: %q", n, a.events("Service", webserver))
	}
	if n := scaledUp(a) - upBefore; n != 1 {
		t.Errorf("KEDA scaled up %d times", n)
	}
}

// scaledUp returns how often KEDA reports that it scaled the app up.
func scaledUp(a *airflow) int {
	return count(a.events("ScaledObject", webserver+"-deployment"), "KEDAScaleTargetActivated")
}

// TestChartUpgrades upgrades the app's chart with either Helm, awake and asleep. An upgrade neither undoes the injection
// nor conflicts with it, nor wakes the app. The chart asks for two replicas, while KEDA wakes it with another count.
func TestChartUpgrades(t *testing.T) {
	for _, helm := range []string{"HELM", "HELM3"} {
		t.Run(helm, func(t *testing.T) {
			t.Parallel()
			a := newAirflow(t, helm, "--set", "webserver.replicas=2")
			var flags []string
			if helm == "HELM" {
				flags = []string{"--server-side=true"}
			}
			a.optIn()
			a.asleep()
			a.upgrade(append(flags, "--reuse-values", "--set", "webserver.service.annotations.note=one")...)
			if n := *a.deployment().Spec.Replicas; n != 0 {
				t.Errorf("an upgrade with the same replica count woke it: %d replicas", n)
			}
			if got := get(t, a.url("/echo"))[0]; got.Status != 200 {
				t.Errorf("after an upgrade while asleep: %d %s", got.Status, got.Body)
			}
			a.upgrade(append(flags, "--reuse-values", "--set", "webserver.service.annotations.note=two")...)
			s := a.service()
			if s.Annotations["note"] != "two" || s.Spec.Selector["scale-to-zero/intercepted"] != "true" || s.Labels["scale-to-zero"] != "true" {
				t.Errorf("after the upgrade: annotations %v, selector %v, labels %v", s.Annotations, s.Spec.Selector, s.Labels)
			}
			a.asleep()
			if got := get(t, a.url("/echo"))[0]; got.Status != 200 {
				t.Errorf("after an upgrade while awake: %d %s", got.Status, got.Body)
			}
			for _, m := range s.ManagedFields {
				if m.Manager == "scale-to-zero" && strings.Contains(m.FieldsV1.GetRawString(), "f:selector") {
					t.Errorf("scale-to-zero owns the selector")
				}
			}
			if slices.Contains(a.events("Service", webserver), "Restored") {
				t.Error("the injection was undone")
			}
		})
	}
}

// TestSettingsChangeWhileAwake: at each change of a ScaledObject, KEDA builds a new scaler and for a moment takes an
// active app for inactive. The app stays awake.
func TestSettingsChangeWhileAwake(t *testing.T) {
	t.Parallel()
	a := newAirflow(t, "HELM", "--set-string", "webserver.service.annotations.scale-to-zero/cooldown=20m")
	a.optIn()
	so := webserver + "-deployment"
	eventually(t, "KEDA calls it active", func() error {
		if got := kubectl(t, "get", "scaledobject", "-n", a.ns, so, "-o", "jsonpath={.status.lastActiveTime}"); got == "" {
			return errors.New("never")
		}
		return nil
	})
	for i := range 25 {
		before := count(a.events("ScaledObject", so), "KEDAScalersStarted")
		kubectl(t, "annotate", "service", "-n", a.ns, webserver, "--overwrite", fmt.Sprintf("scale-to-zero/cooldown=%ds", 1201+i))
		eventually(t, "KEDA has a new scaler", func() error {
			if n := count(a.events("ScaledObject", so), "KEDAScalersStarted"); n == before {
				return fmt.Errorf("%d times", n)
			}
			return nil
		})
	}
	if got := count(a.events("ScaledObject", so), "KEDAScaleTargetDeactivated"); got != 0 || *a.deployment().Spec.Replicas != 1 {
		t.Errorf("it was put to sleep %d times: %q", got, a.events("Service", webserver))
	}
}

// TestOptOutWhileAsleep removes the label: the old replica count and the old endpoints are back, and nothing of ours is
// left.
func TestOptOutWhileAsleep(t *testing.T) {
	t.Parallel()
	a := newAirflow(t, "HELM", "--set", "webserver.replicas=2")
	before := a.service()
	a.optIn()
	a.asleep()
	a.label("scale-to-zero-")
	if got := get(t, a.url("/echo"))[0]; got.Status != 200 {
		t.Errorf("a request on the way back: %d %s", got.Status, got.Body)
	}
	eventually(t, "everything is back", func() error {
		if err := a.remains(); err != nil {
			return err
		}
		pods, endpoints := a.podIPs(), a.endpoints(webserver)
		if len(pods) != 2 || !slices.Equal(pods, endpoints) {
			return fmt.Errorf("pods %v, endpoints %v", pods, endpoints)
		}
		return nil
	})
	if d := cmp.Diff(before.Spec, a.service().Spec); d != "" {
		t.Errorf("the Service is not what it was (-before +after):\n%s", d)
	}
	if n := *a.deployment().Spec.Replicas; n != 2 {
		t.Errorf("%d replicas, want 2", n)
	}
	if n := count(a.events("Service", webserver), "Restored"); n != 1 {
		t.Errorf("%d events Restored", n)
	}
	if got := get(t, "-n", "20", "-c", "4", a.url("/echo")); len(got) != 20 {
		t.Errorf("%d answers afterwards", len(got))
	}
}

// TestOptOutUnderLoad removes the label and sets it again under constant requests; none fails.
func TestOptOutUnderLoad(t *testing.T) {
	t.Parallel()
	a := newAirflow(t, "HELM")
	a.optIn()
	a.asleep()
	done := background(t, "-n", "400", "-c", "4", a.url("/slow?for=100ms"))
	for _, label := range []string{"scale-to-zero-", "scale-to-zero=true", "scale-to-zero-"} {
		a.label(label)
		eventually(t, label, func() error {
			if label == "scale-to-zero=true" {
				if s := a.service(); s.Spec.Selector["scale-to-zero/intercepted"] != "true" {
					return fmt.Errorf("selector %v", s.Spec.Selector)
				}
				return nil
			}
			return a.remains()
		})
	}
	for _, one := range <-done {
		if one.Status != 200 {
			t.Errorf("status %d: %s", one.Status, one.Body)
		}
	}
}

// TestDeletedAppLeavesNothing uninstalls the app's chart while it sleeps.
func TestDeletedAppLeavesNothing(t *testing.T) {
	t.Parallel()
	a := newAirflow(t, "HELM3")
	a.optIn()
	a.asleep()
	must(t, a.helm, "uninstall", "airflow", "-n", a.ns, "--wait")
	eventually(t, "nothing of ours is left", func() error {
		if err := a.remains(); err != nil {
			return err
		}
		if left := strings.TrimSpace(kubectl(t, "get", "-n", a.ns, "all,endpointslices,hpa,scaledobjects,ingresses", "-o", "name")); left != "" {
			return fmt.Errorf("left: %s", left)
		}
		return nil
	})
}

// TestBadSettingsAreDenied at admission, by the chart's webhook configuration.
func TestBadSettingsAreDenied(t *testing.T) {
	t.Parallel()
	a := newAirflow(t, "HELM")
	a.optIn()
	_, err := command(t.Context(), os.Getenv("KUBECTL"), "annotate", "service", "-n", a.ns, webserver, "--overwrite",
		"scale-to-zero/cooldown=5")
	if err == nil {
		t.Fatal("it was not denied")
	}
	for _, want := range []string{"scale-to-zero/cooldown", `"5"`, "30s, 5m or 1h30m"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %s", err, want)
		}
	}
}
