// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package gitops shows with the real tools that a chart which scale-to-zero has taken over has no drift and no conflict:
// Helm 3 and 4, kubectl, Argo CD's diff, and server-side apply in the order of Flux. They run against a real API server
// with the admission configuration of our own chart, our webhook and our controllers; what the controller-manager and the
// kubelet would do is played. It needs KUBEBUILDER_ASSETS, which `make api` sets.
//
// It is a module of its own because Argo CD's diff needs all of Kubernetes.
package gitops
