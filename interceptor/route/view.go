// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"sync/atomic"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// view is the present state of a route's Service, according to its snapshot.
type view struct {
	// snap is written under Table.mu only.
	snap atomic.Pointer[snapshot]
}

// Protocol is what new connections speak: one of api's Protocol constants.
func (v *view) Protocol() string { return v.snap.Load().protocol }

// ProxyProtocol reports whether new connections to pods begin with a PROXY protocol header.
func (v *view) ProxyProtocol() bool { return v.snap.Load().proxies }

// WaitingPage says which clients see a page while they wait: one of api's Page constants.
func (v *view) WaitingPage() string { return v.snap.Load().waitingPage }

// Reach says how browsers reach the Service; nil if that is not known.
func (v *view) Reach() *api.Reach { return v.snap.Load().reach }

// Target is the workload behind the route.
func (v *view) Target() *Target { return v.snap.Load().target }

// Retiring reports whether the Service is being restored: its workload must not be woken.
func (v *view) Retiring() bool { return v.snap.Load().retiring }

// SleepID names the sleep from which a request wakes the workload. It is the same at every interceptor.
func (v *view) SleepID() string { return v.snap.Load().sleepID }

// HasEndpoint reports whether a pod is ready.
func (v *view) HasEndpoint() bool { return len(v.snap.Load().endpoints) > 0 }

// Sticky says how cookies keep clients at their pods; nil if they do not.
func (v *view) Sticky() *Sticky { return v.snap.Load().sticky }

// mayWake reports whether a request may wake the workload: neither the workload nor the Service is gone, and the owner has not paused
// it.
func (v *view) mayWake() bool {
	s := v.snap.Load()
	return !s.retiring && s.gone == "" && !s.paused()
}

// publish replaces the present snapshot with s and wakes the requests that wait for a change. The caller holds Table.mu.
func (r *Route) publish(s *snapshot) {
	s.changed = make(chan struct{})
	old := r.snap.Load()
	if old != nil && old.target != s.target {
		old.target.gate.leave(r, func(waiters []*waiter) { s.target.gate.publish(r, old, s, waiters) })
	} else {
		s.target.gate.publish(r, old, s, nil)
	}
	if old != nil {
		close(old.changed)
	}
}
