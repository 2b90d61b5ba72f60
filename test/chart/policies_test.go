// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

// policies are the chart's ValidatingAdmissionPolicies, as the API server evaluates them.
type policies struct {
	t         *testing.T
	validator map[string]validating.Validator
}

// newPolicies compiles the policies for the oldest Kubernetes that the chart allows.
func newPolicies(t *testing.T, v values) policies {
	t.Helper()
	p := policies{t, map[string]validating.Validator{}}
	for _, policy := range only[*admissionv1.ValidatingAdmissionPolicy](must4(t, v)) {
		compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(version.MustParseGeneric(kubernetesVersion)))
		if err != nil {
			t.Fatal(err)
		}
		full := cel.OptionalVariableDeclarations{HasParams: policy.Spec.ParamKind != nil, HasAuthorizer: true}
		compile := func(all []cel.ExpressionAccessor, options cel.OptionalVariableDeclarations) cel.ConditionEvaluator {
			return compiler.CompileCondition(all, options, environment.NewExpressions)
		}
		var variables []cel.NamedExpressionAccessor
		for _, v := range policy.Spec.Variables {
			variables = append(variables, &validating.Variable{Name: v.Name, Expression: v.Expression})
		}
		compiler.CompileAndStoreVariables(variables, full, environment.NewExpressions)
		var conditions, validations, messages []cel.ExpressionAccessor
		for i := range policy.Spec.MatchConditions {
			conditions = append(conditions, (*matchconditions.MatchCondition)(&policy.Spec.MatchConditions[i]))
		}
		for _, v := range policy.Spec.Validations {
			validations = append(validations, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason})
			var message cel.ExpressionAccessor
			if v.MessageExpression != "" {
				message = &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression}
			}
			messages = append(messages, message)
		}
		name := strings.TrimPrefix(policy.Name, "scale-to-zero-")
		p.validator[name] = validating.NewValidator(compile(validations, full),
			matchconditions.NewMatcher(compile(conditions, full), policy.Spec.FailurePolicy, "policy", "validate", policy.Name),
			compile(nil, full), compile(messages, cel.OptionalVariableDeclarations{HasParams: full.HasParams}), policy.Spec.FailurePolicy, nil)
	}
	return p
}

// write is a write that policies judge.
type write struct {
	by          string // who writes; "somebody" if empty
	object, old string // YAML; empty for none
	params      string // the object of the binding's kind, YAML
	namespace   map[string]string
	may         []string // what its author may do, as "verb resource.group/subresource name"
}

// rights answers the API server's questions about what somebody may do.
type rights []string

// Authorize implements authorizer.UnconditionalAuthorizer.
func (r rights) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	resource := a.GetResource()
	if a.GetAPIGroup() != "" {
		resource += "." + a.GetAPIGroup()
	}
	if a.GetSubresource() != "" {
		resource += "/" + a.GetSubresource()
	}
	for _, have := range r {
		if have == a.GetVerb()+" "+resource || have == a.GetVerb()+" "+resource+" "+a.GetName() && a.GetName() != "" {
			return authorizer.DecisionAllow, "", nil
		}
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func decoded(t *testing.T, text string) runtime.Object {
	t.Helper()
	if text == "" {
		return nil
	}
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return o
}

// judge returns why the policy denies the write; empty if it does not, or if the write does not concern it.
func (p policies) judge(name string, w write) string {
	p.t.Helper()
	validator := p.validator[name]
	if validator == nil {
		p.t.Fatalf("there is no policy %s", name)
	}
	object, old := decoded(p.t, w.object), decoded(p.t, w.old)
	operation := admission.Update
	switch {
	case old == nil:
		operation = admission.Create
	case object == nil:
		operation = admission.Delete
	}
	by := w.by
	if by == "" {
		by = "somebody"
	}
	attributes := &admission.VersionedAttributes{
		Attributes: admission.NewAttributesRecord(object, old, schema.GroupVersionKind{}, "shop", "web", schema.GroupVersionResource{}, "",
			operation, nil, false, &user.DefaultInfo{Name: by}),
		VersionedObject: admission.NewLazyObject(object), VersionedOldObject: admission.NewLazyObject(old),
	}
	namespace := &corev1.Namespace{}
	namespace.Name, namespace.Labels = "shop", w.namespace
	result := validator.Validate(p.t.Context(), schema.GroupVersionResource{}, attributes, decoded(p.t, w.params), namespace,
		celconfig.RuntimeCELCostBudget, rights(w.may))
	for _, d := range result.Decisions {
		if d.Evaluation == validating.EvalError {
			p.t.Errorf("%s: %s", name, d.Message)
		}
		if d.Action == validating.ActionDeny {
			return d.Message
		}
	}
	return ""
}
