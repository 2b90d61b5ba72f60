// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"errors"
	"strings"
	"testing"
)

// TestChecksBite: the checks of TestReapply fail if a controller changes the selector itself instead of leaving that to
// admission. The design avoids exactly this.
func TestChecksBite(t *testing.T) {
	chart := values{replicas: 1, note: "first"}
	for _, tool := range tools() {
		t.Run(tool.name+", a changed value", func(t *testing.T) {
			a := installed(t, tool, chart)
			if err := a.patch(map[string]string{"app": "other"}); err != nil {
				t.Fatal(err)
			}
			if a.is(states()[0], tool) == nil {
				t.Errorf("%s owns the selector", a.selectorOwners())
			}
			if tool.drift != nil && a.noDrift(tool, chart) == nil {
				t.Error("no drift")
			}
			before := a.specs()
			err := errors.Join(reapplies(tool, chart)[0].do(a), same("a re-apply changed", before, a.specs()))
			if err == nil {
				t.Error("a re-apply has nothing to do")
			}
			if isConflict(err) != (tool.forced != nil) {
				t.Errorf("conflict: %t: %v", isConflict(err), err)
			}
		})
		t.Run(tool.name+", an added key", func(t *testing.T) {
			a := installed(t, tool, chart)
			if err := a.patch(map[string]string{"added": "by-a-controller"}); err != nil {
				t.Fatal(err)
			}
			if a.is(states()[0], tool) == nil {
				t.Errorf("%s owns the selector", a.selectorOwners())
			}
			_, err := tool.apply(a, chart)
			if isConflict(err) != (tool.forced != nil) {
				t.Errorf("conflict: %t: %v", isConflict(err), err)
			}
			if _, left := a.service().Spec.Selector["added"]; left != (tool.threeWay || tool.forced != nil) {
				t.Errorf("the key is left: %t", left)
			}
		})
	}
}

// isConflict reports whether the tool got a conflict: another manager owns a field.
func isConflict(err error) bool { return err != nil && strings.Contains(err.Error(), "conflict with ") }

func installed(t *testing.T, tool tool, chart values) *app {
	t.Helper()
	a := newApp(t)
	if said, err := tool.apply(a, chart); err != nil {
		t.Fatalf("installing: %v\n%s", err, said)
	}
	return a
}

// TestArgoStructuredMerge: this diff of Argo CD predicts an apply without the API server, and so without admission. It is
// the only one that shows the sentinel.
func TestArgoStructuredMerge(t *testing.T) {
	chart := values{replicas: 1, note: "first"}
	for _, tool := range tools() {
		if tool.manager != argoManager {
			continue
		}
		t.Run(tool.name, func(t *testing.T) {
			a := installed(t, tool, chart)
			drift, err := argoStructuredMerge(a, "Service", chart)
			if err != nil || drift != "" {
				t.Fatalf("before injection: %v\n%s", err, drift)
			}
			a.injected()
			if drift, err = argoStructuredMerge(a, "Service", chart); err != nil {
				t.Fatal(err)
			}
			var changed []string
			for line := range strings.Lines(drift) {
				if strings.HasPrefix(line, "+") || strings.HasPrefix(line, "-") {
					changed = append(changed, strings.Join(strings.Fields(line), " "))
				}
			}
			if err := same("drift", []string{`- "scale-to-zero/intercepted": string("true"),`}, changed); err != nil {
				t.Errorf("%v\n%s", err, drift)
			}
			if err := reapplies(tool, chart)[0].do(a); err != nil {
				t.Errorf("a sync: %v", err)
			}
		})
	}
}
