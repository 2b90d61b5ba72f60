// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

// Trigger metadata of our ScaledObjects. KEDA passes it to the interceptors with every call as scalerMetadata, so an edit of the
// ScaledObject takes effect without any other channel.
const (
	// MetadataWorkload names the workload, in the format of Workload.String.
	MetadataWorkload = "workload"
	// MetadataTargetPendingRequests is how many pending requests one replica should have: a positive integer.
	MetadataTargetPendingRequests = "targetPendingRequests"
	// MetadataInactiveAfter is the idle time after which KEDA learns that the workload is inactive, as a Go duration. It is a little
	// less than the cool-down, because KEDA then waits a little. If it is missing, the cool-down applies.
	MetadataInactiveAfter = "inactiveAfter"
)

// MetricPendingRequests is the metric that the external scaler offers to KEDA.
const MetricPendingRequests = "pending-requests"

// MetricUse is for the injector; KEDA is not told about it. The answer has one value for MetricPendingRequests and one for each of
// the following.
const (
	MetricUse = "use"
	// MetricIdle is the time since the last known request began or ended, in milliseconds.
	MetricIdle = "idle-milliseconds"
	// MetricCounted is for how long every request has been counted, in milliseconds.
	MetricCounted = "counted-milliseconds"
)
