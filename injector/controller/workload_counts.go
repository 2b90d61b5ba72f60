// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
)

const (
	// countTimeout bounds one question to the interceptors.
	countTimeout = 5 * time.Second
	// countInterval is the longest between two questions about a workload of several replicas: what an HPA takes too.
	countInterval = 15 * time.Second
)

// Counts are what the interceptors count.
type Counts interface {
	// Count says whether the workload is in use, and how many requests for it are pending at all interceptors together.
	Count(ctx context.Context, namespace string, w api.Workload) (active bool, pending int64, err error)
	// Visited says whether a request has come within a time. It is true too where the interceptors have not counted for so
	// long yet.
	Visited(ctx context.Context, namespace string, w api.Workload, within time.Duration) (bool, error)
	// Use says when it was last used.
	Use(ctx context.Context, namespace string, w api.Workload) (injector.Use, error)
}

// scaleByCounts does KEDA's part where there is no KEDA: it puts an idle workload to sleep, and gives a busy one more
// replicas, up to its most. Waking is done by the interceptors, which find that KEDA is not listening. When nobody can say
// what they count, nothing changes.
func (r *WorkloadReconciler) scaleByCounts(ctx context.Context, w workload, s injector.Scaling, d demand) (ctrl.Result, error) {
	again := ctrl.Result{RequeueAfter: min(max(s.Cooldown/4, time.Second), countInterval)}
	if w.Replicas == 0 && s.MinReplicas == 0 || d.open {
		return again, nil
	}
	active, pending, err := r.Counts.Count(ctx, w.Namespace, w.Ref())
	if err != nil {
		log.FromContext(ctx).Info("Leaving a workload as it is: the interceptors cannot be asked", "workload", w.Ref().String(), "error", err.Error())
		return again, nil
	}
	n := injector.Desired(s, active, pending, w.Replicas)
	if up := r.up(key(w.Namespace, w.Ref()), d); n < w.Replicas && up < s.Cooldown {
		// It has had no time yet to be visited: it was taken over, or somebody has scaled it, a moment ago.
		return ctrl.Result{RequeueAfter: min(s.Cooldown-up, again.RequeueAfter)}, nil
	}
	if n == w.Replicas {
		return again, nil
	}
	log.FromContext(ctx).Info("Scaling without KEDA", "workload", w.Ref().String(), "from", w.Replicas, "to", n, "active", active, "pending", pending)
	return again, scale(ctx, r.client, w.object, n)
}

// scalerClient asks the interceptors' external scaler, as KEDA does.
type scalerClient struct {
	address string

	once   sync.Once
	client pb.ExternalScalerClient
	err    error
}

// Count implements Counts.
func (c *scalerClient) Count(ctx context.Context, namespace string, w api.Workload) (bool, int64, error) {
	if err := c.connect(); err != nil {
		return false, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	active, err := c.client.IsActive(ctx, refOf(namespace, w))
	if err != nil {
		return false, 0, fmt.Errorf("asking whether %s is active: %w", w, err)
	}
	values, err := c.metrics(ctx, namespace, w, api.MetricPendingRequests)
	return active.GetResult(), values[api.MetricPendingRequests], err
}

// Use implements Counts.
func (c *scalerClient) Use(ctx context.Context, namespace string, w api.Workload) (injector.Use, error) {
	if err := c.connect(); err != nil {
		return injector.Use{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	values, err := c.metrics(ctx, namespace, w, api.MetricUse)
	return injector.Use{
		Pending: values[api.MetricPendingRequests],
		Idle:    time.Duration(values[api.MetricIdle]) * time.Millisecond,
		Counted: time.Duration(values[api.MetricCounted]) * time.Millisecond,
	}, err
}

// Visited implements Counts.
func (c *scalerClient) Visited(ctx context.Context, namespace string, w api.Workload, within time.Duration) (bool, error) {
	if err := c.connect(); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	ref := refOf(namespace, w)
	ref.ScalerMetadata[api.MetadataInactiveAfter] = within.String()
	active, err := c.client.IsActive(ctx, ref)
	if err != nil {
		return false, fmt.Errorf("asking whether %s was visited: %w", w, err)
	}
	return active.GetResult(), nil
}

func (c *scalerClient) metrics(ctx context.Context, namespace string, w api.Workload, name string) (map[string]int64, error) {
	answer, err := c.client.GetMetrics(ctx, &pb.GetMetricsRequest{ScaledObjectRef: refOf(namespace, w), MetricName: name})
	if err != nil {
		return nil, fmt.Errorf("asking for %s of %s: %w", name, w, err)
	}
	values := map[string]int64{}
	for _, m := range answer.GetMetricValues() {
		values[m.GetMetricName()] = m.GetMetricValue()
	}
	return values, nil
}

func refOf(namespace string, w api.Workload) *pb.ScaledObjectRef {
	return &pb.ScaledObjectRef{Name: w.Name, Namespace: namespace, ScalerMetadata: map[string]string{
		api.MetadataWorkload: w.String(), api.MetadataTargetPendingRequests: strconv.Itoa(1),
	}}
}

func (c *scalerClient) connect() error {
	c.once.Do(func() {
		var conn *grpc.ClientConn
		conn, c.err = grpc.NewClient("dns:///"+c.address,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			// One interceptor answers until it goes. That it went without a word is noticed by this alone; the next call asks
			// another one. Less than 10 s of silence gRPC does not allow.
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: countInterval},
				MinConnectTimeout: countTimeout / 2,
			}))
		if c.err == nil {
			c.client = pb.NewExternalScalerClient(conn)
		}
	})
	if c.err != nil {
		return fmt.Errorf("connecting to the interceptors: %w", c.err)
	}
	return nil
}
