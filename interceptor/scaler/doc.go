// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package scaler keeps workloads awake while they are needed: it answers KEDA's external scaler calls from the counts of
// all interceptors, pushes to KEDA when a workload that sleeps gets a request, and scales by itself where KEDA does not
// listen or does not act.
package scaler

import (
	"context"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// Peers knows what the other interceptors count.
type Peers interface {
	// Total is what the peers say of a workload: their pending requests, and the shortest time since one of theirs.
	Total(route.Key) (pending int64, idle time.Duration)
	// KEDAStream says that KEDA's StreamIsActive for the workload is open at a peer.
	KEDAStream(route.Key) bool
	// SinceLost is the time since a peer and its counts were lost.
	SinceLost() time.Duration
}

// WorkloadScaler reads and changes the replica counts of workloads.
type WorkloadScaler interface {
	// Replicas is how many replicas the workload is to have.
	Replicas(ctx context.Context, namespace string, w api.Workload) (int32, error)
	// Scale gives the workload one replica if it has none, and reports whether it had none.
	Scale(ctx context.Context, namespace string, w api.Workload) (scaled bool, err error)
}

// Wake is what the event about a wake says.
type Wake struct {
	Namespace, Service, ServiceUID string
	Workload                       api.Workload
	// SleepID is the same for all that wake the workload from one sleep.
	SleepID string
	// Message is safe to show: bounded, printable, without query strings.
	Message string
}

// Warning is an event about an app that its owner should act on.
type Warning struct {
	Namespace, Service, ServiceUID string
	Workload                       api.Workload
	// Reason is one word, for machines.
	Reason string
	// ID is the same for all interceptors that see the same: only one of them writes the event.
	ID      string
	Message string
}

// RefusedError is a scaling that the API server does not allow.
type RefusedError struct{ Err error }

func (e *RefusedError) Error() string { return e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

// Events publishes wakes and warnings. Its methods must not block.
type Events interface {
	WakeRequested(Wake)
	Warn(Warning)
}
