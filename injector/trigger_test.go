// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// TestAdmitScaledObject tests that a ScaledObject has our trigger exactly as long as our controller asks for it, whoever writes it.
func TestAdmitScaledObject(t *testing.T) {
	asked := triggerRequest{Metadata: map[string]string{"workload": "Deployment/web"}}.encode()
	other := triggerRequest{Metadata: map[string]string{"workload": "Deployment/api"}}.encode()
	const cron, cpu, ours, renewed = "cron", "cpu", "ours", "ours for Deployment/api"
	annotated := func(value string) func(*keda.ScaledObject) {
		return func(so *keda.ScaledObject) { so.Annotations = map[string]string{TriggerAnnotation: value} }
	}
	with := func(names ...string) func(*keda.ScaledObject) {
		return func(so *keda.ScaledObject) {
			so.Spec.Triggers = nil
			for _, name := range names {
				one := keda.Trigger{Type: name}
				if name == ours {
					one = keda.Trigger{Type: externalPush, Name: triggerName, Metadata: map[string]string{"workload": "Deployment/web"}}
				}
				so.Spec.Triggers = append(so.Spec.Triggers, one)
			}
		}
	}
	object := func(change ...func(*keda.ScaledObject)) *keda.ScaledObject { return new(theirs("mine", change...)) }
	taken := func() *keda.ScaledObject { return object(with(cron, ours), annotated(asked)) }
	for name, tc := range map[string]struct {
		now, old     *keda.ScaledObject
		byController bool
		want         []string
		annotation   string
	}{
		"made":           {now: object(with(cron)), want: []string{cron}},
		"made as a copy": {now: object(with(cron, ours, cpu), annotated(asked)), want: []string{cron, cpu}},
		"our controller asks": {
			now: object(with(cron), annotated(asked)), old: object(with(cron)), byController: true, want: []string{cron, ours}, annotation: asked,
		},
		"our controller asks again": {now: taken(), old: taken(), byController: true, want: []string{cron, ours}, annotation: asked},
		"our controller asks anew": {
			now: object(with(cron, ours), annotated(other)), old: taken(), byController: true, want: []string{cron, renewed}, annotation: other,
		},
		"our controller asks no more": {now: object(with(cron, ours)), old: taken(), byController: true, want: []string{cron}},
		"somebody else asks":          {now: object(with(cron), annotated(asked)), old: object(with(cron)), want: []string{cron}},
		"applied again":               {now: object(with(cron), annotated(asked)), old: taken(), want: []string{cron, ours}, annotation: asked},
		"replaced":                    {now: object(with(cron, cpu)), old: taken(), want: []string{cron, cpu, ours}, annotation: asked},
		"reordered": {
			now: object(with(ours, cron), annotated(asked)), old: taken(), want: []string{cron, ours}, annotation: asked,
		},
		"changed by hand": {
			now: object(with(cron, ours), annotated("{")), old: taken(), want: []string{cron, ours}, annotation: asked,
		},
		"left by an outage": {now: object(with(cron, ours)), old: object(with(cron, ours)), want: []string{cron}},
	} {
		t.Run(name, func(t *testing.T) {
			AdmitScaledObject(tc.now, tc.old, tc.byController)
			var got []string
			for _, trigger := range tc.now.Spec.Triggers {
				switch {
				case !IsOurTrigger(trigger):
					got = append(got, trigger.Type)
				case trigger.Metadata["workload"] == "Deployment/web":
					got = append(got, ours)
				default:
					got = append(got, "ours for "+trigger.Metadata["workload"])
				}
			}
			if !slices.Equal(got, tc.want) || tc.now.Annotations[TriggerAnnotation] != tc.annotation {
				t.Errorf("triggers %q, annotation %q; want %q, %q", got, tc.now.Annotations[TriggerAnnotation], tc.want, tc.annotation)
			}
			again := tc.now.DeepCopy()
			AdmitScaledObject(again, tc.now, false)
			if diff := cmp.Diff(tc.now, again); diff != "" {
				t.Errorf("admitting it twice changes it:\n%s", diff)
			}
		})
	}
}

// TestTriggersStayTheirs tests, with writes in any order, that whatever becomes of our trigger, the triggers of the owner are those that
// the owner wrote last, and that withdrawing ours leaves nothing behind.
func TestTriggersStayTheirs(t *testing.T) {
	w := workload("Deployment", "web", nil)
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 7))
		so := theirs("mine")
		own := slices.Clone(so.Spec.Triggers)
		paused := false
		write := func(byController bool, change func(*keda.ScaledObject)) {
			old := so.DeepCopy()
			change(&so)
			AdmitScaledObject(&so, old, byController)
		}
		carryOut := func(a *AnnotationWrite) {
			if a == nil {
				return
			}
			write(true, func(so *keda.ScaledObject) {
				for key, value := range a.Annotations {
					text, _ := value.(string)
					setAnnotation(so, key, text)
				}
			})
		}
		ask := func() {
			want := triggerRequest{
				Metadata: triggerMetadata(w, Scaling{TargetPendingRequests: 1 + random.Int32N(3)}, inactiveAfter(&so), Scaler{Address: "here:9090"}),
				Asleep:   random.IntN(3) == 0,
			}
			write, _ := askForTrigger(&so, want)
			carryOut(write)
			if again, _ := askForTrigger(&so, want); again != nil {
				t.Fatalf("seed %d: asks again: %v", seed, again.Annotations)
			}
		}
		for range 12 {
			switch random.IntN(5) {
			case 0:
				own = []keda.Trigger{{Type: "cron"}, {Type: "cpu"}}[:1+random.IntN(2)]
				write(false, func(so *keda.ScaledObject) { so.Spec.Triggers = slices.Clone(own) }) // a chart
			case 1:
				write(false, func(so *keda.ScaledObject) { so.Annotations, so.Spec.Triggers = nil, slices.Clone(own) }) // a replace
				paused = false
			case 2:
				carryOut(withdrawTrigger(&so))
			case 3:
				if !decodeTrigger(so.Annotations).Asleep {
					paused = true
					write(false, func(so *keda.ScaledObject) { setAnnotation(so, keda.PausedReplicasAnnotation, "3") })
				}
			case 4:
				ask()
			}
		}
		carryOut(withdrawTrigger(&so))
		if !SameTriggers(so.Spec.Triggers, own) || Triggered(&so) {
			t.Errorf("seed %d: left with %+v, %v; want %+v", seed, so.Spec.Triggers, so.Annotations, own)
		}
		if _, still := so.Annotations[keda.PausedReplicasAnnotation]; still && !paused {
			t.Errorf("seed %d: still paused: %v", seed, so.Annotations)
		}
	}
}

// TestTriggerRequestsOfOthers tests that an annotation that does not decode asks for nothing.
func TestTriggerRequestsOfOthers(t *testing.T) {
	for _, value := range []string{"", "{", "[]", `{"metadata":3}`, `"x"`} {
		if got := decodeTrigger(map[string]string{TriggerAnnotation: value}); got.Metadata != nil || got.Asleep {
			t.Errorf("%q: %+v", value, got)
		}
	}
}

// TestInactiveAfter tests that our trigger stays active for at least one of KEDA's polls after a request.
func TestInactiveAfter(t *testing.T) {
	for interval, want := range map[int32]time.Duration{1: 3 * time.Second, 30: 32 * time.Second, 0: 2 * time.Second} {
		so := theirs("mine", func(so *keda.ScaledObject) { so.Spec.PollingInterval = &interval })
		if got := inactiveAfter(&so); got != want {
			t.Errorf("asked every %d s: %s, want %s", interval, got, want)
		}
	}
}
