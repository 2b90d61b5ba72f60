// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"math"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
)

// fakeScaler reports everything as idle.
type fakeScaler struct {
	pb.UnimplementedExternalScalerServer
}

func (fakeScaler) IsActive(context.Context, *pb.ScaledObjectRef) (*pb.IsActiveResponse, error) {
	return &pb.IsActiveResponse{}, nil
}

func (fakeScaler) GetMetrics(_ context.Context, r *pb.GetMetricsRequest) (*pb.GetMetricsResponse, error) {
	if r.GetMetricName() != api.MetricUse {
		return &pb.GetMetricsResponse{}, nil
	}
	return &pb.GetMetricsResponse{MetricValues: []*pb.MetricValue{
		{MetricName: api.MetricPendingRequests, MetricValue: 3},
		{MetricName: api.MetricIdle, MetricValue: 1500},
		{MetricName: api.MetricCounted, MetricValue: time.Duration(math.MaxInt64).Milliseconds()},
	}}, nil
}

// silencer can make the first connection fall silent, like a connection to a node that has gone. Later connections work.
type silencer struct {
	net.Listener
	accepted atomic.Int32
	silent   atomic.Bool
}

func (s *silencer) Accept() (net.Conn, error) {
	conn, err := s.Listener.Accept()
	if err == nil && s.accepted.Add(1) == 1 {
		conn = silentConn{conn, &s.silent}
	}
	return conn, err
}

type silentConn struct {
	net.Conn
	silent *atomic.Bool
}

func (c silentConn) Write(b []byte) (int, error) {
	if c.silent.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func TestUse(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterExternalScalerServer(server, fakeScaler{})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	c := &scalerClient{address: l.Addr().String()}
	web := api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}
	got, err := c.Use(t.Context(), "shop", web)
	want := injector.Use{Pending: 3, Idle: 1500 * time.Millisecond, Counted: time.Duration(math.MaxInt64).Truncate(time.Millisecond)}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	server.Stop()
	if _, err := c.Use(t.Context(), "shop", web); err == nil {
		t.Error("an answer of nobody")
	}
}

func TestCountLeavesSilentInterceptor(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &silencer{Listener: l}
	server := grpc.NewServer()
	pb.RegisterExternalScalerServer(server, fakeScaler{})
	go func() { _ = server.Serve(s) }()
	t.Cleanup(server.Stop)
	c := &scalerClient{address: l.Addr().String()}
	count := func() error {
		_, err := c.Count(t.Context(), "shop", api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"})
		return err
	}
	if err := count(); err != nil {
		t.Fatal(err)
	}
	s.silent.Store(true)
	began := time.Now()
	for err = count(); err != nil && time.Since(began) < 30*time.Second; {
		err = count()
	}
	if err != nil {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	c := &scalerClient{address: "127.0.0.1:1"}
	if err := c.Close(); err != nil {
		t.Errorf("one that was not used: %v", err)
	}
	if _, err := c.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Use(t.Context(), "shop", api.Workload{Name: "web"}); err == nil {
		t.Error("it answers when it is closed")
	}
}
