// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

// Trigger metadata of the ScaledObjects that the injector makes. KEDA hands it back to the interceptors as
// scalerMetadata with every call, so that an edit of the ScaledObject takes effect without any other channel.
const (
	// MetadataWorkload names the workload, as Workload.String does.
	MetadataWorkload = "workload"
	// MetadataTargetPendingRequests is how many pending requests one replica is worth: a positive integer.
	MetadataTargetPendingRequests = "targetPendingRequests"
	// MetadataInactiveAfter is the idle time after which KEDA is to learn that the workload is inactive, as a Go duration; the
	// workload's cool-down if it is missing. It is a little less, since KEDA then waits a little.
	MetadataInactiveAfter = "inactiveAfter"
)

// MetricPendingRequests is the metric that the external scaler offers to KEDA.
const MetricPendingRequests = "pending-requests"

// MetricUse is for the injector and not offered to KEDA. The answer has one value each for MetricPendingRequests and these.
const (
	MetricUse = "use"
	// MetricIdle is the time since the last request that is known of began or ended, in milliseconds.
	MetricIdle = "idle-milliseconds"
	// MetricCounted is for how long no request can have gone uncounted, in milliseconds.
	MetricCounted = "counted-milliseconds"
)
