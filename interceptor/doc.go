// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package interceptor is the data path. It stands between a Service and its pods, counts requests, and wakes the workload when a
// request comes while it sleeps.
//
// The way of a request, and the packages that it passes:
//
//	            listen             forward                        route
//	client ──▶ a port per route ─▶ a Server per route ─▶ pick ──▶ snapshot of ready pods ──▶ pod
//	            (limits, drains)   (sniffs, counts)       │             ▲
//	                                                      │ none ready  │ ready pods appear
//	                                                      ▼             │
//	                                                    hold ──▶ scaler: push to KEDA, or scale
//
// Package forward carries HTTP/1.1 with http1, HTTP/2 with net/http, and plain bytes, all with one core. It uses wire, which knows
// connections but no requests, headers, which decides which fields pass, and answers, which makes the answers that we send ourselves
// (page has the waiting page).
//
// While a request is held, ready runs the probes of starting pods. So the request need not wait for the kubelet's next probe.
//
// Before an app without requests sleeps, busy asks its pods, if its owner wants that, whether it does work that is not a request.
//
// Counts go from route to a hub (counts), which notifies its followers of changes: KEDA's streams (scaler) and those of the other
// interceptors (peer). Package notice reports in events what only the interceptors see and an app's owner should know, such as who
// keeps the app awake.
//
// The contents of the route slices and of the pods' slices come from interceptor/kube through the interface Cluster. Among the
// packages below this one, only that one imports anything of Kubernetes. None of them imports injector, webhook or certs; what they
// share with these is in interceptor/api. Package conformance tests the whole data path from outside.
package interceptor
