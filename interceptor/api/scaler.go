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
	// MetadataTargetRequestRate is how many requests a second one replica should have: a positive number. If it is missing, only pending
	// requests matter.
	MetadataTargetRequestRate = "targetRequestRate"
	// MetadataInactiveAfter is the idle time after which KEDA learns that the workload is inactive, as a Go duration. It is a little
	// less than the cool-down, because KEDA then waits a little. If it is missing, the cool-down applies.
	MetadataInactiveAfter = "inactiveAfter"
	// MetadataCredentials changes with KEDA's certificate. KEDA reads its certificate again only when the ScaledObject changes; the
	// interceptors have no use for it.
	MetadataCredentials = "credentials"
)

// Metrics that the external scaler offers to KEDA.
const (
	MetricPendingRequests = "pending-requests"
	// MetricRequestRate is how many requests a second have arrived in the last minute. It is offered if there is a target for it, and is
	// 0 unless a route of the workload asks to count it.
	MetricRequestRate = "request-rate"
)

// The target request rate of a replica has these bounds. KEDA counts in thousandths.
const (
	MinRequestRate = 0.001
	MaxRequestRate = 1_000_000
)

// MetricUse is for the injector; KEDA is not told about it. The answer has one value for each of the metrics above and one for each of
// the following.
const (
	MetricUse = "use"
	// MetricIdle is the time since the last known request began or ended, in milliseconds.
	MetricIdle = "idle-milliseconds"
	// MetricCounted is for how long every request has been counted, in milliseconds.
	MetricCounted = "counted-milliseconds"
)
