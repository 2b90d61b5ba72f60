// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"context"
	"time"
)

// settleFor is how long a request that must not be sent twice waits while the workload may be falling asleep. It is long enough for
// Kubernetes to list the pods as terminating, even if its first write of the slice fails: it tries again after a second
// (defaultSyncBackOff in k8s.io/kubernetes/pkg/controller/endpointslice, 1.37).
const settleFor = 1500 * time.Millisecond

// After a silence of the cool-down, KEDA may already have decided to scale the workload to zero. A request that arrives then still
// finds listed pods, which are about to terminate. Some apps close their port at once, and with it connections that they have not
// accepted yet. Nobody can tell whether the app has read a request on such a connection, so a POST could be neither sent again nor
// answered. Such a request therefore waits until the outcome is known: either the pods terminate, and it is held for the next one, or
// it has kept the workload awake. Target.Begin notices such a request.

// settling returns for how much longer the workload may turn out to be falling asleep.
func (t *Target) settling() time.Duration {
	until := t.settled.Load()
	if until == 0 {
		return 0
	}
	return time.Duration(until - t.clock.now())
}

// Settled reports whether Settle would return at once.
func (r *Route) Settled() bool { return r.Target().settling() <= 0 }

// Settle waits until it is known that the workload is not falling asleep, or until it has no pod any more. A request that must not be
// sent twice calls it after Begin and before Pick. The error is the context's.
func (r *Route) Settle(ctx context.Context) error {
	if r.Settled() {
		return nil
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s := r.snap.Load()
		left := s.target.settling()
		if left <= 0 || len(s.endpoints) == 0 {
			return nil
		}
		if err := r.await(ctx, s, timer, left, 0); err != nil {
			return err
		}
	}
}
