// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestReapply: in every state of an app, the tool that has applied its chart finds no difference in the Service and the
// Ingress. It applies the chart again without a conflict and without undoing anything.
func TestReapply(t *testing.T) {
	for _, tool := range tools() {
		for _, replicas := range []int32{1, 2} {
			t.Run(fmt.Sprintf("%s, %d replicas", tool.name, replicas), func(t *testing.T) {
				a, chart := newApp(t), values{replicas: replicas, note: "first"}
				if said, err := tool.apply(a, chart); err != nil {
					t.Fatalf("installing: %v\n%s", err, said)
				}
				for _, s := range states() {
					s.enter(a)
					if err := errors.Join(a.is(s, tool), a.noDrift(tool, chart)); err != nil {
						t.Errorf("%s: %v", s.name, err)
					}
					for _, again := range reapplies(tool, chart) {
						s.enter(a)
						before, count := a.specs(), *a.deployment().Spec.Replicas
						err := errors.Join(again.do(a), a.is(s, tool), same("a re-apply changed", before, a.specs()), a.noDrift(tool, chart))
						if after := *a.deployment().Spec.Replicas; after != count { // the replica guard
							err = errors.Join(err, fmt.Errorf("it has %d replicas, and had %d", after, count))
						}
						if err != nil {
							t.Errorf("%s, %s: %v", s.name, again.name, err)
						}
					}
				}
			})
		}
	}
}

// is checks that the Service is in this state, and still belongs to the tool.
func (a *app) is(s state, tool tool) error {
	var err error
	if s.intercepted {
		err = a.intercepted()
	} else if a.intercepted() == nil {
		err = errors.New("it is intercepted")
	}
	return errors.Join(err, same("owners of the selector", tool.manager, a.selectorOwners()))
}

type reapply struct {
	name string
	do   func(a *app) error
}

func reapplies(tool tool, chart values) []reapply {
	return []reapply{
		{"the same chart", func(a *app) error {
			before := a.versions()
			said, err := tool.apply(a, chart)
			if err != nil {
				return err
			}
			for _, kind := range []string{"Service", "Ingress"} {
				want := strings.ToLower(fmt.Sprintf(tool.unchanged, kind))
				if tool.unchanged != "" && !strings.Contains(strings.ReplaceAll(strings.ToLower(said), ".networking.k8s.io", ""), want) {
					err = errors.Join(err, fmt.Errorf("it does not say %q:\n%s", want, said))
				}
			}
			if tool.replaces {
				return err
			}
			return errors.Join(err, same("it has written", before, a.versions()))
		}},
		{"a changed annotation, and back", func(a *app) error {
			before, changed := a.specs(), chart
			changed.note = "second"
			said, err := tool.apply(a, changed)
			if err != nil {
				return err
			}
			if note := a.service().Annotations["note"]; note != "second" {
				err = fmt.Errorf("note is %q:\n%s", note, said)
			}
			err = errors.Join(err, same("another annotation changed", before, a.specs()))
			_, back := tool.apply(a, chart)
			return errors.Join(err, back)
		}},
	}
}
