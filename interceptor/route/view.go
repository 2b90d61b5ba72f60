// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"sync/atomic"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// view is what a route's Service says at the moment, as its snapshot has it.
type view struct {
	// snap is written under Table.mu only.
	snap atomic.Pointer[snapshot]
}

// Protocol is what connections speak that are accepted from now on, one of api's Protocol constants.
func (v *view) Protocol() string { return v.snap.Load().protocol }

// ProxyProtocol says that connections to pods that are opened from now on begin with a header of the PROXY protocol.
func (v *view) ProxyProtocol() bool { return v.snap.Load().proxies }

// WaitingPage says which clients are shown a page while they wait, as one of api's Page constants.
func (v *view) WaitingPage() string { return v.snap.Load().waitingPage }

// Reach is how browsers come to the Service; nil is not known.
func (v *view) Reach() *api.Reach { return v.snap.Load().reach }

// Target is the workload behind the route.
func (v *view) Target() *Target { return v.snap.Load().target }

// Retiring says that the Service is being restored: its workload is not to be woken.
func (v *view) Retiring() bool { return v.snap.Load().retiring }

// SleepID names the sleep from which a request wakes the workload; every interceptor has the same name for it.
func (v *view) SleepID() string { return v.snap.Load().sleepID }

// HasEndpoint says that a pod is ready.
func (v *view) HasEndpoint() bool { return len(v.snap.Load().endpoints) > 0 }

// Sticky returns how cookies keep clients at their pods; nil if they do not.
func (v *view) Sticky() *Sticky { return v.snap.Load().sticky }

// mayWake says that a request may wake the workload: neither it nor the Service is gone, and its owner has not paused it.
func (v *view) mayWake() bool {
	s := v.snap.Load()
	return !s.retiring && s.gone == "" && !s.paused()
}

// publish puts s in the place of the present snapshot and wakes those who wait for that. The caller holds Table.mu.
func (v *view) publish(s *snapshot) {
	s.changed = make(chan struct{})
	if old := v.snap.Swap(s); old != nil {
		close(old.changed)
	}
}
