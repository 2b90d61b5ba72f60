// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package chart holds tests of config/chart and test/demo/chart: they are rendered by Helm 3 and by Helm 4, and what comes
// out is judged by Kubernetes' own code.
//
// It is a module of its own, so that nothing needed here shows up in the dependencies of what we ship.
package chart
