// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/scale-to-zero/scale-to-zero/injector/controller"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// authentications is the CRD of KEDA's ClusterTriggerAuthentications, as scaledObjects.
func authentications() *apiextensionsv1.CustomResourceDefinition {
	crd := scaledObjects()
	crd.Name, crd.Spec.Scope = "clustertriggerauthentications.keda.sh", apiextensionsv1.ClusterScoped
	crd.Spec.Names = apiextensionsv1.CustomResourceDefinitionNames{
		Plural: "clustertriggerauthentications", Kind: keda.ClusterTriggerAuthenticationKind,
		ListKind: keda.ClusterTriggerAuthenticationKind + "List",
	}
	return crd
}

// TestKEDAComesLater: with mutual TLS, KEDA that is installed after scale-to-zero is not used until the chart has made a Secret in its
// namespace. An event says so, scaling goes on as before, and the next helm upgrade makes KEDA take over.
func TestKEDAComesLater(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	withoutKEDA(t)
	own := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: ours, Name: "keda-later"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "later"}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "later"}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "c"}}},
			},
		},
	}
	create(t, own)
	credentials := map[string][]byte{"ca.crt": []byte("ca"), "tls.crt": []byte("certificate"), "tls.key": []byte("key")}
	access := func(namespace string) *controller.KEDAAccess {
		return &controller.KEDAAccess{
			Namespace: namespace, Name: "scale-to-zero", Credentials: func() map[string][]byte { return credentials },
			Every: 100 * time.Millisecond, Lag: time.Millisecond,
		}
	}
	c := &counts{err: errors.New("nobody answers")}
	p := start(t, planeOptions{interceptors: &interceptors{}, counts: c, deployment: own.Name, keda: access("")})
	a := newApp(t, 1)
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"1s"}}}`); err != nil {
		t.Fatal(err)
	}
	a.label(`"true"`)
	a.followInjection()
	crds := envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{authentications()}}
	t.Cleanup(func() {
		if err := envtest.UninstallCRDs(env.Config, crds); err != nil {
			t.Error(err)
		}
	})
	if _, err := envtest.InstallCRDs(env.Config, crds); err != nil {
		t.Fatal(err)
	}
	installKEDA(t)
	eventually(t, "the controllers say what to do", func() error {
		got := events(t, ours, "Deployment", own.Name)
		for _, want := range []string{"ScalingWithoutKEDA", "run helm upgrade of scale-to-zero once more", "keda.namespace"} {
			if !strings.Contains(got, want) {
				return fmt.Errorf("no %q in %q", want, got)
			}
		}
		return nil
	})
	c.set(false, 0)
	a.has(0)
	if err := a.gone("web-deployment", &keda.ScaledObject{}); err != nil {
		t.Errorf("KEDA is used without credentials: %v", err)
	}
	p.stop()

	const operator = "keda-later"
	helmUpgrade(t, operator)
	start(t, planeOptions{interceptors: &interceptors{}, counts: c, deployment: own.Name, keda: access(operator)})
	eventually(t, "KEDA takes over", a.scaled)
	secret := &corev1.Secret{}
	if err := kube.Get(t.Context(), client.ObjectKey{Namespace: operator, Name: "scale-to-zero"}, secret); err != nil ||
		!slices.Equal(secret.Data["tls.key"], credentials["tls.key"]) {
		t.Errorf("KEDA has %v, %v", secret.Data, err)
	}
}

// helmUpgrade makes what the chart makes in KEDA's namespace.
func helmUpgrade(t *testing.T, namespace string) {
	t.Helper()
	meta := metav1.ObjectMeta{Namespace: namespace, Name: "scale-to-zero"}
	create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	create(t, &corev1.Secret{ObjectMeta: meta})
	create(t, &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{meta.Name}, Verbs: []string{"get", "patch"}},
	}})
	create(t, &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: ours, Name: "scale-to-zero-controller"}},
	})
}
