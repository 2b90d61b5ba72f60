// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package gitops shows that an injected chart has no drift and no conflict with the real tools: Helm 3 and 4, kubectl,
// Argo CD's diff, and server-side apply in the order of Flux. They run against a real API server with KEDA's CRD, the
// admission configuration of our chart, our webhook and our controllers; the tests play the controller-manager, the
// kubelet and KEDA. It needs KUBEBUILDER_ASSETS, which `make api` sets.
//
// It is a module of its own because Argo CD's diff needs all of Kubernetes.
package gitops
