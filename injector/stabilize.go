// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"math"
	"slices"
	"time"
)

// stabilizeFor is for how long a replica count matters after it was desired, before replicas are taken away. An HPA has the same.
const stabilizeFor = 5 * time.Minute

// Stabilization is which replica counts were desired for a workload lately. It is a value: each method returns the next one. The zero
// Stabilization knows nothing, as after a restart of the controller.
type Stabilization struct {
	// Highest has the highest count, then the highest of those desired later than that one, and so on.
	Highest []Desire
	// Last is what the workload had when Next was last called, or what Next then returned if that is more.
	Last int32
}

// Desire is a replica count, and when it was last desired.
type Desire struct {
	At       time.Time
	Replicas int32
}

// Next takes in which count is desired now, and which the workload has, and returns which it should have: the highest that was desired
// in the last five minutes, since the workload has woken up. A count counts as desired when somebody has scaled the workload up to it,
// and when nothing else is known.
func (s Stabilization) Next(now, woken time.Time, current, desired int32) (int32, Stabilization) {
	highest := slices.DeleteFunc(slices.Clone(s.Highest), func(d Desire) bool {
		return now.Sub(d.At) >= stabilizeFor || d.At.Before(woken)
	})
	if len(highest) == 0 || current > s.Last {
		desired = max(desired, current)
	}
	for len(highest) > 0 && highest[len(highest)-1].Replicas <= desired {
		highest = highest[:len(highest)-1]
	}
	highest = append(highest, Desire{now, desired})
	return highest[0].Replicas, Stabilization{Highest: highest, Last: max(current, highest[0].Replicas)}
}

// Scaled returns how many replicas a workload should have if there is no KEDA: as many as its requests need or needed a moment ago,
// within its bounds; none, if it is idle and may sleep.
func (l Life) Scaled(now time.Time, s Scaling, count CountAnswer, current int32) (int32, Life) {
	n := Desired(s, count)
	if n == 0 {
		return 0, l
	}
	if current == 0 {
		l.Stabilization = Stabilization{} // what it needed before it slept says nothing about now
	}
	highest, stabilization := l.Stabilization.Next(now, l.Woken, current, n)
	l.Stabilization = stabilization
	return max(n, min(highest, s.MaxReplicas)), l
}

// Desired returns how many replicas a workload needs now: as many as its pending requests or the rate of its requests need, whichever
// is more, within its bounds; none, if it is idle and may sleep.
func Desired(s Scaling, count CountAnswer) int32 {
	least := s.MinReplicas
	switch {
	case count.Active:
		least = max(1, s.WakeReplicas, s.MinReplicas)
	case s.MinReplicas == 0:
		return 0
	}
	need := float64(count.Pending) / float64(s.TargetPendingRequests)
	if s.TargetRequestRate > 0 {
		need = max(need, count.Rate/s.TargetRequestRate)
	}
	return max(least, int32(min(math.Ceil(need), float64(s.MaxReplicas))))
}
