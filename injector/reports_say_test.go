// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// TestWhoReadsOfWorkloads tests the type of each event about a workload, and on which objects it is emitted.
func TestWhoReadsOfWorkloads(t *testing.T) {
	fails := func(w *scaledWorld) {
		w.pods = Start{Failing: "it ends", Reason: "CrashLoopBackOff", Advice: "See its logs"}
	}
	const both = " on Deployment/web, Service/web: "
	const keep = "To keep it there: kubectl annotate service -n apps web scale-to-zero/asleep=true"
	for name, tc := range map[string]struct {
		world []func(*scaledWorld)
		want  string
	}{
		"it sleeps": {
			[]func(*scaledWorld){settled, sleeps}, "Normal Asleep" + both + "Deployment/web has gone to zero replicas. The next request wakes it",
		},
		"somebody puts it to sleep": {
			[]func(*scaledWorld){settled, sleeps, managedBy(metav1.ManagedFieldsEntry{
				Manager: "argocd-controller", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:replicas":{}}}`),
			})},
			"Normal Asleep" + both + "Deployment/web was scaled to zero by argocd-controller, not for lack of requests. The next request wakes " +
				"it. " + keep,
		},
		"it was used a moment ago": {
			[]func(*scaledWorld){settled, passes(time.Hour), sleeps, func(w *scaledWorld) { w.use = &Use{Idle: time.Second, Counted: time.Hour} }},
			"Normal Asleep" + both + "Deployment/web has gone to zero replicas, in use until a moment ago. The next request wakes it. " + keep,
		},
		"it sleeps, and is paused": {
			[]func(*scaledWorld){settled, paused(keda.PausedReplicasAnnotation, "0"), look, sleeps},
			"Normal Asleep" + both + `Deployment/web has gone to zero replicas: ScaledObject web-deployment is paused ` +
				`(autoscaling.keda.sh/paused-replicas: "0"). Requests get 503 until that ends`,
		},
		"it wakes": {
			[]func(*scaledWorld){settled, sleeps, look, wakes, look, isReady},
			"Normal Awake" + both + "Deployment/web is ready (1 of 1 replica), 0s after it was scaled up",
		},
		"it cannot start": {
			[]func(*scaledWorld){settled, wakes, look, passes(time.Second), fails},
			"Warning StartFailed" + both + "Deployment/web cannot start: it ends. Requests get 503 until it can. See its logs",
		},
		"somebody changes its ScaledObject": {
			[]func(*scaledWorld){settled, func(w *scaledWorld) { w.so.Spec.CooldownPeriod = new(int32(1)) }},
			"Warning ScaledObjectReset on Deployment/web, Service/web, ScaledObject/web-deployment: scale-to-zero owns ScaledObject " +
				"web-deployment and has undone a change of spec.cooldownPeriod. Set scale-to-zero/cooldown, min-replicas, max-replicas or " +
				"target-pending-requests on the Service",
		},
		"nothing leads to it": {
			[]func(*scaledWorld){settled, sleeps, look, func(w *scaledWorld) { w.asks = nil }},
			"Normal Restored on Deployment/web: No Service leads to Deployment/web through scale-to-zero any more: scaling it to 2 replicas",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newScaledWorld(t, tc.world...).plan()
			reports := append(slices.Clone(p.Story), p.Reports...)
			got := make([]string, len(reports))
			for i, r := range reports {
				got[i] = strings.NewReplacer("*keda.", "").Replace(reportText(r))
			}
			if len(got) != 1 || got[0] != tc.want {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), tc.want)
			}
		})
	}
}

// TestSaidAgain tests that what has ended is told anew when it begins again, and that a repeated attempt is not.
func TestSaidAgain(t *testing.T) {
	nobody := func(w *scaledWorld) { w.asks = nil }
	for name, tc := range map[string]struct {
		world []func(*scaledWorld)
		want  []string
	}{
		"more replicas than allowed, before and after a sleep": {
			[]func(*scaledWorld){atMost(2), settled, scaledTo(5), look, sleeps, look, scaledTo(5), look},
			[]string{ReasonExceeded, ReasonAsleep, ReasonExceeded},
		},
		"more replicas than allowed, of another count": {
			[]func(*scaledWorld){atMost(2), settled, scaledTo(5), look, scaledTo(6), look}, []string{ReasonExceeded, ReasonExceeded},
		},
		"KEDA undoes the restored count": {[]func(*scaledWorld){settled, sleeps, look, nobody, look, sleeps, look, sleeps, look}, []string{
			ReasonAsleep, ReasonRestored,
		}},
		"somebody wakes it, without KEDA, and puts it to sleep": {
			[]func(*scaledWorld){withoutKEDA, settled, sleeps, look, nobodyAsked, wakes, look, sleeps, look}, []string{ReasonAsleep, ReasonAsleep},
		},
		"somebody wakes it while it is paused, and it sleeps": {
			[]func(*scaledWorld){
				settled, sleeps, look, paused(keda.PausedAnnotation, "true"), look, nobodyAsked, wakes, look, sleeps, look,
			},
			[]string{ReasonAsleep, ReasonPaused, ReasonAsleep},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScaledWorld(t, tc.world...)
			w.wantReasons(tc.want)
		})
	}
}

