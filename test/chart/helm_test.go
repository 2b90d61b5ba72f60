// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"strings"
	"testing"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	action3 "helm.sh/helm/v3/pkg/action"
	loader3 "helm.sh/helm/v3/pkg/chart/loader"
	chartutil3 "helm.sh/helm/v3/pkg/chartutil"
	support3 "helm.sh/helm/v3/pkg/lint/support"
	action4 "helm.sh/helm/v4/pkg/action"
	common4 "helm.sh/helm/v4/pkg/chart/common"
	loader4 "helm.sh/helm/v4/pkg/chart/v2/loader"
	release4 "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

const (
	ours = "../../config/chart"
	demo = "../demo/chart"
)

// kubernetesVersion is the oldest that the chart allows.
const kubernetesVersion = "v1.30.0"

type values = map[string]any

// rendered is what Helm would send to the API server.
type rendered struct {
	manifest string
	hooks    []string
	notes    string
}

// helm is one major version of Helm.
type helm struct {
	name   string
	lint   func(path string, v values) []error
	render func(path, release, namespace string, v values, apis ...string) (rendered, error)
}

func helms() []helm {
	return []helm{{"helm3", lint3, render3}, {"helm4", lint4, render4}}
}

func lint3(path string, v values) []error {
	l := action3.NewLint()
	l.Strict, l.Namespace, l.KubeVersion = true, "default", must(chartutil3.ParseKubeVersion(kubernetesVersion))
	result := l.Run([]string{path}, v)
	errs := result.Errors
	for _, m := range result.Messages {
		if m.Severity >= support3.WarningSev {
			errs = append(errs, m)
		}
	}
	return errs
}

func render3(path, release, namespace string, v values, apis ...string) (rendered, error) {
	c, err := loader3.Load(path)
	if err != nil {
		return rendered{}, fmt.Errorf("loading: %w", err)
	}
	i := action3.NewInstall(new(action3.Configuration))
	i.ReleaseName, i.Namespace, i.DryRun, i.ClientOnly = release, namespace, true, true
	i.KubeVersion, i.APIVersions = must(chartutil3.ParseKubeVersion(kubernetesVersion)), apis
	r, err := i.Run(c, v)
	if err != nil {
		return rendered{}, fmt.Errorf("rendering: %w", err)
	}
	out := rendered{manifest: r.Manifest, notes: r.Info.Notes}
	for _, h := range r.Hooks {
		out.hooks = append(out.hooks, h.Manifest)
	}
	return out, nil
}

func lint4(path string, v values) []error {
	l := action4.NewLint()
	l.Strict, l.Namespace, l.KubeVersion = true, "default", must(common4.ParseKubeVersion(kubernetesVersion))
	return l.Run([]string{path}, v).Errors
}

func render4(path, release, namespace string, v values, apis ...string) (rendered, error) {
	c, err := loader4.Load(path)
	if err != nil {
		return rendered{}, fmt.Errorf("loading: %w", err)
	}
	i := action4.NewInstall(action4.NewConfiguration())
	i.ReleaseName, i.Namespace, i.DryRunStrategy = release, namespace, action4.DryRunClient
	i.KubeVersion, i.APIVersions = must(common4.ParseKubeVersion(kubernetesVersion)), apis
	result, err := i.Run(c, v)
	if err != nil {
		return rendered{}, fmt.Errorf("rendering: %w", err)
	}
	r, ok := result.(*release4.Release)
	if !ok {
		return rendered{}, fmt.Errorf("rendering: a release of type %T", result)
	}
	out := rendered{manifest: r.Manifest, notes: r.Info.Notes}
	for _, h := range r.Hooks {
		out.hooks = append(out.hooks, h.Manifest)
	}
	return out, nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestMain silences Helm 3, and makes the objects of cert-manager decode strictly too.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	if err := certmanagerv1.AddToScheme(scheme.Scheme); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// objects decodes r strictly. Kinds that this Kubernetes does not know come back unstructured. They are sorted by kind
// and name.
func objects(t *testing.T, r rendered) []runtime.Object {
	t.Helper()
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	var out []runtime.Object
	for _, document := range append(strings.Split(r.manifest, "\n---\n"), r.hooks...) {
		var content map[string]any
		if err := yaml.Unmarshal([]byte(document), &content); err != nil {
			t.Fatalf("%v:\n%s", err, document)
		}
		if len(content) == 0 {
			continue
		}
		object, _, err := decoder.Decode([]byte(document), nil, nil)
		if runtime.IsNotRegisteredError(err) {
			object, err = &unstructured.Unstructured{Object: content}, nil
		}
		if err != nil {
			t.Fatalf("%v:\n%s", err, document)
		}
		out = append(out, object)
	}
	slices.SortFunc(out, func(a, b runtime.Object) int { return cmp.Compare(key(a), key(b)) })
	return out
}

func key(o runtime.Object) string {
	named, ok := o.(interface{ GetName() string })
	if !ok {
		panic(errors.New("an object without a name"))
	}
	return o.GetObjectKind().GroupVersionKind().Kind + "/" + named.GetName()
}

// only returns the objects of type T.
func only[T runtime.Object](all []runtime.Object) []T {
	var out []T
	for _, o := range all {
		if typed, ok := o.(T); ok {
			out = append(out, typed)
		}
	}
	return out
}

// must4 renders our chart with Helm 4, for a cluster that has cert-manager.
func must4(t *testing.T, v values) []runtime.Object {
	t.Helper()
	r, err := render4(ours, "scale-to-zero", "scale-to-zero", v, certManagerAPI)
	if err != nil {
		t.Fatal(err)
	}
	return objects(t, r)
}

func readValues(t *testing.T, path string) values {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	v := values{}
	if err := yaml.UnmarshalStrict(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}
