// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package busy finds out whether an app does work that is not a request, before it sleeps: it asks the app's ready pods, or how much
// CPU they use. Its answer keeps a workload up that has pods; it never wakes one.
//
// The interceptors ask, and nobody else, since they are known to reach the pods. The one that KEDA or the controller asks whether the
// workload is active does it. Its question is not a request that counts: it goes straight to the pods.
package busy
