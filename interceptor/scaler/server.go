// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// replicasTimeout bounds one call of ServerOptions.Replicas, for which KEDA waits.
const replicasTimeout = 2 * time.Second

// ServerOptions configure a Server.
type ServerOptions struct {
	// Target finds a target; nil if it does not exist.
	Target   func(route.Key) *route.Target
	Activity *Activity
	// Replicas is how many replicas a workload is to have, as WorkloadScaler says.
	Replicas func(ctx context.Context, namespace string, w api.Workload) (int32, error)
	// Hub has the streams of KEDA: each follows its workload. Default one of its own.
	Hub *counts.Hub
	// Repeat is after what time `true` is pushed again while requests wait and there is no pod, since KEDA drops a push
	// whose ScaledObject it has not prepared yet; then after twice that, and so on. Default 1 s.
	Repeat time.Duration
}

// Server is the external scaler that KEDA calls.
type Server struct {
	pb.UnimplementedExternalScalerServer // StreamMetricSpec stays unimplemented: targets change by the trigger's metadata

	options ServerOptions
	done    chan struct{}
	close   sync.Once
}

// NewServer returns a Server.
func NewServer(o ServerOptions) *Server {
	o.Repeat = cmp.Or(o.Repeat, time.Second)
	if o.Hub == nil {
		o.Hub = counts.NewHub()
	}
	return &Server{options: o, done: make(chan struct{})}
}

// Close ends all streams in the way that makes KEDA open another one soon.
func (s *Server) Close() { s.close.Do(func() { close(s.done) }) }

// IsActive implements the external scaler. KEDA asks every polling interval and puts the workload to sleep, after its
// cool-down, when the answer is false.
func (s *Server) IsActive(ctx context.Context, ref *pb.ScaledObjectRef) (*pb.IsActiveResponse, error) {
	t, err := s.target(ref)
	if err != nil {
		return nil, err
	}
	quiet, err := quietOf(ref, t)
	if err != nil {
		return nil, err
	}
	active := s.options.Activity.Active(t, quiet)
	if active && !s.options.Activity.InSight(t) {
		active = s.hasReplicas(ctx, t)
	}
	return &pb.IsActiveResponse{Result: active}, nil
}

// hasReplicas asks the API server whether a workload of which no pod is in sight is to have one. KEDA wakes what is called
// active, so that an app that was scaled to zero by hand, or whose visitor has left, would come up again in vain; one
// whose pod waits for a node or a volume would be put to sleep before it has an address. It is rarely asked: for an app that
// was in use a moment ago. When it cannot be known the counts decide.
func (s *Server) hasReplicas(ctx context.Context, t *route.Target) bool {
	ctx, cancel := context.WithTimeout(ctx, replicasTimeout)
	defer cancel()
	replicas, err := s.options.Replicas(ctx, t.Key.Namespace, t.Workload())
	if err != nil {
		return true
	}
	if replicas == 0 {
		t.FellAsleep()
	}
	return replicas > 0
}

// StreamIsActive implements the external scaler. It stays open for a workload that is not known yet: the route may come
// later than the ScaledObject, and an error would have KEDA wait longer and longer.
func (s *Server) StreamIsActive(ref *pb.ScaledObjectRef, out pb.ExternalScaler_StreamIsActiveServer) error {
	key, err := keyOf(ref)
	if err != nil {
		return err
	}
	follower := s.options.Hub.Follow(key)
	defer follower.Close()
	tick := time.NewTicker(s.options.Repeat)
	defer tick.Stop()
	push := pusher{send: func(active bool) error { return out.Send(&pb.IsActiveResponse{Result: active}) }}
	for edge := true; ; {
		if t := s.options.Target(key); t != nil {
			quiet, err := quietOf(ref, t)
			if err != nil {
				return err
			}
			now := sight{
				active:  s.options.Activity.Active(t, quiet) && s.options.Activity.InSight(t),
				waiting: s.options.Activity.Waiting(t), hasPods: t.HasPods(), emptied: t.Emptied(),
			}
			if err := push.look(now, edge); err != nil {
				return err
			}
		}
		select {
		case <-follower.Now():
			edge = true
		case <-tick.C:
			edge = false
		case <-s.done:
			return nil
		case <-out.Context().Done():
			return nil
		}
	}
}

// sight is what a look at a workload has found.
type sight struct {
	active, waiting, hasPods bool
	emptied                  int64 // as Target.Emptied
}

// pusher decides what to send on a stream: the state at first and whenever it changes; `true` also when requests begin to
// wait, and ever more rarely while they wait and there is no pod. Each push costs KEDA a status patch, of which it makes 20 a
// second for all that it scales.
type pusher struct {
	send       func(active bool) error
	begun      bool
	last       sight
	ticks, gap int // since the last push of `true`, and until the next
}

