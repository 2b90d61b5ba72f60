// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
)

const (
	roleLabel = "scale-to-zero/role"

	ourController = "system:serviceaccount:scale-to-zero:scale-to-zero-controller"
	slicesAccount = "system:serviceaccount:kube-system:endpointslice-controller"
	mirrorAccount = "system:serviceaccount:kube-system:endpointslicemirroring-controller"
	garbage       = "system:serviceaccount:kube-system:generic-garbage-collector"
	namespaces    = "system:serviceaccount:kube-system:namespace-controller"
	oneForAll     = "system:kube-controller-manager"
	tenant        = "tenant"
	clusterAdmin  = "cluster-admin"
)

// slice returns an EndpointSlice with these labels and annotations, as key=value.
func slice(labels, annotations string) *discoveryv1.EndpointSlice {
	pairs := func(text string) map[string]string {
		var out map[string]string
		for pair := range strings.FieldsSeq(text) {
			if out == nil {
				out = map[string]string{}
			}
			out[strings.Split(pair, "=")[0]] = strings.Split(pair, "=")[1]
		}
		return out
	}
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{GenerateName: "web-", Labels: pairs(labels), Annotations: pairs(annotations)},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.1.0.9"}}},
	}
}

// sliceWrite is a write of an EndpointSlice, and who may do it.
type sliceWrite struct {
	before, after *discoveryv1.EndpointSlice // nil for a creation, and for a deletion
	may           []string
}

func everybody() []string {
	return []string{ourController, slicesAccount, mirrorAccount, garbage, namespaces, oneForAll, tenant, clusterAdmin}
}

// sliceWrites are what somebody might try.
func sliceWrites() map[string]sliceWrite {
	const (
		route, direct, peers = roleLabel + "=route", roleLabel + "=direct", roleLabel + "=interceptor"
		other                = "app=web kubernetes.io/service-name=web endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io"
		routes               = "scale-to-zero/routes={}"
	)
	return map[string]sliceWrite{
		"make a route":                  {nil, slice(route, ""), []string{ourController}},
		"make a route, annotated":       {nil, slice(route, routes), []string{ourController}},
		"make routes without a role":    {nil, slice("", routes), []string{ourController}},
		"make progress":                 {nil, slice("", "scale-to-zero/progress={}"), []string{ourController}},
		"make what was learned":         {nil, slice(other, "scale-to-zero/learned={}"), []string{ourController}},
		"make a list of pods":           {nil, slice(direct, ""), []string{slicesAccount, oneForAll}},
		"make a list of interceptors":   {nil, slice(peers, ""), []string{slicesAccount, oneForAll}},
		"make an unknown role":          {nil, slice(roleLabel+"=x", ""), []string{slicesAccount, oneForAll}},
		"make an empty role":            {nil, slice(roleLabel+"=", ""), []string{slicesAccount, oneForAll}},
		"make a list of pods, and more": {nil, slice(direct, routes), nil},
		"make another":                  {nil, slice(other, "a=b"), everybody()},
		"make one without any label":    {nil, slice("", ""), everybody()},
		"make a similar label":          {nil, slice("scale-to-zero=true scale-to-zero.example/role=route", "scale-to-zero=true"), everybody()},
		"change a route":                {slice(route, routes), slice(route, "scale-to-zero/routes=[]"), []string{ourController, garbage}},
		"take a route's label":          {slice(route, ""), slice(other, ""), []string{ourController, garbage}},
		"take a route's annotation":     {slice("", routes), slice("", ""), []string{ourController, garbage}},
		"make another a route":          {slice(other, ""), slice(route, ""), []string{ourController, garbage}},
		"make another a list of pods":   {slice(other, ""), slice(direct, ""), []string{slicesAccount, oneForAll, garbage}},
		"make pods a route":             {slice(direct, ""), slice(route, ""), []string{garbage}},
		"make a route pods":             {slice(route, ""), slice(direct, ""), []string{garbage}},
		"change a list of pods":         {slice(direct, ""), slice(direct+" a=b", ""), []string{slicesAccount, oneForAll, garbage}},
		"change another":                {slice(other, ""), slice(other+" a=b", "c=d"), everybody()},
		"write a route as it is":        {slice(route, routes), slice(route, routes), everybody()},
		"write a list as it is":         {slice(direct, ""), slice(direct, ""), everybody()},
		"delete a route":                {slice(route, routes), nil, []string{ourController, garbage, namespaces, oneForAll, clusterAdmin}},
		"delete a list of pods":         {slice(direct, ""), nil, []string{slicesAccount, garbage, namespaces, oneForAll, clusterAdmin}},
		"delete another":                {slice(other, "a=b"), nil, everybody()},
	}
}

