// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import "time"

// startTime is how long a workload is given to start where its Services do not hold requests for longer.
const startTime = 10 * time.Minute

// StartTime is for how long a workload that is starting counts as in use although no request waits for it any more: the idle
// clock runs from the moment that it is ready. holdTimeout is the longest of its Services'.
func StartTime(holdTimeout time.Duration) time.Duration { return max(startTime, holdTimeout) }

// PollingInterval is how often KEDA asks whether a workload is active: a quarter of its cool-down in whole seconds, and at
// most KEDA's own 30.
func PollingInterval(cooldown time.Duration) time.Duration {
	return min(max((cooldown/4+time.Second-1).Truncate(time.Second), time.Second), 30*time.Second)
}

// InactiveAfter is the idle time after which KEDA learns that a workload is inactive: one poll before its cool-down is over,
// since KEDA is to ask twice, but late enough for each request to be seen by a poll. From then on it may fall asleep.
func InactiveAfter(cooldown time.Duration) time.Duration {
	poll := PollingInterval(cooldown)
	return max(cooldown-poll, poll+time.Second)
}
