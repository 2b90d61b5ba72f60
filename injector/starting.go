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
	// keptStarts is how many durations of starts are kept.
	keptStarts = 5
	// firstLook is how long a start is left alone. Looking at it costs the API server and the nodes some of the time that it
	// takes, and nobody is shown anything before the waiting page's grace, unless that is shorter than by default.
	firstLook = 500 * time.Millisecond
	// minLook is the shortest time between two looks at one start, however often the workload's status changes.
	minLook = time.Second
	// renewal is how often a start that fails is written again.
	renewal = api.FailingFor / 3
)

// Starting is what is known of the start that a workload is in, or of its last one.
type Starting struct {
	Progress api.Progress // as it was written last
	Asleep   bool
	Left     time.Time // when it was seen to leave zero; zero if it was not seen, or is over
	Waiting  time.Time // since when it has had replicas and none ready
	Looked   time.Time // when its pods were listed last
	Suspect  string    // the reason for which it seems to fail
	Since    time.Time // of Suspect
	Reported []string  // the reasons that were reported
}

// StartingFrom is what another controller has written of a start. It is false if that says nothing.
func StartingFrom(p api.Progress) (Starting, bool) {
	s := Starting{Progress: p}
	if p.Failing != "" {
		s.Suspect, s.Reported = p.Reason, []string{p.Reason}
	}
	return s, p.Stage != "" || p.Failing != "" || p.Paused != nil || len(p.Starts) > 0
}

// idle is the state while there is nothing to follow: the workload is asleep, or nobody waits for it.
func (s Starting) idle(asleep bool) Starting {
	return Starting{Progress: api.Progress{Starts: s.Progress.Starts}, Asleep: asleep}
}

// over is the state once a pod is ready. A start that needed a manual fix is not recorded: its duration predicts nothing.
func (s Starting) over(now time.Time) Starting {
	starts := s.Progress.Starts
	if took := now.Sub(s.Left).Round(10 * time.Millisecond); !s.Left.IsZero() && len(s.Reported) == 0 {
		starts = append([]api.Duration{api.Duration(took)}, starts[:min(len(starts), keptStarts-1)]...)
	}
	return Starting{Progress: api.Progress{Starts: starts}}
}

// begun is the state when there are to be pods and none is ready.
func (s Starting) begun(now time.Time) Starting {
	if s.Asleep {
		s.Asleep, s.Left = false, now
	}
	if s.Waiting.IsZero() {
		s.Waiting = now
	}
	return s
}

// untilLook is how long the pods are left alone yet.
func (s Starting) untilLook(now time.Time) time.Duration {
	return max(s.Waiting.Add(firstLook).Sub(now), s.Looked.Add(minLook).Sub(now))
}

// nextLook is the pause before the next look: the longer the start takes, the rarer.
func (s Starting) nextLook(now time.Time) time.Duration {
	return min(max(now.Sub(s.Waiting)/10, minLook), renewal/2)
}

// next is the state after a look at pods none of which is ready.
func (s Starting) next(look Start, now time.Time) Starting {
	if s.Suspect != look.Reason {
		s.Suspect, s.Since = look.Reason, now
	}
	last := s.Progress
	s.Progress = api.Progress{Stage: cmp.Or(look.Stage, api.StageScheduling), Starts: last.Starts}
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

// unreported says that the start fails for a reason that has not been reported.
func (s Starting) unreported() bool {
	return s.Progress.Failing != "" && !slices.Contains(s.Reported, s.Progress.Reason)
}
