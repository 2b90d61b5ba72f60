// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

func TestNewScaling(t *testing.T) {
	with := func(change func(*Settings)) Settings {
		s := DefaultSettings()
		change(&s)
		return s
	}
	scaling := func(least, wake, most int32) Scaling {
		return Scaling{MinReplicas: least, WakeReplicas: wake, MaxReplicas: most, TargetPendingRequests: 100, Cooldown: 5 * time.Minute}
	}
	rated := func(rate float64) Scaling {
		s := scaling(0, 1, 1)
		s.TargetRequestRate = rate
		return s
	}
	tests := map[string]struct {
		settings   []Settings
		remembered int32
		want       Scaling
	}{
		"defaults":                   {[]Settings{DefaultSettings()}, 1, scaling(0, 1, 1)},
		"it had three":               {[]Settings{DefaultSettings()}, 3, scaling(0, 3, 3)},
		"told to have one":           {[]Settings{with(func(s *Settings) { s.MaxReplicas = 1 })}, 3, scaling(0, 1, 1)},
		"never zero":                 {[]Settings{with(func(s *Settings) { s.MinReplicas = 2 })}, 1, scaling(2, 1, 2)},
		"wakes with two":             {[]Settings{with(func(s *Settings) { s.WakeReplicas = 2 })}, 1, scaling(0, 2, 2)},
		"wakes with two of three":    {[]Settings{with(func(s *Settings) { s.WakeReplicas = 2 })}, 3, scaling(0, 2, 3)},
		"wakes with what is allowed": {[]Settings{with(func(s *Settings) { s.MaxReplicas = 2 })}, 5, scaling(0, 2, 2)},
		"wakes with the most that a Service asks for": {[]Settings{
			with(func(s *Settings) { s.WakeReplicas = 2 }), with(func(s *Settings) { s.WakeReplicas = 4 }), DefaultSettings(),
		}, 1, scaling(0, 4, 4)},
		"two Services": {[]Settings{
			with(func(s *Settings) { s.Cooldown, s.MaxReplicas = time.Minute, 4 }),
			with(func(s *Settings) { s.Cooldown, s.TargetPendingRequests = time.Hour, 7 }),
		}, 1, Scaling{WakeReplicas: 1, MaxReplicas: 4, TargetPendingRequests: 7, Cooldown: time.Hour}},
		"a rate": {[]Settings{with(func(s *Settings) { s.TargetRequestRate = 0.5 })}, 1, rated(0.5)},
		"the lowest rate": {[]Settings{
			DefaultSettings(), with(func(s *Settings) { s.TargetRequestRate = 20 }), with(func(s *Settings) { s.TargetRequestRate = 10 }),
			with(func(s *Settings) { s.TargetRequestRate = 30 }), DefaultSettings(),
		}, 1, rated(10)},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, NewScaling(tc.settings, tc.remembered)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestRemember(t *testing.T) {
	for _, tc := range []struct{ before, current, limit, want int32 }{
		{0, 3, 0, 3}, // at the injection
		{0, 0, 0, 1}, // injected at zero: no app stays there
		{3, 0, 3, 3}, // asleep
		{3, 1, 3, 3}, // woken
		{1, 5, 1, 5}, // somebody asked for more than KEDA may give
		{2, 4, 4, 2}, // KEDA's HPA gave more
	} {
		if got := Remember(tc.before, tc.current, tc.limit); got != tc.want {
			t.Errorf("Remember(%d, %d, %d) = %d, want %d", tc.before, tc.current, tc.limit, got, tc.want)
		}
	}
}

func TestScaledObject(t *testing.T) {
	w := workload("Deployment", "web", nil)
	s := Scaling{WakeReplicas: 1, MaxReplicas: 1, TargetPendingRequests: 100, Cooldown: 10 * time.Second}
	so := ScaledObject(w, s, 3, Scaler{Address: "interceptors.ours.svc:9090"})
	if got := *so.Spec.PollingInterval; got != 600 {
		t.Errorf("KEDA asks every %d s; want 600", got)
	}
	if cooldown, initial := *so.Spec.CooldownPeriod, *so.Spec.InitialCooldownPeriod; cooldown != 602 || initial != 612 {
		t.Errorf("KEDA's cool-down is %d s, want more than one poll: 602; initially %d s, want the app's 10 more", cooldown, initial)
	}
	want := map[string]string{
		"scalerAddress": "interceptors.ours.svc:9090", "workload": "Deployment/web", "targetPendingRequests": "100", "inactiveAfter": "7s",
	}
	if d := cmp.Diff(want, so.Spec.Triggers[0].Metadata); d != "" {
		t.Errorf("trigger (-want +got):\n%s", d)
	}
	if so.OwnerReferences[0].UID != w.UID || Remembered(so.Annotations) != 3 {
		t.Errorf("owner %v, remembers %d", so.OwnerReferences, Remembered(so.Annotations))
	}
	held := Restoring(so, 3)
	if *held.Spec.MinReplicaCount != 3 || *held.Spec.MaxReplicaCount != 3 || *so.Spec.MinReplicaCount != 0 {
		t.Errorf("restoring: %d to %d, and the original %d", *held.Spec.MinReplicaCount, *held.Spec.MaxReplicaCount, *so.Spec.MinReplicaCount)
	}
	held.Spec.Triggers[0].Metadata["workload"] = "x"
	if so.Spec.Triggers[0].Metadata["workload"] != "Deployment/web" {
		t.Error("a copy shares its trigger with the original")
	}
	so.Annotations[ReplicasAnnotation] = "garbage"
	if n := Remembered(so.Annotations); n != 0 {
		t.Errorf("an unreadable count is %d, want none", n)
	}
}

// TestScaledObjectWakesSeveral tests that KEDA itself wakes an app with as many replicas as it had: it may otherwise have only one when it
// is first visited.
func TestScaledObjectWakesSeveral(t *testing.T) {
	for name, tc := range map[string]struct {
		scaling Scaling
		idle    *int32
		least   int32
	}{
		"one":                      {Scaling{WakeReplicas: 1, MaxReplicas: 3}, nil, 0},
		"three":                    {Scaling{WakeReplicas: 3, MaxReplicas: 3}, new(int32(0)), 3},
		"three, and it is kept up": {Scaling{WakeReplicas: 3, MaxReplicas: 3}.keptUp(), nil, 3},
		"one that never sleeps":    {Scaling{MinReplicas: 1, WakeReplicas: 3, MaxReplicas: 3}, nil, 1},
	} {
		so := ScaledObject(workload("Deployment", "web", nil), tc.scaling, 3, Scaler{})
		if d := cmp.Diff(tc.idle, so.Spec.IdleReplicaCount); d != "" || *so.Spec.MinReplicaCount != tc.least {
			t.Errorf("%s: minReplicaCount %d, want %d; idle %s", name, *so.Spec.MinReplicaCount, tc.least, d)
		}
		if held := Restoring(so, 2); held.Spec.IdleReplicaCount != nil || *held.Spec.MinReplicaCount != 2 {
			t.Errorf("%s: restoring holds %+v", name, held.Spec)
		}
	}
}

// TestKEDASleepsAlone follows KEDA's polls after an app's last request, while the controller is away. KEDA puts the app to sleep, and never
// before it counts as inactive: a single wrong answer, at any time, is not enough.
func TestKEDASleepsAlone(t *testing.T) {
	for _, cooldown := range []time.Duration{
		time.Second, 10 * time.Second, time.Minute, 5 * time.Minute, 20 * time.Minute, 24 * time.Hour,
	} {
		quiet := api.InactiveAfter(cooldown)
		// sleeps returns when KEDA puts the app to sleep after its last request. first is the time of the first poll after that request,
		// and wrong the poll whose answer is lost.
		sleeps := func(first time.Duration, wrong int) time.Duration {
			var active time.Duration // KEDA's LastActiveTime, in whole seconds
			for i, at := 0, first; ; i, at = i+1, at+kedaPolling+time.Millisecond {
				if at < quiet && i != wrong {
					active = at.Truncate(time.Second)
				} else if at-active > time.Duration(kedaCooldown)*time.Second {
					return at
				}
			}
		}
		for first := time.Duration(0); first < kedaPolling; first += kedaPolling / 97 {
			for wrong := -1; wrong < 200; wrong++ {
				if at := sleeps(first, wrong); at < quiet || at > quiet+3*kedaPolling {
					t.Errorf("cool-down %s, first poll after %s, poll %d wrong: it sleeps after %s", cooldown, first, wrong, at)
				}
			}
		}
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Hour: "1h", 5 * time.Minute: "5m", 90 * time.Minute: "1h30m",
		30 * time.Second: "30s", 0: "0s", 100 * time.Minute: "1h40m", 10 * time.Second: "10s",
	} {
		if got := Short(d); got != want {
			t.Errorf("Short(%s) = %s, want %s", time.Duration(d), got, want)
		}
	}
}

func TestKeepReplicas(t *testing.T) {
	for _, tc := range []struct {
		name                  string
		remembered            string
		old, wanted, replicas int32
		after                 string
	}{
		{"the chart again, asleep", "1", 0, 1, 0, "1"},
		{"the chart again, scaled up", "1", 4, 1, 4, "1"},
		{"another count, asleep", "1", 0, 3, 3, "3"},
		{"less than before, asleep", "3", 0, 1, 1, "1"},
		{"no count changed", "3", 1, 1, 1, "3"},
		{"switched off", "3", 3, 0, 0, "3"},
	} {
		replicas, after := KeepReplicas(map[string]string{ReplicasAnnotation: tc.remembered}, tc.old, tc.wanted)
		if replicas != tc.replicas || after != tc.after {
			t.Errorf("%s: %d replicas and %s remembered, want %d and %s", tc.name, replicas, after, tc.replicas, tc.after)
		}
	}
}
