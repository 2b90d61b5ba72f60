// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package kube is the only part of the data path that knows Kubernetes: it watches EndpointSlices, scales workloads and writes
// events.
//
// It needs to list and watch endpointslices (discovery.k8s.io) in all namespaces, list pods (metrics.k8s.io), create events, list and
// watch the Secret of its certificate, and get and patch the scale of the workloads that it wakes. The controllers give it the last of
// these rights, by name.
package kube
