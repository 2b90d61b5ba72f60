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
	"google.golang.org/grpc/keepalive"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
)

// countTimeout bounds one question to the interceptors.
const countTimeout = 5 * time.Second

// Counts asks the interceptors for their counts.
type Counts interface {
	// Count returns whether the workload is in use, and how many requests it has, over all interceptors.
	Count(ctx context.Context, namespace string, w api.Workload) (injector.CountAnswer, error)
	// Use returns when the workload was last used.
	Use(ctx context.Context, namespace string, w api.Workload) (injector.Use, error)
}

// scalerClient asks the interceptors' external scaler, as KEDA does.
type scalerClient struct {
	dialer  interceptorDialer
	address string

	mu     sync.Mutex // protects conn and client
	conn   *grpc.ClientConn
	client pb.ExternalScalerClient
}

// Count implements Counts. It asks for all metrics, because interceptors of an earlier version deny the question for the rate alone.
func (c *scalerClient) Count(ctx context.Context, namespace string, w api.Workload) (injector.CountAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	scaler, err := c.connect(ctx)
	if err != nil {
		return injector.CountAnswer{}, err
	}
	active, err := scaler.IsActive(ctx, refOf(namespace, w))
	if err != nil {
		return injector.CountAnswer{}, fmt.Errorf("asking whether %s is active: %w", w, err)
	}
	values, err := use(ctx, scaler, namespace, w)
	return injector.CountAnswer{
		Known: err == nil, Active: active.GetResult(), Pending: values[api.MetricPendingRequests].GetMetricValue(),
		Rate: values[api.MetricRequestRate].GetMetricValueFloat(),
		Idle: time.Duration(values[api.MetricIdle].GetMetricValue()) * time.Millisecond,
	}, err
}

// Use implements Counts.
func (c *scalerClient) Use(ctx context.Context, namespace string, w api.Workload) (injector.Use, error) {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	scaler, err := c.connect(ctx)
	if err != nil {
		return injector.Use{}, err
	}
	values, err := use(ctx, scaler, namespace, w)
	return injector.Use{
		Pending: values[api.MetricPendingRequests].GetMetricValue(),
		Idle:    time.Duration(values[api.MetricIdle].GetMetricValue()) * time.Millisecond,
		Counted: time.Duration(values[api.MetricCounted].GetMetricValue()) * time.Millisecond,
	}, err
}

// use asks for MetricUse, and returns its values by their names.
func use(ctx context.Context, scaler pb.ExternalScalerClient, namespace string, w api.Workload) (map[string]*pb.MetricValue, error) {
	answer, err := scaler.GetMetrics(ctx, &pb.GetMetricsRequest{ScaledObjectRef: refOf(namespace, w), MetricName: api.MetricUse})
	if err != nil {
		return nil, fmt.Errorf("asking for %s of %s: %w", api.MetricUse, w, err)
	}
	values := map[string]*pb.MetricValue{}
	for _, m := range answer.GetMetricValues() {
		values[m.GetMetricName()] = m
	}
	return values, nil
}

func refOf(namespace string, w api.Workload) *pb.ScaledObjectRef {
	return &pb.ScaledObjectRef{Name: w.Name, Namespace: namespace, ScalerMetadata: map[string]string{
		api.MetadataWorkload: w.String(), api.MetadataTargetPendingRequests: strconv.Itoa(1),
	}}
}

// connect returns the client. It connects at first use.
func (c *scalerClient) connect(ctx context.Context) (pb.ExternalScalerClient, error) {
	if err := c.dialer.await(ctx); err != nil { // not under the lock
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		return c.client, nil
	}
	conn, err := c.dialer.connect(ctx, "dns:///"+c.address,
		// The connection stays at one interceptor until that goes. Only the keepalive notices an interceptor that vanishes silently; the
		// next call then goes to another one. gRPC does not allow less than 10 s of silence.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * countTimeout},
			MinConnectTimeout: countTimeout / 2,
		}))
	if err != nil {
		return nil, fmt.Errorf("connecting to the interceptors: %w", err)
	}
	c.conn, c.client = conn, pb.NewExternalScalerClient(conn)
	return c.client, nil
}

// Close ends the connection.
func (c *scalerClient) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}
