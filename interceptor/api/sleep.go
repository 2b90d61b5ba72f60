// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import "time"

// startTime is how long a workload may take to start, unless its Services hold requests for longer.
const startTime = 10 * time.Minute

// StartTime returns how long a starting workload counts as in use even if no request waits for it any more. The idle time then runs
// from the moment when it is ready. holdTimeout is the longest of its Services.
func StartTime(holdTimeout time.Duration) time.Duration { return max(startTime, holdTimeout) }

// PollingInterval returns how often KEDA asks whether a workload is active: a quarter of the cool-down, in whole seconds, and at most
// KEDA's default of 30.
func PollingInterval(cooldown time.Duration) time.Duration {
	return min(max((cooldown/4+time.Second-1).Truncate(time.Second), time.Second), 30*time.Second)
}

// InactiveAfter returns the idle time after which KEDA learns that a workload is inactive. It is one poll less than the cool-down,
// because KEDA has to ask twice. It is also long enough for a poll to see every request. After that time the workload may fall
// asleep.
func InactiveAfter(cooldown time.Duration) time.Duration {
	poll := PollingInterval(cooldown)
	return max(cooldown-poll, poll+time.Second)
}
