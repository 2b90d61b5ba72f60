// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package route knows where requests may go: the routes (one port of one opted-in Service each), the workloads behind
// them (targets) with their counts, and the pods that are ready. It counts, chooses, and holds.
//
// The Table is written by the watch of Kubernetes through the Sink interface, under one mutex. Requests never take that
// mutex: they load a route's immutable snapshot through an atomic pointer, and where they have to wait they wait for
// that snapshot's channel, which is closed when a newer one is in place.
//
// It imports nothing of Kubernetes, and of this project only interceptor/api.
package route
