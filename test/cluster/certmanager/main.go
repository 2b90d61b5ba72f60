// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Command certmanager is what our tests need of cert-manager in one static binary: its own controllers for Issuers,
// ClusterIssuers and Certificates, with a self-signed or a CA's issuer, and its cainjector for webhook configurations.
// ACME and the like are left out, and so is its webhook, which only admits.
//
// cert-manager's own commands are modules that the Go module proxy does not have, so this puts its packages together. It is
// a module of its own because those are tied to versions of Kubernetes' libraries that nothing else here should be tied to.
// To move to another release, change it in go.mod and in ../versions.go, and run `go mod tidy`.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/cert-manager/cert-manager/pkg/controller"
	"github.com/cert-manager/cert-manager/pkg/controller/cainjector"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "cert-manager:", err)
		stop()
		os.Exit(1)
	}
}

// run ends when ctx is done, or when a part of it fails.
func run(ctx context.Context) error {
	ctrl.SetLogger(klog.Background())
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := startControllers(ctx, cancel); err != nil {
		return err
	}
	if err := injectCAs(ctx); err != nil {
		return err
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// startControllers starts every controller that is imported above.
func startControllers(ctx context.Context, fail context.CancelCauseFunc) error {
	factory, err := controller.NewContextFactory(ctx, controller.ContextOptions{
		IssuerOptions: controller.IssuerOptions{ClusterResourceNamespace: "cert-manager"},
		CertificateOptions: controller.CertificateOptions{
			CertificateRequestMinimumBackoffDuration: time.Hour,
			CertificateRequestMaximumBackoffDuration: 32 * time.Hour,
		},
	})
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	// Their constructors ask for informers, which are started when all have been asked for.
	all := map[string]controller.Interface{}
	for name, construct := range controller.Known() {
		if all[name], err = construct(factory); err != nil {
			return fmt.Errorf("making controller %s: %w", name, err)
		}
	}
	shared, err := factory.Build()
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	for name, c := range all {
		go func() {
			if err := c.Run(2, ctx); err != nil {
				fail(fmt.Errorf("running controller %s: %w", name, err))
			}
		}()
	}
	return nil
}

// injectCAs writes caBundles until ctx is done.
func injectCAs(ctx context.Context) error {
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("finding the API server: %w", err)
	}
	config.UserAgent = "cainjector"
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), certmanagerv1.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("registering types: %w", err)
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme, Metrics: server.Options{BindAddress: "0"}, HealthProbeBindAddress: ":8081",
	})
	if err != nil {
		return fmt.Errorf("making the injector: %w", err)
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding a check: %w", err)
	}
	err = cainjector.RegisterAllInjectors(ctx, mgr, cainjector.SetupOptions{
		EnableCertificatesDataSource: true,
		EnabledReconcilersFor:        map[string]bool{cainjector.MutatingWebhookConfigurationName: true},
	})
	if err != nil {
		return fmt.Errorf("registering the injector: %w", err)
	}
	return mgr.Start(ctx)
}
