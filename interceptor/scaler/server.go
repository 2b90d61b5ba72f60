// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
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
	// Target returns a target, or nil if it does not exist.
	Target   func(route.Key) *route.Target
	Activity *Activity
	// Replicas returns a workload's desired replica count, as in WorkloadScaler.
	Replicas func(ctx context.Context, namespace string, w api.Workload) (int32, error)
	// Work knows which workloads work although they have no requests. Nil knows none.
	Work Work
	// Hub has KEDA's streams. Each stream follows its workload. Default a new Hub.
	Hub *counts.Hub
	// Repeat is after what time `true` is pushed again while requests wait and there is no pod. KEDA drops a push for a ScaledObject
	// that it has not prepared yet. The pause then doubles each time. Default 1 s.
	Repeat time.Duration
}

// Server is the external scaler that KEDA calls.
type Server struct {
	pb.UnimplementedExternalScalerServer // StreamMetricSpec stays unimplemented, because targets change by the trigger's metadata

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

// Close ends all streams in a way that makes KEDA soon open new ones.
func (s *Server) Close() { s.close.Do(func() { close(s.done) }) }

// IsActive implements the external scaler. KEDA calls it every polling interval. When the answer is false, KEDA puts the workload to
// sleep after its cool-down.
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
	switch {
	case t.KeptAsleep() && !active: // not even its work keeps it up
	case !active:
		active = s.works(ctx, t) && s.hasReplicas(ctx, t)
	case !s.options.Activity.InSight(t):
		active = s.hasReplicas(ctx, t)
	}
	return &pb.IsActiveResponse{Result: active}, nil
}

// hasReplicas asks the API server whether a workload without a pod in sight should have one. KEDA wakes every workload that is called
// active. So an app that was scaled to zero by hand, or whose visitor has left, would wake in vain. On the other hand, an app whose
// pod still waits for a node or a volume, and has no address yet, must not be put to sleep. The API server is rarely asked: only for
// an app that was in use a moment ago. If it does not answer, the counts decide.
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

