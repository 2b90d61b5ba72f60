// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e tries scale-to-zero as its users do, in a real cluster with KEDA: charts are installed with Helm, Services
// labelled with kubectl, requests sent from a pod, and events read. Every test has a namespace of its own.
//
// It runs against the cluster of $KUBECONFIG and needs these in the environment; `make e2e` sets them, and brings a
// cluster up first unless KUBECONFIG is set already:
//
//	E2E_CHART                folder of the scale-to-zero chart
//	E2E_IMAGE                its image, name:tag, that the nodes have
//	E2E_APP_IMAGE            image of test/app
//	E2E_APP_CHART            folder of the Airflow-like chart, test/demo/chart
//	E2E_TRAEFIK              name of the Service in front of Traefik, as in a URL; empty skips what goes through it
//	E2E_PAUSE                command that stops a daemon of the control plane for a while: DAEMON DURATION; empty if there is none
//	E2E_NETWORK_POLICIES     set if the cluster enforces NetworkPolicies; empty skips their test
//	SCALE_TO_ZERO_AUDIT_LOG  audit log of our accounts' requests; empty skips the count of their writes
//	HELM, HELM3              helm 4 and helm 3
//	KUBECTL                  kubectl
package e2e
