// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package interceptor is the data path: it stands between a Service and its pods, counts requests, and wakes the
// workload when one comes while it sleeps.
//
// A request's way, and the packages it passes:
//
//	            listen             forward                        route
//	client ──▶ a port per route ─▶ a Server per route ─▶ pick ──▶ snapshot of ready pods ──▶ pod
//	            (limits, drains)   (sniffs, counts)       │             ▲
//	                                                      │ none ready  │ ready pods appear
//	                                                      ▼             │
//	                                                    hold ──▶ scaler: push to KEDA, or scale
//
// forward carries HTTP/1.1 by http1, HTTP/2 by net/http, and bytes, by one core. It stands on wire, which knows connections and no
// requests, headers, which decides what passes, and answers, which speaks in an app's place (page has the waiting page).
//
// While a request is held, ready runs the probes of starting pods, so that it need not wait for the kubelet's next one.
//
// Counts go from route to a hub (counts), which tells those who follow them what has changed: KEDA's streams (scaler) and the
// other interceptors' (peer). What only the interceptors see and an app's owner should know, such as who keeps it awake, notice
// reports in events.
//
// What the route slices and the pods' slices say comes from interceptor/kube by way of the interface Cluster. That is
// the only package below this one that imports anything of Kubernetes. None of them imports injector, webhook or certs;
// what is shared with these is in interceptor/api. The package conformance tests all of it from outside.
package interceptor
