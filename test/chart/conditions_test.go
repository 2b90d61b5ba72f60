// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"
)

// matcher evaluates the match conditions of the webhook whose name begins with prefix, as the API server does.
func matcher(t *testing.T, prefix string) matchconditions.Matcher {
	t.Helper()
	for _, w := range only[*admissionv1.MutatingWebhookConfiguration](must4(t, values{}))[0].Webhooks {
		if !strings.HasPrefix(w.Name, prefix+".") {
			continue
		}
		var expressions []cel.ExpressionAccessor
		for _, c := range w.MatchConditions {
			expressions = append(expressions, new(matchconditions.MatchCondition(c)))
		}
		oldest := version.MustParseGeneric(kubernetesVersion) // the expression language has it too
		filter := cel.NewConditionCompiler(environment.MustBaseEnvSet(oldest)).
			CompileCondition(expressions, cel.OptionalVariableDeclarations{HasAuthorizer: true}, environment.NewExpressions)
		return matchconditions.NewMatcher(filter, w.FailurePolicy, "webhook", "mutating", w.Name)
	}
	t.Fatalf("no webhook %s", prefix)
	return nil
}

// called reports whether the API server calls the webhook for a write. A nil old means CREATE.
func called(t *testing.T, m matchconditions.Matcher, object, old runtime.Object) bool {
	t.Helper()
	operation := admission.Create
	if old != nil {
		operation = admission.Update
	}
	attributes := &admission.VersionedAttributes{
		Attributes: admission.NewAttributesRecord(object, old, schema.GroupVersionKind{}, "default", "s", schema.GroupVersionResource{}, "",
			operation, nil, false, nil),
		VersionedObject:    admission.NewLazyObject(object),
		VersionedOldObject: admission.NewLazyObject(old),
	}
	got := m.Match(t.Context(), attributes, nil, nil)
	if got.Error != nil {
		t.Fatal(got.Error)
	}
	return got.Matches
}

func meta(labels, annotations map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: "s", Namespace: "default", Labels: labels, Annotations: annotations}
}

// The API server calls the webhook for the Services that concern it and for no others, and the conditions never fail.
func TestServiceConditions(t *testing.T) {
	m := matcher(t, "services")
	service := func(labels, annotations, selector map[string]string) *corev1.Service {
		return &corev1.Service{ObjectMeta: meta(labels, annotations), Spec: corev1.ServiceSpec{Selector: selector}}
	}
	other := map[string]string{"app": "web"}
	plain := service(other, other, other)
	bare := service(nil, nil, nil)
	labelled := service(map[string]string{"scale-to-zero": "true"}, nil, other)
	optedOut := service(map[string]string{"scale-to-zero": "false"}, nil, other)
	annotated := service(nil, map[string]string{"scale-to-zero/route": "ready"}, other)
	intercepted := service(other, other, map[string]string{"app": "web", "scale-to-zero/intercepted": "true"})
	enabled := service(nil, map[string]string{"scale-to-zero/enabled": "true"}, other)
	mistaken := service(nil, map[string]string{"scale-to-zero": "true"}, other)
	mistakenToo := service(map[string]string{"scale-to-zero/enabled": "true"}, nil, other)
	direct := service(map[string]string{"scale-to-zero/role": "direct"}, nil, other)
	for name, tc := range map[string]struct {
		object, old *corev1.Service // old is nil on CREATE
		want        bool
	}{
		"bare is created":                {bare, nil, false},
		"plain is created":               {plain, nil, false},
		"plain is updated":               {plain, plain, false},
		"bare is updated":                {bare, bare, false},
		"a direct Service is created":    {direct, nil, false},
		"labelled is created":            {labelled, nil, true},
		"annotated is created":           {annotated, nil, true},
		"opted in by annotation":         {enabled, nil, true},
		"that annotation goes":           {bare, enabled, true},
		"the label as an annotation":     {mistaken, nil, true},
		"the annotation as a label":      {mistakenToo, nil, true},
		"intercepted is created":         {intercepted, nil, true},
		"labelled is updated":            {labelled, labelled, true},
		"the label comes":                {labelled, bare, true},
		"the label goes":                 {bare, labelled, true},
		"opted out of its namespace":     {optedOut, plain, true},
		"the selector is put back":       {plain, intercepted, true},
		"the annotation is wiped":        {plain, annotated, true},
		"the controller marks it":        {annotated, plain, true},
		"intercepted, opted by its team": {intercepted, intercepted, true},
	} {
		t.Run(name, func(t *testing.T) {
			var old runtime.Object
			if tc.old != nil {
				old = tc.old
			}
			if got := called(t, m, tc.object, old); got != tc.want {
				t.Errorf("called: %t, want %t", got, tc.want)
			}
		})
	}
}

func TestOtherConditions(t *testing.T) {
	label := map[string]string{"scale-to-zero": "true"}
	alias := map[string]string{"scale-to-zero/aliases": "web=web-scale-to-zero"}
	setting := map[string]string{"scale-to-zero/cooldown": "1m"}
	replicas := map[string]string{"scale-to-zero/replicas": "1"}
	enabled := map[string]string{"scale-to-zero/enabled": "true"}
	other := map[string]string{"a": "b"}
	ingress := func(labels, annotations map[string]string) *networkingv1.Ingress {
		return &networkingv1.Ingress{ObjectMeta: meta(labels, annotations)}
	}
	namespace := func(labels, annotations map[string]string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: meta(labels, annotations)}
	}
	deployment := func(annotations map[string]string) *appsv1.Deployment {
		return &appsv1.Deployment{ObjectMeta: meta(nil, annotations)}
	}
	for name, tc := range map[string]struct {
		webhook     string
		object, old runtime.Object
		want        bool
	}{
		"a bare Ingress":                           {"ingresses", ingress(nil, nil), nil, false},
		"a plain Ingress":                          {"ingresses", ingress(other, other), ingress(other, other), false},
		"a labelled Ingress":                       {"ingresses", ingress(label, nil), nil, true},
		"an Ingress whose label goes":              {"ingresses", ingress(nil, nil), ingress(label, nil), true},
		"an Ingress whose annotation is wiped":     {"ingresses", ingress(other, nil), ingress(nil, alias), true},
		"an annotated Ingress":                     {"ingresses", ingress(nil, enabled), nil, true},
		"an annotated Namespace":                   {"namespaces", namespace(nil, enabled), nil, true},
		"a Namespace with the annotation as label": {"namespaces", namespace(enabled, nil), nil, true},
		"a bare Namespace":                         {"namespaces", namespace(nil, nil), nil, false},
		"a plain Namespace":                        {"namespaces", namespace(other, other), namespace(other, other), false},
		"a labelled Namespace":                     {"namespaces", namespace(label, nil), namespace(nil, nil), true},
		"a Namespace with a setting":               {"namespaces", namespace(nil, setting), namespace(nil, nil), true},
		"a bare Deployment":                        {"replicas", deployment(nil), deployment(nil), false},
		"a plain Deployment":                       {"replicas", deployment(other), deployment(other), false},
		"a Deployment of ours":                     {"replicas", deployment(replicas), deployment(replicas), true},
		"a Deployment of ours that is replaced":    {"replicas", deployment(nil), deployment(replicas), true},
		"a Deployment that says it is, and is not": {"replicas", deployment(replicas), deployment(nil), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := called(t, matcher(t, tc.webhook), tc.object, tc.old); got != tc.want {
				t.Errorf("called: %t, want %t", got, tc.want)
			}
		})
	}
}
