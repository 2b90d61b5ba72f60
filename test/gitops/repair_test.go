// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"errors"
	"fmt"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// TestWebhookAway: while the webhook is away, a three-way merge keeps the sentinel, because its patch is empty. The other
// tools remove it, and the controller repairs that.
func TestWebhookAway(t *testing.T) {
	chart := values{replicas: 1, note: "first"}
	for _, tool := range tools() {
		t.Run(tool.name, func(t *testing.T) {
			a := installed(t, tool, chart)
			a.injected()
			back := withoutWebhook(t)
			if said, err := tool.apply(a, chart); err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			if stripped := !injector.Intercepted(a.service()); stripped == tool.threeWay {
				t.Fatalf("the sentinel has been taken out: %t", stripped)
			}
			if !tool.threeWay {
				eventually(t, "the app is kept up", a.floor(1))
			}
			back()
			eventually(t, "the Service is intercepted", a.intercepted)
			eventually(t, "it may sleep", a.floor(0))
			if err := errors.Join(a.is(states()[1], tool), a.noDrift(tool, chart)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRepair: while the webhook is away, a replace removes the sentinel, and possibly the route annotation too. Until
// both are back, KEDA keeps the app's replicas up, awake or asleep.
func TestRepair(t *testing.T) {
	chart := values{replicas: 1, note: "first"}
	helm3 := tools()[0]
	for name, annotated := range map[string]bool{"the sentinel": true, "the sentinel and the annotation": false} {
		for _, replicas := range []int32{0, 1} {
			t.Run(fmt.Sprintf("%s, %d replicas", name, replicas), func(t *testing.T) {
				a := installed(t, helm3, chart)
				a.injected()
				a.scaled(replicas)
				back := withoutWebhook(t)
				if err := a.replace(chart, annotated); err != nil {
					t.Fatal(err)
				}
				if injector.Intercepted(a.service()) {
					t.Fatal("the sentinel is still there")
				}
				eventually(t, "the app is kept up", a.floor(1))
				eventually(t, "the controller asks for the sentinel", func() error {
					if s := a.service(); s.Annotations[injector.RedirectAnnotation] != injector.RedirectReady {
						return fmt.Errorf("annotations %v", s.Annotations)
					}
					return nil
				})
				if err := a.floor(1)(); err != nil || injector.Intercepted(a.service()) {
					t.Fatalf("without admission: %v, selector %v", err, a.service().Spec.Selector)
				}
				back()
				eventually(t, "the Service is intercepted", a.intercepted)
				eventually(t, "it may sleep", a.floor(0))
				if _, err := helm3.apply(a, chart); err != nil {
					t.Error(err)
				}
				if err := a.intercepted(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestReplace: `kubectl replace` of the chart's Service undoes nothing. But it writes the selector without the sentinel,
// which differs from the stored one, so it becomes the selector's owner; without a sentinel it would not. A tool that
// applies server-side then gets a conflict, and has to force once.
func TestReplace(t *testing.T) {
	chart := values{replicas: 1, note: "first"}
	for _, tool := range tools() {
		t.Run(tool.name, func(t *testing.T) {
			a := installed(t, tool, chart)
			if err := errors.Join(a.replace(chart, false), a.is(states()[0], tool)); err != nil {
				t.Fatalf("before injection: %v", err)
			}
			a.injected()
			before := a.specs()
			for range 2 {
				if err := errors.Join(a.replace(chart, false), a.intercepted(), same("a replace changed", before, a.specs())); err != nil {
					t.Fatal(err)
				}
			}
			_, err := tool.apply(a, chart)
			if tool.forced != nil {
				if !isConflict(err) {
					t.Errorf("got %v, want a conflict", err)
				}
				_, err = tool.forced(a, chart)
				err = errors.Join(err, reapplies(tool, chart)[0].do(a), a.is(states()[1], tool))
			}
			if err := errors.Join(err, a.intercepted(), same("a re-apply changed", before, a.specs()), a.noDrift(tool, chart)); err != nil {
				t.Error(err)
			}
		})
	}
}
