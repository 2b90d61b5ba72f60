// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package api tests the control plane against a real API server: admission, managed fields, the reconcilers. There is no
// controller-manager and no kubelet, so the tests write what those would. It needs KUBEBUILDER_ASSETS, the folder of
// etcd, kube-apiserver and kubectl; `make api` sets it.
package api
