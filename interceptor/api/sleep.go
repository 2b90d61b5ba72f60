// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import "time"

// startTime is how long a workload may take to start, unless its Services hold requests for longer.
const startTime = 10 * time.Minute

// StartTime returns how long a starting workload counts as in use even if no request waits for it any more. The idle time then runs
// from the moment when it is ready. holdTimeout is the longest of its Services.
func StartTime(holdTimeout time.Duration) time.Duration { return max(startTime, holdTimeout) }

// InactiveAfter returns the idle time after which KEDA learns that a workload is inactive. From then on it counts as possible that the
// workload falls asleep. It is a little less than the cool-down, because interceptors hear late of each other's requests.
func InactiveAfter(cooldown time.Duration) time.Duration {
	early := min(max((cooldown/4+time.Second-1).Truncate(time.Second), time.Second), 30*time.Second)
	return max(cooldown-early, early+time.Second)
}
