// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import "sync/atomic"

// orders are what the owner of a workload, or the injector, wants of the interceptors.
type orders struct {
	retiring   atomic.Bool  // a route of the target is being restored
	paused     atomic.Bool  // the owner does not want the workload to be woken
	keptAsleep atomic.Bool  // the owner wants it to have no replicas
	wakeTo     atomic.Int32 // how many replicas a wake starts
	// noLearning is set if nobody may learn who calls the workload.
	noLearning atomic.Bool
	// checked is set if a Service says how to find out whether the workload is busy.
	checked atomic.Bool
}

// WakeTo is how many replicas a wake starts: at least 1.
func (o *orders) WakeTo() int32 { return max(1, o.wakeTo.Load()) }

// KeptAsleep reports whether the owner wants the workload to have no replicas.
func (o *orders) KeptAsleep() bool { return o.keptAsleep.Load() }

// Paused reports whether the owner of the workload does not want it to be woken.
func (o *orders) Paused() bool { return o.paused.Load() }

// Retiring reports whether a route of the workload is being restored. It must then be neither woken nor put to sleep.
func (o *orders) Retiring() bool { return o.retiring.Load() }
