// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/argoproj/gitops-engine/pkg/diff"
	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/discovery"
	"k8s.io/kube-openapi/pkg/util/proto"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// argoManager is the name under which Argo CD applies.
const argoManager = "argocd-controller"

// argoDrift returns what Argo CD would show as out of sync, in each of its diff modes but the structured merge, with the
// ignoreDifferences that we document.
func argoDrift(a *app, kind string, v values) (string, error) {
	ignore, err := documented()
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for name, options := range map[string][]diff.Option{
		// With the annotation of kubectl apply this is a three-way diff, else a two-way diff.
		"client-side":                         nil,
		"server-side":                         {diff.WithServerSideDiff(true)},
		"server-side, with mutation webhooks": {diff.WithServerSideDiff(true), diff.WithIgnoreMutationWebhook(false)},
	} {
		drift, err := argoDiff(a, kind, v, append(options, diff.WithNormalizer(ignore))...)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		if drift != "" {
			fmt.Fprintf(&all, "%s diff:\n%s\n", name, drift)
		}
	}
	return all.String(), nil
}

// argoStructuredMerge is how Argo CD before 3.6 compares objects with the sync option ServerSideApply=true, unless
// server-side diff is on.
func argoStructuredMerge(a *app, kind string, v values) (string, error) {
	return argoDiff(a, kind, v, diff.WithStructuredMergeDiff(true))
}

func argoDiff(a *app, kind string, v values, options ...diff.Option) (string, error) {
	all, err := a.render(v)
	if err != nil {
		return "", err
	}
	chart := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(all[kind]), chart); err != nil {
		return "", err
	}
	chart.SetNamespace(a.ns)
	live := a.object(kind)
	if err := a.get("web", live); err != nil {
		return "", err
	}
	parser, err := schemas()
	if err != nil {
		return "", err
	}
	result, err := diff.Diff(chart, live, append(options,
		diff.WithLogr(logr.Discard()), diff.WithGVKParser(parser), diff.WithManager(argoManager), diff.WithServerSideDryRunner(dryRunner{a}))...)
	if err != nil || !result.Modified {
		return "", err
	}
	var before, after map[string]any
	if err := json.Unmarshal(result.NormalizedLive, &before); err != nil {
		return "", err
	}
	if err := json.Unmarshal(result.PredictedLive, &after); err != nil {
		return "", err
	}
	return cmp.Diff(before, after), nil
}

// schemas are the schemas of the API server's kinds.
var schemas = sync.OnceValues(func() (*managedfields.GvkParser, error) {
	d, err := discovery.NewDiscoveryClientForConfig(env.Config)
	if err != nil {
		return nil, err
	}
	document, err := d.OpenAPISchema()
	if err != nil {
		return nil, err
	}
	models, err := proto.NewOpenAPIData(document)
	if err != nil {
		return nil, err
	}
	return managedfields.NewGVKParser(models, false)
})

// dryRunner sends the API server the requests that Argo CD's server-side diff sends through kubectl's code.
type dryRunner struct{ a *app }

func (r dryRunner) Run(_ context.Context, o *unstructured.Unstructured, manager string) (string, error) {
	manifest, err := json.Marshal(o)
	if err != nil {
		return "", err
	}
	answer, err := r.a.serverSideApply(manager, string(manifest), client.DryRunAll)
	if err != nil {
		return "", err
	}
	live, err := json.Marshal(answer)
	return string(live), err
}
