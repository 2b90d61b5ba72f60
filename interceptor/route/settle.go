// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"context"
	"time"
)

// settleFor is how long a request that must not be sent twice waits where the workload may just have been scaled to zero: long
// enough for Kubernetes to list its pods as ending.
const settleFor = time.Second

// A request that comes after such a long silence that KEDA may have decided on the sleep already finds pods that are
// listed and about to end. Some close their port at once, and with it connections that they have not accepted yet; whether
// one was accepted and read cannot be known, so that a POST could be neither sent again nor answered. Such a request waits
// until that is decided: either the pods end, and it is held for the next one, or it has kept the workload awake.
// Target.Begin notices when that is so.

// settling is for how much longer the workload may turn out to be falling asleep.
func (t *Target) settling() time.Duration {
	until := t.settled.Load()
	if until == 0 {
		return 0
	}
	return time.Duration(until - t.clock.now())
}

// Settled says that Settle would not wait.
func (r *Route) Settled() bool { return r.Target().settling() <= 0 }

// Settle waits until it is known that the workload is not just falling asleep, or until it has no pod any more. A request
// that must not be sent twice calls it after its Begin and before its Pick. The error is the context's.
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
