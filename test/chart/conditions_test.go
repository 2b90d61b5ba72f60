package chart

import (
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"
)

// The API server calls the webhook for the Services that concern it and for no others, and never fails to decide.
func TestMatchConditions(t *testing.T) {
	w := only[*admissionv1.MutatingWebhookConfiguration](must4(t, values{}))[0].Webhooks[0]
	var expressions []cel.ExpressionAccessor
	for _, c := range w.MatchConditions {
		expressions = append(expressions, new(matchconditions.MatchCondition(c)))
	}
	oldest := version.MustParseGeneric(kubernetesVersion) // of the expression language too
	filter := cel.NewConditionCompiler(environment.MustBaseEnvSet(oldest)).
		CompileCondition(expressions, cel.OptionalVariableDeclarations{HasAuthorizer: true}, environment.NewExpressions)
	matcher := matchconditions.NewMatcher(filter, w.FailurePolicy, "webhook", "mutating", w.Name)

	service := func(labels, annotations, selector map[string]string) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "default", Labels: labels, Annotations: annotations},
			Spec:       corev1.ServiceSpec{Selector: selector},
		}
	}
	other := map[string]string{"app": "web"}
	plain := service(other, other, other)
	bare := service(nil, nil, nil)
	labelled := service(map[string]string{"scale-to-zero": "true"}, nil, other)
	optedOut := service(map[string]string{"scale-to-zero": "false"}, nil, other)
	annotated := service(nil, map[string]string{"scale-to-zero/route": "ready"}, other)
	intercepted := service(other, other, map[string]string{"app": "web", "scale-to-zero/intercepted": "true"})
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
			operation, old := admission.Create, runtime.Object(nil)
			if tc.old != nil {
				operation, old = admission.Update, tc.old
			}
			gvk, gvr := corev1.SchemeGroupVersion.WithKind("Service"), corev1.SchemeGroupVersion.WithResource("services")
			attributes := &admission.VersionedAttributes{
				Attributes:         admission.NewAttributesRecord(tc.object, old, gvk, "default", "s", gvr, "", operation, nil, false, nil),
				VersionedKind:      gvk,
				VersionedObject:    admission.NewLazyObject(tc.object),
				VersionedOldObject: admission.NewLazyObject(old),
			}
			got := matcher.Match(t.Context(), attributes, nil, nil)
			if got.Error != nil {
				t.Fatal(got.Error)
			}
			if got.Matches != tc.want {
				t.Errorf("called: %t, want %t", got.Matches, tc.want)
			}
		})
	}
}
