// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package chart tests config/chart and test/demo/chart: Helm 3 and Helm 4 render them, and Kubernetes' own code checks
// the result.
//
// It is a module of its own, so that its dependencies are not the product's.
package chart
