// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// TestFailures takes down what scale-to-zero depends on, one part after the other, and checks an awake and a sleeping
// app. It is not parallel to the other tests, which need all parts.
func TestFailures(t *testing.T) {
	awake := newAirflow(t, "HELM", "--set-string", `webserver.service.annotations.scale-to-zero/cooldown=20m`)
	asleep := newAirflow(t, "HELM")
	awake.optIn()
	asleep.optIn()
	store := &stack{t: t, ns: newNamespace(t)}
	store.statefulApp("store")
	store.redirected("store")
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, awake, asleep *airflow)
	}{
		{"controllers down", controllersDown},
		{"KEDA down", kedaDown},
		{"KEDA down, a StatefulSet", store.kedaDown},
		{"no interceptor", noInterceptor},
		{"API server unreachable", apiServerUnreachable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			asleep.asleep()
			tc.do(t, awake.in(t), asleep.in(t))
		})
	}
}

// in is the app for a subtest.
func (a *airflow) in(t *testing.T) *airflow {
	t.Helper()
	return &airflow{t: t, helm: a.helm, ns: a.ns}
}

// without runs do while a Deployment has no pods, and then restores its replicas.
func without(t *testing.T, namespace, name string, do func()) {
	t.Helper()
	d := &appsv1.Deployment{}
	if err := kube.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, d); err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprintf("--replicas=%d", *d.Spec.Replicas)
	back := func(ctx context.Context) error {
		_, err := command(ctx, os.Getenv("KUBECTL"), "scale", "deployment", "-n", namespace, name, before)
		if err == nil {
			_, err = command(ctx, os.Getenv("KUBECTL"), "rollout", "status", "deployment", "-n", namespace, name, "--timeout=2m")
		}
		return err
	}
	t.Cleanup(func() {
		if t.Failed() {
			if err := back(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
	kubectl(t, "scale", "deployment", "-n", namespace, name, "--replicas=0")
	eventually(t, name+" has no pods", func() error {
		var pods corev1.PodList
		if err := kube.List(t.Context(), &pods, client.InNamespace(namespace), client.MatchingLabels(d.Spec.Selector.MatchLabels)); err != nil {
			return err
		}
		// A draining pod does not help either.
		if slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp == nil }) {
			return fmt.Errorf("it has %d", len(pods.Items))
		}
		return nil
	})
	do()
	if err := back(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// visit sends requests, and fails for each without a good answer.
func (a *airflow) visit(n int, path string) {
	a.t.Helper()
	answers := get(a.t, "-n", fmt.Sprint(n), "-c", "4", a.url(path))
	if len(answers) != n {
		a.t.Errorf("%d answers to %d requests", len(answers), n)
	}
	for _, one := range answers {
		if one.Status != 200 {
			a.t.Errorf("status %d: %s", one.Status, one.Body)
		}
	}
}

func controllersDown(t *testing.T, awake, asleep *airflow) {
	t.Helper()
	without(t, release, release+"-controller", func() {
		awake.visit(40, "/slow?for=50ms")
		asleep.visit(4, "/echo")
	})
}

func kedaDown(t *testing.T, awake, asleep *airflow) {
	t.Helper()
	without(t, "keda", "keda-operator", func() {
		awake.visit(40, "/slow?for=50ms")
		asleep.visit(4, "/echo")
	})
	asleep.asleep() // KEDA works again
}

// kedaDown wakes a StatefulSet, and restores it while it sleeps.
func (s *stack) kedaDown(t *testing.T, _, _ *airflow) {
	t.Helper()
	store := &stack{t: t, ns: s.ns}
	store.asleep()
	without(t, "keda", "keda-operator", func() { store.answers("store", "without KEDA") })
	store.asleep()
	kubectl(t, "label", "service", "-n", s.ns, "store", "scale-to-zero-")
	store.answers("store", "without the label")
	if got := kubectl(t, "get", "statefulset", "-n", s.ns, "store", "-o", "jsonpath={.spec.replicas}"); got != "1" {
		t.Errorf("%s replicas, want 1", got)
	}
}

func noInterceptor(t *testing.T, awake, asleep *airflow) {
	t.Helper()
	without(t, release, release+"-interceptor", func() {
		eventually(t, "the awake app's endpoints are its pods", func() error {
			pods := awake.podIPs()
			if got := awake.endpoints(webserver); len(pods) == 0 || !slices.Equal(got, pods) {
				return fmt.Errorf("it is led to %v, and its pods are %v", got, pods)
			}
			so := &keda.ScaledObject{}
			awake.get(webserver+"-deployment", so)
			if *so.Spec.MinReplicaCount != 1 {
				return errors.New("KEDA may put it to sleep")
			}
			return nil
		})
		awake.visit(40, "/slow?for=50ms")
		eventually(t, "an event of the sleeping app says so", func() error {
			if got := asleep.events("Service", webserver); count(got, "NoInterceptor") == 0 {
				return fmt.Errorf("events %q", got)
			}
			return nil
		})
		if n := *asleep.deployment().Spec.Replicas; n != 0 {
			t.Errorf("the one that sleeps was woken: %d replicas", n)
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		awake.visit(200, "/slow?for=50ms") // when it ends, too
	}()
	eventually(t, "they are redirected again", func() error {
		for _, a := range []*airflow{awake, asleep} {
			if got := count(a.events("Service", webserver), "Injected"); got != 2 {
				return fmt.Errorf("events %q", a.events("Service", webserver))
			}
		}
		return nil
	})
	asleep.visit(1, "/echo")
	<-done
}

// apiServerUnreachable sends its requests itself: kubectl exec would need the API server.
func apiServerUnreachable(t *testing.T, awake, asleep *airflow) {
	t.Helper()
	pause := strings.Fields(os.Getenv("E2E_PAUSE"))
	if len(pause) == 0 {
		t.Skip("E2E_PAUSE is empty")
	}
	address := func(a *airflow) string {
		return "http://" + net.JoinHostPort(a.service().Spec.ClusterIP, "8080") + "/echo"
	}
	visit := func(ctx context.Context, url string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		if resp.StatusCode != 200 {
			return errors.Join(errors.New(resp.Status), resp.Body.Close())
		}
		return resp.Body.Close()
	}
	awakeURL, asleepURL := address(awake), address(asleep)
	if err := visit(t.Context(), awakeURL); err != nil {
		t.Fatal(err)
	}
	paused := make(chan error, 1)
	began := time.Now()
	go func() {
		out, err := exec.CommandContext(t.Context(), pause[0], append(pause[1:], "kube-apiserver", "1m")...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		paused <- err
	}()
	held := make(chan error, 1)
	var requests, failures atomic.Int32
	for sent := false; ; {
		if !sent && time.Since(began) > 5*time.Second { // by then it is paused for certain
			sent = true
			go func() { held <- visit(t.Context(), asleepURL) }()
		}
		requests.Add(1)
		if err := visit(t.Context(), awakeURL); err != nil {
			failures.Add(1)
			t.Logf("after %s: %v", time.Since(began).Round(time.Second), err)
		}
		select {
		case err := <-paused:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(50 * time.Millisecond):
			continue
		}
		break
	}
	if n := failures.Load(); n > 0 {
		t.Errorf("%d of %d requests failed", n, requests.Load())
	}
	if err := <-held; err != nil {
		t.Errorf("the request that was held for the API server: %v", err)
	}
	awake.visit(20, "/echo")
	if got := awake.events("Service", webserver); count(got, "Asleep") > 0 || *awake.deployment().Spec.Replicas == 0 {
		t.Errorf("it was scaled down: %q", got)
	}
}
