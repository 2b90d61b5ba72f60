// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package ready asks the pods of a starting app whether they take requests, by their own probes. The kubelet asks at each
// probe's period, 10 s by default, and what it finds takes another while until it is known here; a request that is held
// for the app need not wait for that.
//
// A pod is asked only while requests are held for its workload and Kubernetes calls none of its pods ready. When all of
// its probes have succeeded it takes requests. It is asked on, less often, until Kubernetes calls it ready: if the app says that it
// is not ready, or has ended, the pod takes no more requests, and if Kubernetes does not agree for too long, neither.
package ready
