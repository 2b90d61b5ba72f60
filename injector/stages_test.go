// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

func TestStagesOfPod(t *testing.T) {
	at := func(s int) time.Time { return time.Date(2026, 11, 23, 18, 0, s, 0, time.UTC) }
	const scheduled = `conditions: [{type: PodScheduled, status: "True", lastTransitionTime: "2026-11-23T18:00:01Z"}, ` +
		`{type: Ready, status: "True", lastTransitionTime: "2026-11-23T18:00:09Z"}]` + "\n"
	for name, tc := range map[string]struct {
		status             string
		scheduled, running time.Time
	}{
		"nothing yet":   {"{}", time.Time{}, time.Time{}},
		"it has a node": {scheduled, at(1), time.Time{}},
		"no node": {
			`conditions: [{type: PodScheduled, status: "False", lastTransitionTime: "2026-11-23T18:00:01Z"}]`, time.Time{}, time.Time{},
		},
		"its slowest container counts": {
			scheduled + `containerStatuses: [{name: a, state: {running: {startedAt: "2026-11-23T18:00:03Z"}}}, ` +
				`{name: b, state: {running: {startedAt: "2026-11-23T18:00:02Z"}}}]`, at(1), at(3),
		},
		"one does not run": {
			scheduled + `containerStatuses: [{name: a, state: {running: {startedAt: "2026-11-23T18:00:03Z"}}}, ` +
				`{name: b, state: {waiting: {reason: ContainerCreating}}}]`, at(1), time.Time{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := startPod(t, tc.status)
			got := newStages(&pod)
			if !got.Scheduled.Equal(tc.scheduled) || !got.Running.Equal(tc.running) {
				t.Errorf("%+v", got)
			}
		})
	}
	ready := startPod(t, scheduled)
	w := workload("Deployment", "web", map[string]string{"app": "web"})
	if s := NewStart(w, []corev1.Pod{ready}, noon); !s.Ready || s.Pod == nil || !s.Stages.Scheduled.Equal(at(1)) {
		t.Errorf("the start of a ready pod: %+v", s)
	}
}

func TestPullTime(t *testing.T) {
	for message, want := range map[string]time.Duration{
		`Successfully pulled image "example.com/web:2" in 3.2s (3.2s including waiting). Image size: 20123 bytes.`: 3200 * time.Millisecond,
		`Successfully pulled image "web in 5s (5s)" in 1.5s (1m2s including waiting). Image size: 1 bytes.`:        62 * time.Second,
		`Container image "web:2" already present on machine and can be accessed by the pod`:                        0,
		`Successfully pulled image "web" in a while (a while including waiting)`:                                   0,
		`Pulling image "web:2"`: 0,
	} {
		if got := PullTime(message); got != want {
			t.Errorf("%s: %s", message, got)
		}
	}
}

func TestMayHavePulled(t *testing.T) {
	for name, tc := range map[string]struct {
		stages Stages
		want   bool
	}{
		"nothing is known":       {Stages{}, true},
		"it is not known to run": {Stages{Scheduled: noon}, true},
		"it runs at once":        {Stages{Scheduled: noon, Running: noon}, false},
		"a second later":         {Stages{Scheduled: noon, Running: noon.Add(time.Second)}, false},
		"two seconds later":      {Stages{Scheduled: noon, Running: noon.Add(2 * time.Second)}, true},
	} {
		if got := tc.stages.MayHavePulled(); got != tc.want {
			t.Errorf("%s: %t, want %t", name, got, tc.want)
		}
	}
}

