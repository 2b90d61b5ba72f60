// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package route knows where requests may go: the routes (each is one port of one opted-in Service), the workloads behind them
// (targets) with their counts, and the ready pods. It counts requests, chooses pods, and holds requests.
//
// The watch of Kubernetes writes the Table through the Sink interface, under one mutex. Requests never take that mutex: they load a
// route's immutable snapshot through an atomic pointer. A request that has to wait is queued at its target's gate, which hands it a
// pod. It also waits for the snapshot's channel, which is closed when a newer snapshot is in place: it may not have to wait any more.
//
// The package imports nothing of Kubernetes, and of this project only interceptor/api.
package route
