// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"sync/atomic"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// starting is what a target knows of the start that its workload is in, or of the last one. All times are by clock.
type starting struct {
	clock clock
	// began is 0 while no start is under way. A start begins with a wake, with the first pod, or with the injector's word
	// that there is to be one. When the last pod goes, that may be the beginning of a start, as in a rollout, or of a sleep:
	// then the time is negative, and the next sign of a start begins it anew.
	began   atomic.Int64
	readyAt atomic.Int64 // when a pod was ready for the first time since there last was none; 0 if none has been
	failed  atomic.Int64 // until when it is known that the workload cannot start; 0 if it can
	given   atomic.Int64 // for how long a start counts as use
}

// startAt begins a start unless one is under way.
func (s *starting) startAt(now int64) {
	for began := s.began.Load(); began <= 0 && !s.began.CompareAndSwap(began, now); began = s.began.Load() {
	}
}

// since is when the start under way began, if there is one.
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
			t.Touch() // a visitor of the start may come again: the idle clock runs from its end
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
	if ready > 0 {
		t.awake()
	}
}

// Starting says that the workload is in a start that is given its time: it is not to be put to sleep, even if no
// request waits for it any more. One that cannot start may sleep, and so may one that takes longer than api.StartTime. Without a pod
// it may also have fallen asleep a moment ago.
func (s *starting) Starting() bool {
	began, ok := s.since()
	now := s.clock.now()
	return ok && now-began < s.given.Load() && now >= s.failed.Load()
}

// FellAsleep says that the workload has been found without replicas: what may have been the beginning of a start was none.
func (s *starting) FellAsleep() { s.began.Store(0) }

// ReadyFor is the time since this process first saw the workload with a ready pod, since it last had no pod, or never.
// Nobody counted its requests before.
func (s *starting) ReadyFor() time.Duration {
	since := s.readyAt.Load()
	if since == 0 {
		return never
	}
	return time.Duration(s.clock.now() - since)
}

// setProgress takes in what the injector says of the start. At is when that came, by clock.
func (s *starting) setProgress(p api.Progress, at int64) {
	failed := int64(0)
	if p.Failing != "" {
		failed = at + int64(api.FailingFor)
	}
	s.failed.Store(failed)
}