// StreamIsActive implements the external scaler. It stays open for an unknown workload: the route may come later than the
// ScaledObject, and after an error KEDA would wait longer and longer.
func (s *Server) StreamIsActive(ref *pb.ScaledObjectRef, out pb.ExternalScaler_StreamIsActiveServer) error {
	key, err := keyOf(ref)
	if err != nil {
		return err
	}
	ref = forQuiet(ref) // a stream lasts, and must not keep whatever else a caller has sent
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
				active:  s.options.Activity.Active(t, quiet) && s.options.Activity.InSight(t) || s.worked(out.Context(), t, push.last.active),
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

// works reports whether t, or a workload whose use keeps it up, is busy although it has no requests. It may ask the apps.
func (s *Server) works(ctx context.Context, t *route.Target) bool {
	if s.options.Work == nil || !t.HasPods() {
		return false
	}
	idle, _ := s.options.Activity.Idle(t)
	all := append(s.options.Activity.leaders(t), t)
	busy := make(chan bool, len(all))
	for _, one := range all {
		go func() { busy <- s.options.Work.Busy(ctx, one, idle) }()
	}
	for range all {
		if <-busy {
			return true
		}
	}
	return false
}

// worked is works for a stream, which must not ask: it looks too often. The first word of a stream must not wake a workload that somebody
// has scaled to zero a moment ago, so the API server has to agree.
func (s *Server) worked(ctx context.Context, t *route.Target, told bool) bool {
	return s.options.Work != nil && t.HasPods() && slices.ContainsFunc(append(s.options.Activity.leaders(t), t), s.options.Work.Last) &&
		(told || s.hasReplicas(ctx, t))
}

// sight is the result of a look at a workload.
type sight struct {
	active, waiting, hasPods bool
	emptied                  int64 // from Target.Emptied
}

// pusher decides what to send on a stream: the first state and each change. It also sends `true` when requests begin to wait, and
// then ever more rarely while they wait and there is no pod. Each push costs KEDA a status patch, and KEDA makes only 20 a second for
// everything that it scales.
type pusher struct {
	send       func(active bool) error
	begun      bool
	last       sight
	ticks, gap int // since the last push of `true`, and until the next
}

// look is called for every tick. edge is set if something has happened in between.
func (p *pusher) look(now sight, edge bool) error {
	now.active = now.active || now.waiting
	push := !p.begun || now.active != p.last.active
	switch {
	case !now.waiting:
	case !p.last.waiting, now.emptied != p.last.emptied: // pods that came and went since the last look have ended the wake
		push, p.ticks, p.gap = true, 0, 1
	case edge:
	case now.hasPods:
		p.ticks, p.gap = 0, 1 // if the pods go again, that is a new wake
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
	specs := []*pb.MetricSpec{{MetricName: api.MetricPendingRequests, TargetSize: target, TargetSizeFloat: float64(target)}}
	if value, ok := ref.GetScalerMetadata()[api.MetadataTargetRequestRate]; ok {
		rate, err := strconv.ParseFloat(value, 64)
		if err != nil || !(rate >= api.MinRequestRate && rate <= api.MaxRequestRate) {
			return nil, status.Errorf(codes.InvalidArgument, "ScaledObject %s/%s: trigger metadata %s is %q, want a number from %g to %d",
				ref.GetNamespace(), ref.GetName(), api.MetadataTargetRequestRate, value, api.MinRequestRate, api.MaxRequestRate)
		}
		specs = append(specs, &pb.MetricSpec{MetricName: api.MetricRequestRate, TargetSize: int64(math.Ceil(rate)), TargetSizeFloat: rate})
	}
	return &pb.GetMetricSpecResponse{MetricSpecs: specs}, nil
}

// GetMetrics implements the external scaler. KEDA adds up what it gets, so an answer to KEDA has only the metric that was asked for.
func (s *Server) GetMetrics(_ context.Context, r *pb.GetMetricsRequest) (*pb.GetMetricsResponse, error) {
	name := r.GetMetricName()
	if name != api.MetricPendingRequests && name != api.MetricRequestRate && name != api.MetricUse {
		return nil, status.Errorf(codes.InvalidArgument, "metric %q is not known, only %q, %q and %q", name,
			api.MetricPendingRequests, api.MetricRequestRate, api.MetricUse)
	}
	t, err := s.target(r.GetScaledObjectRef())
	if err != nil {
		return nil, err
	}
	var values []*pb.MetricValue
	if name != api.MetricRequestRate {
		values = append(values, metric(api.MetricPendingRequests, s.options.Activity.Pending(t)))
	}
	if name != api.MetricPendingRequests {
		rate := s.options.Activity.Rate(t)
		values = append(values, &pb.MetricValue{MetricName: api.MetricRequestRate, MetricValue: int64(rate), MetricValueFloat: rate})
	}
	if name == api.MetricUse {
		idle, counted := s.options.Activity.Idle(t)
		values = append(values, metric(api.MetricIdle, idle.Milliseconds()), metric(api.MetricCounted, counted.Milliseconds()))
	}
	return &pb.GetMetricsResponse{MetricValues: values}, nil
}

func metric(name string, value int64) *pb.MetricValue {
	return &pb.MetricValue{MetricName: name, MetricValue: value, MetricValueFloat: float64(value)}
}

// target returns the target for ref. For an unknown workload it returns an error, which makes KEDA leave the workload as it is: we
// neither know that it is idle, nor have a reason to wake it.
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

// maxName is the length of the longest names in Kubernetes, and maxWorkload that of a kind, a slash and a name.
const (
	maxName     = 253
	maxWorkload = 512
)

func keyOf(ref *pb.ScaledObjectRef) (route.Key, error) {
	key := route.Key{Namespace: ref.GetNamespace(), Workload: ref.GetScalerMetadata()[api.MetadataWorkload]}
	if len(key.Namespace) > maxName || len(key.Workload) > maxWorkload || len(ref.GetName()) > maxName {
		return route.Key{}, status.Error(codes.InvalidArgument, "a name of the ScaledObject or its workload is too long")
	}
	if key.Namespace == "" || key.Workload == "" {
		return key, status.Error(codes.InvalidArgument, fmt.Sprintf("ScaledObject %s/%s: trigger metadata %s is missing",
			ref.GetNamespace(), ref.GetName(), api.MetadataWorkload))
	}
	return key, nil
}

// forQuiet returns what quietOf needs of ref.
func forQuiet(ref *pb.ScaledObjectRef) *pb.ScaledObjectRef {
	out := &pb.ScaledObjectRef{Namespace: ref.GetNamespace(), Name: ref.GetName()}
	if value, ok := ref.GetScalerMetadata()[api.MetadataInactiveAfter]; ok {
		out.ScalerMetadata = map[string]string{api.MetadataInactiveAfter: value[:min(len(value), maxName)]}
	}
	return out
}

// quietOf returns the idle time after which KEDA wants to learn that t is inactive.
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
