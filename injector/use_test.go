// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestUseWithin tests when a request may have come within the last minute, according to what the interceptors know.
func TestUseWithin(t *testing.T) {
	const never = time.Duration(math.MaxInt64)
	for name, tc := range map[string]struct {
		use  Use
		want bool
	}{
		"the last came a minute ago":          {Use{Idle: time.Minute, Counted: time.Hour}, false},
		"the last came a little later":        {Use{Idle: time.Minute - 1, Counted: time.Hour}, true},
		"none has ever come":                  {Use{Idle: never, Counted: time.Hour}, false},
		"none in the minute that is counted":  {Use{Idle: never, Counted: time.Minute}, false},
		"none, and not counted for a minute":  {Use{Idle: never, Counted: time.Minute - 1}, true},
		"one that began an hour ago goes on":  {Use{Pending: 1, Idle: time.Hour, Counted: time.Hour}, true},
		"the interceptors have just begun":    {Use{}, true},
		"a count that has not caught up (-1)": {Use{Pending: -1, Idle: time.Hour, Counted: time.Hour}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.use.within(time.Minute); got != tc.want {
				t.Errorf("within a minute: %t", got)
			}
		})
	}
}

// TestUseUnasked tests when certainly no request has woken a workload, so that somebody has scaled it up.
func TestUseUnasked(t *testing.T) {
	for name, tc := range map[string]struct {
		use  *Use
		want bool
	}{
		"nobody can be asked":               {nil, false},
		"quiet for long":                    {&Use{Idle: time.Hour, Counted: time.Hour}, true},
		"a request waits":                   {&Use{Pending: 1, Idle: time.Hour, Counted: time.Hour}, false},
		"one has come just now":             {&Use{Idle: aMoment, Counted: time.Hour}, false},
		"one came a moment ago":             {&Use{Idle: aMoment + 1, Counted: time.Hour}, true},
		"they have only begun to count":     {&Use{Idle: time.Hour, Counted: aMoment}, false},
		"they have counted for a moment":    {&Use{Idle: time.Hour, Counted: aMoment + 1}, true},
		"they know nothing of it whatever":  {&Use{}, false},
		"quiet, as far as one of them says": {&Use{Idle: time.Second, Counted: time.Hour}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.use.unasked(); got != tc.want {
				t.Errorf("unasked: %t", got)
			}
		})
	}
}

// TestSleptAtTheEdge tests the notes about a sleep at the very idle times where they change.
func TestSleptAtTheEdge(t *testing.T) {
	const cooldown, early = 5 * time.Minute, 4*time.Minute + 30*time.Second // KEDA is told that much earlier
	const week = 7 * 24 * time.Hour
	for name, tc := range map[string]struct {
		slept Slept
		want  string
	}{
		"idle as long as KEDA waits for": {
			Slept{Ready: true, Use: &Use{Idle: early, Counted: week}}, ": no requests for 4m30s; the next one wakes it",
		},
		"counted as long as that": {
			Slept{Ready: true, Use: &Use{Idle: week, Counted: early}}, ": no requests for 4m30s; the next one wakes it",
		},
		"counted for less": {Slept{Ready: true, Use: &Use{Idle: week, Counted: early - 1}}, ". The next request wakes it"},
		"idle for less": {
			Slept{Ready: true, Use: &Use{Idle: early - 1, Counted: week}}, ", not for lack of requests: it had been idle for less than 4m30s, ",
		},
		"up for as long, and nobody asks": {Slept{Ready: true, For: early}, " after 4m30s awake. The next request wakes it"},
		"used just now":                   {Slept{Ready: true, Use: &Use{Idle: aMoment - 1, Counted: week}}, ", in use until a moment ago. "},
		"used a moment ago":               {Slept{Ready: true, Use: &Use{Idle: aMoment, Counted: week}}, ": it had been idle for less than 6s, "},
		"never ready, and found so":       {Slept{Use: &Use{Pending: 1}}, ": no pod was ready. The next request starts it again"},
		"by KEDA's operator": {
			Slept{By: "keda-operator", Ready: true, Use: &Use{Idle: week, Counted: week}}, ": no requests for 5m; ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.slept.Cooldown, tc.slept.ToKeep = cooldown, "To keep it there: do this"
			if got := tc.slept.Note("Deployment/web"); !strings.Contains(got, tc.want) {
				t.Errorf("got %s", got)
			}
		})
	}
}

// TestWhoOwnsReplicas tests which managed fields show who has set a replica count, in whatever order the API server lists them.
func TestWhoOwnsReplicas(t *testing.T) {
	const replicas = `{"f:spec":{"f:replicas":{}}}`
	at := func(second int64) *metav1.Time { return new(metav1.Unix(second, 0)) }
	helm := metav1.ManagedFieldsEntry{Manager: "helm", Operation: "Update", Time: at(1), FieldsV1: metav1.NewFieldsV1(replicas)}
	of := func(manager string, change func(*metav1.ManagedFieldsEntry)) metav1.ManagedFieldsEntry {
		m := *helm.DeepCopy()
		m.Manager, m.Time = manager, at(9)
		change(&m)
		return m
	}
	fields := func(text string) func(*metav1.ManagedFieldsEntry) {
		return func(m *metav1.ManagedFieldsEntry) { m.FieldsV1 = metav1.NewFieldsV1(text) }
	}
	for name, tc := range map[string]struct {
		other metav1.ManagedFieldsEntry
		by    string
		kept  int
	}{
		"a later owner":            {of("argocd-controller", fields(replicas)), "argocd-controller", 2},
		"an owner of the template": {of("kubectl-set", fields(`{"f:spec":{"f:template":{"f:spec":{"f:replicas":{}}}}}`)), "helm", 1},
		"an owner of a like label": {of("kubectl-label", fields(`{"f:metadata":{"f:labels":{"f:replicas":{}}}}`)), "helm", 1},
		"one whose fields are no JSON": {
			of("x", fields(`{"f:spec":{"f:replicas":{}}`)), "helm", 1,
		},
		"one without fields":       {of("x", func(m *metav1.ManagedFieldsEntry) { m.FieldsV1 = nil }), "helm", 1},
		"of another subresource":   {of("x", func(m *metav1.ManagedFieldsEntry) { m.Subresource = "resize" }), "helm", 1},
		"of the scale subresource": {of("kubectl", func(m *metav1.ManagedFieldsEntry) { m.Subresource = "scale" }), "kubectl", 2},
	} {
		t.Run(name, func(t *testing.T) {
			list := []metav1.ManagedFieldsEntry{helm, tc.other}
			for range 2 {
				kept := KeepReplicaOwners(list)
				if len(kept) != tc.kept || ScaledBy(list) != tc.by || ScaledBy(kept) != tc.by {
					t.Errorf("by %q, and %q of what is kept: %+v", ScaledBy(list), ScaledBy(kept), kept)
				}
				slices.Reverse(list)
			}
		})
	}
	if got := ScaledBy(nil); got != "" || KeepReplicaOwners(nil) != nil {
		t.Errorf("without managed fields: by %q", got)
	}
}

// TestScaledByHand tests that KEDA and we scale for requests, and everybody else by hand.
func TestScaledByHand(t *testing.T) {
	for manager, want := range map[string]bool{
		"keda": false, "keda-operator": false, ManagedBy: false, "": false,
		"kubectl": true, "helm": true, "kube-controller-manager": true, "keda-operator-2": true,
	} {
		fields := []metav1.ManagedFieldsEntry{{Manager: manager, Subresource: "scale"}}
		if got := ScaledByHand(fields); got != want {
			t.Errorf("%q: by hand %t", manager, got)
		}
	}
}
