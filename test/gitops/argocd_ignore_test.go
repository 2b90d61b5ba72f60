// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/argoproj/gitops-engine/pkg/diff"
	"github.com/itchyny/gojq"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// ignored is what Argo CD does not compare: an entry of an Application's spec.ignoreDifferences. It is a diff.Normalizer.
type ignored struct {
	Group             string   `json:"group"`
	Kind              string   `json:"kind"`
	JQPathExpressions []string `json:"jqPathExpressions"`
}

// documented is the ignoreDifferences that our documentation recommends.
var documented = sync.OnceValues(func() (ignored, error) {
	page, err := os.ReadFile("../../docs/how-it-works.md")
	if err != nil {
		return ignored{}, err
	}
	var application struct {
		Spec struct {
			IgnoreDifferences []ignored `json:"ignoreDifferences"`
		} `json:"spec"`
	}
	block := regexp.MustCompile(`(?m)^    spec:\n      ignoreDifferences:\n(?:      .*\n)+`).Find(page)
	if err := yaml.UnmarshalStrict(block, &application); err != nil || len(application.Spec.IgnoreDifferences) != 1 {
		return ignored{}, fmt.Errorf("the documentation has no ignoreDifferences: %w: %q", err, block)
	}
	return application.Spec.IgnoreDifferences[0], nil
})

// Normalize deletes from an object what is ignored, by jq as Argo CD does.
func (i ignored) Normalize(u *unstructured.Unstructured) error {
	if gvk := u.GroupVersionKind(); gvk.Group != i.Group || gvk.Kind != i.Kind {
		return nil
	}
	for _, path := range i.JQPathExpressions {
		query, err := gojq.Parse("del(" + path + ")")
		if err != nil {
			return err
		}
		text, err := u.MarshalJSON()
		if err != nil {
			return err
		}
		var object any // gojq wants the numbers of encoding/json
		if err := yaml.Unmarshal(text, &object); err != nil {
			return err
		}
		first, _ := query.Run(object).Next()
		kept, ok := first.(map[string]any)
		if !ok {
			return fmt.Errorf("%s: %v", path, first)
		}
		u.Object = kept
	}
	return nil
}

// TestArgoTrigger: what Argo CD shows of our trigger in each of its modes without the ignoreDifferences that we document, and that a sync
// changes nothing, so that Argo CD would sync again and again with selfHeal. With it, no mode shows anything.
func TestArgoTrigger(t *testing.T) {
	ignore, err := documented()
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]struct {
		options []diff.Option
		shown   bool
	}{
		"client-side":                         {nil, true},
		"structured merge":                    {[]diff.Option{diff.WithStructuredMergeDiff(true)}, true},
		"server-side":                         {[]diff.Option{diff.WithServerSideDiff(true)}, false},
		"server-side, with mutation webhooks": {[]diff.Option{diff.WithServerSideDiff(true), diff.WithIgnoreMutationWebhook(false)}, false},
	}
	for _, tool := range tools() {
		if tool.manager != argoManager {
			continue
		}
		t.Run(tool.name, func(t *testing.T) {
			chart := beside()
			a := installed(t, tool, chart)
			statesBeside(tool, chart)[1].enter(a)
			for range 2 { // before and after a sync
				for name, mode := range modes {
					bare, err := argoDiff(a, "ScaledObject", chart, mode.options...)
					with, alsoErr := argoDiff(a, "ScaledObject", chart, append(mode.options, diff.WithNormalizer(ignore))...)
					if err := errors.Join(err, alsoErr); err != nil {
						t.Fatal(err)
					}
					if shown := onlyTrigger(bare); shown != mode.shown || bare == "" == mode.shown || with != "" {
						t.Errorf("%s: it shows %s, and with ignoreDifferences %s", name, bare, with)
					}
				}
				before := a.contents()
				if _, err := tool.apply(a, chart); err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(same("a sync changed", before, a.contents()), a.triggered(chart)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// onlyTrigger reports whether a diff has our trigger, and nothing else, as what a sync would remove.
func onlyTrigger(drift string) bool {
	var removed strings.Builder
	for line := range strings.Lines(drift) {
		switch {
		case strings.HasPrefix(line, "+"):
			return false
		case strings.HasPrefix(line, "-"):
			removed.WriteString(strings.Join(strings.Fields(line[1:]), ""))
		}
	}
	return regexp.MustCompile(`^map\[string\]any\{"metadata":map\[string\]any\{[^{}]*\},"name":string\("scale-to-zero"\),"type":` +
		`string\("external-push"\),\},$`).MatchString(removed.String())
}
