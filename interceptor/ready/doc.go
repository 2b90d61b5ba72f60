// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package ready probes the pods of a starting app with their own probes, to find out whether they take requests. The kubelet probes
// only once a period, 10 s by default, and its result takes a while to reach us. A request that is held for the app need not wait for
// that.
//
// A pod is probed only while requests are held for its workload and Kubernetes calls none of its pods ready. It takes requests once
// all of its probes have succeeded. It is then probed less often, until Kubernetes calls it ready. It takes no more requests if the
// app says that it is not ready, if the app has ended, or if Kubernetes does not agree in time.
package ready
