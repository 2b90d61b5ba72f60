// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package injector decides what happens to an opted-in Service, Ingress or Namespace, and to the workload behind it.
//
// This root package is pure: it has no client, no clock and no log. Package injector/controller observes the cluster, asks this
// package for a plan, and carries the plan out. Package webhook asks it what admission must do.
//
//	Observation         ── PlanService ──► direct and alias Service, route slices, what to ask of admission, events
//	WorkloadObservation ── PlanWorkload ─► ScaledObject or replica count, progress and CPU of a start, events
//	pods of a start     ── NewStart ─────► how far it is, and why it cannot succeed
//	Service (write)     ── Admit ────────► sentinel in spec.selector, kept or removed
//	Ingress (write)     ── AdmitIngress ─► backends by their alias Service, or by the author's names
//	workload (write)    ── KeepReplicas ─► the current replica count, unless the chart has another than before
//
// A plan needs one call, or first asks a Question that the caller has to answer. The steps of an injection are Phases; their table is
// at type Phase. The table for workloads is at WorkloadPlan, and the one for sleeping and waking at Life.
//
// The package may import the Kubernetes API types and interceptor/api, and nothing else of this project.
package injector