// decide evaluates a write. It returns whether the policy concerns it at all, and why it is denied.
func decide(t *testing.T, v validating.Validator, w sliceWrite, who string) (concerned bool, denied string) {
	t.Helper()
	info := &user.DefaultInfo{Name: who}
	if who == "system:masters" {
		info.Groups = []string{who}
	}
	var may rights
	if who == clusterAdmin {
		may = rights{"* *.*"}
	}
	var object, old runtime.Object
	operation := admission.Update
	switch {
	case w.before == nil:
		object, operation = w.after, admission.Create
	case w.after == nil:
		old, operation = w.before, admission.Delete
	default:
		object, old = w.after, w.before
	}
	resource := discoveryv1.SchemeGroupVersion.WithResource("endpointslices")
	attributes := &admission.VersionedAttributes{
		Attributes: admission.NewAttributesRecord(object, old, discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), "default", "web-1",
			resource, "", operation, &metav1.CreateOptions{}, false, info),
		VersionedObject: admission.NewLazyObject(object), VersionedOldObject: admission.NewLazyObject(old),
	}
	result := v.Validate(t.Context(), resource, attributes, nil, nil, celconfig.RuntimeCELCostBudget, may)
	var why []string
	for _, d := range result.Decisions {
		if d.Evaluation == validating.EvalError {
			t.Errorf("evaluating: %s", d.Message)
		}
		if d.Action == validating.ActionDeny {
			why = append(why, d.Message)
		}
	}
	return len(result.Decisions) > 0, strings.Join(why, "; ")
}

// TestPolicyOfSlices tests who may write and delete the slices that the interceptors read, and that the policy does not concern any other
// slice.
func TestPolicyOfSlices(t *testing.T) {
	v := newPolicies(t, values{}).validator["slices"]
	for name, w := range sliceWrites() {
		t.Run(name, func(t *testing.T) {
			for _, who := range append(everybody(), "system:masters") {
				concerned, denied := decide(t, v, w, who)
				may := who == "system:masters" || slices.Contains(w.may, who)
				if (denied == "") != may || denied != "" && !strings.Contains(strings.ToLower(denied), "leave th") {
					t.Errorf("%s may: %t, want %t: %s", who, denied == "", may, denied)
				}
				if ours := strings.Contains(text(w.before)+text(w.after), "scale-to-zero/"); concerned != ours {
					t.Errorf("the policy concerns it: %t, want %t", concerned, ours)
				}
			}
		})
	}
}

// text returns the labels and annotations of a slice.
func text(s *discoveryv1.EndpointSlice) string {
	if s == nil {
		return ""
	}
	var b strings.Builder
	for _, all := range []map[string]string{s.Labels, s.Annotations} {
		for key := range all {
			b.WriteString(" " + strings.ReplaceAll(key, "scale-to-zero.", ""))
		}
	}
	return b.String()
}

// TestPoliciesAreOptional tests that one value leaves the policies out, and that values of an older chart have them.
func TestPoliciesAreOptional(t *testing.T) {
	for name, tc := range map[string]struct {
		v    values
		want int
	}{
		"by default":            {values{}, 14},
		"without":               {values{"admissionPolicies": values{"enabled": false}}, 0},
		"values of an old kind": {values{"admissionPolicies": nil, "authorization": nil}, 14},
	} {
		for _, h := range helms() {
			r, err := h.render(ours, "scale-to-zero", "scale-to-zero", tc.v)
			if err != nil {
				t.Fatal(err)
			}
			all := objects(t, r)
			policies, bindings := only[*admissionv1.ValidatingAdmissionPolicy](all), only[*admissionv1.ValidatingAdmissionPolicyBinding](all)
			if len(policies) != tc.want || len(bindings) != tc.want {
				t.Errorf("%s, %s: %d policies, %d bindings, want %d", h.name, name, len(policies), len(bindings), tc.want)
			}
		}
	}
}
