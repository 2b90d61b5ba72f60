// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"sync/atomic"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// starting is what a target knows about the present or the last start of its workload. All times are by clock.
type starting struct {
	clock clock
	// began is when the present start began; 0 if there is none. A start begins with a wake, with the first pod, or when the injector
	// says that it expects a pod. When the last pod goes, either a start begins, as in a rollout, or a sleep. Until that is known the
	// time is negative, and the next sign of a start replaces it.
	began   atomic.Int64
	readyAt atomic.Int64 // when a pod first became ready since there were none; 0 if that has not happened
	failed  atomic.Int64 // until when the workload is known to be unable to start; 0 if it can
	given   atomic.Int64 // how long a start counts as use
}

// startAt begins a start unless one is under way.
func (s *starting) startAt(now int64) {
	for began := s.began.Load(); began <= 0 && !s.began.CompareAndSwap(began, now); began = s.began.Load() {
	}
}

// since returns when the present start began, if there is one.
func (s *starting) since() (began int64, ok bool) {
	began = s.began.Load()
	return max(began, -began), began != 0
}

// setPods takes in how many pods there are and how many of them are ready. Early says that one takes requests before it is ready,
// which ends a wake, but no start: until Kubernetes has called it ready too, the workload is not put to sleep. Expected says
// that the injector expects a pod. The caller holds Table.mu.
func (t *Target) setPods(pods, ready int32, early, expected bool) {
	now := t.clock.now()
	s := &t.starting
	hadPods, wasReady := t.HasPods(), t.Ready()
	if !hadPods {
		t.up.Store(now)
	}
	switch {
	case ready > 0:
		if began, ok := s.since(); ok && t.last.Load() >= began {
			t.Touch() // a visitor of the start may return: the idle time runs from the end of the start
		}
		s.readyAt.CompareAndSwap(0, now)
		s.began.Store(0)
	case expected, pods > 0 && (wasReady || !hadPods):
		s.startAt(now)
	case pods == 0 && (wasReady || hadPods):
		s.began.Store(-now)
	case pods == 0:
		if began := s.began.Load(); began > 0 {
			s.began.CompareAndSwap(began, -began)
		}
	}
	if pods == 0 && ready == 0 {
		s.readyAt.Store(0)
		if hadPods {
			t.emptied.Add(1)
		}
	}
	if early {
		ready = max(ready, 1)
	}
	t.listed.Store(pods)
	t.ready.Store(ready)
	if pods > 0 && t.Dequeue() {
		t.note() // somebody else has woken it: its requests count again
	}
	if ready > 0 {
		t.awake()
	}
}

// Starting reports whether the workload is in a start and still has time for it: it must not be put to sleep, even if no request
// waits for it any more. A workload that cannot start may sleep, and so may one whose start takes longer than api.StartTime. A
// workload without pods may also have fallen asleep a moment ago.
func (s *starting) Starting() bool {
	began, ok := s.since()
	now := s.clock.now()
	return ok && now-began < s.given.Load() && now >= s.failed.Load()
}

// Wakes reports whether a request for the workload wakes it, or has done so and it still has time to start: no pod has been ready since
// it slept. A workload that is up and whose pods are not ready for a while does not wake.
func (t *Target) Wakes() bool {
	if t.Ready() || t.readyAt.Load() != 0 {
		return false
	}
	_, known := t.since()
	return t.Starting() || !known && !t.HasPods()
}

// FellAsleep notes that the workload has no replicas: what looked like the beginning of a start was none.
func (s *starting) FellAsleep() { s.began.Store(0) }

// ReadyFor returns how long ago this process first saw a ready pod since the workload last had no pods; never, if it saw none. Nobody
// counted the workload's requests before that.
func (s *starting) ReadyFor() time.Duration {
	since := s.readyAt.Load()
	if since == 0 {
		return never
	}
	return time.Duration(s.clock.now() - since)
}

// setProgress takes in what the injector says about the start, and when it said so (by clock).
func (s *starting) setProgress(p api.Progress, at int64) {
	failed := int64(0)
	if p.Failing != "" {
		failed = at + int64(api.FailingFor)
	}
	s.failed.Store(failed)
}