// TestStagesInEvent tests what the event about a wake says about its stages, and what later pages know of it.
func TestStagesInEvent(t *testing.T) {
	const before = "Awake: Deployment/web is ready (1 of 1 replica), 11.7s after it was scaled up"
	for name, tc := range map[string]struct {
		stages       Stages
		early        time.Duration // after the wake
		note         string
		starts, apps time.Duration
	}{
		"nothing is known": {note: before, starts: 11700 * time.Millisecond},
		"by Kubernetes": {
			Stages{Scheduled: noon.Add(-time.Second), Running: noon.Add(2 * time.Second)},
			0,
			before + ": scheduled after 0s, containers started after 2s, took requests when Kubernetes called it ready",
			11700 * time.Millisecond,
			9700 * time.Millisecond,
		},
		"by its own probes": {
			Stages{Scheduled: noon, Pulled: 1234 * time.Millisecond, Running: noon.Add(2 * time.Second)},
			3270 * time.Millisecond,
			before + ": scheduled after 0s, images pulled in 1.2s, containers started after 2s, took requests after 3.3s, " +
				"when its own probes succeeded",
			3270 * time.Millisecond,
			1270 * time.Millisecond,
		},
		"by its own probes, in an earlier wake": {
			Stages{Running: noon.Add(2 * time.Second)},
			-time.Minute,
			before + ": containers started after 2s, took requests when Kubernetes called it ready",
			11700 * time.Millisecond,
			9700 * time.Millisecond,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScaledWorld(t)
			settled(w)
			sleeps(w)
			w.now = noon.Add(-time.Minute)
			w.reconcile()
			wakes(w)
			w.now = noon
			w.reconcile()
			w.events = nil
			if tc.early != 0 {
				w.early = noon.Add(tc.early)
			}
			w.pods = Start{Ready: true, Stages: tc.stages}
			isReady(w)
			w.now = noon.Add(11700 * time.Millisecond)
			w.reconcile()
			if got := strings.Join(w.events, "\n"); got != tc.note {
				t.Errorf("events %s\nwant   %s", got, tc.note)
			}
			progress, err := api.DecodeProgress(w.asks[0].Slice.Annotations[api.ProgressAnnotation])
			if err != nil || len(progress.Starts) != 1 || time.Duration(progress.Starts[0]) != tc.starts {
				t.Errorf("progress %+v, %v", progress, err)
			}
			if len(progress.Apps) != min(1, int(tc.apps)) || tc.apps > 0 && time.Duration(progress.Apps[0]) != tc.apps {
				t.Errorf("apps %v, want %s", progress.Apps, tc.apps)
			}
			w.events = nil
			w.now = w.now.Add(time.Minute)
			if w.reconcile(); len(w.events) > 0 {
				t.Errorf("later %q", w.events)
			}
		})
	}
}

// TestStagesBeforeReady tests that the event of an app that takes requests before it is ready does not say that it waited for that.
func TestStagesBeforeReady(t *testing.T) {
	s := Stages{Scheduled: noon, Running: noon.Add(time.Second)}
	if got, want := s.Note(noon, time.Time{}, false), "scheduled after 0s, containers started after 1s"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestRunningIsKnownToPages tests that the progress says when the containers of the present start began to run.
func TestRunningIsKnownToPages(t *testing.T) {
	for name, tc := range map[string]struct {
		stage   string
		running time.Duration
		left    bool
		want    time.Duration
	}{
		"they run":                     {api.StageNotReady, 4 * time.Second, true, 4 * time.Second},
		"by a clock that is ahead":     {api.StageNotReady, time.Minute, true, 5 * time.Second},
		"before the wake, to a second": {api.StageNotReady, -time.Second, true, 0},
		"they do not all run":          {api.StagePulling, 4 * time.Second, true, 0},
		"nobody saw the wake":          {api.StageNotReady, 4 * time.Second, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := Starting{Progress: api.Progress{Starts: []api.Duration{1}, Apps: []api.Duration{2}}}
			if tc.left {
				s.Left = noon
			}
			s = s.next(Start{Stage: tc.stage, Stages: Stages{Running: noon.Add(tc.running)}}, noon.Add(5*time.Second))
			if got := time.Duration(s.Progress.Running); got != tc.want || len(s.Progress.Starts) != 1 || len(s.Progress.Apps) != 1 {
				t.Errorf("%+v", s.Progress)
			}
			if s = s.idle(true); s.Progress.Running != 0 || len(s.Progress.Apps) != 1 {
				t.Errorf("asleep %+v", s.Progress)
			}
		})
	}
}
