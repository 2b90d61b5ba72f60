// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// caseVariable has this program run one interop case, which ends the process if it fails.
const caseVariable, addrVariable = "INTEROP_CASE", "INTEROP_ADDRESS"

// interopCases are those of grpc-go that need neither credentials nor a load balancer.
func interopCases() map[string]func(context.Context, *grpc.ClientConn) {
	call := func(do func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)) func(context.Context, *grpc.ClientConn) {
		return func(ctx context.Context, conn *grpc.ClientConn) { do(ctx, testgrpc.NewTestServiceClient(conn)) }
	}
	return map[string]func(context.Context, *grpc.ClientConn){
		"empty_unary":                 call(interop.DoEmptyUnaryCall),
		"large_unary":                 call(interop.DoLargeUnaryCall),
		"client_streaming":            call(interop.DoClientStreaming),
		"server_streaming":            call(interop.DoServerStreaming),
		"ping_pong":                   call(interop.DoPingPong),
		"empty_stream":                call(interop.DoEmptyStream),
		"timeout_on_sleeping_server":  call(interop.DoTimeoutOnSleepingServer),
		"cancel_after_begin":          call(interop.DoCancelAfterBegin),
		"cancel_after_first_response": call(interop.DoCancelAfterFirstResponse),
		"custom_metadata":             call(interop.DoCustomMetadata),
		"status_code_and_message":     call(interop.DoStatusCodeAndMessage),
		"special_status_message":      call(interop.DoSpecialStatusMessage),
		"unimplemented_method":        interop.DoUnimplementedMethod,
		"unimplemented_service": func(ctx context.Context, conn *grpc.ClientConn) {
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
		},
	}
}

// interopCase runs one case against the server at addr.
func interopCase(name, addr string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer conn.Close()
	interopCases()[name](ctx, conn)
}

// The interop cases of grpc-go pass through an interceptor.
func TestInterop(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(s, interop.NewTestServer())
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	p, err := startProxy()
	if err != nil {
		t.Fatal(err)
	}
	port, err := p.before(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cases := interopCases()
	for name := range cases {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), caseVariable+"="+name, fmt.Sprintf("%s=127.0.0.1:%d", addrVariable, port))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	requests, err := p.close()
	if err != nil {
		t.Error(err)
	}
	if requests < len(cases) {
		t.Errorf("only %d requests went through the interceptor", requests)
	}
}
