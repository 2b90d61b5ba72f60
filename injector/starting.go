// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"cmp"
	"slices"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const (
	// keptStarts is how many durations of earlier starts are kept.
	keptStarts = 5
	// firstLook is how long a start is left alone. A look takes time from the API server and the nodes. Nobody sees a result before the
	// waiting page's grace, unless that is shorter than the default.
	firstLook = 500 * time.Millisecond
	// minLook is the shortest time between two looks at one start, however often the workload's status changes.
	minLook = time.Second
	// renewal is how often the progress of a failing start is written again.
	renewal = api.FailingFor / 3
)

// Starting is what is known about a workload's present or last start.
type Starting struct {
	Progress api.Progress // as last written
	Asleep   bool
	Left     time.Time // when the workload was seen to leave zero; zero if nobody saw it or the start is over
	Waiting  time.Time // since when the workload has replicas but none is ready
	Looked   time.Time // when the pods were last listed
	Suspect  string    // the reason why the start seems to fail
	Since    time.Time // when Suspect began
	Reported []string  // the reasons that have been reported
}

// StartingFrom reads what another controller has written about a start. It returns false if that says nothing.
func StartingFrom(p api.Progress) (Starting, bool) {
	s := Starting{Progress: p}
	if p.Failing != "" {
		s.Suspect, s.Reported = p.Reason, []string{p.Reason}
	}
	return s, p.Stage != "" || p.Failing != "" || p.Paused != nil || len(p.Starts) > 0
}

// idle is the state if there is nothing to follow: the workload is asleep, or nobody waits for it.
func (s Starting) idle(asleep bool) Starting {
	return Starting{Progress: s.history(), Asleep: asleep}
}

// history is what is known about earlier starts, and what holds for the next one.
func (s Starting) history() api.Progress {
	return api.Progress{Starts: s.Progress.Starts, Apps: s.Progress.Apps, WakeTo: s.Progress.WakeTo}
}

// over is the state once a pod takes requests, which it has done since at. running is since when its containers run; zero if that is
// unknown. A start that needed a manual fix is not recorded, because its duration predicts nothing.
func (s Starting) over(at, running time.Time) Starting {
	past := s.history()
	if !s.Left.IsZero() && len(s.Reported) == 0 {
		past.Starts = newest(past.Starts, at.Sub(s.Left))
		if !running.IsZero() {
			past.Apps = newest(past.Apps, max(0, at.Sub(running)))
		}
	}
	return Starting{Progress: past}
}

// newest puts a duration before the others, of which it drops the oldest.
func newest(all []api.Duration, d time.Duration) []api.Duration {
	return append([]api.Duration{api.Duration(d.Round(10 * time.Millisecond))}, all[:min(len(all), keptStarts-1)]...)
}

// begun is the state if pods are wanted and none is ready.
func (s Starting) begun(now time.Time) Starting {
	if s.Asleep {
		s.Asleep, s.Left = false, now
	}
	if s.Waiting.IsZero() {
		s.Waiting = now
	}
	return s
}

// untilLook returns for how much longer the pods are left alone.
func (s Starting) untilLook(now time.Time) time.Duration {
	return max(s.Waiting.Add(firstLook).Sub(now), s.Looked.Add(minLook).Sub(now))
}

// nextLook returns the pause before the next look. It grows with the length of the start.
func (s Starting) nextLook(now time.Time) time.Duration {
	return min(max(now.Sub(s.Waiting)/10, minLook), renewal/2)
}

// next is the state after a look that has found no ready pod.
func (s Starting) next(look Start, now time.Time) Starting {
	if s.Suspect != look.Reason {
		s.Suspect, s.Since = look.Reason, now
	}
	last := s.Progress
	s.Progress = s.history()
	s.Progress.Stage = cmp.Or(look.Stage, api.StageScheduling)
	if look.Stage == api.StageNotReady && !s.Left.IsZero() {
		running := min(look.Stages.Running.Sub(s.Left), now.Sub(s.Left)) // by the node's clock
		s.Progress.Running = api.Duration(max(0, running).Round(time.Second))
	}
	certain := now.Sub(s.Since) >= look.Doubt || last.Failing != "" && last.Reason == look.Reason
	if look.Failing == "" || !certain {
		return s
	}
	s.Progress.Failing, s.Progress.Reason, s.Progress.Seen = look.Failing, look.Reason, last.Seen
	if last.Failing != look.Failing || now.Sub(last.Seen) >= renewal {
		s.Progress.Seen = now.UTC().Truncate(time.Second)
	}
	return s
}

// unreported reports whether the start fails for a reason that has not been reported.
func (s Starting) unreported() bool {
	return s.Progress.Failing != "" && !slices.Contains(s.Reported, s.Progress.Reason)
}
