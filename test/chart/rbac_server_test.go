package chart

import (
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// The interceptors may list and watch the ConfigMaps that are themes, in all namespaces at once, and no others.
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

// server starts an API server for the test, and returns how to reach it and a client for it.
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
