// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package controller reads what is there, asks the pure package injector what should be there, and applies the
// difference. It has two reconcilers, and the label's way goes through them in this order:
//
//	Service, its Namespace and Ingresses ──► ServiceReconciler ──► direct and alias Service, route slices, and an annotation
//	                                                               (for which admission turns the traffic)
//	route slices ──► WorkloadReconciler ──► ScaledObject, or scaling by the interceptors' counts without KEDA,
//	                                        or the workload's old replica count on the way back;
//	                                        and, while it starts, its progress on the route slices
//
// What a Service asks for passes from one to the other in its route slices; whether its traffic has been turned both read
// from the Service and the Ingresses themselves. kedaWatch tells both when KEDA comes and goes. Only the leader runs them.
//
// It may import injector and interceptor/api, and no other package of this project.
package controller
