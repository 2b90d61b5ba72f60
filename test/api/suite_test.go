// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/controller"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/webhook"
)

// ours is the namespace in which scale-to-zero runs here.
const ours = "scale-to-zero"

var (
	env    *envtest.Environment
	kube   client.Client
	scheme = runtime.NewScheme()
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
	env = &envtest.Environment{
		Scheme: scheme,
		CRDs:   []*apiextensionsv1.CustomResourceDefinition{scaledObjects()},
		WebhookInstallOptions: envtest.WebhookInstallOptions{
			MutatingWebhooks: []*admissionregistrationv1.MutatingWebhookConfiguration{mutating()},
		},
	}
	// As in a dual-stack cluster: a Service has one IP family, IPv4, unless it asks for more.
	env.ControlPlane.GetAPIServer().Configure().Set("service-cluster-ip-range", "10.0.0.0/24,fd00:10::/112")
	cfg, err := env.Start()
	if err != nil {
		return 1, fmt.Errorf("starting the API server: %w", err)
	}
	defer func() { err = errors.Join(err, env.Stop()) }()
	if kube, err = client.New(cfg, client.Options{Scheme: scheme}); err != nil {
		return 1, err
	}
	if err := kube.Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ours}}); err != nil {
		return 1, err
	}
	if err := installRights(context.Background()); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// logger prints what the controllers log with VERBOSE=1.
func logger() logr.Logger {
	if os.Getenv("VERBOSE") == "" {
		return logr.Discard()
	}
	return funcr.New(func(prefix, args string) { fmt.Fprintln(os.Stderr, prefix, args) }, funcr.Options{Verbosity: 1})
}

// scaledObjects is the smallest CRD of KEDA's with which a server stores what we write.
func scaledObjects() *apiextensionsv1.CustomResourceDefinition {
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "scaledobjects.keda.sh"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "keda.sh", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "scaledobjects", Kind: "ScaledObject", ListKind: "ScaledObjectList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1alpha1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: new(true),
				}},
			}},
		},
	}
}

func mutating() *admissionregistrationv1.MutatingWebhookConfiguration {
	inVersion := func(name, path, group, version, resource string,
		operations ...admissionregistrationv1.OperationType,
	) admissionregistrationv1.MutatingWebhook {
		return admissionregistrationv1.MutatingWebhook{
			Name: name + ".scale-to-zero.test", AdmissionReviewVersions: []string{"v1"},
			SideEffects:   new(admissionregistrationv1.SideEffectClassNone),
			FailurePolicy: new(admissionregistrationv1.Ignore),
			ClientConfig: admissionregistrationv1.WebhookClientConfig{Service: &admissionregistrationv1.ServiceReference{
				Namespace: ours, Name: "webhook", Path: &path,
			}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: operations,
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{group}, APIVersions: []string{version}, Resources: []string{resource}},
			}},
		}
	}
	one := func(name, path, group, resource string,
		operations ...admissionregistrationv1.OperationType,
	) admissionregistrationv1.MutatingWebhook {
		return inVersion(name, path, group, "v1", resource, operations...)
	}
	const create, update = admissionregistrationv1.Create, admissionregistrationv1.Update
	return &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "scale-to-zero"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{
			one("services", webhook.ServicePath, "", "services", create, update),
			one("ingresses", webhook.IngressPath, "networking.k8s.io", "ingresses", create, update),
			one("namespaces", webhook.NamespacePath, "", "namespaces", create, update),
			one("deployments", webhook.WorkloadPath, "apps", "deployments", update),
			inVersion("scaledobjects", webhook.ScaledObjectPath, "keda.sh", "v1alpha1", "scaledobjects", update),
		},
	}
}

