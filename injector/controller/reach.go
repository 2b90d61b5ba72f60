// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/reach"
)

// reachTimeout bounds one question to one interceptor. An interceptor answers within 2 s, unless a Service has very many ports.
const reachTimeout = 10 * time.Second

// ownsTimeout bounds the question for an interceptor's ports, which it answers at once.
const ownsTimeout = 2 * time.Second

// Reach asks the interceptor at an IP address to connect to the ready pods of a Service. front is the Service that owns the route
// slices. The answer is nil if the interceptor's version does not support the question.
type Reach func(ctx context.Context, interceptor string, front types.NamespacedName) ([]injector.PortReach, error)

// askReach returns a Reach that asks over gRPC.
func askReach(dialer interceptorDialer, port string) Reach {
	return func(ctx context.Context, interceptor string, front types.NamespacedName) ([]injector.PortReach, error) {
		ctx, cancel := context.WithTimeout(ctx, reachTimeout)
		defer cancel()
		conn, err := dialer.connect(ctx, "passthrough:///"+net.JoinHostPort(interceptor, port),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: reachTimeout / 5}))
		if err != nil {
			return nil, fmt.Errorf("connecting to interceptor %s: %w", interceptor, err)
		}
		defer conn.Close()
		answer, err := pb.NewReachClient(conn).Pods(ctx, &pb.PodsRequest{Namespace: front.Namespace, Service: front.Name})
		switch status.Code(err) {
		case codes.OK:
		case codes.Unimplemented:
			return nil, nil
		case codes.NotFound, codes.ResourceExhausted:
			return []injector.PortReach{}, nil
		default:
			return nil, fmt.Errorf("asking interceptor %s: %w", interceptor, err)
		}
		found := make([]injector.PortReach, 0, len(answer.GetPorts()))
		for _, p := range answer.GetPorts() {
			_, number, _ := net.SplitHostPort(p.GetAddress())
			found = append(found, injector.PortReach{
				Name: p.GetName(), Ready: int(p.GetReady()), Port: number, Error: p.GetError(),
				Reached: p.GetResult() == pb.Result_RESULT_REACHED, Refused: p.GetResult() == pb.Result_RESULT_REFUSED,
			})
		}
		return found, nil
	}
}

// Owns asks the interceptor at an IP address which of the routes have their ports there, and returns them by the names of their ports.
// front is the Service that owns the route slices. The answer is nil if the interceptor is busy.
type Owns func(ctx context.Context, interceptor string, front types.NamespacedName, routes api.Routes) (map[string]bool, error)

// askOwns returns an Owns that asks over gRPC.
func askOwns(dialer interceptorDialer, port string) Owns {
	return func(ctx context.Context, interceptor string, front types.NamespacedName, routes api.Routes) (map[string]bool, error) {
		ctx, cancel := context.WithTimeout(ctx, ownsTimeout)
		defer cancel()
		conn, err := dialer.connect(ctx, "passthrough:///"+net.JoinHostPort(interceptor, port),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: ownsTimeout}))
		if err != nil {
			return nil, fmt.Errorf("connecting to interceptor %s: %w", interceptor, err)
		}
		defer conn.Close()
		answer, err := pb.NewReachClient(conn).Routes(ctx, &pb.RoutesRequest{Namespace: front.Namespace, Service: front.Name})
		switch status.Code(err) {
		case codes.OK:
		case codes.NotFound: // it has not seen the route slices yet
			return map[string]bool{}, nil
		case codes.ResourceExhausted:
			return nil, nil //nolint:nilnil // it is busy
		default:
			return nil, fmt.Errorf("asking interceptor %s: %w", interceptor, err)
		}
		owned := map[string]bool{}
		for _, p := range routes.Ports {
			owned[p.Name] = answer.GetServiceUid() == routes.ServiceUID && slices.ContainsFunc(answer.GetRoutes(), func(r *pb.Route) bool {
				return r.GetPort() == p.Name && r.GetListen() == p.Listen
			})
		}
		return owned, nil
	}
}
