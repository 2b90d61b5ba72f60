// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package controller observes the cluster, asks the pure package injector for plans, and carries the plans out. It has two
// reconcilers. The effect of a label passes through them in this order:
//
//	Service, its Namespace and Ingresses ──► serviceReconciler ──► direct and alias Service, route slices, and an annotation
//	                                                               (for which admission redirects the traffic)
//	route slices ──► workloadReconciler ──► ScaledObject, or scaling by the interceptors' counts without KEDA,
//	                                        or the workload's old replica count on the way back;
//	                                        and, while it starts, its progress on the route slices
//	                                        and the CPU limits of its first pod
//
// Each reconciler has an observer, which reads the cache through indexes (indexes.go), dials pods and asks interceptors, and a
// recorder for its events. What a Service wants of its workload passes from the first to the second in the route slices. Whether the
// Service's traffic is redirected, both read from the Service and its Ingresses. requests says which objects a change concerns, and
// optionalKinds which APIs exist. Only the leader runs the reconcilers.
//
// The package may import injector and interceptor/api, and no other package of this project.
package controller
