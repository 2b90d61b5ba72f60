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

// A bundledImage is an image that this program makes itself, under the name that manifests use.
type bundledImage struct {
	name   string
	binary string
	dest   string
}

func pause() bundledImage {
	return bundledImage{name: pauseImage, binary: "pause", dest: "/pause"}
}

// kedaImages put the program at the paths of KEDA's own images. The manifests use these paths, and the program tells by
// its path which of the three it is.
func kedaImages() []bundledImage {
	return []bundledImage{
		{name: "ghcr.io/kedacore/keda:" + kedaVersion, binary: "keda", dest: "/keda"},
		{name: "ghcr.io/kedacore/keda-metrics-apiserver:" + kedaVersion, binary: "keda", dest: "/keda-adapter"},
		{name: "ghcr.io/kedacore/keda-admission-webhooks:" + kedaVersion, binary: "keda", dest: "/keda-admission-webhooks"},
	}
}

const externalMetrics = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io"

// patchKEDA adapts KEDA's manifests to a cluster without a registry, and makes KEDA start faster. The first readiness
// probe of its Deployments is up to 20 s late. The operator exits once it has made its certificates, and after the
// restart waits 16 s for its own old lease; with one operator, no lease is needed.
func patchKEDA(manifests []byte) []byte {
	for _, edit := range []struct{ pattern, with string }{
		{`(image: ghcr\.io/kedacore/[a-z-]+):\S+`, "${1}:" + kedaVersion},
		{`imagePullPolicy: Always`, "imagePullPolicy: IfNotPresent"},
		{
			`(readinessProbe:\n(?: +(?:httpGet|path|port|scheme):.*\n)+)( +)initialDelaySeconds: \d+`,
			"${1}${2}initialDelaySeconds: 1\n${2}periodSeconds: 1",
		},
		{`(?m)- --leader-elect$`, "- --leader-elect=false"},
	} {
		manifests = regexp.MustCompile(edit.pattern).ReplaceAll(manifests, []byte(edit.with))
	}
	return manifests
}

// installKEDA applies KEDA's manifests. waitForKEDA waits until it works.
func (c *cluster) installKEDA(ctx context.Context) error {
	manifests, err := os.ReadFile(c.kedaManifests())
	if err != nil {
		return fmt.Errorf("reading KEDA's manifests: %w", err)
	}
	if err := c.apply(ctx, patchKEDA(manifests)); err != nil {
		return fmt.Errorf("installing KEDA: %w", err)
	}
	return nil
}

func (c *cluster) waitForKEDA(ctx context.Context) error {
	api, err := c.api()
	if err != nil {
		return err
	}
	return poll(ctx, 3*time.Minute, "KEDA to be Available; see `kubectl get pods -n keda`", func() (bool, error) {
		return api.kedaAvailable(ctx), c.requireNodes()
	})
}

// kedaAvailable checks KEDA's three Deployments and the API of its metrics adapter.
func (a *apiClient) kedaAvailable(ctx context.Context) bool {
	var deployments struct {
		Items []conditions
	}
	if err := a.get(ctx, "/apis/apps/v1/namespaces/keda/deployments", &deployments); err != nil || len(deployments.Items) < len(kedaImages()) {
		return false
	}
	for _, d := range deployments.Items {
		if !d.isTrue("Available") {
			return false
		}
	}
	return a.has(ctx, externalMetrics, "Available")
}
