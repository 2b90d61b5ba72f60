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

// A bundledImage is one that this program makes itself, under the name by which manifests ask for it.
type bundledImage struct {
	name   string
	binary string
	dest   string
}

func pause() bundledImage {
	return bundledImage{name: pauseImage, binary: "pause", dest: "/pause"}
}

// kedaImages have the paths that KEDA's own images have: its manifests name them, and by them the one program knows what
// to be.
func kedaImages() []bundledImage {
	return []bundledImage{
		{name: "ghcr.io/kedacore/keda:" + kedaVersion, binary: "keda", dest: "/keda"},
		{name: "ghcr.io/kedacore/keda-metrics-apiserver:" + kedaVersion, binary: "keda", dest: "/keda-adapter"},
		{name: "ghcr.io/kedacore/keda-admission-webhooks:" + kedaVersion, binary: "keda", dest: "/keda-admission-webhooks"},
	}
}

const externalMetrics = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io"

// patchKEDA fits KEDA's manifests to a cluster without a registry, and in a hurry. Its Deployments wait up to 20 s before
// they look for the first time whether a pod is ready. Its operator ends itself once it has made its certificates, to
// start again with them, and would then wait 16 s for its own old lease: there is one operator, so it needs none.
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

// installKEDA hands KEDA over to the cluster. Whether it works is another question: see waitForKEDA.
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
		return api.kedaAvailable(ctx), c.require("kube-apiserver", "kubelet", "containerd")
	})
}

// kedaAvailable asks for its three Deployments and for the API that the metrics adapter serves.
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
