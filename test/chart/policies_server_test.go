// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	discoveryclient "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// writers returns clients of EndpointSlices for users who may write all of them.
func writers(t *testing.T) (of func(user string) discoveryclient.EndpointSliceInterface, admin discoveryclient.EndpointSliceInterface) {
	t.Helper()
	config, c := server(t, &envtest.Environment{})
	bind := func(role, group string) *rbacv1.ClusterRoleBinding {
		return &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: group},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: group}},
		}
	}
	made := []client.Object{
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "slices"}, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"*"},
		}}},
		bind("slices", "writers"), bind("cluster-admin", "administrators"),
	}
	all := must4(t, values{})
	for _, policy := range only[*admissionv1.ValidatingAdmissionPolicy](all) {
		made = append(made, policy)
	}
	for _, binding := range only[*admissionv1.ValidatingAdmissionPolicyBinding](all) {
		made = append(made, binding)
	}
	for _, o := range made {
		if err := c.Create(t.Context(), o); err != nil {
			t.Fatalf("%s: %v", key(o), err)
		}
	}
	of = func(user string) discoveryclient.EndpointSliceInterface {
		as := rest.CopyConfig(config)
		as.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"writers"}}
		if user == clusterAdmin {
			as.Impersonate.Groups = []string{"administrators"}
		}
		return kubernetes.NewForConfigOrDie(as).DiscoveryV1().EndpointSlices("default")
	}
	deadline := time.After(30 * time.Second)
	for tick := time.Tick(50 * time.Millisecond); ; { // a policy takes effect a little later
		_, err := of(tenant).Create(t.Context(), slice(roleLabel+"=route", ""), metav1.CreateOptions{})
		if apierrors.IsForbidden(err) {
			break
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("the policy has no effect: %v", err)
		}
	}
	return of, kubernetes.NewForConfigOrDie(config).DiscoveryV1().EndpointSlices("default")
}

// TestServerKeepsOthersFromOurSlices tests who may write and delete the slices that the interceptors read, and that the policy does not
// concern any other slice.
func TestServerKeepsOthersFromOurSlices(t *testing.T) {
	of, admin := writers(t)
	for name, tc := range sliceWrites() {
		t.Run(name, func(t *testing.T) {
			for _, user := range append(everybody(), "system:masters") {
				who := admin
				if user != "system:masters" {
					who = of(user)
				}
				err := writeSlice(t, who, admin, tc.before, tc.after)
				want := user == "system:masters"
				for _, may := range tc.may {
					want = want || may == user
				}
				if (err == nil) != want || err != nil && !apierrors.IsForbidden(err) {
					t.Errorf("%s may: %t, want %t: %v", user, err == nil, want, err)
				}
				if err != nil && !strings.Contains(strings.ToLower(err.Error()), "leave th") {
					t.Errorf("the message does not say what to do: %v", err)
				}
			}
		})
	}
}

// write makes one write. What exists before it is made by the administrator.
func writeSlice(t *testing.T, who, admin discoveryclient.EndpointSliceInterface, before, after *discoveryv1.EndpointSlice) error {
	t.Helper()
	if before == nil {
		_, err := who.Create(t.Context(), after, metav1.CreateOptions{})
		return err
	}
	made, err := admin.Create(t.Context(), before, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if after == nil {
		return who.Delete(t.Context(), made.Name, metav1.DeleteOptions{})
	}
	made.Labels, made.Annotations = after.Labels, after.Annotations
	_, err = who.Update(t.Context(), made, metav1.UpdateOptions{})
	return err
}
