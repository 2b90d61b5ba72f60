// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package rights compares what the chart lets scale-to-zero's accounts do with what they have done in a run of the end-to-end tests. The
// API server of test/cluster has an audit log of their requests. Each right is used, or is listed with the reason why the run did not
// need it; each refusal is listed with the reason why a test provokes it. `make e2e` calls it after the end-to-end tests:
//
//	SCALE_TO_ZERO_AUDIT_LOG  the audit log; empty skips the comparison
//	E2E_CHART                folder of the scale-to-zero chart
//	HELM                     helm
//	KUBECONFIG               of the cluster in which the chart is installed
//
// Rights that the controller itself grants at run time are not the chart's, and are not looked at.
package rights
