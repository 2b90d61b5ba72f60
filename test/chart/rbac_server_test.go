// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"errors"
	"os"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// The interceptors may list and watch the ConfigMaps that are themes, in all namespaces, and no others.
func TestServerShowsInterceptorsThemesAlone(t *testing.T) {
	config, admin := server(t, &envtest.Environment{})
	all := must4(t, values{})
	made := []client.Object{&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "scale-to-zero-waiting-page"}}}
	for _, role := range only[*rbacv1.ClusterRole](all) {
		made = append(made, role)
	}
	for _, binding := range only[*rbacv1.ClusterRoleBinding](all) {
		made = append(made, binding)
	}
	for _, o := range made {
		if err := admin.Create(t.Context(), o); err != nil {
			t.Fatalf("%s: %v", key(o), err)
		}
	}
	config = rest.CopyConfig(config)
	config.Impersonate.UserName = "system:serviceaccount:scale-to-zero:scale-to-zero-interceptor"
	interceptor := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps("")
	themes := metav1.ListOptions{FieldSelector: "metadata.name=scale-to-zero-waiting-page"}
	list, err := interceptor.List(t.Context(), themes)
	if err != nil || len(list.Items) != 1 {
		t.Errorf("listing themes: %v, %v", list, err)
	}
	watch, err := interceptor.Watch(t.Context(), themes)
	if err != nil {
		t.Fatalf("watching themes: %v", err)
	}
	defer watch.Stop()
	if event := <-watch.ResultChan(); event.Object == nil || event.Object.(*corev1.ConfigMap).Namespace != "default" {
		t.Errorf("watching themes: %v", event)
	}
	for _, selector := range []string{"", "metadata.name=kube-root-ca.crt", "metadata.name!=scale-to-zero-waiting-page"} {
		if _, err := interceptor.List(t.Context(), metav1.ListOptions{FieldSelector: selector}); !apierrors.IsForbidden(err) {
			t.Errorf("listing %q: %v", selector, err)
		}
	}
}

// server starts an API server for the test, and returns its configuration and a client.
func server(t *testing.T, env *envtest.Environment) (*rest.Config, client.Client) {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("it takes an API server: make api")
	}
	config, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	c, err := client.New(config, client.Options{Scheme: scheme.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	return config, c
}

// The controllers may list pods' addresses in EndpointSlices where that needs a permission of its own, as on OpenShift,
// whose admission plugin this policy stands for.
func TestServerLetsControllersListPods(t *testing.T) {
	config, admin := server(t, &envtest.Environment{})
	made := []client.Object{
		&admissionv1.ValidatingAdmissionPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "restricted-endpoints"},
			Spec: admissionv1.ValidatingAdmissionPolicySpec{
				MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
					RuleWithOperations: admissionv1.RuleWithOperations{
						Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
						Rule: admissionv1.Rule{
							APIGroups: []string{"discovery.k8s.io"}, APIVersions: []string{"v1"}, Resources: []string{"endpointslices"},
						},
					},
				}}},
				Validations: []admissionv1.Validation{{
					Expression: "size(object.endpoints) == 0 || authorizer.group('discovery.k8s.io')." +
						"resource('endpointslices').subresource('restricted').namespace(object.metadata.namespace).check('create').allowed()",
					MessageExpression: "'endpoint address ' + object.endpoints[0].addresses[0] + ' is not allowed'",
				}},
			},
		},
		&admissionv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "restricted-endpoints"},
			Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
				PolicyName: "restricted-endpoints", ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
			},
		},
		// This user may write EndpointSlices, and no more.
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "slices"}, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"create"},
		}}},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "slices"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "slices"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "somebody"}},
		},
	}
	all := must4(t, values{})
	for _, role := range only[*rbacv1.ClusterRole](all) {
		made = append(made, role)
	}
	for _, binding := range only[*rbacv1.ClusterRoleBinding](all) {
		made = append(made, binding)
	}
	for _, o := range made {
		if err := admin.Create(t.Context(), o); err != nil {
			t.Fatalf("%s: %v", key(o), err)
		}
	}
	create := func(user string) error {
		as := rest.CopyConfig(config)
		as.Impersonate.UserName = user
		_, err := kubernetes.NewForConfigOrDie(as).DiscoveryV1().EndpointSlices("default").Create(t.Context(), &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "web-"}, AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.131.6.166"}}},
		}, metav1.CreateOptions{})
		return err
	}
	deadline := time.After(30 * time.Second)
	for tick := time.Tick(50 * time.Millisecond); ; { // a policy takes effect a little later
		err := create("somebody")
		if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
			break
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("the policy has no effect: %v", err)
		}
	}
	if err := create("system:serviceaccount:scale-to-zero:scale-to-zero-controller"); err != nil {
		t.Errorf("the controllers: %v", err)
	}
}

// The controllers may resize pods, and mark them, only with startupCPU.enabled.
func TestServerLetsControllersResizePods(t *testing.T) {
	config, admin := server(t, &envtest.Environment{})
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web", Resources: corev1.ResourceRequirements{
			Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m")},
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")},
		}}}},
	}
	if err := admin.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	config = rest.CopyConfig(config)
	config.Impersonate.UserName = "system:serviceaccount:scale-to-zero:scale-to-zero-controller"
	pods := kubernetes.NewForConfigOrDie(config).CoreV1().Pods("default")
	mark := func() error {
		_, err := pods.Patch(t.Context(), "web", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
		return err
	}
	resize := func() error {
		_, err := pods.Patch(t.Context(), "web", types.StrategicMergePatchType,
			[]byte(`{"spec":{"containers":[{"name":"web","resources":{"limits":{"cpu":"2"}}}]}}`), metav1.PatchOptions{}, "resize")
		return err
	}
	roles := func(v values) (out []client.Object) {
		for _, role := range only[*rbacv1.ClusterRole](must4(t, v)) {
			out = append(out, role)
		}
		for _, binding := range only[*rbacv1.ClusterRoleBinding](must4(t, v)) {
			out = append(out, binding)
		}
		return out
	}
	for _, o := range roles(values{}) {
		if err := admin.Create(t.Context(), o); err != nil {
			t.Fatalf("%s: %v", key(o), err)
		}
	}
	if err, err2 := mark(), resize(); !apierrors.IsForbidden(err) || !apierrors.IsForbidden(err2) {
		t.Errorf("by default: %v, %v", err, err2)
	}
	for _, o := range roles(values{"startupCPU": values{"enabled": true}}) {
		if err := admin.Update(t.Context(), o); err != nil {
			t.Fatalf("%s: %v", key(o), err)
		}
	}
	deadline := time.After(30 * time.Second)
	for tick := time.Tick(50 * time.Millisecond); ; { // a role takes effect a little later
		err := errors.Join(mark(), resize())
		if err == nil {
			break
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("with startupCPU.enabled: %v", err)
		}
	}
}