// look is called for every tick, and with edge set when something is said to have happened.
func (p *pusher) look(now sight, edge bool) error {
	now.active = now.active || now.waiting
	push := !p.begun || now.active != p.last.active
	switch {
	case !now.waiting:
	case !p.last.waiting, now.emptied != p.last.emptied: // pods that came and went since the last look have ended the wake
		push, p.ticks, p.gap = true, 0, 1
	case edge:
	case now.hasPods:
		p.ticks, p.gap = 0, 1 // should they go again, it is a wake like a new one
	default:
		if p.ticks++; p.ticks >= p.gap {
			push, p.ticks, p.gap = true, 0, 2*p.gap
		}
	}
	p.begun, p.last = true, now
	if !push {
		return nil
	}
	return p.send(now.active)
}

// GetMetricSpec implements the external scaler.
func (s *Server) GetMetricSpec(_ context.Context, ref *pb.ScaledObjectRef) (*pb.GetMetricSpecResponse, error) {
	value := ref.GetScalerMetadata()[api.MetadataTargetPendingRequests]
	target, err := strconv.ParseInt(value, 10, 64)
	if err != nil || target < 1 {
		return nil, status.Errorf(codes.InvalidArgument, "ScaledObject %s/%s: trigger metadata %s is %q, want a positive integer",
			ref.GetNamespace(), ref.GetName(), api.MetadataTargetPendingRequests, value)
	}
	return &pb.GetMetricSpecResponse{MetricSpecs: []*pb.MetricSpec{{
		MetricName: api.MetricPendingRequests, TargetSize: target, TargetSizeFloat: float64(target),
	}}}, nil
}

// GetMetrics implements the external scaler.
func (s *Server) GetMetrics(_ context.Context, r *pb.GetMetricsRequest) (*pb.GetMetricsResponse, error) {
	if name := r.GetMetricName(); name != api.MetricPendingRequests && name != api.MetricUse {
		return nil, status.Errorf(codes.InvalidArgument, "metric %q is not known, only %q and %q", name, api.MetricPendingRequests, api.MetricUse)
	}
	t, err := s.target(r.GetScaledObjectRef())
	if err != nil {
		return nil, err
	}
	values := []*pb.MetricValue{metric(api.MetricPendingRequests, s.options.Activity.Pending(t))}
	if r.GetMetricName() == api.MetricUse {
		idle, counted := s.options.Activity.Idle(t)
		values = append(values, metric(api.MetricIdle, idle.Milliseconds()), metric(api.MetricCounted, counted.Milliseconds()))
	}
	return &pb.GetMetricsResponse{MetricValues: values}, nil
}

func metric(name string, value int64) *pb.MetricValue {
	return &pb.MetricValue{MetricName: name, MetricValue: value, MetricValueFloat: float64(value)}
}

// target finds what ref is about. The error for an unknown workload has KEDA leave it as it is: neither do we know that
// it is idle, nor is there anything to wake it for.
func (s *Server) target(ref *pb.ScaledObjectRef) (*route.Target, error) {
	key, err := keyOf(ref)
	if err != nil {
		return nil, err
	}
	t := s.options.Target(key)
	if t == nil {
		return nil, status.Errorf(codes.NotFound, "no route leads to workload %s (asked for by ScaledObject %s)", key, ref.GetName())
	}
	return t, nil
}

func keyOf(ref *pb.ScaledObjectRef) (route.Key, error) {
	key := route.Key{Namespace: ref.GetNamespace(), Workload: ref.GetScalerMetadata()[api.MetadataWorkload]}
	if key.Namespace == "" || key.Workload == "" {
		return key, status.Error(codes.InvalidArgument, fmt.Sprintf("ScaledObject %s/%s: trigger metadata %s is missing",
			ref.GetNamespace(), ref.GetName(), api.MetadataWorkload))
	}
	return key, nil
}

// quietOf is the idle time after which KEDA wants to hear that t is inactive.
func quietOf(ref *pb.ScaledObjectRef, t *route.Target) (time.Duration, error) {
	value, ok := ref.GetScalerMetadata()[api.MetadataInactiveAfter]
	if !ok {
		return t.Cooldown(), nil
	}
	quiet, err := time.ParseDuration(value)
	if err != nil || quiet <= 0 {
		return 0, status.Errorf(codes.InvalidArgument, "ScaledObject %s/%s: trigger metadata %s is %q, want a positive duration such as 4m30s",
			ref.GetNamespace(), ref.GetName(), api.MetadataInactiveAfter, value)
	}
	return quiet, nil
}
