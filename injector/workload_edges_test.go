// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// failOpens makes the Service's slice list the app's own pods, and closes makes it list interceptors again.
func failOpens(w *scaledWorld) { w.asks[0].Slice.Annotations[FailOpenAnnotation] = "true" }
func closes(w *scaledWorld)    { delete(w.asks[0].Slice.Annotations, FailOpenAnnotation) }

// forgetsAll lets another controller take over.
func forgetsAll(w *scaledWorld) { w.memory = WorkloadMemory{} }

// bypassed takes the sentinel from the Service, and leaves its slice.
func bypassed(w *scaledWorld) { delete(w.asks[0].Service.Spec.Selector, SentinelKey) }

// managedBy sets the field managers of the workload.
func managedBy(fields ...metav1.ManagedFieldsEntry) func(*scaledWorld) {
	return func(w *scaledWorld) { w.workload.ManagedFields = fields }
}

// TestWorkloadPlansAtTheEdge has plans for what happens seldom: upgrades, lost notes, and changes in the middle of something else.
func TestWorkloadPlansAtTheEdge(t *testing.T) {
	nobody := func(w *scaledWorld) { w.asks = nil }
	unreadable := func(w *scaledWorld) { delete(w.asks[0].Slice.Annotations, ScalingAnnotation) }
	unmarked := func(w *scaledWorld) { w.workload.Annotations = nil }
	idle := func(w *scaledWorld) { w.count = CountAnswer{Known: true} }
	inUse := func(w *scaledWorld) { w.count = CountAnswer{Known: true, Active: true, Pending: 1} }
	pulls := func(w *scaledWorld) {
		w.pods = Start{Stage: api.StagePulling, Failing: "its image cannot be pulled", Reason: "ImagePullBackOff", Advice: "Check it"}
	}
	two := func(w *scaledWorld) { w.workload.Replicas, w.workload.ReadyReplicas = 2, 0 }
	ending := func(finalizers ...string) func(*scaledWorld) {
		return func(w *scaledWorld) { w.so.Finalizers, w.so.DeletionTimestamp = finalizers, &metav1.Time{Time: w.now} }
	}
	second := time.Second
	for name, tc := range map[string]struct {
		world []func(*scaledWorld)
		want  string
	}{
		"an upgrade, and its slice is of before": {[]func(*scaledWorld){settled, unreadable}, ""},
		"its annotation is lost, and nobody leads to it": {
			[]func(*scaledWorld){settled, sleeps, look, nobody, unmarked}, "update web-deployment 2-2, scale to 2, Restored, soon",
		},
		"its ScaledObject has no count either": {
			[]func(*scaledWorld){settled, nobody, unmarked, func(w *scaledWorld) { w.so.Annotations = nil }},
			"update web-deployment 2-2, delete web-deployment, soon",
		},
		"a controller owns its status": {
			[]func(*scaledWorld){settled, managedBy(metav1.ManagedFieldsEntry{Manager: "kube-controller-manager", Subresource: "status"})},
			"after 1m0s",
		},
		"somebody owns its template": {
			[]func(*scaledWorld){settled, managedBy(metav1.ManagedFieldsEntry{Manager: "kubectl-set"})}, "after 1m0s",
		},

		"it retires, and starts": {
			[]func(*scaledWorld){settled, sleeps, look, retires, look, two, look, passes(second)},
			`remember 0, progress {"stage":"scheduling"}, forget, after 1s`,
		},
		"it retires with more replicas than before": {
			[]func(*scaledWorld){settled, scaledTo(5), retires}, "update web-deployment 5-5, delete web-deployment, soon",
		},
		"it retires while somebody deletes its ScaledObject": {
			[]func(*scaledWorld){settled, retires, ending(keda.Finalizer)}, "soon",
		},
		"KEDA does not let that go": {
			[]func(*scaledWorld){settled, retires, ending(keda.Finalizer), passes(kedaGrace)}, "update web-deployment 0-2, soon",
		},
		"KEDA has let it go, and somebody else has not": {
			[]func(*scaledWorld){settled, retires, ending("example.com/audit"), passes(kedaGrace)}, "soon",
		},
		"KEDA's HPA holds more": {
			[]func(*scaledWorld){settled, retires, func(w *scaledWorld) { w.hpa = HPAAnswer{true, 2, 3} }, look}, "soon",
		},
		"KEDA's HPA holds fewer": {
			[]func(*scaledWorld){settled, retires, func(w *scaledWorld) { w.hpa = HPAAnswer{true, 1, 2} }, look, passes(kedaGrace)}, "soon",
		},
		"opted in again while it retires": {
			[]func(*scaledWorld){settled, retires, func(w *scaledWorld) { w.hpa = HPAAnswer{true, 1, 2} }, look, func(w *scaledWorld) {
				w.asks[0] = asking("web", sentinel)
			}},
			"update web-deployment 1-2, after 1m0s",
		},

		"traffic comes back to the interceptors": {
			[]func(*scaledWorld){settled, failOpens, look, closes, passes(4*time.Minute + 30*second)}, "after 30s",
		},
		"an app asleep that must not be": {
			[]func(*scaledWorld){withoutKEDA, settled, sleeps, look, func(w *scaledWorld) {
				w.asks[0] = askingFor("web", func(s *Settings) { s.MinReplicas = 1 })
			}, idle},
			`scale to 1, progress {"wakeTo":2}, after 15s`,
		},
		"idle, failed open, without KEDA": {
			[]func(*scaledWorld){withoutKEDA, settled, idle, failOpens, passes(time.Hour)}, "after 15s",
		},
		"in use, nearly a cool-down after it came up": {
			[]func(*scaledWorld){withoutKEDA, isReady, settled, inUse, passes(4*time.Minute + 50*second)}, "after 1m0s",
		},

		"nobody waits for it any more": {
			[]func(*scaledWorld){settled, sleeps, look, wakes, look, passes(second), look, bypassed},
			"update web-deployment 1-2, progress , after 1m0s",
		},
		"its pods are taken early, and cannot start": {
			[]func(*scaledWorld){settled, sleeps, look, wakes, published, look, passes(second), pulls},
			`progress {"stage":"pulling","failing":"its image cannot be pulled","reason":"ImagePullBackOff","seen":"2026-08-01T12:00:01Z"}, ` +
				"StartFailed, after 1s",
		},
		"its pods may be taken early, and none is listed": {
			[]func(*scaledWorld){settled, sleeps, look, wakes, func(w *scaledWorld) {
				w.asks[0].Service.Spec.PublishNotReadyAddresses = true
			}},
			"after 500ms",
		},
		"paused otherwise while no controller looked": {
			[]func(*scaledWorld){
				settled, paused(keda.PausedAnnotation, "true"), look, forgetsAll, resumed, paused(keda.PausedScaleOutAnnotation, "true"),
			},
			`progress {"paused":{"why":"ScaledObject web-deployment is paused (autoscaling.keda.sh/paused-scale-out: \"true\")"}}, ` +
				"Paused, after 1m0s",
		},
		"paused while it sleeps": {
			[]func(*scaledWorld){settled, sleeps, look, paused(keda.PausedAnnotation, "true")},
			`progress {"paused":{"why":"ScaledObject web-deployment is paused (autoscaling.keda.sh/paused: \"true\")","asleep":true}}, ` +
				"Paused, after 1m0s",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScaledWorld(t, tc.world...)
			if got := outline(w.plan()); got != tc.want {
				t.Errorf("\n got %s\nwant %s", got, tc.want)
			}
		})
	}
}

