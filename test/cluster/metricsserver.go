// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"time"
)

const metricsServerModule = "sigs.k8s.io/metrics-server"

func metricsServerImage() bundledImage {
	return bundledImage{
		name: "registry.k8s.io/metrics-server/metrics-server:" + metricsServerVersion, binary: "metrics-server", dest: "/metrics-server",
	}
}

const (
	resourceMetrics         = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
	metricsServerDeployment = "/apis/apps/v1/namespaces/kube-system/deployments/metrics-server"
)

// patchMetricsServer adapts metrics-server's manifests. It measures every 10 s, the least that it allows, because it is
// ready, and knows a pod's CPU, only after two measurements; so the kubelet may not take 10 s to answer. It verifies the
// kubelet's certificate, which the cluster's own authority has signed. The first readiness probe would be 20 s late. The
// requests are what one node's metrics take.
func patchMetricsServer(manifests []byte) ([]byte, error) {
	for _, edit := range []struct{ pattern, with string }{
		{`image: \S+`, "image: " + metricsServerImage().name},
		{
			`( +- )--metric-resolution=\S+`,
			"${1}--metric-resolution=10s\n${1}--kubelet-request-timeout=5s\n" +
				"${1}--kubelet-certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
		},
		{`initialDelaySeconds: \d+(\n +)periodSeconds: \d+`, "initialDelaySeconds: 1${1}periodSeconds: 1"},
		{`(requests:\n +cpu: )\S+(\n +memory: )\S+`, "${1}10m${2}40Mi"},
	} {
		pattern := regexp.MustCompile(edit.pattern)
		if n := len(pattern.FindAllIndex(manifests, -1)); n != 1 {
			return nil, fmt.Errorf("metrics-server's manifests have %q %d times, not once", edit.pattern, n)
		}
		manifests = pattern.ReplaceAll(manifests, []byte(edit.with))
	}
	return manifests, nil
}

// installMetricsServer applies metrics-server's manifests. waitForMetricsServer waits until it works.
func (c *cluster) installMetricsServer(ctx context.Context) error {
	manifests, err := os.ReadFile(c.metricsServerManifests())
	if err != nil {
		return fmt.Errorf("reading metrics-server's manifests: %w", err)
	}
	if manifests, err = patchMetricsServer(manifests); err != nil {
		return err
	}
	if err := c.apply(ctx, manifests); err != nil {
		return fmt.Errorf("installing metrics-server: %w", err)
	}
	return nil
}

func (c *cluster) waitForMetricsServer(ctx context.Context) error {
	api, err := c.api()
	if err != nil {
		return err
	}
	what := "metrics-server to be Available; see `kubectl logs -n kube-system deployment/metrics-server`"
	return poll(ctx, 2*time.Minute, what, func() (bool, error) {
		return api.metricsServerAvailable(ctx), c.requireNodes()
	})
}

// metricsServerAvailable checks the Deployment, which is Available once it has measured the node and its pods twice, and
// the API.
func (a *apiClient) metricsServerAvailable(ctx context.Context) bool {
	return a.has(ctx, metricsServerDeployment, "Available") && a.has(ctx, resourceMetrics, "Available")
}
