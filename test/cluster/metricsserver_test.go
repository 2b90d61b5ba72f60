// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

const metricsServerManifests = `
      - args:
        - --cert-dir=/tmp
        - --metric-resolution=15s
        image: gcr.io/k8s-staging-metrics-server/metrics-server:master
        livenessProbe:
          httpGet:
            path: /livez
          periodSeconds: 10
        readinessProbe:
          httpGet:
            path: /readyz
          initialDelaySeconds: 20
          periodSeconds: 10
        resources:
          requests:
            cpu: 100m
            memory: 200Mi
`

func TestPatchMetricsServer(t *testing.T) {
	const want = `
      - args:
        - --cert-dir=/tmp
        - --metric-resolution=10s
        - --kubelet-request-timeout=5s
        - --kubelet-certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt
        image: registry.k8s.io/metrics-server/metrics-server:` + metricsServerVersion + `
        livenessProbe:
          httpGet:
            path: /livez
          periodSeconds: 10
        readinessProbe:
          httpGet:
            path: /readyz
          initialDelaySeconds: 1
          periodSeconds: 1
        resources:
          requests:
            cpu: 10m
            memory: 40Mi
`
	if got, err := patchMetricsServer([]byte(metricsServerManifests)); err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
}

// An edit that does not fit a later release is an error, and not skipped.
func TestPatchMetricsServerNotices(t *testing.T) {
	for name, text := range map[string]string{
		"no resolution": strings.Replace(metricsServerManifests, "--metric-resolution", "--resolution", 1),
		"no delay":      strings.Replace(metricsServerManifests, "initialDelaySeconds: 20", "failureThreshold: 3", 1),
		"no requests":   strings.Replace(metricsServerManifests, "requests", "limits", 1),
		"two images":    metricsServerManifests + "        image: another\n",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := patchMetricsServer([]byte(text)); err == nil {
				t.Errorf("no error, and %s", got)
			}
		})
	}
}
