// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package scaler keeps workloads awake while they are needed. It answers KEDA's external scaler calls from the counts of all
// interceptors, pushes to KEDA when a sleeping workload gets a request, and scales by itself if KEDA does not listen or does not act.
package scaler

import (
	"context"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// Peers knows the counts of the other interceptors.
type Peers interface {
	// Total returns the peers' pending requests for a workload, and the shortest time since one of their requests.
	Total(route.Key) (pending int64, idle time.Duration)
	// Rate returns how many requests a second have arrived for a workload at the peers in the last minute, if that is counted.
	Rate(route.Key) float64
	// KEDAStream reports whether KEDA has a StreamIsActive call for the workload open at a peer.
	KEDAStream(route.Key) bool
	// SinceLost returns the time since a peer's counts were last lost.
	SinceLost() time.Duration
}

// Work knows which workloads work although they have no requests.
type Work interface {
	// Busy reports whether a workload works. It may ask the app, for some seconds. idle is the time since the last request, of this
	// workload or of one whose use keeps it up.
	Busy(ctx context.Context, t *route.Target, idle time.Duration) bool
	// Last is what is known without asking. If nothing is, a workload that can be asked counts as one that works.
	Last(t *route.Target) bool
}

// WorkloadScaler reads and changes the replica counts of workloads.
type WorkloadScaler interface {
	// Replicas returns the workload's desired replica count.
	Replicas(ctx context.Context, namespace string, w api.Workload) (int32, error)
	// Scale gives the workload that many replicas if it has none, and reports whether it had none.
	Scale(ctx context.Context, namespace string, w api.Workload, replicas int32) (scaled bool, err error)
}

// Wake is the content of the event about a wake.
type Wake struct {
	Namespace, Service, ServiceUID string
	Workload                       api.Workload
	// SleepID is the same for all requests that wake the workload from one sleep.
	SleepID string
	// Message is safe to show: bounded, printable, without query strings.
	Message string
}

// Warning is an event about an app on which its owner should act.
type Warning struct {
	Namespace, Service, ServiceUID string
	Workload                       api.Workload
	// Reason is one word for machines.
	Reason string
	// ID is the same at all interceptors that see the same, so that only one of them writes the event.
	ID      string
	Message string
}

// RefusedError means that the API server does not allow the scaling.
type RefusedError struct {
	Err error
	// NoRight is set if we may not scale that workload. The controllers grant the right before there is a route, but the API server may
	// notice a moment late. After an upgrade, the controllers may have to start first.
	NoRight bool
}

func (e *RefusedError) Error() string { return e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

// Events publishes wakes and warnings. Its methods must not block.
type Events interface {
	WakeRequested(Wake)
	Warn(Warning)
}
