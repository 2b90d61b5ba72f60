// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/certs"
	"github.com/scale-to-zero/scale-to-zero/injector/controller"
)

type restoreFlags struct {
	common

	deployment, certSecret, kedaName string
	certificates                     []string
	startupCPU                       bool
	timeout                          time.Duration
}

func restoreCommand() *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use: "restore", Args: cobra.NoArgs,
		Short: "Restore every app, then stop the controllers; `helm uninstall` runs this first",
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context()) },
	}
	f.add(cmd.Flags())
	cmd.Flags().StringVar(&f.deployment, "controller-deployment", defaultDeployment, "Deployment of the controllers")
	cmd.Flags().StringVar(&f.certSecret, "cert-secret", defaultCertSecret, "Secret of the webhook's certificate; it is deleted")
	cmd.Flags().StringSliceVar(&f.certificates, "certificates", nil,
		"Secrets of certificates to delete, together with cert-manager's Certificates of the same names")
	cmd.Flags().StringVar(&f.kedaName, "keda-authentication", "", "ClusterTriggerAuthentication to delete")
	cmd.Flags().BoolVar(&f.startupCPU, "startup-cpu", false, "wait for CPU limits that the controllers have raised, too")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long to wait until every app's pods are ready")
	return cmd
}

func (f *restoreFlags) run(ctx context.Context) error {
	logger, config, err := f.start("restore")
	if err != nil {
		return err
	}
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	if err := controller.RestoreAll(ctx, c, controller.RestoreOptions{
		Namespace: f.namespace, Deployment: f.deployment, Lease: leaseName, Secret: f.certSecret, Authentication: f.kedaName,
		StartupCPU: f.startupCPU, Until: time.Now().Add(f.timeout + time.Minute), Log: logger,
	}); err != nil {
		return err
	}
	return certs.Remove(ctx, c, f.namespace, f.certificates) // not earlier: the controllers were using it
}