// interceptors fakes the interceptors: an address listens when a test says so.
type interceptors struct {
	mu     sync.Mutex // protects the other fields
	deaf   bool
	deafAt string // IP address of an interceptor that does not listen
	dialed []string
	// reach is each interceptor's answer about its way to the pods; nil means that it is open.
	reach []injector.PortReach
	// robbed is set if the routes' ports are another Service's, and ownsErr if the interceptors do not say whose they are.
	robbed  bool
	ownsErr error
}

// setReach changes reach.
func (i *interceptors) setReach(found ...injector.PortReach) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.reach = found
}

func (i *interceptors) ask(context.Context, string, types.NamespacedName) ([]injector.PortReach, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.reach), nil // nil counts as open
}

// owns says that all routes have their ports, except those that the test takes away.
func (i *interceptors) owns(_ context.Context, _ string, _ types.NamespacedName, routes api.Routes) (map[string]bool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	owned := map[string]bool{}
	for _, p := range routes.Ports {
		owned[p.Name] = !i.robbed
	}
	return owned, i.ownsErr
}

func (i *interceptors) dial(_ context.Context, address string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.dialed = append(i.dialed, address)
	if host, _, err := net.SplitHostPort(address); err != nil || i.deaf || host == i.deafAt {
		return errors.New("connection refused")
	}
	return nil
}

func (i *interceptors) setDeaf(deaf bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.deaf, i.deafAt = deaf, ""
}

// plane is a running control plane.
type plane struct {
	stop func()
}

type planeOptions struct {
	interceptors *interceptors
	noAdmission  bool
	startupCPU   bool
	deployment   string
	keda         *controller.KEDAAccess // nil for plain text
	counts       controller.Counts      // nil for interceptors that do not answer
	learned      controller.Learned
	now          func() time.Time
}

// start runs a manager with the controllers and admission until the test ends or stop is called.
func start(t *testing.T, o planeOptions) *plane {
	t.Helper()
	cacheOptions, err := controller.CacheOptions()
	if err != nil {
		t.Fatal(err)
	}
	if o.counts == nil {
		o.counts = &counts{err: errors.New("nobody answers")}
	}
	install := env.WebhookInstallOptions
	mgr, err := ctrl.NewManager(as(controllerAccount), ctrl.Options{
		Scheme: scheme, Cache: cacheOptions, Metrics: metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: new(true)}, // one test starts several
		WebhookServer: ctrlwebhook.NewServer(ctrlwebhook.Options{
			Host: install.LocalServingHost, Port: install.LocalServingPort, CertDir: install.LocalServingCertDir,
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	if !o.noAdmission {
		if err := webhook.Add(mgr, webhook.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := controller.Add(t.Context(), mgr, controller.Options{
		Namespace: ours, InterceptorService: "interceptors", InterceptorAccount: "scale-to-zero-interceptor",
		ScalerAddress: "interceptors.scale-to-zero.svc:9090",
		Deployment:    o.deployment, Dial: o.interceptors.dial, Reach: o.interceptors.ask, Owns: o.interceptors.owns,
		AliasLinger: time.Second, Counts: o.counts,
		Learned: o.learned, Now: o.now, StartupCPU: o.startupCPU, KEDA: o.keda,
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	p := &plane{stop: sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("control plane: %v", err)
		}
	})}
	t.Cleanup(p.stop)
	if !o.noAdmission {
		eventually(t, "admission answers", func() error {
			c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
			resp, err := c.Get("https://" + net.JoinHostPort(install.LocalServingHost, fmt.Sprint(install.LocalServingPort)) + webhook.ServicePath)
			if err != nil {
				return err
			}
			return resp.Body.Close()
		})
	}
	return p
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

// events returns the reasons and notes of an object's events.
func events(t *testing.T, namespace, kind, name string) string {
	t.Helper()
	var list corev1.EventList
	if err := kube.List(t.Context(), &list, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range list.Items {
		if e.InvolvedObject.Kind == kind && e.InvolvedObject.Name == name {
			fmt.Fprintf(&b, "%s: %s\n", e.Reason, e.Message)
		}
	}
	return b.String()
}
