// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// deny makes a policy that denies writes in the app's namespace, except those that CEL allows. It waits until the policy
// denies probe, and returns a function that removes it.
func (a *app) deny(group, version, resource, cel string, probe client.Object) (allow func()) {
	a.t.Helper()
	const isProbe = "has(object.metadata.annotations) && 'probe' in object.metadata.annotations"
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: a.ns + "-" + resource},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: new(admissionregistrationv1.Fail),
			MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionregistrationv1.RuleWithOperations{
					Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
					Rule: admissionregistrationv1.Rule{
						APIGroups: []string{group}, APIVersions: []string{version}, Resources: []string{resource},
					},
				},
			}}},
			Validations: []admissionregistrationv1.Validation{{Expression: "!(" + isProbe + ") && (" + cel + ")", Message: "not here"}},
		},
	}
	binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: policy.Name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: policy.Name, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
			MatchResources: &admissionregistrationv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{
				MatchLabels: map[string]string{"kubernetes.io/metadata.name": a.ns},
			}},
		},
	}
	create(a.t, policy)
	create(a.t, binding)
	probe.SetNamespace(a.ns)
	probe.SetName("probe")
	probe.SetAnnotations(map[string]string{"probe": ""})
	a.refuses(probe)
	return func() {
		for _, o := range []client.Object{binding, policy} {
			if err := kube.Delete(a.t.Context(), o); err != nil {
				a.t.Error(err)
			}
		}
	}
}

// quota makes a ResourceQuota that allows no more of a resource than there is now. There is no quota controller here, so
// the test writes the quota's status.
func (a *app) quota(name corev1.ResourceName, n string) *corev1.ResourceQuota {
	a.t.Helper()
	q := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "few"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{name: resource.MustParse(n)}},
	}
	create(a.t, q)
	q.Status = corev1.ResourceQuotaStatus{Hard: q.Spec.Hard, Used: q.Spec.Hard}
	if err := kube.Status().Update(a.t.Context(), q); err != nil {
		a.t.Fatal(err)
	}
	return q
}

// refuses waits until o is refused: policies and quotas take effect a little later.
func (a *app) refuses(o client.Object) {
	a.t.Helper()
	eventually(a.t, "it is refused", func() error {
		err := kube.Create(a.t.Context(), o.DeepCopyObject().(client.Object), client.DryRunAll)
		if _, refused := injector.RefusalOf(err); !refused {
			return fmt.Errorf("creating %T: %w", o, err)
		}
		return nil
	})
}

// TestRefusedWrites: if the API server refuses a write of an injection, one event says what and why, and the app stays as
// it was. It is injected once the write is allowed.
func TestRefusedWrites(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	remove := func(a *app, o client.Object) func() {
		return func() {
			if err := kube.Delete(a.t.Context(), o); err != nil {
				a.t.Error(err)
			}
		}
	}
	for name, tc := range map[string]struct {
		refuse func(a *app) (allow func())
		want   []string // the event's text
	}{
		"a quota on Services": {func(a *app) func() {
			q := a.quota("services", "1")
			other := a.service()
			other.Name = "other"
			a.refuses(other)
			return remove(a, q)
		}, []string{"creating Service web-direct is refused: ", "exceeded quota: few", "Raise that ResourceQuota"}},
		"a policy on EndpointSlices": {func(a *app) func() {
			return a.deny("discovery.k8s.io", "v1", "endpointslices", "object.metadata.name != 'web-scale-to-zero-ipv4'",
				&discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{}})
		}, []string{
			"creating EndpointSlice web-scale-to-zero-ipv4 is refused: ", "not here",
			"Exempt objects with the label app.kubernetes.io/managed-by=scale-to-zero",
		}},
		"a policy on the user's Service": {func(a *app) func() {
			return a.deny("", "v1", "services", "!has(object.metadata.annotations) || !('scale-to-zero/route' in object.metadata.annotations)",
				a.service())
		}, []string{"updating Service web is refused: ", "not here"}},
		"a quota on ScaledObjects": {func(a *app) func() {
			q := a.quota("count/scaledobjects.keda.sh", "0")
			other := newScaledObject()
			other.Namespace, other.Name = a.ns, "other"
			a.refuses(other)
			return remove(a, q)
		}, []string{"creating ScaledObject web-deployment is refused: ", "exceeded quota: few", "Raise that ResourceQuota"}},
		"a policy on ScaledObjects": {func(a *app) func() {
			return a.deny("keda.sh", "v1alpha1", "scaledobjects", "false", newScaledObject())
		}, []string{"creating ScaledObject web-deployment is refused: ", "not here"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, 1)
			allow := tc.refuse(a)
			a.label(`"true"`)
			if !strings.Contains(tc.want[0], "creating Service") {
				a.directMade()
			}
			for _, want := range append(tc.want, "InjectionSkipped: Not injected: ") {
				a.told("Service", "web", want)
			}
			if strings.Contains(events(t, a.ns, "Service", "web"), "Injected") || a.intercepted() == nil {
				t.Error("it is injected")
			}
			allow()
			a.injected()
			if got := events(t, a.ns, "Service", "web"); strings.Count(got, "Skipped") != 1 || strings.Count(got, "Injected") != 1 {
				t.Errorf("events: %q", got)
			}
		})
	}
}

// TestForeignSlice: a slice of somebody else's with the name of a route slice is left alone, and an event says how to delete it. It takes
// the right to read slices that are not labelled as ours.
func TestForeignSlice(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	foreign := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "web-scale-to-zero-ipv4"}, AddressType: discoveryv1.AddressTypeIPv4,
	}
	create(t, foreign)
	a.label(`"true"`)
	a.told("Service", "web", "there is one of that name that scale-to-zero has not made")
	if err := kube.Delete(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	a.injected()
}

// TestRefusedScaledObject: if a ScaledObject is refused later, events on the Service and on the workload report it, and
// its end.
func TestRefusedScaledObject(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	start(t, planeOptions{interceptors: &interceptors{}})
	a := newApp(t, 1)
	a.injected()
	allow := a.deny("keda.sh", "v1alpha1", "scaledobjects", "false", newScaledObject())
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/max-replicas":"3"}}}`); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"Service", "Deployment"} {
		a.told(kind, "web", "WriteRefused: Deployment/web is not scaled as it should be: updating ScaledObject web-deployment is refused: ")
	}
	allow()
	for _, kind := range []string{"Service", "Deployment"} {
		a.told(kind, "web", "WriteAccepted: Updating ScaledObject web-deployment is accepted now")
	}
	if got := events(t, a.ns, "Service", "web"); strings.Count(got, "WriteRefused") != 1 {
		t.Errorf("events: %q", got)
	}
	so := &keda.ScaledObject{}
	if a.get("web-deployment", so); *so.Spec.MaxReplicaCount != 3 || injector.Remembered(so.Annotations) != 1 {
		t.Errorf("ScaledObject %+v", so.Spec)
	}
}

func newScaledObject() *keda.ScaledObject {
	return &keda.ScaledObject{TypeMeta: metav1.TypeMeta{APIVersion: "keda.sh/v1alpha1", Kind: "ScaledObject"}}
}