// TestStoriesOfSleep has what the owner of an app reads about each of its sleeps and wakes, in order.
func TestStoriesOfSleep(t *testing.T) {
	const (
		zero = "Asleep: Deployment/web has gone to zero replicas"
		up   = "Awake: Deployment/web is ready (1 of 1 replica), "
	)
	quiet := func(w *scaledWorld) { w.use = &Use{Idle: time.Hour, Counted: 2 * time.Hour} }
	for name, tc := range map[string]struct {
		world []func(*scaledWorld)
		want  []string
	}{
		"found awake, it sleeps": {
			[]func(*scaledWorld){settled, quiet, passes(time.Hour), sleeps, look},
			[]string{zero + ": no requests for 5m; the next one wakes it"},
		},
		"it wakes, and sleeps again": {
			[]func(*scaledWorld){
				settled, quiet, sleeps, look, visited, wakes, look, passes(3 * time.Second), isReady, look, quiet, passes(time.Hour), sleeps, look,
			},
			[]string{
				zero + ": no requests for 5m; the next one wakes it", up + "3s after it was scaled up",
				zero + " after 1h awake: no requests for 5m; the next one wakes it",
			},
		},
		"it wakes, and never becomes ready": {
			[]func(*scaledWorld){settled, quiet, sleeps, look, visited, wakes, look, passes(10 * time.Minute), quiet, sleeps, look},
			[]string{
				zero + ": no requests for 5m; the next one wakes it",
				zero + ": it never became ready in 10m, and nobody waits for it. The next request starts it again",
			},
		},
		"found starting, it never becomes ready": {
			[]func(*scaledWorld){wakes, settled, quiet, passes(10 * time.Minute), sleeps, look},
			[]string{zero + ": no pod was ready, and nobody waits for one. The next request starts it again"},
		},
		"found starting, it becomes ready, and sleeps": {
			[]func(*scaledWorld){wakes, settled, passes(3 * time.Second), isReady, look, quiet, passes(time.Hour), sleeps, look},
			[]string{up + "3s after it was scaled up", zero + " after 1h awake: no requests for 5m; the next one wakes it"},
		},
		"it has failed open before": {
			[]func(*scaledWorld){settled, quiet, failOpens, look, closes, passes(time.Minute), look, passes(time.Minute), sleeps, look},
			[]string{zero + ". The next request wakes it"},
		},
		"nothing leads to it": {[]func(*scaledWorld){settled, bypassed, look, sleeps, look, wakes, look, isReady, look}, nil},
		"its last pod restarts": {
			[]func(*scaledWorld){settled, func(w *scaledWorld) { w.workload.ReadyReplicas = 0 }, look, passes(time.Second), isReady, look}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScaledWorld(t, tc.world...)
			got := slices.Clone(w.events)
			if !slices.Equal(got, tc.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

// TestSaidOnce tests that no look repeats what the one before has said.
func TestSaidOnce(t *testing.T) {
	fails := func(w *scaledWorld) {
		w.pods = Start{Stage: api.StageStarting, Failing: "it ends", Reason: "CrashLoopBackOff", Advice: "See its logs"}
	}
	otherwise := func(w *scaledWorld) { w.pods.Failing, w.pods.Reason = "its image cannot be pulled", "ImagePullBackOff" }
	readyPod := func(w *scaledWorld) { w.pods = Start{Ready: true} }
	for name, tc := range map[string]struct {
		world []func(*scaledWorld)
		want  []string // reasons
	}{
		"a pause of the sleep alone": {
			[]func(*scaledWorld){settled, paused(keda.PausedReplicasAnnotation, "2"), look, look, look}, []string{ReasonPaused},
		},
		"a pause that changes": {
			[]func(*scaledWorld){
				settled, paused(keda.PausedReplicasAnnotation, "2"), look, paused(keda.PausedReplicasAnnotation, "3"), look, look,
			},
			[]string{ReasonPaused, ReasonPaused},
		},
		"a crash that passes, seen first in its pods": {
			[]func(*scaledWorld){settled, wakes, look, passes(time.Second), fails, look, passes(time.Second), readyPod, look, isReady, look, look},
			[]string{ReasonStartFailed, ReasonAwake},
		},
		"two reasons in turn": {
			[]func(*scaledWorld){
				settled, wakes, look, passes(time.Second), fails, look, passes(time.Second), otherwise, look, passes(time.Second), fails, look,
				passes(time.Second), look,
			},
			[]string{ReasonStartFailed, ReasonStartFailed},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScaledWorld(t, tc.world...)
			w.wantReasons(tc.want)
		})
	}
}

// TestNotesOnScaledObjects tests what a ScaledObject's annotations say while its workload is scaled, restored, and scaled again.
func TestNotesOnScaledObjects(t *testing.T) {
	w := newScaledWorld(t, settled, func(w *scaledWorld) { w.so.Annotations["example.com/team"] = "shop" })
	notes := func(when, replicas, since string) {
		t.Helper()
		if w.so.Annotations[ReplicasAnnotation] != replicas || w.so.Annotations[SinceAnnotation] != since ||
			w.so.Annotations["example.com/team"] != "shop" {
			t.Errorf("%s: %v", when, w.so.Annotations)
		}
	}
	notes("scaled", "2", "")
	w.hpa = HPAAnswer{Exists: true, Min: 1, Max: 2} // KEDA takes its time
	retires(w)
	w.reconcile()
	began := w.now.UTC().Format(time.RFC3339)
	notes("restored", "2", began)
	w.now = w.now.Add(3 * time.Second)
	w.reconcile()
	notes("restored, a while later", "2", began)
	w.workload.Replicas = 3
	w.now = w.now.Add(3 * time.Second)
	w.reconcile()
	notes("restored to another count", "2", w.now.UTC().Format(time.RFC3339))
	w.asks[0] = asking("web", sentinel)
	w.reconcile()
	notes("scaled again", w.workload.Annotations[ReplicasAnnotation], "")

	w.so.Annotations = nil
	w.reconcile()
	if got := w.so.Annotations[ReplicasAnnotation]; got == "" || got != w.workload.Annotations[ReplicasAnnotation] {
		t.Errorf("without notes, it says %q, and the workload %v", got, w.workload.Annotations)
	}
}

// TestDeletesWhatItHolds tests that the ScaledObject is deleted as it was last written, so that a finalizer of KEDA sees that one.
func TestDeletesWhatItHolds(t *testing.T) {
	w := newScaledWorld(t, settled, retires)
	p := w.plan()
	if p.ScaledObject == nil || p.Delete != p.ScaledObject.To || *p.Delete.Spec.MinReplicaCount != 2 || p.Memory.Written != &p.Delete.Spec {
		t.Errorf("got %s", outline(p))
	}
	w.so.Finalizers = []string{"example.com/audit", keda.Finalizer}
	w.so.DeletionTimestamp = &metav1.Time{Time: w.now}
	w.now = w.now.Add(kedaGrace)
	if p := w.plan(); p.ScaledObject == nil || !slices.Equal(p.ScaledObject.To.Finalizers, []string{"example.com/audit"}) ||
		len(p.ScaledObject.From.Finalizers) != 2 {
		t.Errorf("KEDA does not let it go: %s", outline(p))
	}
}

// TestQuestionsOfWorkloads tests that a plan asks only what it needs, and remembers a look at the pods before it is answered.
func TestQuestionsOfWorkloads(t *testing.T) {
	idle := func(w *scaledWorld) { w.count = CountAnswer{Known: true} }
	for name, tc := range map[string]struct {
		world []func(*scaledWorld)
		want  []WorkloadQuestion
	}{
		"awake":                  {[]func(*scaledWorld){settled}, nil},
		"it falls asleep":        {[]func(*scaledWorld){settled, sleeps}, []WorkloadQuestion{AskUse}},
		"it sleeps":              {[]func(*scaledWorld){settled, sleeps, look}, nil},
		"it wakes":               {[]func(*scaledWorld){settled, sleeps, look, wakes}, []WorkloadQuestion{AskUse}},
		"it has just begun":      {[]func(*scaledWorld){settled, sleeps, look, wakes, look, passes(firstLook - 1)}, nil},
		"it starts":              {[]func(*scaledWorld){settled, sleeps, look, wakes, look, passes(firstLook)}, []WorkloadQuestion{AskPods}},
		"it was looked at":       {[]func(*scaledWorld){settled, sleeps, look, wakes, look, passes(firstLook), look, passes(minLook - 1)}, nil},
		"without KEDA":           {[]func(*scaledWorld){withoutKEDA, settled, idle}, []WorkloadQuestion{AskCount}},
		"asleep, without KEDA":   {[]func(*scaledWorld){withoutKEDA, settled, sleeps, look}, nil},
		"it is restored":         {[]func(*scaledWorld){settled, retires}, []WorkloadQuestion{AskHPA}},
		"it is restored, asleep": {[]func(*scaledWorld){settled, sleeps, look, retires}, nil},
		"nothing asks for it":    {[]func(*scaledWorld){func(w *scaledWorld) { w.asks = nil }}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScaledWorld(t, tc.world...)
			w.plan()
			var got []WorkloadQuestion
			for q := range w.asked {
				got = append(got, q)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("asks %v, want %v", got, tc.want)
			}
		})
	}
	w := newScaledWorld(t, settled, sleeps, look, wakes, look, passes(firstLook))
	if p, q := PlanWorkload(w.observe()); q != AskPods || !p.Memory.Starting.Looked.Equal(w.now) || !p.Memory.Starting.Waiting.Equal(noon) {
		t.Errorf("question %d remembers %+v", q, p.Memory.Starting)
	}
}
