// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/scale-to-zero/scale-to-zero/certs"
	"github.com/scale-to-zero/scale-to-zero/injector/controller"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/webhook"
)

type controllerFlags struct {
	common
	memoryFlag
	policyFlags

	webhookPort                              int
	webhookService, webhookConfiguration     string
	certsMode, certSecret                    string
	interceptorService, interceptorAccount   string
	scalerAddress                            string
	deployment                               string
	portRange, metricsAddress, healthAddress string
	leaderElection, startupCPU               bool
	metricsAuthentication                    bool
	maxRoutes                                int
	internal                                 internalFlags
}

func controllerCommand() *cobra.Command {
	var f controllerFlags
	cmd := &cobra.Command{
		Use: "controller", Args: cobra.NoArgs,
		Short: "Redirect opted-in Services to the interceptors: admission webhook, controllers and certificates",
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	f.common.add(flags)
	f.memoryFlag.add(flags)
	flags.IntVar(&f.webhookPort, "webhook-port", 9443, "port of the admission webhook")
	flags.StringVar(&f.webhookService, "webhook-service", "scale-to-zero-webhook",
		"Service of the admission webhook; the certificate is valid for its name")
	flags.StringVar(&f.webhookConfiguration, "webhook-configuration", "scale-to-zero",
		"MutatingWebhookConfiguration whose caBundle is kept up to date with --certs-mode=self")
	flags.StringVar(&f.certsMode, "certs-mode", string(certs.ModeSelf),
		"what creates and renews the webhook's certificate: self, or cert-manager (then the Secret is only read)")
	flags.StringVar(&f.certSecret, "cert-secret", defaultCertSecret, "Secret that holds the webhook's certificate")
	flags.StringVar(&f.interceptorService, "interceptor-service", defaultInterceptorService, "headless Service of the interceptors")
	flags.StringVar(&f.interceptorAccount, "interceptor-service-account", defaultInterceptorAccount,
		"ServiceAccount of the interceptors, which gets the right to wake the workloads of injected Services")
	flags.StringVar(&f.scalerAddress, "scaler-address", "",
		"host:port at which KEDA reaches the interceptors (default: --interceptor-service, port "+tlsPort+", or "+plainPort+" without TLS)")
	flags.StringVar(&f.deployment, "controller-deployment", defaultDeployment,
		"Deployment of the controllers, through which the restore command asks them to restore every app")
	flags.StringVar(&f.portRange, "port-range", "10000-29999",
		"range of ports the interceptors listen on, one for each port of each opted-in Service")
	flags.IntVar(&f.maxRoutes, "max-routes-per-namespace", 2000,
		"how many routes, one for each port of each injected Service, a namespace may have; 0 for no limit")
	flags.StringVar(&f.metricsAddress, "metrics-address", ":8080", "address of /metrics; 0 disables it")
	flags.BoolVar(&f.metricsAuthentication, "metrics-authentication", false, metricsAuthenticationUsage)
	flags.StringVar(&f.healthAddress, "health-address", ":8081", "address of /healthz and /readyz")
	f.internal.add(flags)
	flags.BoolVar(&f.leaderElection, "leader-election", true, "elect a leader among the replicas")
	flags.BoolVar(&f.startupCPU, "startup-cpu", false,
		"let the annotation scale-to-zero/startup-cpu raise CPU limits; this takes the rights to patch pods and pods/resize")
	f.policyFlags.add(flags)
	return cmd
}

// options checks the flags, and returns what they say to the controllers and about certificates.
func (f *controllerFlags) options() (controller.Options, certs.Mode, error) {
	low, high, err := parsePortRange(f.portRange)
	if err != nil {
		return controller.Options{}, "", err
	}
	mode, err := certs.ParseMode(f.certsMode)
	if err != nil {
		return controller.Options{}, "", fmt.Errorf("--certs-mode is %w", err)
	}
	ingress, err := f.ingress()
	if err != nil {
		return controller.Options{}, "", err
	}
	if err := errors.Join(between("max-routes-per-namespace", f.maxRoutes, 0, 1_000_000), f.internal.check()); err != nil {
		return controller.Options{}, "", err
	}
	if f.scalerAddress == "" {
		f.scalerAddress = net.JoinHostPort(f.interceptorService+"."+f.namespace+".svc", f.internal.port())
	}
	return controller.Options{
		Namespace: f.namespace, InterceptorService: f.interceptorService, ScalerAddress: f.scalerAddress,
		InterceptorAccount: f.interceptorAccount,
		Deployment:         f.deployment, PortLow: low, PortHigh: high, StartupCPU: f.startupCPU, MaxRoutesPerNamespace: f.maxRoutes,
		FollowPolicies: f.follow, AdmitInterceptors: f.create, InterceptorIngress: ingress,
	}, mode, nil
}

func (f *controllerFlags) run(ctx context.Context) error {
	o, mode, err := f.options()
	if err != nil {
		return err
	}
	logger, config, err := f.start("controller")
	if err != nil {
		return err
	}
	memory, err := f.apply(logger)
	if err != nil {
		return err
	}
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	reader, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	certificate, err := certs.New(certs.Options{
		Mode: mode, Namespace: f.namespace, SecretName: f.certSecret, Service: f.webhookService, WebhookConfiguration: f.webhookConfiguration,
		Deployment: f.deployment, Client: clientset, Reader: reader, Log: logger.WithName("certs"),
	})
	if err != nil {
		return err
	}
	internal, err := f.newInternals(mode, clientset, reader, logger)
	if err != nil {
		return err
	}
	if err := certificate.Ensure(ctx); err != nil {
		return err
	}
	mgr, err := f.manager(config, scheme, certificate)
	if err != nil {
		return err
	}
	internal.options(&o, &f.internal)
	if err := errors.Join(
		internal.add(mgr),
		mgr.Add(certificate),
		mgr.AddHealthzCheck("ping", healthz.Ping),
		mgr.AddReadyzCheck("certificate", certificate.ReadyCheck),
		mgr.AddReadyzCheck("webhook", mgr.GetWebhookServer().StartedChecker()),
		webhook.Add(mgr, webhook.Options{Memory: memory / 4}),
		controller.Add(ctx, mgr, o),
	); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

func (f *controllerFlags) manager(config *rest.Config, scheme *runtime.Scheme, certificate *certs.Manager) (ctrl.Manager, error) {
	cacheOptions, err := controller.CacheOptions()
	if err != nil {
		return nil, err
	}
	// Injecting an app takes several writes. With the default of 20 a second, an opted-in namespace would have to wait.
	config.QPS, config.Burst = 100, 200
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme, Cache: cacheOptions,
		Metrics:                       f.metrics(certificate),
		HealthProbeBindAddress:        f.healthAddress,
		LeaderElection:                f.leaderElection,
		LeaderElectionID:              leaseName,
		LeaderElectionNamespace:       f.namespace,
		LeaderElectionReleaseOnCancel: true, // safe: nothing runs after Start returns
		WebhookServer: ctrlwebhook.NewServer(ctrlwebhook.Options{Port: f.webhookPort, TLSOpts: []func(*tls.Config){func(c *tls.Config) {
			c.GetCertificate, c.MinVersion = certificate.GetCertificate, tls.VersionTLS13
		}}}),
	})
	if err != nil {
		return nil, fmt.Errorf("making the manager: %w", err)
	}
	return mgr, nil
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	err := errors.Join(clientgoscheme.AddToScheme(scheme), keda.AddToScheme(scheme), certmanagerv1.AddToScheme(scheme))
	if err != nil {
		return nil, fmt.Errorf("registering types: %w", err)
	}
	return scheme, nil
}

// parsePortRange reads LOW-HIGH.
func parsePortRange(s string) (low, high int32, err error) {
	a, b, found := strings.Cut(s, "-")
	l, errLow := strconv.ParseUint(a, 10, 16)
	h, errHigh := strconv.ParseUint(b, 10, 16)
	if !found || errLow != nil || errHigh != nil || l < 1024 || h < l {
		return 0, 0, fmt.Errorf("--port-range is %q; allowed is LOW-HIGH with 1024 ≤ LOW ≤ HIGH ≤ 65535, such as 10000-29999", s)
	}
	return int32(l), int32(h), nil
}
