// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// askingFor is a Service's route slice with settings of its own.
func askingFor(name string, change func(*Settings)) Asking {
	a := asking(name, sentinel)
	s := DefaultSettings()
	change(&s)
	a.Routes.Cooldown, a.Routes.HoldTimeout = api.Duration(s.Cooldown), api.Duration(s.HoldTimeout)
	a.Slice.Annotations[ScalingAnnotation] = encodeScaling(s)
	return a
}

// TestServicesOfOneWorkload: the most careful of what several Services ask for counts, and one that is not safe is enough to
// keep the workload awake.
func TestServicesOfOneWorkload(t *testing.T) {
	plain := func() Asking { return asking("web", sentinel) }
	with := func(change func(*Settings)) Asking { return askingFor("api", change) }
	failed := func(a Asking) Asking { a.Slice.Annotations[FailOpenAnnotation] = "true"; return a }
	retired := func(a Asking) Asking { a.Routes.Retiring = true; return a }
	for name, tc := range map[string]struct {
		asks []Asking
		want string // min-max replicas, target, KEDA's polling interval and cool-down, the interceptors' idle time
	}{
		"one": {[]Asking{plain()}, "0-2 target 100 every 600s, 602s, inactive after 4m30s"},
		"two alike": {
			[]Asking{plain(), with(func(*Settings) {})}, "0-2 target 100 every 600s, 602s, inactive after 4m30s",
		},
		"a longer cool-down": {
			[]Asking{plain(), with(func(s *Settings) { s.Cooldown = time.Hour })}, "0-2 target 100 every 600s, 602s, inactive after 59m30s",
		},
		"a shorter cool-down": {
			[]Asking{plain(), with(func(s *Settings) { s.Cooldown = time.Second })}, "0-2 target 100 every 600s, 602s, inactive after 4m30s",
		},
		"fewer requests for a pod": {
			[]Asking{plain(), with(func(s *Settings) { s.TargetPendingRequests = 7 })}, "0-2 target 7 every 600s, 602s, inactive after 4m30s",
		},
		"more requests for a pod": {
			[]Asking{plain(), with(func(s *Settings) { s.TargetPendingRequests = 700 })}, "0-2 target 100 every 600s, 602s, inactive after 4m30s",
		},
		"more pods": {
			[]Asking{plain(), with(func(s *Settings) { s.MaxReplicas = 9 })}, "0-9 target 100 every 600s, 602s, inactive after 4m30s",
		},
		"fewer pods than there were": {
			[]Asking{plain(), with(func(s *Settings) { s.MaxReplicas = 1 })}, "0-2 target 100 every 600s, 602s, inactive after 4m30s",
		},
		"one that never sleeps": {
			[]Asking{plain(), with(func(s *Settings) { s.MinReplicas = 3 })}, "3-3 target 100 every 600s, 602s, inactive after 4m30s",
		},
		"one is not redirected": {[]Asking{plain(), asking("api")}, "1-2 target 100 every 600s, 602s, inactive after 4m30s"},
		"one has failed open":   {[]Asking{plain(), failed(asking("api", sentinel))}, "1-2 target 100 every 600s, 602s, inactive after 4m30s"},
		"one retires":           {[]Asking{plain(), retired(asking("api", sentinel))}, "1-2 target 100 every 600s, 602s, inactive after 4m30s"},
		"one retires, and asked for more": {
			[]Asking{plain(), retired(with(func(s *Settings) { s.MaxReplicas, s.Cooldown = 9, time.Hour }))},
			"1-2 target 100 every 600s, 602s, inactive after 4m30s",
		},
		"both retire": {[]Asking{retired(plain()), retired(asking("api", sentinel))}, "2-2 target 100 every 600s, 602s, inactive after 4m30s"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScaledWorld(t, settled)
			w.asks = tc.asks
			w.now = w.now.Add(10 * time.Second)
			w.hpa = HPAAnswer{Exists: true, Min: 1, Max: 9} // KEDA takes its time
			w.reconcile()
			s := w.so.Spec
			got := fmt.Sprintf("%d-%d target %s every %ds, %ds, inactive after %s", *s.MinReplicaCount, *s.MaxReplicaCount,
				s.Triggers[0].Metadata[api.MetadataTargetPendingRequests], *s.PollingInterval, *s.CooldownPeriod,
				s.Triggers[0].Metadata[api.MetadataInactiveAfter])
			if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// TestStoryOfServices: what happens to a workload is told on each Service that is redirected to it, and on no other.
func TestStoryOfServices(t *testing.T) {
	retired := asking("old", sentinel)
	retired.Routes.Retiring = true
	w := newScaledWorld(t, func(w *scaledWorld) {
		w.asks = []Asking{asking("web", sentinel), asking("api", sentinel), retired, asking("past")}
	}, settled)
	sleeps(w)
	p := w.plan()
	if len(p.Story) != 1 {
		t.Fatalf("got %s", outline(p))
	}
	var on []string
	for _, o := range p.Story[0].Objects {
		on = append(on, fmt.Sprintf("%T/%s", o, o.GetName()))
	}
	if got := strings.Join(on, " "); got != "*v1.Deployment/web *v1.Service/web *v1.Service/api" || p.Story[0].Type != "Normal" {
		t.Errorf("it is told on %s, as %s", got, p.Story[0].Type)
	}
}

// TestSleepWithoutKEDA has the moments at which we put a workload to sleep ourselves, and how often we look.
func TestSleepWithoutKEDA(t *testing.T) {
	for name, tc := range map[string]struct {
		cooldown time.Duration
		up       time.Duration
		count    CountAnswer
		want     string
	}{
		"a cool-down, nearly":          {5 * time.Minute, 5*time.Minute - time.Second, CountAnswer{Known: true}, "after 1s"},
		"a cool-down":                  {5 * time.Minute, 5 * time.Minute, CountAnswer{Known: true}, "scale to 0, after 15s"},
		"long before":                  {5 * time.Minute, time.Minute, CountAnswer{Known: true}, "after 15s"},
		"a short one":                  {4 * time.Second, 4 * time.Second, CountAnswer{Known: true}, "scale to 0, after 1s"},
		"a short one, in use":          {4 * time.Second, time.Hour, CountAnswer{Known: true, Active: true}, "after 1s"},
		"the shortest":                 {time.Second, time.Second, CountAnswer{Known: true}, "scale to 0, after 1s"},
		"of 40 s":                      {40 * time.Second, time.Second, CountAnswer{Known: true}, "after 10s"},
		"of a day":                     {24 * time.Hour, time.Second, CountAnswer{Known: true}, "after 15s"},
		"nobody knows":                 {5 * time.Minute, time.Hour, CountAnswer{}, "after 15s"},
		"active, and nothing pending":  {5 * time.Minute, time.Hour, CountAnswer{Known: true, Active: true}, "after 15s"},
		"one request too many for two": {5 * time.Minute, 0, CountAnswer{Known: true, Active: true, Pending: 201}, "scale to 3, after 15s"},
		"as many as two can take":      {5 * time.Minute, 0, CountAnswer{Known: true, Active: true, Pending: 200}, "after 15s"},
		"more than four can take":      {5 * time.Minute, 0, CountAnswer{Known: true, Active: true, Pending: 100_000}, "scale to 4, after 15s"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScaledWorld(t, withoutKEDA, func(w *scaledWorld) {
				w.asks = []Asking{askingFor("web", func(s *Settings) { s.Cooldown, s.MaxReplicas = tc.cooldown, 4 })}
			}, settled)
			w.now = w.now.Add(tc.up)
			w.count = tc.count
			if got := outline(w.plan()); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// TestSleepWithKEDA has the moments at which we put a workload to sleep that KEDA scales, and how often we look. Nothing else is ours.
func TestSleepWithKEDA(t *testing.T) {
	idle, busy := CountAnswer{Known: true, Idle: time.Hour}, CountAnswer{Known: true, Active: true, Pending: 100_000}
	pausedBy := func(key string) func(*scaledWorld) { return func(w *scaledWorld) { setAnnotation(w.so, key, "true") } }
	has := func(n int32) func(*scaledWorld) { return func(w *scaledWorld) { w.workload.Replicas = n } }
	for name, tc := range map[string]struct {
		up     time.Duration
		count  CountAnswer
		change []func(*scaledWorld)
		want   string
	}{
		"idle":                    {5 * time.Minute, idle, nil, "scale to 0, after 15s"},
		"idle, nearly":            {5*time.Minute - time.Second, idle, nil, "after 1s"},
		"idle, with four":         {time.Hour, idle, []func(*scaledWorld){has(4)}, "scale to 0, after 15s"},
		"idle, kept up":           {time.Hour, idle, []func(*scaledWorld){look, pausedBy(keda.ForceActivationAnnotation), look}, "after 15s"},
		"idle, and not to sleep":  {time.Hour, idle, []func(*scaledWorld){pausedBy(keda.PausedScaleInAnnotation), look}, "after 15s"},
		"nobody knows":            {time.Hour, CountAnswer{}, nil, "after 15s"},
		"busy":                    {time.Hour, busy, nil, "after 1m0s"},
		"asleep, and asked for":   {time.Hour, busy, []func(*scaledWorld){sleeps, look}, "after 1m0s"},
		"used 20 s before it may": {time.Hour, CountAnswer{Known: true, Active: true, Idle: 280 * time.Second}, nil, "after 20s"},
		"used 5 s before it may":  {time.Hour, CountAnswer{Known: true, Active: true, Idle: 295 * time.Second}, nil, "after 15s"},
		"busy with other work":    {time.Hour, CountAnswer{Known: true, Active: true, Idle: time.Hour}, nil, "after 15s"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScaledWorld(t, func(w *scaledWorld) {
				w.asks = []Asking{askingFor("web", func(s *Settings) { s.MaxReplicas = 4 })}
			}, settled)
			for _, change := range tc.change {
				change(w)
			}
			w.now = w.now.Add(tc.up)
			w.count = tc.count
			if got := outline(w.plan()); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// TestUndoneChanges: a change of fields that are ours is undone each time and told once; fields that are not ours are left.
func TestUndoneChanges(t *testing.T) {
	change := func(change func(*keda.ScaledObject)) func(*scaledWorld) {
		return func(w *scaledWorld) { change(w.so); w.reconcile() }
	}
	maximum := change(func(so *keda.ScaledObject) { so.Spec.MaxReplicaCount = new(int32(9)) })
	trigger := change(func(so *keda.ScaledObject) { so.Spec.Triggers = nil })
	own := func(w *scaledWorld) {
		w.asks[0] = askingFor("web", func(s *Settings) { s.Cooldown = time.Hour })
		w.reconcile()
	}
	for name, tc := range map[string]struct {
		steps  []func(*scaledWorld)
		events int
	}{
		"once":             {[]func(*scaledWorld){maximum}, 1},
		"the same again":   {[]func(*scaledWorld){maximum, maximum, maximum}, 1},
		"two in turn":      {[]func(*scaledWorld){maximum, trigger, maximum}, 3},
		"a change of ours": {[]func(*scaledWorld){own}, 0},
		"a label":          {[]func(*scaledWorld){change(func(so *keda.ScaledObject) { so.Labels["a"] = "b" })}, 0},
		"its owner":        {[]func(*scaledWorld){change(func(so *keda.ScaledObject) { so.OwnerReferences = nil })}, 0},
		"our note on it": {
			[]func(*scaledWorld){change(func(so *keda.ScaledObject) { so.Annotations[ReplicasAnnotation] = "7" })}, 0,
		},
		"before this controller's time":      {[]func(*scaledWorld){func(w *scaledWorld) { w.memory = WorkloadMemory{} }, maximum}, 0},
		"a look after this controller began": {[]func(*scaledWorld){func(w *scaledWorld) { w.memory = WorkloadMemory{} }, look, maximum}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScaledWorld(t, settled)
			for _, step := range tc.steps {
				step(w)
			}
			if *w.so.Spec.MaxReplicaCount != 2 || len(w.so.Spec.Triggers) != 1 || len(w.so.OwnerReferences) != 1 ||
				w.so.Annotations[ReplicasAnnotation] != "2" {
				t.Errorf("it is not undone: %+v", w.so)
			}
			if len(w.events) != tc.events {
				t.Errorf("events %q, want %d", w.events, tc.events)
			}
		})
	}
}

// lost carries out only the first writes of a plan, as when the API server goes away in the middle.
func (w *scaledWorld) lost(writes int) {
	w.t.Helper()
	p := w.plan()
	w.memory.Life = p.Life
	if p.Disown && writes > 0 {
		w.workload.ManagedFields = nil
	}
	if p.Remember != nil && writes > 1 {
		w.workload.Annotations = map[string]string{ReplicasAnnotation: fmt.Sprint(*p.Remember)}
		if *p.Remember == 0 {
			w.workload.Annotations = nil
		}
	}
	if p.ScaledObject != nil && writes > 2 {
		w.so = p.ScaledObject.To.DeepCopy()
	}
	if p.Scale != nil && writes > 3 {
		w.scale(*p.Scale)
	}
	if p.Delete != nil && writes > 4 {
		w.so = nil
	}
}

// TestTwoServicesEnd: two Services of one workload are opted in and out, redirected and restored in any order, while writes are
// lost and controllers change. At each moment the workload is kept awake if one of them needs that. At the end it is scaled if
// one is redirected, and else has the count of before.
func TestTwoServicesEnd(t *testing.T) {
	t.Parallel()
	const absent, past, redirectedTo, failedOpen, retiring = 0, 1, 2, 3, 4
	ask := func(name string, state int) []Asking {
		switch state {
		case absent:
			return nil
		case past:
			return []Asking{asking(name)}
		}
		a := asking(name, sentinel)
		if state == failedOpen {
			a.Slice.Annotations[FailOpenAnnotation] = "true"
		}
		a.Routes.Retiring = state == retiring
		return []Asking{a}
	}
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 5))
			w := newScaledWorld(t, settled)
			states := [2]int{redirectedTo, absent}
			set := func() { w.asks = append(ask("web", states[0]), ask("api", states[1])...) }
			for range 60 {
				switch random.IntN(8) {
				case 0, 1, 2:
					states[random.IntN(2)] = random.IntN(5)
					set()
				case 3: // KEDA puts it to sleep if it may
					if w.so != nil && *w.so.Spec.MinReplicaCount == 0 {
						sleeps(w)
					}
				case 4:
					w.workload.Replicas, w.workload.ReadyReplicas = max(1, w.workload.Replicas), max(1, w.workload.Replicas)
				case 5:
					w.memory = WorkloadMemory{} // another controller
				case 6:
					w.lost(random.IntN(6))
				case 7:
					w.workload.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "keda", Subresource: "scale"}}
				}
				w.now = w.now.Add(time.Duration(random.IntN(60)) * time.Second)
				w.reconcile()
				wakeful := slices.Contains(states[:], past) || slices.Contains(states[:], retiring)
				if wakeful && w.so != nil && w.so.DeletionTimestamp.IsZero() && *w.so.Spec.MinReplicaCount == 0 {
					t.Fatalf("seed %d: in states %v it may be put to sleep", seed, states)
				}
				if w.workload.ManagedFields != nil && (w.so != nil || Remembered(w.workload.Annotations) > 0) {
					t.Fatalf("seed %d: in states %v KEDA still owns the count", seed, states)
				}
			}
			for i := range states {
				if states[i] != redirectedTo {
					states[i] = absent
				}
			}
			set()
			for range 12 {
				w.now = w.now.Add(10 * time.Minute)
				w.workload.ReadyReplicas = w.workload.Replicas
				w.reconcile()
			}
			switch wanted := slices.Contains(states[:], redirectedTo); {
			case wanted && (w.so == nil || *w.so.Spec.MinReplicaCount != 0 || *w.so.Spec.MaxReplicaCount != 2 ||
				Remembered(w.workload.Annotations) != 2):
				t.Errorf("seed %d: not scaled: %+v, %v", seed, w.so, w.workload.Annotations)
			case !wanted && (w.so != nil || w.workload.Replicas != 2 || Remembered(w.workload.Annotations) != 0):
				t.Errorf("seed %d: not restored: %+v, %d replicas, %v", seed, w.so, w.workload.Replicas, w.workload.Annotations)
			}
		})
	}
}