// TestOneOfTwoIsUnsafe tests what two Services of one workload mean for it before its replica count is remembered, and after.
func TestOneOfTwoIsUnsafe(t *testing.T) {
	both := func(second Asking) func(*scaledWorld) {
		return func(w *scaledWorld) { w.asks = []Asking{asking("web", sentinel), second} }
	}
	open := asking("api", sentinel)
	open.Slice.Annotations[FailOpenAnnotation] = "true"
	early := asking("api", sentinel)
	published(&scaledWorld{asks: []Asking{early}})
	early.Service.Spec.PublishNotReadyAddresses, early.PodsListed = true, true
	own := asking("api")
	own.Rewritten = true // its Ingresses are, and it is not
	for name, tc := range map[string]struct {
		world []func(*scaledWorld)
		want  string
	}{
		"nothing is remembered yet": {[]func(*scaledWorld){both(asking("api"))}, ""},
		"it has been scaled before": {[]func(*scaledWorld){settled, both(asking("api"))}, "update web-deployment 1-2, after 1m0s"},
		"the other's Ingresses are redirected, and it is not": {
			[]func(*scaledWorld){settled, both(own)}, "update web-deployment 1-2, after 1m0s",
		},
		"the other has failed open": {[]func(*scaledWorld){settled, both(open)}, "update web-deployment 1-2, after 1m0s"},
		"the first has failed open": {[]func(*scaledWorld){settled, func(w *scaledWorld) {
			w.asks = []Asking{open, asking("web", sentinel)}
		}}, "update web-deployment 1-2, after 1m0s"},
		"the first takes pods early": {[]func(*scaledWorld){settled, sleeps, look, wakes, func(w *scaledWorld) {
			w.asks = []Asking{early, asking("web", sentinel)}
		}}, "Awake, after 500ms"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := outline(newScaledWorld(t, tc.world...).plan()); got != tc.want {
				t.Errorf("\n got %s\nwant %s", got, tc.want)
			}
		})
	}
}

// TestWhoReadsOfRestorations tests on which objects a restoration is reported, and that it is reported once its slices are gone.
func TestWhoReadsOfRestorations(t *testing.T) {
	for name, tc := range map[string]struct {
		world []func(*world)
		want  string
	}{
		"restored": {
			[]func(*world){redirected, optOut, once, func(w *world) { w.kubernetes() }},
			"Normal Restored on Service/web, Deployment/web: Requests to Service web go to its pods again, without scale-to-zero: it is no " +
				"longer opted in. Deployment/web has 1 replica",
		},
		"its workload is gone": {
			[]func(*world){redirected, lost, once, lateBy(goneFor), once, once},
			"Normal Restored on Service/web: Service web is as it was before scale-to-zero: Deployment/web does not exist any more",
		},
		"its slices were gone":                   {[]func(*world){redirected, optOut, noRoutes}, ""},
		"opted out before it was redirected":     {[]func(*world){optOut}, ""},
		"its Ingress leads to the Service again": {[]func(*world){byIngress, redirected, optOut, settles, noRoutes, lateBy(time.Hour)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := newWorld(t, tc.world...).plan()
			var got []string
			for _, r := range p.Deleted {
				got = append(got, reportText(r))
			}
			if text := strings.Join(got, "\n"); text != tc.want || p.Phase != PhaseAbsent {
				t.Errorf("got %s\nwant %s\n%s", text, tc.want, describe(p))
			}
		})
	}
}

// TestDurationsAsRead tests how durations look in events, and at which of them they are rounded otherwise.
func TestDurationsAsRead(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 49 * time.Millisecond: "0s", 50 * time.Millisecond: "100ms", 3249 * time.Millisecond: "3.2s",
		59940 * time.Millisecond: "59.9s", 59950 * time.Millisecond: "1m", time.Minute: "1m",
		61500 * time.Millisecond: "1m2s", 2 * time.Hour: "2h",
		2*time.Hour + 4*time.Second: "2h0m4s", 25 * time.Hour: "25h",
	} {
		if got := Rounded(d); got != want {
			t.Errorf("%s: %s, want %s", fmt.Sprint(d), got, want)
		}
	}
}
