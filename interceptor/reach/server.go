// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package reach reports to the injector whether this interceptor can connect to an app's pods, before the app is injected: a
// NetworkPolicy or a service mesh may allow the present callers and not us. It also reports which of this interceptor's ports belong to
// the app.
package reach

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/reach"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// Anybody in the cluster can call. These bounds limit what a call makes us do, and we connect only to pods that requests may reach
// too.
const (
	maxCalls = 8  // at a time
	maxPods  = 3  // that are tried for each port
	maxDials = 32 // at a time, in one call
)

// Options configure a Server.
type Options struct {
	// Service returns what is known about a Service.
	Service func(namespace, name string) (route.Service, bool)
	// Owned returns the ports that a Service's routes have.
	Owned func(namespace, name string) (route.Owned, bool)
	// DialTimeout is how long a pod may take to accept a connection. Default 1 s, as for requests.
	DialTimeout time.Duration
	// ResetTimeout is how long something in between may take to reset a connection that it has accepted instead of the pod. Default 250
	// ms.
	ResetTimeout time.Duration
}

// Server answers the injector.
type Server struct {
	pb.UnimplementedReachServer

	options Options
	calls   chan struct{} // holds one element for each running call
}

// NewServer returns a Server.
func NewServer(o Options) *Server {
	o.DialTimeout = cmp.Or(o.DialTimeout, time.Second)
	o.ResetTimeout = cmp.Or(o.ResetTimeout, 250*time.Millisecond)
	return &Server{options: o, calls: make(chan struct{}, maxCalls)}
}

// Pods implements the gRPC service.
func (s *Server) Pods(ctx context.Context, r *pb.PodsRequest) (*pb.PodsResponse, error) {
	select {
	case s.calls <- struct{}{}:
		defer func() { <-s.calls }()
	default:
		return nil, status.Error(codes.ResourceExhausted, "too many calls at a time")
	}
	service, known := s.options.Service(r.GetNamespace(), r.GetService())
	if !known {
		return nil, status.Errorf(codes.NotFound, "no route of service %s/%s is known", r.GetNamespace(), r.GetService())
	}
	out := &pb.PodsResponse{}
	var dials errgroup.Group
	dials.SetLimit(maxDials)
	tries := make([][]try, len(service.Routes.Ports))
	for i, p := range service.Routes.Ports {
		pods := slices.Clone(service.Endpoints[p.Name])
		out.Ports = append(out.Ports, &pb.Port{Name: p.Name, Ready: int32(len(pods))})  //nolint:gosec // no Service has so many
		rand.Shuffle(len(pods), func(a, b int) { pods[a], pods[b] = pods[b], pods[a] }) //nolint:gosec // it is no secret
		tries[i] = make([]try, min(len(pods), maxPods))
		for n := range tries[i] {
			dials.Go(func() error {
				tries[i][n] = try{pods[n], s.connect(ctx, pods[n], p.Protocol)}
				return nil
			})
		}
	}
	_ = dials.Wait() // no function returns an error
	for i, p := range out.GetPorts() {
		judge(p, tries[i])
	}
	return out, nil
}

// Routes implements the gRPC service.
func (s *Server) Routes(_ context.Context, r *pb.RoutesRequest) (*pb.RoutesResponse, error) {
	owned, known := s.options.Owned(r.GetNamespace(), r.GetService())
	if !known {
		return nil, status.Errorf(codes.NotFound, "no route of service %s/%s is known", r.GetNamespace(), r.GetService())
	}
	out := &pb.RoutesResponse{ServiceUid: owned.ServiceUID}
	for _, p := range owned.Ports {
		out.Routes = append(out.Routes, &pb.Route{Port: p.Name, Listen: p.Listen})
	}
	return out, nil
}

// try is the result of one connection.
type try struct {
	addr string
	err  error
}

// judge writes the combined result of the tries on one port into p. One reached pod is enough, because requests go on to another pod
// too. Among failures, one that is not a refusal tells more.
func judge(p *pb.Port, tries []try) {
	for _, t := range tries {
		if t.err == nil {
			p.Result, p.Address, p.Error = pb.Result_RESULT_REACHED, "", ""
			return
		}
		result := pb.Result_RESULT_FAILED
		if errors.Is(t.err, syscall.ECONNREFUSED) {
			result = pb.Result_RESULT_REFUSED
		}
		if result > p.GetResult() {
			p.Result, p.Address, p.Error = result, t.addr, route.DialReason(t.err)
		}
	}
}

// connect opens a connection to a pod and closes it.
//
// The proxy of a service mesh accepts a connection instead of the pod, and resets it when it reads something that is not its mTLS. So
// if the protocol may be HTTP, connect sends an empty line, which HTTP servers ignore or answer with an error (RFC 9112, 2.2). A
// reset within a moment is an error. Any other server may close the connection after that line, but has no reason to reset it.
func (s *Server) connect(ctx context.Context, addr, protocol string) error {
	dialer := net.Dialer{Timeout: s.options.DialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if protocol == api.ProtocolTCP {
		return nil // the server may speak first, or take the line for a command
	}
	if err := conn.SetDeadline(time.Now().Add(s.options.ResetTimeout)); err != nil {
		return err
	}
	_, err = conn.Write([]byte("\r\n"))
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return syscall.ECONNRESET
	}
	return nil // an answer, an end, or silence
}
