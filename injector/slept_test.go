// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"math"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

func TestSlept(t *testing.T) {
	const (
		gone  = "Deployment/web has gone to zero replicas"
		hand  = "Deployment/web was scaled to zero"
		keep  = "To keep it there: do this"
		never = time.Duration(math.MaxInt64)
		week  = 7 * 24 * time.Hour
	)
	use := func(pending int64, idle, counted time.Duration) *Use { return &Use{pending, idle, counted} }
	for name, tc := range map[string]struct {
		slept Slept
		want  string
	}{
		// KEDA, like `kubectl scale`, leaves a count of zero without an owner.
		"idle": {
			Slept{Ready: true, For: 312 * time.Second, Use: use(0, 301*time.Second, week)},
			gone + " after 5m12s awake: no requests for 5m; the next one wakes it",
		},
		"idle, by us": {
			Slept{By: ManagedBy, Ready: true, For: time.Hour, Use: use(0, 5*time.Minute, week)},
			gone + " after 1h awake: no requests for 5m; the next one wakes it",
		},
		"idle, KEDA was away": {
			Slept{Ready: true, For: time.Hour, Use: use(0, 275500*time.Millisecond, week)},
			gone + " after 1h awake: no requests for 4m35s; the next one wakes it",
		},
		"never asked": {
			Slept{Ready: true, For: time.Hour, Use: use(0, never, week)},
			gone + " after 1h awake: no requests for 5m; the next one wakes it",
		},
		"found awake": {Slept{Ready: true, Use: use(0, week, week)}, gone + ": no requests for 5m; the next one wakes it"},
		"interceptors are new": {
			Slept{Ready: true, For: time.Hour, Use: use(0, never, time.Minute)},
			gone + " after 1h awake. The next request wakes it",
		},
		"nobody answers":            {Slept{Ready: true, For: time.Hour}, gone + " after 1h awake. The next request wakes it"},
		"found awake, nobody knows": {Slept{Ready: true}, gone + ". The next request wakes it"},

		"by patch": {
			Slept{By: "kubectl", Ready: true, For: 5 * time.Second},
			hand + " by kubectl, not for lack of requests. The next request wakes it. " + keep,
		},
		"by patch, asking": {
			Slept{By: "kubectl-edit", Ready: true, For: time.Hour, Use: use(1, 0, week)},
			hand + " by kubectl-edit, not for lack of requests. The next request wakes it. " + keep,
		},
		"by patch, unready": {
			Slept{By: "argocd-controller", For: 5 * time.Second, Use: use(0, week, week)},
			hand + " by argocd-controller, not for lack of requests. The next request wakes it. " + keep,
		},
		"by hand, just used": {
			Slept{Ready: true, For: time.Hour, Use: use(0, time.Second, week)},
			gone + " after 1h awake, in use until a moment ago. The next request wakes it. " + keep,
		},
		"by hand, in use": {
			Slept{Ready: true, For: time.Hour, Use: use(2, 0, week)},
			gone + " after 1h awake, in use until a moment ago. The next request wakes it. " + keep,
		},
		"by hand, a request that goes on for long": {
			Slept{Ready: true, For: time.Hour, Use: use(1, time.Hour, week)},
			gone + " after 1h awake, in use until a moment ago. The next request wakes it. " + keep,
		},
		"by hand, used before": {
			Slept{Ready: true, For: time.Hour, Use: use(0, 41200*time.Millisecond, week)},
			hand + " after 1h awake, not for lack of requests: it had been idle for less than 42s, and sleeps after 5m. The next request " +
				"wakes it. " + keep,
		},
		"by hand, an interceptor was lost": {
			Slept{Ready: true, Use: use(0, 41*time.Second, time.Second)},
			hand + ", not for lack of requests: it had been idle for less than 42s, and sleeps after 5m. The next request wakes it. " + keep,
		},
		"by hand, as it has been up": {
			Slept{Ready: true, For: 3 * time.Second, Use: use(0, week, week)},
			hand + " after 3s awake, not for lack of requests: it had been idle for less than 4s, and sleeps after 5m. The next request " +
				"wakes it. " + keep,
		},
		"by hand while idle": {
			Slept{Ready: true, For: time.Hour, Use: use(0, 20*time.Minute, week)},
			gone + " after 1h awake: no requests for 5m; the next one wakes it",
		},

		"never ready": {
			Slept{For: 604 * time.Second, Use: use(0, never, week)},
			gone + ": it never became ready in 10m4s, and nobody waits for it. The next request starts it again",
		},
		"never ready, nobody knows": {Slept{For: 604 * time.Second}, gone + ": it never became ready in 10m4s. The next request starts " +
			"it again"},
		"never ready, by hand": {
			Slept{For: 4 * time.Second, Use: use(1, 0, week)},
			gone + ": it never became ready in 4s. The next request starts it again",
		},
		"found not ready": {Slept{Use: use(0, never, week)}, gone + ": no pod was ready, and nobody waits for one. The next " +
			"request starts it again"},
		"found not ready, by nobody": {Slept{}, gone + ": no pod was ready. The next request starts it again"},
		"paused": {
			Slept{Paused: "ScaledObject web is paused", Ready: true, For: 5 * time.Second},
			gone + ": ScaledObject web is paused. Requests get 503 until that ends",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.slept.Cooldown, tc.slept.ToKeep = 5*time.Minute, keep
			if got := tc.slept.Note("Deployment/web"); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// TestSleptSoon tests that, whatever the cool-down, nobody else is blamed for a sleep that KEDA or we cause at the earliest possible
// time.
func TestSleptSoon(t *testing.T) {
	for _, cooldown := range []time.Duration{
		time.Second, 2 * time.Second, 5 * time.Second, 8 * time.Second, time.Minute, 5 * time.Minute,
		24 * time.Hour,
	} {
		for _, idle := range []time.Duration{api.InactiveAfter(cooldown), cooldown} {
			s := Slept{Ready: true, For: idle, Use: &Use{Idle: idle, Counted: idle}, Cooldown: cooldown}
			want := "no requests for " + Short(min(idle, cooldown)) + "; "
			if got := s.Note("Deployment/web"); !strings.Contains(got, want) {
				t.Errorf("idle for %s, cool-down %s: %s", idle, cooldown, got)
			}
		}
	}
}

func TestScaledBy(t *testing.T) {
	at := func(s int64) *metav1.Time { return new(metav1.Unix(s, 0)) }
	entry := func(manager string, when int64, fields string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: manager, Time: at(when), FieldsV1: metav1.NewFieldsV1(fields)}
	}
	const replicas = `{"f:spec":{"f:replicas":{},"f:template":{}}}`
	const others = `{"f:metadata":{"f:labels":{"f:f:replicas":{}}},"f:spec":{"f:template":{}}}`
	status := entry("kube-controller-manager", 9, `{"f:status":{"f:replicas":{}}}`)
	status.Subresource = "status"
	byScale := entry("kubectl", 5, replicas)
	byScale.Subresource = "scale"
	for name, tc := range map[string]struct {
		fields []metav1.ManagedFieldsEntry
		want   string
		byHand bool
	}{
		"nobody":  {[]metav1.ManagedFieldsEntry{status, entry("helm", 1, others)}, "", false},
		"a chart": {[]metav1.ManagedFieldsEntry{status, entry("helm", 1, replicas)}, "helm", true},
		"who came last": {
			[]metav1.ManagedFieldsEntry{entry("kubectl-edit", 3, replicas), entry("helm", 1, replicas)},
			"kubectl-edit",
			true,
		},
		"the scale subresource": {[]metav1.ManagedFieldsEntry{entry("helm", 9, replicas), byScale}, "kubectl", true},
		"KEDA":                  {[]metav1.ManagedFieldsEntry{{Manager: "keda", Subresource: "scale"}}, "keda", false},
		"we":                    {[]metav1.ManagedFieldsEntry{{Manager: ManagedBy, Subresource: "scale"}}, ManagedBy, false},
	} {
		t.Run(name, func(t *testing.T) {
			kept := KeepReplicaOwners(tc.fields)
			for _, fields := range [][]metav1.ManagedFieldsEntry{tc.fields, kept, KeepReplicaOwners(kept)} {
				if got := ScaledBy(fields); got != tc.want || ScaledByHand(fields) != tc.byHand {
					t.Errorf("by %q, by hand %v", got, ScaledByHand(fields))
				}
			}
			for _, m := range kept {
				if m.FieldsV1 != nil && len(m.FieldsV1.GetRawBytes()) > 40 {
					t.Errorf("keeps %s", m.FieldsV1.GetRawBytes())
				}
			}
		})
	}
}
