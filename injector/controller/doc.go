// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package controller observes the cluster, asks the pure package injector for plans, and carries these out. It has two
// reconcilers, and a label's way leads through them in this order:
//
//	Service, its Namespace and Ingresses ──► serviceReconciler ──► direct and alias Service, route slices, and an annotation
//	                                                               (for which admission redirects the traffic)
//	route slices ──► workloadReconciler ──► ScaledObject, or scaling by the interceptors' counts without KEDA,
//	                                        or the workload's old replica count on the way back;
//	                                        and, while it starts, its progress on the route slices
//
// Each has an observer, which reads the cache through indexes (indexes.go), dials and asks, and a recorder for its events. What
// a Service asks for passes from one to the other in its route slices; whether its traffic is redirected both read from the
// Service and the Ingresses themselves. requests says which of them a change concerns, optionalKinds which APIs there are. Only
// the leader runs them.
//
// It may import injector and interceptor/api, and no other package of this project.
package controller
