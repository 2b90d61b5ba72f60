// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"

	"github.com/scale-to-zero/scale-to-zero/injector"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/reach"
)

// fakeReach answers what the test sets.
type fakeReach struct {
	pb.UnimplementedReachServer
	answer *pb.PodsResponse
	err    error
}

func (f fakeReach) Pods(_ context.Context, r *pb.PodsRequest) (*pb.PodsResponse, error) {
	if r.GetNamespace() != "shop" || r.GetService() != "web" {
		return nil, status.Error(codes.InvalidArgument, r.String())
	}
	return f.answer, f.err
}

// interceptorWith returns the port of a gRPC server on 127.0.0.1.
func interceptorWith(t *testing.T, register func(*grpc.Server)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	register(s)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func TestAskReach(t *testing.T) {
	answer := &pb.PodsResponse{Ports: []*pb.Port{
		{Name: "http", Ready: 2, Result: pb.Result_RESULT_REACHED},
		{Name: "grpc", Ready: 1, Result: pb.Result_RESULT_REFUSED, Address: "[fd00::7]:9000", Error: "connection refused"},
		{Name: "admin", Ready: 1, Result: pb.Result_RESULT_FAILED, Address: "10.1.0.7:9090", Error: "i/o timeout"},
		{Name: "none"},
	}}
	want := []injector.PortReach{
		{Name: "http", Ready: 2, Reached: true},
		{Name: "grpc", Ready: 1, Refused: true, Port: "9000", Error: "connection refused"},
		{Name: "admin", Ready: 1, Port: "9090", Error: "i/o timeout"},
		{Name: "none"},
	}
	nobody := interceptorWith(t, func(s *grpc.Server) { s.Stop() })
	for name, tc := range map[string]struct {
		register func(*grpc.Server)
		want     []injector.PortReach
		fails    bool
	}{
		"an answer":     {func(s *grpc.Server) { pb.RegisterReachServer(s, fakeReach{answer: answer}) }, want, false},
		"one of before": {func(*grpc.Server) {}, nil, false},
		"it knows no route": {
			func(s *grpc.Server) { pb.RegisterReachServer(s, fakeReach{err: status.Error(codes.NotFound, "x")}) },
			[]injector.PortReach{},
			false,
		},
		"it is busy": {func(s *grpc.Server) {
			pb.RegisterReachServer(s, fakeReach{err: status.Error(codes.ResourceExhausted, "x")})
		}, []injector.PortReach{}, false},
		"it is at its end": {
			func(s *grpc.Server) { pb.RegisterReachServer(s, fakeReach{err: status.Error(codes.Unavailable, "x")}) }, nil,
			true,
		},
		"it does not answer": {nil, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			port := nobody
			if tc.register != nil {
				port = interceptorWith(t, tc.register)
			}
			got, err := askReach(interceptorDialer{}, port)(t.Context(), "127.0.0.1", types.NamespacedName{Namespace: "shop", Name: "web"})
			if diff := cmp.Diff(tc.want, got); diff != "" || (err != nil) != tc.fails {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}
