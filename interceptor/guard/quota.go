// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
)

// The longest names: what Kubernetes allows, and for a workload its kind as well.
const (
	maxNamespace = 63
	maxName      = 253
	maxWorkload  = 63 + 1 + maxName
)

// key is the workload that a call is about.
type key struct{ namespace, workload string }

// keyOf returns the workload that KEDA's request is about, and zero for other requests. The error says that a name is too long to be
// one.
func keyOf(request any) (key, error) {
	if metrics, ok := request.(*externalscaler.GetMetricsRequest); ok {
		request = metrics.GetScaledObjectRef()
	}
	ref, ok := request.(*externalscaler.ScaledObjectRef)
	if !ok {
		return key{}, nil
	}
	k := key{ref.GetNamespace(), ref.GetScalerMetadata()[api.MetadataWorkload]}
	if len(k.namespace) > maxNamespace || len(ref.GetName()) > maxName || len(k.workload) > maxWorkload {
		return key{}, status.Error(codes.InvalidArgument, "the ScaledObject's namespace, its name or its trigger metadata "+
			api.MetadataWorkload+" is too long")
	}
	return k, nil
}

// quota counts the open streams: all of them, and those of each namespace and of each workload.
type quota struct {
	most, ofNamespace, ofWorkload int

	mu         sync.Mutex // protects all below
	all        int
	namespaces map[string]int
	workloads  map[key]int
}

func newQuota(most, ofNamespace, ofWorkload int) *quota {
	return &quota{
		most: most, ofNamespace: ofNamespace, ofWorkload: ofWorkload, namespaces: map[string]int{}, workloads: map[key]int{},
	}
}

// take counts a stream, and returns what ends that. The error says which bound is reached.
func (q *quota) take(k key) (end func(), _ error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.all >= q.most:
		return nil, status.Errorf(codes.ResourceExhausted, "%d streams are open", q.all)
	case q.namespaces[k.namespace] >= q.ofNamespace:
		return nil, status.Errorf(codes.ResourceExhausted, "%d streams of namespace %s are open", q.ofNamespace, k.namespace)
	case q.workloads[k] >= q.ofWorkload:
		return nil, status.Errorf(codes.ResourceExhausted, "%d streams of %s in namespace %s are open", q.ofWorkload, k.workload, k.namespace)
	}
	q.all++
	q.namespaces[k.namespace]++
	q.workloads[k]++
	return sync.OnceFunc(func() { q.give(k) }), nil
}

func (q *quota) give(k key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all--
	if q.namespaces[k.namespace]--; q.namespaces[k.namespace] == 0 {
		delete(q.namespaces, k.namespace)
	}
	if q.workloads[k]--; q.workloads[k] == 0 {
		delete(q.workloads, k)
	}
}

// counted is a stream that counts for the workload that its request names.
type counted struct {
	grpc.ServerStream

	quota *quota
	ends  []func()
}

// RecvMsg implements grpc.ServerStream. The handler receives the request before it does anything.
func (c *counted) RecvMsg(m any) error {
	if err := c.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	k, err := keyOf(m)
	if err != nil {
		return err
	}
	end, err := c.quota.take(k)
	if err != nil {
		return err
	}
	c.ends = append(c.ends, end)
	return nil
}

// end is called when the handler has returned.
func (c *counted) end() {
	for _, end := range c.ends {
		end()
	}
}
