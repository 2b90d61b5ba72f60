// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestOptedIn(t *testing.T) {
	const none = "-"
	for _, tc := range []struct {
		label, annotation string
		in, out, denied   bool
	}{
		{label: none, annotation: none},
		{label: "true", annotation: none, in: true},
		{label: none, annotation: "true", in: true},
		{label: "true", annotation: "true", in: true},
		{label: "false", annotation: none, out: true},
		{label: none, annotation: "false", out: true},
		{label: "false", annotation: "false", out: true},
		// Written while admission was down, these are neither opted in nor opted in by their Namespace.
		{label: "true", annotation: "false", out: true, denied: true},
		{label: "false", annotation: "true", out: true, denied: true},
		{label: "yes", annotation: none, denied: true},
		{label: none, annotation: "", denied: true},
		{label: "true", annotation: "True", denied: true},
		{label: "", annotation: "true", denied: true},
	} {
		o := &metav1.ObjectMeta{Labels: map[string]string{}, Annotations: map[string]string{}}
		if tc.label != none {
			o.Labels[OptInLabel] = tc.label
		}
		if tc.annotation != none {
			o.Annotations[EnabledAnnotation] = tc.annotation
		}
		in, err := OptedIn(o)
		if in != tc.in || OptedOut(o) != tc.out || (err != nil) != tc.denied {
			t.Errorf("label %q, annotation %q: in %t, out %t, error %v", tc.label, tc.annotation, in, OptedOut(o), err)
		}
	}
}

func TestUndoOptIn(t *testing.T) {
	const label, annotate = "kubectl label service -n apps web scale-to-zero-", "kubectl annotate service -n apps web scale-to-zero/enabled-"
	for want, s := range map[string]*corev1.Service{
		label:                     service(),
		annotate:                  service(unlabelled, enabled("true")),
		label + " && " + annotate: service(enabled("true")),
		"kubectl label service -n apps web scale-to-zero=false": service(unlabelled),
	} {
		if got := UndoOptIn("service", s); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	cooldown := annotated("scale-to-zero/cooldown", "1m")
	for name, tc := range map[string]struct {
		kind     string
		change   []func(*corev1.Service)
		injected bool
		want     []string // part of each warning
	}{
		"opted in":               {"Service", []func(*corev1.Service){cooldown}, false, nil},
		"opted in by annotation": {"Service", []func(*corev1.Service){unlabelled, enabled("true"), cooldown}, false, nil},
		"opted out":              {"Service", []func(*corev1.Service){label("false"), cooldown}, false, nil},
		"nothing of ours":        {"Service", []func(*corev1.Service){unlabelled, annotated("a", "b")}, false, nil},
		"not opted in": {
			"Service",
			[]func(*corev1.Service){unlabelled, cooldown},
			false,
			[]string{"scale-to-zero/cooldown: no effect unless the Service, its Namespace or an Ingress to it is opted in: label it " +
				"scale-to-zero=true or annotate it scale-to-zero/enabled=true"},
		},
		"not opted in, but its Namespace": {"Service", []func(*corev1.Service){unlabelled, cooldown}, true, nil},
		"several, and one is wrong": {
			"Service",
			[]func(*corev1.Service){unlabelled, cooldown, annotated("scale-to-zero/hold-timeout", "x")},
			false,
			[]string{"scale-to-zero/cooldown, scale-to-zero/hold-timeout: no effect", `scale-to-zero/hold-timeout: "x" is not allowed`},
		},
		"several are wrong": {
			"Service",
			[]func(*corev1.Service){unlabelled, annotated("scale-to-zero/cooldwon", "1m"), annotated("scale-to-zero/hold-timeout", "x")},
			false,
			[]string{"no effect", "scale-to-zero/cooldwon", "scale-to-zero/hold-timeout"},
		},
		"ours to write": {"Service", []func(*corev1.Service){unlabelled, annotated(RedirectAnnotation, RedirectReady)}, false, nil},
		"the label as an annotation": {
			"Service",
			[]func(*corev1.Service){unlabelled, annotated("scale-to-zero", "true")},
			false,
			[]string{"annotation scale-to-zero does nothing: use label scale-to-zero or annotation scale-to-zero/enabled"},
		},
		"the annotation as a label": {"Service", []func(*corev1.Service){
			unlabelled,
			func(s *corev1.Service) { s.Labels[EnabledAnnotation] = "true" },
		}, false, []string{"label scale-to-zero/enabled does nothing"}},
		"an Ingress": {
			"Ingress",
			[]func(*corev1.Service){unlabelled, cooldown},
			false,
			[]string{"no effect unless the Ingress itself is opted in"},
		},
		"a Namespace's defaults": {"Namespace", []func(*corev1.Service){unlabelled, cooldown}, false, nil},
		"a Namespace's own": {"Namespace", []func(*corev1.Service){unlabelled, cooldown, annotated("scale-to-zero/internal-services",
			"true")}, false, []string{"scale-to-zero/internal-services: no effect unless the Namespace is opted in"}},
	} {
		got := Warnings(tc.kind, service(tc.change...), tc.injected)
		if len(got) != len(tc.want) || slices.ContainsFunc(tc.want, func(want string) bool {
			return !slices.ContainsFunc(got, func(w string) bool { return strings.Contains(w, want) })
		}) {
			t.Errorf("%s: got %q, want something with %q", name, got, tc.want)
		}
	}
}
