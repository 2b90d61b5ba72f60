// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/interceptor/busy"
)

// TestBusy: an app that answers as Jenkins does stays up while a build runs, although nobody visits it, and sleeps when the build has
// ended.
func TestBusy(t *testing.T) {
	t.Parallel()
	a := newAirflow(t, "HELM", "--set-string", "webserver.service.annotations.scale-to-zero/busy=GET /computer/api/json",
		"--set-string", "webserver.service.annotations.scale-to-zero/busy-when=json.busyExecutors > 0")
	a.optIn()
	a.asleep() // then there is one pod, and none of before the upgrade
	if got := get(t, "-X", http.MethodPost, a.url("/computer/busy/1"))[0]; got.Status != http.StatusOK {
		t.Fatalf("got %+v", got)
	}
	eventually(t, "it is up because it is busy", func() error {
		if all := a.events("Service", webserver); count(all, busy.KeptBusy) != 1 {
			return fmt.Errorf("events %v", all)
		}
		return nil
	})
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
		if n := *a.deployment().Spec.Replicas; n != 1 {
			t.Fatalf("it has %d replicas while it is busy", n)
		}
	}
	// From its own pod, past the interceptors: that is no visit.
	kubectl(t, "exec", "-n", a.ns, a.pod().Name, "--", "/app", "get", "-X", "POST", "http://127.0.0.1:8080/computer/busy/0")
	a.asleep()
	all := a.events("Service", webserver)
	const want = busy.KeptBusy + ": Deployment/" + webserver + " has no requests but is busy: GET /computer/api/json says " +
		"json.busyExecutors > 0. It stays up until that is over"
	if count(all, busy.KeptBusy) != 1 || count(all, busy.CheckFailed) != 0 || !strings.Contains(strings.Join(all, "\n"), want) {
		t.Errorf("events %v", all)
	}
}

// TestBusyCPU: an app that uses CPU stays up, and sleeps when it uses none. Where the cluster does not measure it, an event says so.
func TestBusyCPU(t *testing.T) {
	t.Parallel()
	a := newAirflow(t, "HELM", "--set-string", "webserver.service.annotations.scale-to-zero/busy-cpu=100m")
	a.optIn()
	a.asleep()
	kubectl(t, "set", "env", "-n", a.ns, "deployment/"+webserver, "RUN_CPU=100s")
	if got := get(t, a.url("/echo"))[0]; got.Status != http.StatusOK {
		t.Fatalf("got %+v", got)
	}
	reason := busy.KeptBusy
	if _, err := command(t.Context(), os.Getenv("KUBECTL"), "get", "--raw", "/apis/metrics.k8s.io/v1beta1"); err != nil {
		reason = busy.CPUUnknown
	}
	eventually(t, "an event "+reason, func() error {
		if all := a.events("Service", webserver); count(all, reason) != 1 {
			return fmt.Errorf("events %v", all)
		}
		return nil
	})
	if reason == busy.KeptBusy {
		if n := *a.deployment().Spec.Replicas; n != 1 {
			t.Errorf("it has %d replicas while it is busy", n)
		}
		a.usesLess("100m")
	}
	a.asleep()
	if all := a.events("Service", webserver); count(all, reason) != 1 {
		t.Errorf("events %v", all)
	}
}

// usesLess waits until metrics-server has seen the app's pod use less CPU than that.
func (a *airflow) usesLess(most string) {
	a.t.Helper()
	limit := resource.MustParse(most)
	eventually(a.t, "it uses less than "+most, func() error {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(schema.GroupVersionKind{Group: "metrics.k8s.io", Version: "v1beta1", Kind: "PodMetricsList"})
		err := kube.List(a.t.Context(), list, client.InNamespace(a.ns), client.MatchingLabels{"component": "webserver"})
		if err != nil {
			return err
		}
		for _, pod := range list.Items {
			containers, _, _ := unstructured.NestedSlice(pod.Object, "containers")
			for _, c := range containers {
				text, _, _ := unstructured.NestedString(c.(map[string]any), "usage", "cpu")
				if used, err := resource.ParseQuantity(text); err != nil || used.Cmp(limit) >= 0 {
					return fmt.Errorf("it uses %s", text)
				}
			}
		}
		return nil
	})
}
