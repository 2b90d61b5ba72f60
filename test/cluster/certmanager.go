// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

func (c *cluster) certManagerImage() bundledImage {
	return bundledImage{name: "scale-to-zero.test/cert-manager:" + c.certManagerSum, binary: "cert-manager", dest: "/cert-manager"}
}

// certManagerManifests runs cert-manager as administrator: our tests are not about its roles.
const certManagerManifests = `apiVersion: v1
kind: Namespace
metadata: {name: cert-manager}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: cert-manager, namespace: cert-manager}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: cert-manager}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: cert-manager, namespace: cert-manager}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cert-manager, namespace: cert-manager}
spec:
  selector: {matchLabels: {app: cert-manager}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: cert-manager}}
    spec:
      serviceAccountName: cert-manager
      containers:
        - name: cert-manager
          image: %q
          readinessProbe: {httpGet: {path: /readyz, port: 8081}, periodSeconds: 1}
`

// addCertManager installs cert-manager. It can be repeated.
func (c *cluster) addCertManager(ctx context.Context, report *progress) error {
	if err := c.mustBeUp(); err != nil {
		return err
	}
	image := c.certManagerImage()
	if err := c.build(ctx, report, image.binary); err != nil {
		return err
	}
	if file := c.imageFile(image); !exists(file) {
		if err := writeImage(imageSpec{name: image.name, binary: c.binary(image.binary), dest: image.dest}, file); err != nil {
			return err
		}
	}
	release, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := report.stage("cert-manager's image", func() error { return c.loadOnce(ctx, image) }); err != nil {
		return err
	}
	return report.stage("cert-manager is Available", func() error {
		crds, err := c.certManagerCRDs(ctx)
		if err != nil {
			return err
		}
		if err := c.apply(ctx, fmt.Appendf(crds, certManagerManifests, image.name)); err != nil {
			return fmt.Errorf("installing cert-manager: %w", err)
		}
		return c.waitForCertManager(ctx)
	})
}

// certManagerCRDs returns the release's CRDs. Another YAML document can be appended.
func (c *cluster) certManagerCRDs(ctx context.Context) ([]byte, error) {
	dir, err := c.download(ctx, "github.com/cert-manager/cert-manager", certManagerVersion)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "deploy", "crds", "*.yaml"))
	if err == nil && len(files) == 0 {
		err = errors.New("there are none")
	}
	if err != nil {
		return nil, fmt.Errorf("finding cert-manager's CRDs in %s: %w", dir, err)
	}
	var crds bytes.Buffer
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading cert-manager's CRDs: %w", err)
		}
		crds.Write(content)
		crds.WriteString("\n---\n")
	}
	return crds.Bytes(), nil
}

func (c *cluster) waitForCertManager(ctx context.Context) error {
	api, err := c.api()
	if err != nil {
		return err
	}
	return poll(ctx, 2*time.Minute, "cert-manager to be Available; see `kubectl get pods -n cert-manager`", func() (bool, error) {
		available := api.has(ctx, "/apis/apps/v1/namespaces/cert-manager/deployments/cert-manager", "Available")
		return available, c.requireNodes()
	})
}
