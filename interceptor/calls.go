// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/scale-to-zero/scale-to-zero/interceptor/budget"
)

const (
	// callWindow and callersWindow are how much of unfinished messages may wait, for each call and each connection.
	callWindow, callersWindow = 64 << 10, 256 << 10
	// callCost is the memory of a call without its metadata.
	callCost = 12 << 10
)

// boundCalls returns the options by which all calls together draw from memory. The guard bounds what each caller may use.
func boundCalls(memory *budget.Account) []grpc.ServerOption {
	full := status.Error(codes.ResourceExhausted, "too many calls at a time for this interceptor's memory")
	return []grpc.ServerOption{
		grpc.InitialWindowSize(callWindow), grpc.InitialConnWindowSize(callersWindow), // without them, windows grow by themselves
		grpc.ReadBufferSize(4 << 10), grpc.WriteBufferSize(4 << 10),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, in any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			cost := costOf(ctx)
			if !memory.Take(cost) {
				return nil, full
			}
			defer memory.Give(cost)
			return handle(ctx, in)
		}),
		grpc.ChainStreamInterceptor(func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			cost := costOf(stream.Context())
			if !memory.Take(cost) {
				return full
			}
			defer memory.Give(cost)
			return handle(server, stream)
		}),
	}
}

// costOf returns the memory of a call.
func costOf(ctx context.Context) int64 {
	n := int64(callCost)
	fields, _ := metadata.FromIncomingContext(ctx)
	for name, values := range fields {
		for _, value := range values {
			n += int64(len(name) + len(value))
		}
	}
	return n
}
