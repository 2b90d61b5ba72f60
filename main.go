// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Command scale-to-zero puts apps that are already deployed to sleep at zero replicas and wakes them on the first request.
// One binary contains everything that runs in the cluster; see its --help.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/scale-to-zero/scale-to-zero/certs"
	"github.com/scale-to-zero/scale-to-zero/injector/controller"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls"
	"github.com/scale-to-zero/scale-to-zero/interceptor/kube"
	"github.com/scale-to-zero/scale-to-zero/webhook"
)

// version is set by the linker.
var version = ""

// leaseName is the name of the Lease that the controllers use for leader election.
const leaseName = "scale-to-zero-controller"

// Defaults that two commands share: the names in the chart for a release called scale-to-zero.
const (
	defaultDeployment         = "scale-to-zero-controller"
	defaultCertSecret         = "scale-to-zero-webhook-cert"
	defaultInterceptorService = "scale-to-zero-interceptor"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale-to-zero:", err)
		os.Exit(1)
	}
}

// command is the whole command line.
func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "scale-to-zero",
		Short: "Put idle apps to sleep at zero replicas, and wake them on the first request",
		Long: `Put idle apps to sleep at zero replicas, and wake them on the first request.

These commands run in the cluster; the Helm chart starts them. To put an app to sleep while nobody uses it, label its Service:

    kubectl label service NAME scale-to-zero=true

Every flag can also be set in the environment: --log-level is SCALE_TO_ZERO_LOG_LEVEL. The command line takes precedence.`,
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return fromEnvironment(cmd.Flags()) },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(controllerCommand(), interceptorCommand(), restoreCommand(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), versionText()) },
	})
	return root
}

// fromEnvironment sets every flag that is not on the command line from its environment variable, if that exists.
func fromEnvironment(flags *pflag.FlagSet) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "SCALE_TO_ZERO_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := os.LookupEnv(name)
		if f.Changed || !ok {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
		}
	})
	return errors.Join(errs...)
}

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}

// common are the flags that every command has.
type common struct {
	namespace, logLevel, logFormat string
}

