// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// TestStartupCPU: an app whose start takes much CPU has 2 CPUs until it is ready, and half a one before and after, as its own cgroup
// says. No container restarts, whether the controllers stay or are away when the pod becomes ready.
func TestStartupCPU(t *testing.T) {
	a := newAirflow(t, "HELM", "--set-string", "webserver.service.annotations.scale-to-zero/startup-cpu=2",
		"--set-string", "webserver.resources.requests.cpu=50m", "--set-string", "webserver.resources.limits.cpu=500m")
	a.hasCPU("0.5")
	a.optIn()
	for name, start := range map[string]func(a *airflow, untilReady func()){
		"controllers there": func(_ *airflow, untilReady func()) { untilReady() },
		"controllers away when it is ready": func(a *airflow, untilReady func()) {
			without(a.t, release, release+"-controller", func() {
				untilReady()
				a.hasCPU("2")
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := a.in(t)
			a.cooldown("3s")
			a.asleep()
			a.cooldown("20m") // so that it stays awake to be looked at
			kubectl(t, "set", "env", "-n", a.ns, "deployment/"+webserver, "START_CPU=20s")
			answers := background(t, "-timeout", "4m", a.url("/echo"))
			a.hasCPU("2")
			id := a.container().ContainerID
			start(a, func() {
				if got := <-answers; len(got) != 1 || got[0].Status != http.StatusOK {
					t.Errorf("got %+v", got)
				}
				eventually(t, "the kubelet calls the pod ready", func() error {
					if !a.container().Ready {
						return errors.New("it does not")
					}
					return nil
				})
			})
			a.hasCPU("0.5")
			if c := a.container(); c.RestartCount != 0 || c.ContainerID != id {
				t.Errorf("container %s instead of %s, %d restarts", c.ContainerID, id, c.RestartCount)
			}
			if pod := a.pod(); pod.Labels[injector.RaisedCPU] != "" || pod.Annotations[injector.RaisedCPU] != "" {
				t.Errorf("labels %v, annotations %v", pod.Labels, pod.Annotations)
			}
			if got := a.deployment().Spec.Template.Spec.Containers[0].Resources.Limits.Cpu().String(); got != "500m" {
				t.Errorf("the Deployment has a CPU limit of %s", got)
			}
			if got := a.events("Service", webserver); count(got, injector.ReasonStartupCPU) > 0 {
				t.Errorf("events %q", got)
			}
		})
	}
}

// cooldown annotates the Service.
func (a *airflow) cooldown(d string) {
	a.t.Helper()
	kubectl(a.t, "annotate", "-n", a.ns, "--overwrite", "service/"+webserver, injector.Prefix+"cooldown="+d)
}

// pod returns the app's one pod, or an empty one while there is none or several.
func (a *airflow) pod() *corev1.Pod {
	a.t.Helper()
	var list corev1.PodList
	if err := kube.List(a.t.Context(), &list, client.InNamespace(a.ns), client.MatchingLabels{"component": "webserver"}); err != nil {
		a.t.Fatal(err)
	}
	if len(list.Items) != 1 {
		return &corev1.Pod{}
	}
	return &list.Items[0]
}

// container returns the status of that pod's container.
func (a *airflow) container() corev1.ContainerStatus {
	a.t.Helper()
	if statuses := a.pod().Status.ContainerStatuses; len(statuses) == 1 {
		return statuses[0]
	}
	return corev1.ContainerStatus{}
}

// hasCPU waits until the container's cgroup has that CPU limit.
func (a *airflow) hasCPU(want string) {
	a.t.Helper()
	eventually(a.t, "its CPU limit is "+want, func() error {
		out, err := command(a.t.Context(), os.Getenv("KUBECTL"), "exec", "-n", a.ns, a.pod().Name, "--", "/app", "cpu")
		if got := strings.TrimSpace(out); err != nil || got != want {
			return errors.Join(err, fmt.Errorf("it is %s", got))
		}
		return nil
	})
}
