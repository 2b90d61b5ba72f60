// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/yaml"

	"github.com/scale-to-zero/scale-to-zero/injector/controller"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/webhook"
)

// ours is the namespace in which scale-to-zero runs here.
const ours = "scale-to-zero"

var (
	env        *envtest.Environment
	kube       client.Client
	kubeconfig string // a file, for the tools
	scheme     = runtime.NewScheme()
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		return 1, errors.New("KUBEBUILDER_ASSETS is not set: run these tests with `make api`")
	}
	ctrl.SetLogger(logger())
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, keda.AddToScheme, apiextensionsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return 1, err
		}
	}
	dir, err := os.MkdirTemp("", "gitops-*")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	admission, err := admissionOfChart(dir)
	if err != nil {
		return 1, err
	}
	crd, err := scaledObjects(dir)
	if err != nil {
		return 1, err
	}
	env = &envtest.Environment{
		Scheme: scheme,
		CRDs:   []*apiextensionsv1.CustomResourceDefinition{crd},
		WebhookInstallOptions: envtest.WebhookInstallOptions{
			MutatingWebhooks: []*admissionregistrationv1.MutatingWebhookConfiguration{admission},
		},
	}
	cfg, err := env.Start()
	if err != nil {
		return 1, fmt.Errorf("starting the API server: %w", err)
	}
	defer func() { err = errors.Join(err, env.Stop()) }()
	kubeconfig = filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, env.KubeConfig, 0o600); err != nil {
		return 1, err
	}
	if kube, err = client.New(cfg, client.Options{Scheme: scheme}); err != nil {
		return 1, err
	}
	if err := kube.Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ours}}); err != nil {
		return 1, err
	}
	stop, err := startManagers()
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	return m.Run(), nil
}

// logger prints what the controllers log with VERBOSE=1.
func logger() logr.Logger {
	if os.Getenv("VERBOSE") == "" {
		return logr.Discard()
	}
	return funcr.New(func(prefix, args string) { fmt.Fprintln(os.Stderr, prefix, args) }, funcr.Options{Verbosity: 1})
}

// admissionOfChart renders the admission configuration of our own chart.
func admissionOfChart(home string) (*admissionregistrationv1.MutatingWebhookConfiguration, error) {
	out, err := command{home: home}.run("helm", "template", "scale-to-zero", "../../config/chart", "--namespace", ours, "--show-only",
		"templates/webhook.yaml")
	if err != nil {
		return nil, err
	}
	for _, document := range documents(out) {
		m := &admissionregistrationv1.MutatingWebhookConfiguration{}
		if err := yaml.Unmarshal([]byte(document), m); err == nil && m.Kind == "MutatingWebhookConfiguration" {
			return m, nil
		}
	}
	return nil, errors.New("our chart has no MutatingWebhookConfiguration")
}

// kedaVersion is that of test/cluster/versions.go.
const kedaVersion = "v2.21.0"

// scaledObjects is KEDA's own CRD: how tools merge the triggers depends on its schema. It is read from KEDA's Go module, which is
// downloaded outside of ours, so that our go.mod does not change.
func scaledObjects(dir string) (*apiextensionsv1.CustomResourceDefinition, error) {
	download := exec.Command("go", "mod", "download", "-json", "github.com/kedacore/keda/v2@"+kedaVersion)
	download.Dir, download.Env = dir, append(os.Environ(), "GOFLAGS=", "GOWORK=off", "PWD="+dir)
	out, err := download.Output()
	var module struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &module); jsonErr != nil || module.Error != "" || err != nil {
		return nil, fmt.Errorf("downloading KEDA's module: %w: %s", errors.Join(err, jsonErr), module.Error)
	}
	text, err := os.ReadFile(filepath.Join(module.Dir, "config", "crd", "bases", "keda.sh_scaledobjects.yaml"))
	if err != nil {
		return nil, err
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	return crd, yaml.UnmarshalStrict(text, crd)
}

