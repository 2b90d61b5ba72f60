// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// policy refuses the pods of one namespace, with a message.
const policy = `{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingAdmissionPolicy","metadata":{"name":%[1]q},"spec":{
"matchConstraints":{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":%[1]q}},
"resourceRules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}]},
"validations":[{"expression":"false","message":"pods here need an owner"}]}}
{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingAdmissionPolicyBinding","metadata":{"name":%[1]q},
"spec":{"policyName":%[1]q,"validationActions":["Deny"]}}`

// TestStartFails breaks a sleeping app. As soon as the failure is certain, its clients get the reason, and one event
// reports it. Once the app is fixed, it answers as before.
func TestStartFails(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil, mend func(a *airflow)
		kind        string // is in the answers
		want        string // is in the event, and not in the answers
		advice      string // is in the event
	}{
		"image that does not exist": {
			spoil: func(a *airflow) {
				a.patchPod(`{"containers":[{"name":"webserver","image":"registry.example.com/airflow:2"}]}`)
			},
			mend: func(a *airflow) {
				a.patchPod(`{"containers":[{"name":"webserver","image":"` + os.Getenv("E2E_APP_IMAGE") + `"}]}`)
			},
			kind: "its image cannot be pulled",
			want: "its image registry.example.com/airflow:2 cannot be pulled", advice: "Check the image's name",
		},
		"crash loop": {
			spoil: func(a *airflow) { a.startDelay("soon") },
			mend:  func(a *airflow) { a.startDelay("100ms") },
			kind:  "it ends again and again",
			want:  " times, the last time with exit code 1", advice: "See kubectl logs -n ",
		},
		"no node": {
			spoil: func(a *airflow) { a.patchPod(`{"nodeSelector":{"disk":"huge"}}`) },
			mend:  func(a *airflow) { a.patchPod(`{"nodeSelector":null}`) },
			kind:  "no node can take it",
			want:  "no node can take its pod: 0/", advice: "add a node",
		},
		"quota": {
			spoil: func(a *airflow) {
				none := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}
				quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "none"}, Spec: corev1.ResourceQuotaSpec{Hard: none}}
				if err := kube.Create(a.t.Context(), quota); err != nil {
					a.t.Fatal(err)
				}
			},
			mend: func(a *airflow) { kubectl(a.t, "delete", "resourcequota", "-n", a.ns, "none") },
			kind: "Kubernetes does not let it start",
			want: "Kubernetes refuses its pod: exceeded quota: none, requested: pods=1", advice: "Raise the quota",
		},
		"admission": {
			spoil: func(a *airflow) {
				apply := exec.CommandContext(a.t.Context(), os.Getenv("KUBECTL"), "apply", "-f", "-")
				apply.Stdin = strings.NewReader(fmt.Sprintf(policy, a.ns))
				if out, err := apply.CombinedOutput(); err != nil {
					a.t.Fatalf("%v: %s", err, out)
				}
				a.t.Cleanup(func() {
					_, _ = command(context.Background(), os.Getenv("KUBECTL"), "delete", "validatingadmissionpolicy,validatingadmissionpolicybinding",
						a.ns, "--ignore-not-found")
				})
				eventually(a.t, "the policy is in force", func() error {
					_, err := command(a.t.Context(), os.Getenv("KUBECTL"), "run", "-n", a.ns, "pod", "--image=any", "--dry-run=server")
					if err == nil {
						return errors.New("pods are admitted")
					}
					return nil
				})
			},
			mend: func(a *airflow) { kubectl(a.t, "delete", "validatingadmissionpolicybinding", a.ns) },
			kind: "Kubernetes does not let it start",
			want: "denied request: pods here need an owner", advice: "so that it is admitted",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAirflow(t, "HELM")
			a.optIn()
			a.asleep()
			tc.spoil(a)
			got := get(t, a.url("/echo"))[0]
			if got.Status != 503 || !strings.Contains(got.Body, "cannot start: "+tc.kind) || strings.Contains(got.Body, tc.want) {
				t.Errorf("got %+v, want %s", got, tc.kind)
			}
			for _, kind := range []string{"Deployment", "Service"} {
				var told []string
				eventually(t, "the event is there", func() error {
					if told = a.events(kind, webserver); count(told, "StartFailed") == 0 {
						return fmt.Errorf("events of the %s: %q", kind, told)
					}
					return nil
				})
				if all := strings.Join(told, "\n"); count(told, "StartFailed") != 1 || !strings.Contains(all, tc.want) ||
					!strings.Contains(all, tc.advice) {
					t.Errorf("events of the %s: %s", kind, all)
				}
			}
			tc.mend(a)
			eventually(t, "it answers again", func() error {
				if got := get(t, a.url("/echo"))[0]; got.Status != 200 {
					return fmt.Errorf("%d %s", got.Status, got.Body)
				}
				return nil
			})
		})
	}
}

// patchPod merges into the pod template of the Deployment.
func (a *airflow) patchPod(spec string) {
	a.t.Helper()
	kubectl(a.t, "patch", "deployment", "-n", a.ns, webserver, "-p", `{"spec":{"template":{"spec":`+spec+`}}}`)
}

// startDelay sets how long the app takes to start; an invalid duration makes it exit.
func (a *airflow) startDelay(d string) {
	a.t.Helper()
	kubectl(a.t, "set", "env", "-n", a.ns, "deployment/"+webserver, "START_DELAY="+d)
}
