// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls"
	"github.com/scale-to-zero/scale-to-zero/interceptor/kube"
)

type interceptorFlags struct {
	common
	limitFlags
	memoryFlag

	podName, podIP, service    string
	grpcAddress, healthAddress string
	metricsAddress             string
	metricsAuthentication      bool
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
	flags.StringVar(&f.healthAddress, "health-address", ":8081", "address of /healthz, /readyz and, without authentication, /metrics")
	flags.BoolVar(&f.metricsAuthentication, "metrics-authentication", false, metricsAuthenticationUsage+"; needs --mutual-tls")
	flags.StringVar(&f.metricsAddress, "metrics-address", ":8443", "address of /metrics with --metrics-authentication")
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
	listens := []string{f.grpcAddress, f.healthAddress}
	if f.metricsAuthentication {
		listens = append(listens, f.metricsAddress)
	}
	reserved, err := portsOf(listens...)
	if err != nil {
		return err
	}
	if f.metricsAuthentication && !f.mutualTLS {
		return errors.New("--metrics-authentication is set, and --mutual-tls is not: without it there is no certificate for /metrics")
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
	o := interceptor.Options{
		Cluster: cluster, Notices: cluster, Metrics: cluster, PodName: f.podName,
		TLS: store, GRPCAddress: f.grpcAddress, HealthAddress: f.healthAddress,
		DrainTimeout: f.drainTimeout, Limits: f.Limits, Memory: memory,
		TrustedHops: &f.trustedHops, HideHeld: !f.heldHeader, PageGrace: f.pageGrace,
		MaxWakes: f.maxWakes, MaxWakesPerSource: f.maxWakesPerSource, Log: logger,
	}
	if f.metricsAuthentication {
		scrapers, err := kube.NewScrapers(config)
		if err != nil {
			return err
		}
		o.Scrapers, o.MetricsAddress = scrapers, f.metricsAddress
	}
	return interceptor.Run(ctx, o)
}