// startManagers runs our control plane, and beside it the part of Kubernetes that the tests play.
func startManagers() (stop func() error, err error) {
	cacheOptions, err := controller.CacheOptions()
	if err != nil {
		return nil, err
	}
	install := env.WebhookInstallOptions
	none := metricsserver.Options{BindAddress: "0"}
	plane, err := ctrl.NewManager(env.Config, ctrl.Options{
		Scheme: scheme, Cache: cacheOptions, Metrics: none,
		WebhookServer: ctrlwebhook.NewServer(ctrlwebhook.Options{
			Host: install.LocalServingHost, Port: install.LocalServingPort, CertDir: install.LocalServingCertDir,
		}),
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := errors.Join(webhook.Add(plane, webhook.Options{}), controller.Add(ctx, plane, controller.Options{
		Namespace: ours, InterceptorService: "interceptors", ScalerAddress: "interceptors.scale-to-zero.svc:9090",
		Dial: func(context.Context, string) error { return nil },
		Owns: func(_ context.Context, _ string, _ types.NamespacedName, routes api.Routes) (map[string]bool, error) {
			owned := map[string]bool{}
			for _, p := range routes.Ports {
				owned[p.Name] = true
			}
			return owned, nil
		},
	})); err != nil {
		cancel()
		return nil, err
	}
	kubernetes, err := ctrl.NewManager(env.Config, ctrl.Options{Scheme: scheme, Metrics: none})
	if err == nil {
		err = addKubernetes(kubernetes)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	done := make(chan error, 2)
	for _, m := range []ctrl.Manager{plane, kubernetes} {
		go func() { done <- m.Start(ctx) }()
	}
	return func() error {
		cancel()
		return errors.Join(<-done, <-done)
	}, nil
}

// listInterceptors writes the slice of the interceptors' own Service, with one interceptor or with none.
func listInterceptors(t *testing.T, addresses ...string) {
	t.Helper()
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: ours, Name: "interceptors-1", Labels: map[string]string{
			discoveryv1.LabelServiceName: "interceptors", api.RoleLabel: api.RoleInterceptor,
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, address := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
		})
	}
	if err := client.IgnoreNotFound(kube.Delete(t.Context(), s.DeepCopy())); err != nil {
		t.Fatal(err)
	}
	if err := kube.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// withoutWebhook removes admission until back is called or the test ends.
func withoutWebhook(t *testing.T) (back func()) {
	t.Helper()
	var list admissionregistrationv1.MutatingWebhookConfigurationList
	if err := kube.List(t.Context(), &list); err != nil || len(list.Items) != 1 {
		t.Fatalf("%d webhook configurations, %v", len(list.Items), err)
	}
	if err := kube.Delete(t.Context(), &list.Items[0]); err != nil {
		t.Fatal(err)
	}
	restore := sync.OnceFunc(func() {
		m := list.Items[0].DeepCopy()
		m.ObjectMeta = metav1.ObjectMeta{Name: m.Name}
		if err := kube.Create(context.Background(), m); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(restore)
	waitForAdmission(t, false)
	return func() {
		t.Helper()
		restore()
		waitForAdmission(t, true)
	}
}

// waitForAdmission waits until the API server does or does not call the webhook: it learns of a change a little later.
// The webhook removes the sentinel from a Service that is not ours, which shows that it was called.
func waitForAdmission(t *testing.T, there bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("admission is there: %t", there), func() error {
		probe := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "probe"},
			Spec: corev1.ServiceSpec{
				Selector: map[string]string{"app": "probe", "scale-to-zero/intercepted": "true"},
				Ports:    []corev1.ServicePort{{Port: 80}},
			},
		}
		if err := kube.Create(t.Context(), probe, client.DryRunAll); err != nil {
			return err
		}
		if called := len(probe.Spec.Selector) == 1; called != there {
			return fmt.Errorf("selector %v", probe.Spec.Selector)
		}
		return nil
	})
}

// eventually waits until check returns nil. If it never does, the test fails with its last error.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("%s: still not so: %v", what, err)
		case <-tick.C:
		}
	}
}
