// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// besideHPA gives the workload an HPA from 2 to 5.
func besideHPA(w *scaledWorld) {
	w.hpas = []autoscalingv2.HorizontalPodAutoscaler{hpaOf("web", 2, 5)}
	w.asks = []Asking{plain()}
}

// plain is the route slice of a Service without settings.
func plain() Asking { return askingFor("web", func(*Settings) {}) }

// besideTheirs gives the workload a ScaledObject of its owner.
func besideTheirs(w *scaledWorld) {
	w.foreign = []keda.ScaledObject{theirs("mine")}
	w.asks = []Asking{plain()}
}

// withoutAutoscaler deletes what the owner has set up.
func withoutAutoscaler(w *scaledWorld) { w.hpas, w.foreign = nil, nil }

// has gives the workload n replicas, all ready.
func has(n int32) func(*scaledWorld) {
	return func(w *scaledWorld) { w.workload.Replicas, w.workload.ReadyReplicas = n, n }
}

func keptAsleep(w *scaledWorld) { w.asks[0] = askingFor("web", func(s *Settings) { s.Asleep = true }) }

// TestBesideAutoscaler tests the plans beside what the workload's owner has set up.
func TestBesideAutoscaler(t *testing.T) {
	idle := func(w *scaledWorld) { w.count = CountAnswer{Known: true} }
	busy := func(w *scaledWorld) { w.count = CountAnswer{Known: true, Active: true, Pending: 1000} }
	gone := func(w *scaledWorld) { w.asks = nil }
	unadmitted := func(w *scaledWorld) { w.unadmitted = true }
	plainly := func(w *scaledWorld) { w.asks = []Asking{plain()} }
	oneAtLeast := func(w *scaledWorld) { w.asks[0] = askingFor("web", func(s *Settings) { s.MinReplicas = 1 }) }
	hpaFrom := func(least int32) func(*scaledWorld) {
		return func(w *scaledWorld) { w.hpas = []autoscalingv2.HorizontalPodAutoscaler{hpaOf("web", least, 5)} }
	}
	theirTriggers := func(n int) func(*scaledWorld) {
		return func(w *scaledWorld) { w.foreign[0].Spec.Triggers = w.foreign[0].Spec.Triggers[:n] }
	}
	asksOften := func(w *scaledWorld) { w.foreign[0].Spec.PollingInterval = new(int32(5)) }
	theyPause := func(w *scaledWorld) { setAnnotation(&w.foreign[0], keda.PausedAnnotation, "true") }
	besideBy := func(by func(*scaledWorld), changes ...func(*scaledWorld)) []func(*scaledWorld) {
		return append([]func(*scaledWorld){by, idle, settled}, changes...)
	}
	hour := passes(time.Hour)
	const hpa, mine = "beside HorizontalPodAutoscaler/web, ", "beside ScaledObject/mine, "
	const triggered, both = "annotate mine scale-to-zero/trigger", "annotate mine autoscaling.keda.sh/paused-replicas"
	const kept = `progress {"paused":{"why":"its owner keeps it asleep (annotation scale-to-zero/asleep)","kept":true}`
	for name, tc := range map[string]struct {
		changes []func(*scaledWorld)
		want    string
	}{
		"an HPA": {
			[]func(*scaledWorld){besideHPA, idle}, "remember 2, " + hpa + `progress {"wakeTo":2}, Autoscaler, after 1m0s`,
		},
		"an HPA, busy":           {besideBy(besideHPA, busy, has(5), hour), "after 1m0s"},
		"an HPA, idle":           {besideBy(besideHPA, has(4), look, hour), `remember 4, scale to 0, progress {"wakeTo":4}, after 15s`},
		"an HPA, idle, not long": {besideBy(besideHPA, passes(4*time.Minute)), "after 1m0s"},
		"an HPA, asleep":         {besideBy(besideHPA, hour, look), "Asleep, after 1m0s"},
		"an HPA, and a minimum":  {besideBy(besideHPA, oneAtLeast, look, hour), "after 1m0s"},
		"an HPA, uncounted":      {[]func(*scaledWorld){besideHPA, settled, hour}, "after 1m0s"},
		"an HPA, failed open":    {besideBy(besideHPA, failOpens, hour), "after 1m0s"},
		"an HPA with other bounds, asleep": {
			besideBy(besideHPA, hour, look, look, hpaFrom(3)), `progress {"wakeTo":3}, Autoscaler, after 1m0s`,
		},
		"an HPA comes": {
			[]func(*scaledWorld){settled, besideHPA, busy}, hpa + `delete web-deployment, progress {"wakeTo":2}, Autoscaler, after 1m0s`,
		},
		"an HPA comes, asleep": {
			[]func(*scaledWorld){settled, sleeps, look, besideHPA, idle},
			hpa + `delete web-deployment, progress {"wakeTo":2}, Autoscaler, after 1m0s`,
		},
		"an HPA goes": {
			besideBy(besideHPA, has(4), withoutAutoscaler),
			`remember 4, beside , create web-deployment 4-4, progress {"wakeTo":4}, Autoscaler, after 1m0s`,
		},
		"an HPA goes, asleep": {
			besideBy(besideHPA, hour, look, look, withoutAutoscaler), "beside , create web-deployment 2-2, Autoscaler, after 1m0s",
		},
		"an HPA, retires": {besideBy(besideHPA, has(5), retires), "remember 0, beside , forget"},
		"an HPA, not redirected any more, asleep": {
			besideBy(besideHPA, hour, look, look, func(w *scaledWorld) { delete(w.asks[0].Service.Spec.Selector, SentinelKey) }),
			"scale to 2, after 15s",
		},
		"an HPA, retires asleep":     {besideBy(besideHPA, hour, look, look, retires), "scale to 2, soon"},
		"an HPA, is left asleep":     {besideBy(besideHPA, hour, look, look, gone), "scale to 2, Restored, soon"},
		"an HPA that sleeps itself":  {[]func(*scaledWorld){settled, hpaFrom(0), idle, hour}, hpa + "delete web-deployment"},
		"an HPA, kept asleep":        {besideBy(besideHPA, busy, keptAsleep), "scale to 0, " + kept + `,"wakeTo":2}, Paused, after 1m0s`},
		"a ScaledObject":             {[]func(*scaledWorld){besideTheirs}, "remember 2, " + mine + triggered + ", Autoscaler, after 1m0s"},
		"a ScaledObject, awake":      {besideBy(besideTheirs, hour), "after 1m0s"},
		"a ScaledObject, asleep":     {besideBy(besideTheirs, sleeps, hour), "Asleep, after 1m0s"},
		"a ScaledObject, not taken":  {[]func(*scaledWorld){besideTheirs, func(w *scaledWorld) { w.asks = []Asking{asking("past")} }}, ""},
		"a ScaledObject, unadmitted": {[]func(*scaledWorld){besideTheirs, unadmitted, look}, triggered + ", Autoscaler, after 5s"},
		"still unadmitted":           {[]func(*scaledWorld){besideTheirs, unadmitted, look, look}, triggered + ", after 5s"},
		"a trigger is lost":          {besideBy(besideTheirs, theirTriggers(2)), triggered + ", Autoscaler, after 5s"},
		"KEDA asks more often":       {besideBy(besideTheirs, asksOften), triggered + ", Autoscaler, after 1m0s"},
		"a ScaledObject comes": {
			[]func(*scaledWorld){settled, besideTheirs}, mine + triggered + ", delete web-deployment, Autoscaler, after 1m0s",
		},
		"a ScaledObject goes": {
			besideBy(besideTheirs, withoutAutoscaler), `beside , create web-deployment 2-2, progress {"wakeTo":2}, Autoscaler, after 1m0s`,
		},
		"a ScaledObject, retires":        {besideBy(besideTheirs, retires), "remember 0, beside , forget"},
		"a ScaledObject, retires asleep": {besideBy(besideTheirs, sleeps, look, retires), "scale to 2, soon"},
		"a ScaledObject, is left":        {besideBy(besideTheirs, retires, look, gone), triggered + "-, forget"},
		"a ScaledObject, was left":       {besideBy(besideTheirs, retires, look, gone, look), "forget"},
		"a ScaledObject, is left unadmitted": {
			besideBy(besideTheirs, retires, look, unadmitted, gone, look), triggered + "-, forget, after 5s",
		},
		"a ScaledObject, kept asleep": {
			besideBy(besideTheirs, keptAsleep), both + " scale-to-zero/trigger, scale to 0, " + kept + "}, Paused, after 1m0s",
		},
		"a ScaledObject, kept asleep no more": {
			besideBy(besideTheirs, keptAsleep, look, look, plainly), both + "- scale-to-zero/trigger, Resumed, after 1m0s",
		},
		"a ScaledObject, kept asleep, retires": {
			besideBy(besideTheirs, keptAsleep, look, look, retires), both + "- scale-to-zero/trigger, scale to 2, progress , soon",
		},
		"a ScaledObject, kept asleep, is left": {
			besideBy(besideTheirs, keptAsleep, look, look, gone), both + "- scale-to-zero/trigger-, scale to 2, Restored, soon",
		},
		"a ScaledObject, kept asleep, replaced": {
			besideBy(besideTheirs, keptAsleep, look, look, func(w *scaledWorld) { setAnnotation(&w.foreign[0], keda.PausedReplicasAnnotation, "") }),
			both + ", after 1m0s",
		},
		"a ScaledObject that is paused at zero, retires": {
			besideBy(besideTheirs, theyPause, sleeps, look, retires), "remember 0, beside , forget",
		},
		"a ScaledObject that is paused": {
			besideBy(besideTheirs, theyPause),
			`progress {"paused":{"why":"ScaledObject mine is paused (autoscaling.keda.sh/paused: \"true\")"}}, Paused, after 1m0s`,
		},
		"kept asleep": {
			[]func(*scaledWorld){settled, plainly, look, keptAsleep}, "scale to 0, " + kept + `,"wakeTo":2}, Paused, after 1m0s`,
		},
		"kept asleep, and sleeps": {
			[]func(*scaledWorld){settled, keptAsleep, look}, "Asleep, " + strings.TrimSuffix(kept, "}") + `,"asleep":true},"wakeTo":2}, after 1m0s`,
		},
		"kept asleep without KEDA": {
			[]func(*scaledWorld){withoutKEDA, busy, settled, keptAsleep}, "scale to 0, " + kept + `,"wakeTo":2}, Paused, after 1m0s`,
		},
		"kept asleep, and retires": {
			[]func(*scaledWorld){settled, keptAsleep, look, look, retires},
			`update web-deployment 2-2, scale to 2, progress {"wakeTo":2}, soon`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScaledWorld(t)
			for _, change := range tc.changes {
				change(w)
			}
			if got := outline(w.plan()); got != tc.want {
				t.Errorf("\n got %s\nwant %s\n%s", got, tc.want, strings.Join(w.events, "\n"))
			}
		})
	}
}
