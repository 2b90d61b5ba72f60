// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package injector decides what becomes of an opted-in Service, Ingress or Namespace, and of the workload behind it.
//
// This root package is pure: it knows no client, no clock and no log. Package injector/controller observes, asks it for a plan
// and carries the plan out; package webhook asks it what admission does.
//
//	Observation         ── PlanService ──► direct and alias Service, route slices, what to ask of admission, events
//	WorkloadObservation ── PlanWorkload ─► ScaledObject or replica count, progress of a start, events
//	pods of a start     ── NewStart ─────► how far it is, and why it cannot succeed
//	Service (write)     ── Admit ────────► sentinel in spec.selector, kept or removed
//	Ingress (write)     ── AdmitIngress ─► backends by their alias Service, or by the author's names
//	workload (write)    ── KeepReplicas ─► the current replica count, unless the chart has another than before
//
// A plan is made in one call, or asks a Question first that the caller answers. The steps of an injection are Phases, which have
// one table; those of a workload have theirs at WorkloadPlan, and its sleeping and waking at Life.
//
// It may import the Kubernetes API types and interceptor/api, and nothing else of this project.
package injector
