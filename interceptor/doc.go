// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package interceptor is the data path: it stands between a Service and its pods, counts requests, and wakes the
// workload when one comes while it sleeps.
//
// A request's way, and the packages it passes:
//
//	            listen                    forward                    route
//	client ──▶ a port per route ─▶ HTTP? TCP? ─▶ begin ─▶ pick ──▶ snapshot of ready pods ──▶ pod
//	            (sniffs, limits)             (the engine)   │             ▲
//	                                                        │ none ready  │ ready pods appear
//	                                                        ▼             │
//	                                                      hold ──▶ scaler: push to KEDA, or scale
//	                                                        │
//	                                                        └────▶ peer: tell the other interceptors
//
// The engine reads HTTP/1.1 by http1, and HTTP/2 by net/http. What only the interceptors see and an app's owner should know,
// such as who keeps it awake, notice tells in events.
//
// What the route slices and the pods' slices say comes from interceptor/kube by way of the interface Cluster. That is
// the only package below this one that imports anything of Kubernetes. None of them imports injector, webhook or certs;
// what is shared with these is in interceptor/api.
package interceptor