func (c *common) add(f *pflag.FlagSet) {
	f.StringVar(&c.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace that scale-to-zero runs in (default: $POD_NAMESPACE)")
	f.StringVar(&c.logLevel, "log-level", "info", "log level: info or debug")
	f.StringVar(&c.logFormat, "log-format", "json", "log format: json or text")
}

// start checks the common flags, and sets up logging and the connection to the API server.
func (c *common) start(component string) (logr.Logger, *rest.Config, error) {
	level := zapcore.InfoLevel
	switch c.logLevel {
	case "info":
	case "debug":
		level = zapcore.DebugLevel
	default:
		return logr.Logger{}, nil, fmt.Errorf("--log-level is %q; allowed are info and debug", c.logLevel)
	}
	switch c.logFormat {
	case "json", "text":
	default:
		return logr.Logger{}, nil, fmt.Errorf("--log-format is %q; allowed are json and text", c.logFormat)
	}
	if c.namespace == "" {
		return logr.Logger{}, nil, errors.New("--namespace is empty, and so is $POD_NAMESPACE; set one to the namespace of scale-to-zero")
	}
	logger := zap.New(zap.UseDevMode(c.logFormat == "text"), zap.Level(level), zap.StacktraceLevel(zapcore.PanicLevel))
	ctrl.SetLogger(logger)
	klog.SetLogger(logger.WithName("client"))
	config, err := ctrl.GetConfig()
	if err != nil {
		return logger, nil, fmt.Errorf("finding the API server: %w", err)
	}
	config.UserAgent = "scale-to-zero-" + component + "/" + versionText()
	logger.Info("Starting", "component", component, "version", versionText(), "namespace", c.namespace)
	return logger, config, nil
}

type controllerFlags struct {
	common
	memoryFlag
	policyFlags

	webhookPort                              int
	webhookService, webhookConfiguration     string
	certsMode, certSecret                    string
	interceptorService, scalerAddress        string
	deployment                               string
	portRange, metricsAddress, healthAddress string
	leaderElection, startupCPU               bool
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
	flags.StringVar(&f.scalerAddress, "scaler-address", "",
		"host:port at which KEDA reaches the interceptors (default: --interceptor-service, port "+tlsPort+", or "+plainPort+" without TLS)")
	flags.StringVar(&f.deployment, "controller-deployment", defaultDeployment,
		"Deployment of the controllers, through which the restore command asks them to restore every app")
	flags.StringVar(&f.portRange, "port-range", "10000-29999",
		"range of ports the interceptors listen on, one for each port of each opted-in Service")
	flags.IntVar(&f.maxRoutes, "max-routes-per-namespace", 2000,
		"how many routes, one for each port of each injected Service, a namespace may have; 0 for no limit")
	flags.StringVar(&f.metricsAddress, "metrics-address", ":8080", "address of /metrics; 0 disables it")
	flags.StringVar(&f.healthAddress, "health-address", ":8081", "address of /healthz and /readyz")
	f.internal.add(flags)
	flags.BoolVar(&f.leaderElection, "leader-election", true, "elect a leader among the replicas")
	flags.BoolVar(&f.startupCPU, "startup-cpu", false,
		"let the annotation scale-to-zero/startup-cpu raise CPU limits; this takes the rights to patch pods and pods/resize")
	f.policyFlags.add(flags)
	return cmd
}

func (f *controllerFlags) run(ctx context.Context) error {
	low, high, err := parsePortRange(f.portRange)
	if err != nil {
		return err
	}
	if err := between("max-routes-per-namespace", f.maxRoutes, 0, 1_000_000); err != nil {
		return err
	}
	mode, err := certs.ParseMode(f.certsMode)
	if err != nil {
		return fmt.Errorf("--certs-mode is %w", err)
	}
	ingress, err := f.ingress()
	if err != nil {
		return err
	}
	if err := f.internal.check(); err != nil {
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
	if f.scalerAddress == "" {
		f.scalerAddress = net.JoinHostPort(f.interceptorService+"."+f.namespace+".svc", f.internal.port())
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
	o := controller.Options{
		Namespace: f.namespace, InterceptorService: f.interceptorService, ScalerAddress: f.scalerAddress,
		Deployment: f.deployment, PortLow: low, PortHigh: high, StartupCPU: f.startupCPU, MaxRoutesPerNamespace: f.maxRoutes,
		FollowPolicies: f.follow, AdmitInterceptors: f.create, InterceptorIngress: ingress,
	}
	internal.options(&o, &f.internal)
	if internal.leaves != nil {
		if err := mgr.Add(internal.leaves); err != nil {
			return err
		}
	}
	if err := errors.Join(
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
		Metrics:                       metricsserver.Options{BindAddress: f.metricsAddress},
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

type interceptorFlags struct {
	common
	limitFlags
	memoryFlag

	podName, podIP, service    string
	grpcAddress, healthAddress string
	mutualTLS                  bool
	certSecret                 string
	drainTimeout               time.Duration
	heldHeader                 bool
	pageGrace                  time.Duration
	maxRoutes                  int
}

func interceptorCommand() *cobra.Command {
	var f interceptorFlags
	cmd := &cobra.Command{
		Use: "interceptor", Args: cobra.NoArgs,
		Short: "Proxy requests for opted-in Services: count, hold, wake and forward",
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	f.common.add(flags)
	f.limitFlags.add(flags)
	f.memoryFlag.add(flags)
	flags.StringVar(&f.podName, "pod-name", os.Getenv("POD_NAME"), "name of this pod (default: $POD_NAME)")
	flags.StringVar(&f.podIP, "pod-ip", os.Getenv("POD_IP"), "IP address of this pod (default: $POD_IP)")
	flags.StringVar(&f.service, "interceptor-service", defaultInterceptorService, "headless Service of the interceptors, to find the others")
	flags.StringVar(&f.grpcAddress, "grpc-address", "",
		"address for KEDA, the controllers and the other interceptors (default: port "+tlsPort+", or "+plainPort+" without TLS)")
	flags.BoolVar(&f.mutualTLS, "mutual-tls", true,
		"admit only callers with a certificate of this installation; false is for a service mesh that does so itself")
	flags.StringVar(&f.certSecret, "cert-secret", defaultInterceptorSecret, "Secret of the interceptors' certificate")
	flags.StringVar(&f.healthAddress, "health-address", ":8081", "address of /healthz, /readyz and /metrics")
	flags.DurationVar(&f.drainTimeout, "drain-timeout", interceptor.DefaultDrainTimeout,
		"how long in-flight requests may take to finish during shutdown")
	flags.BoolVar(&f.heldHeader, "held-header", true,
		"say in the answer to a held request how long it was held, as Scale-To-Zero-Held: 3.214s")
	flags.DurationVar(&f.pageGrace, "waiting-page-grace", interceptor.DefaultPageGrace,
		"how long a browser that opens a page of a sleeping app is held before it sees the waiting page")
	flags.IntVar(&f.maxRoutes, "max-routes-per-namespace", kube.DefaultMaxRoutesPerNamespace,
		"how many routes the Services of one namespace may have together, whoever made them; 0 for no limit")
	return cmd
}

func (f *interceptorFlags) run(ctx context.Context) error {
	if err := errors.Join(f.check(), within("waiting-page-grace", f.pageGrace, time.Millisecond, time.Hour),
		between("max-routes-per-namespace", f.maxRoutes, 0, 1_000_000)); err != nil {
		return err
	}
	var store *mtls.Store
	port := plainPort
	if f.mutualTLS {
		store, port = mtls.New(nil), tlsPort
	}
	f.grpcAddress = cmp.Or(f.grpcAddress, ":"+port)
	reserved, err := portsOf(f.grpcAddress, f.healthAddress)
	if err != nil {
		return err
	}
	if f.podName == "" || f.podIP == "" {
		return errors.New("--pod-name or --pod-ip is empty, and so is $POD_NAME or $POD_IP; set both")
	}
	logger, config, err := f.start("interceptor")
	if err != nil {
		return err
	}
	memory, err := f.apply(logger)
	if err != nil {
		return err
	}
	cluster, err := kube.New(config, kube.Options{
		Namespace: f.namespace, PodName: f.podName, PodIP: f.podIP, Service: f.service, Reserved: reserved,
		MaxRoutesPerNamespace: f.maxRoutes, Secret: f.certSecret, TLS: store, Log: logger,
	})
	if err != nil {
		return err
	}
	return interceptor.Run(ctx, interceptor.Options{
		Cluster: cluster, Notices: cluster, Metrics: cluster, PodName: f.podName,
		TLS: store, GRPCAddress: f.grpcAddress, HealthAddress: f.healthAddress,
		DrainTimeout: f.drainTimeout, Limits: f.Limits, Memory: memory,
		TrustedHops: &f.trustedHops, HideHeld: !f.heldHeader, PageGrace: f.pageGrace,
		MaxWakes: f.maxWakes, MaxWakesPerSource: f.maxWakesPerSource, Log: logger,
	})
}
