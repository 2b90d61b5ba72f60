// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package injector turns an opted-in Service, Ingress or Namespace into everything that scale-to-zero needs around it.
//
// This root package is pure: it knows no client, no clock and no log. Given what was read from the API server it says
// what should be there: the direct Service, the route slices, the ScaledObject, and what admission does to the Service
// itself. Package injector/controller reads, compares and applies.
//
//	Service (label) ── Judge ──► Routes ──► direct Service, route slices, and for Ingresses alone the alias Service
//	                                 └────► ScaledObject of the workload
//	pods of a start  ── NewStart ─────► how far it is, and why it cannot succeed
//	Service (write)  ── Admit ────────► sentinel in spec.selector, kept or taken out
//	Ingress (write)  ── AdmitIngress ─► backends by their alias Service, or by the author's names
//	workload (write) ── KeepReplicas ─► the replica count that there is, unless the chart says another than before
//
// It may import the Kubernetes API types and interceptor/api, and nothing else of this project.
package injector
