// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// unaryEcho answers with its message, fails with the requested code, or waits for ever.
func unaryEcho(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs("head-bin", "\x00\xff", "asked", strings.Join(md.Get("ask"), "|")))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("trail", "1", "trail", "2", "trail-bin", "\x00\xfe"))
	switch in.GetValue() {
	case "fail":
		return nil, status.Error(codes.FailedPrecondition, "not like this: ä%\n")
	case "wait":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return in, nil
}

func bidiEcho(s grpc.ServerStream) error {
	for {
		in := new(wrapperspb.StringValue)
		if err := s.RecvMsg(in); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := s.SendMsg(in); err != nil {
			return err
		}
	}
}

// serverEcho sends its message ten times, and then fails.
func serverEcho(s grpc.ServerStream) error {
	in := new(wrapperspb.StringValue)
	if err := s.RecvMsg(in); err != nil {
		return err
	}
	for range 10 {
		if err := s.SendMsg(in); err != nil {
			return err
		}
	}
	return status.Error(codes.ResourceExhausted, "ten are enough")
}

// clientEcho answers with all its messages.
func clientEcho(s grpc.ServerStream) error {
	var all string
	for {
		in := new(wrapperspb.StringValue)
		if err := s.RecvMsg(in); errors.Is(err, io.EOF) {
			return s.SendMsg(wrapperspb.String(all))
		} else if err != nil {
			return err
		}
		all += in.GetValue()
	}
}

// This tests all kinds of gRPC calls, each with its metadata and status, with an app that is awake or has to be woken first.
func TestGRPC(t *testing.T) {
	for name, tc := range map[string]func(context.Context, *testing.T, *grpc.ClientConn){
		"unary": grpcUnary, "failure": grpcFailure, "server streams": grpcServerStreams, "client streams": grpcClientStreams,
		"both stream": grpcBothStream, "deadline": grpcDeadline, "large messages": grpcLargeMessages,
	} {
		for state, cold := range map[string]bool{"warm": false, "cold": true} {
			t.Run(name+"/"+state, func(t *testing.T) {
				t.Parallel()
				addr := grpcPod(t, openGate())
				addrs := []string{addr}
				if cold {
					addrs = nil
				}
				n, listen := serving(t, api.ProtocolAuto, addrs...)
				ctx, cancel := context.WithTimeout(t.Context(), within)
				defer cancel()
				if cold {
					woken := make(chan struct{})
					defer func() { <-woken }()
					go func() {
						defer close(woken)
						for len(n.events()) == 0 && ctx.Err() == nil {
							<-time.After(time.Millisecond)
						}
						n.set(unpublished(service(listen, api.ProtocolAuto, addr)))
					}()
				}
				tc(ctx, t, grpcConn(t, listen))
				n.idle()
			})
		}
	}
}

func grpcUnary(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	ctx = metadata.AppendToOutgoingContext(ctx, "ask", "1", "ask", "2")
	var head, trail metadata.MD
	out := new(wrapperspb.StringValue)
	err := conn.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("hello"), out, grpc.Header(&head), grpc.Trailer(&trail))
	if err != nil || out.GetValue() != "hello" {
		t.Fatalf("got %q, %v", out.GetValue(), err)
	}
	got := fmt.Sprintf("%q %q %q %q", head.Get("head-bin"), head.Get("asked"), trail.Get("trail"), trail.Get("trail-bin"))
	if want := `["\x00\xff"] ["1|2"] ["1" "2"] ["\x00\xfe"]`; got != want {
		t.Errorf("got metadata %s, want %s", got, want)
	}
}

func grpcFailure(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	var trail metadata.MD
	err := conn.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("fail"), new(wrapperspb.StringValue), grpc.Trailer(&trail))
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "not like this: ä%\n" ||
		len(trail.Get("trail")) != 2 {
		t.Errorf("got %v, trailers %v", err, trail)
	}
	err = conn.Invoke(ctx, "/test.Echo/Nothing", wrapperspb.String("hello"), new(wrapperspb.StringValue))
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("an unknown method: %v", err)
	}
}

func grpcServerStreams(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.Echo/Server")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SendMsg(wrapperspb.String("hello")), s.CloseSend()); err != nil {
		t.Fatal(err)
	}
	count := 0
	for ; err == nil; count++ {
		err = s.RecvMsg(new(wrapperspb.StringValue))
	}
	if st := status.Convert(err); count != 11 || st.Code() != codes.ResourceExhausted || st.Message() != "ten are enough" {
		t.Errorf("%d messages, then %v", count-1, err)
	}
}

func grpcClientStreams(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/test.Echo/Client")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := s.SendMsg(wrapperspb.String(fmt.Sprint(i % 10))); err != nil {
			t.Fatal(err)
		}
	}
	out := new(wrapperspb.StringValue)
	if err := errors.Join(s.CloseSend(), s.RecvMsg(out)); err != nil || out.GetValue() != strings.Repeat("0123456789", 10) {
		t.Errorf("got %q, %v", out.GetValue(), err)
	}
}

func grpcBothStream(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Echo/Bidi")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		out := new(wrapperspb.StringValue)
		if err := errors.Join(s.SendMsg(wrapperspb.String(fmt.Sprint(i))), s.RecvMsg(out)); err != nil || out.GetValue() != fmt.Sprint(i) {
			t.Fatalf("got %q, %v", out.GetValue(), err)
		}
	}
	if err := errors.Join(s.CloseSend(), s.RecvMsg(new(wrapperspb.StringValue))); !errors.Is(err, io.EOF) {
		t.Errorf("got %v at the end", err)
	}
}

// The client's deadline ends the call at the app, too. The count of pending calls shows that.
func grpcDeadline(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	if err := conn.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("warm up"), new(wrapperspb.StringValue)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	err := conn.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("wait"), new(wrapperspb.StringValue))
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
}

func grpcLargeMessages(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	large := strings.Repeat("0123456789abcdef", 3<<20/16)
	out := new(wrapperspb.StringValue)
	if err := conn.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String(large), out); err != nil || out.GetValue() != large {
		t.Errorf("got %d bytes, %v", len(out.GetValue()), err)
	}
}

// The app learns that a client has given up a call, or has no more time for it.
func TestGRPCEndsAtTheApp(t *testing.T) {
	for name, tc := range map[string]struct {
		timeout time.Duration
		want    codes.Code
	}{
		"cancelled": {within, codes.Canceled},
		"deadline":  {300 * time.Millisecond, codes.DeadlineExceeded},
	} {
		for _, method := range []string{"Unary", "Server", "Client", "Bidi"} {
			t.Run(name+"/"+method, func(t *testing.T) {
				t.Parallel()
				g := newGate()
				n, listen := serving(t, api.ProtocolAuto, grpcPod(t, g))
				conn := grpcConn(t, listen)
				ctx, cancel := context.WithTimeout(t.Context(), tc.timeout)
				defer cancel()
				done := make(chan error, 1)
				go func() {
					desc := &grpc.StreamDesc{ServerStreams: method != "Client" && method != "Unary", ClientStreams: method == "Client" || method == "Bidi"}
					s, err := conn.NewStream(ctx, desc, "/test.Echo/"+method)
					if err == nil {
						err = errors.Join(s.SendMsg(wrapperspb.String("hello")), s.RecvMsg(new(wrapperspb.StringValue)))
					}
					done <- err
				}()
				<-g.arrived
				if tc.want == codes.Canceled {
					cancel()
				}
				if err := <-done; status.Code(err) != tc.want && !strings.Contains(err.Error(), tc.want.String()) {
					t.Errorf("got %v, want %v", err, tc.want)
				}
				eventually(t, "ended at the app", func() bool { return g.gone.Load() == 1 })
				n.idle()
			})
		}
	}
}

// Two thousand calls at once, over one connection, wait for the app.
func TestGRPCManyStreams(t *testing.T) {
	const calls = 2000
	g := newGate()
	addr := grpcPod(t, g)
	n, listen := serving(t, api.ProtocolAuto)
	ctx, cancel := context.WithTimeout(t.Context(), 2*within)
	defer cancel()
	conn := grpcConn(t, listen)
	var all sync.WaitGroup
	for i := range calls {
		all.Go(func() {
			s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Echo/Bidi")
			if err != nil {
				t.Error(err)
				return
			}
			out := new(wrapperspb.StringValue)
			err = errors.Join(s.SendMsg(wrapperspb.String(fmt.Sprint(i))), s.RecvMsg(out), s.CloseSend())
			if err != nil || out.GetValue() != fmt.Sprint(i) {
				t.Errorf("got %q, %v", out.GetValue(), err)
			}
			if err := s.RecvMsg(out); !errors.Is(err, io.EOF) {
				t.Errorf("got %v at the end", err)
			}
		})
	}
	n.holds(calls)
	n.set(unpublished(service(listen, api.ProtocolAuto, addr)))
	g.release()
	all.Wait()
	n.idle()
}

// An app that fails a call at once does so with one HEADERS frame that also ends the stream. If it arrives in any other form, the
// client takes the status for a header and reports an internal error. The test repeats this, because it is a race whether headers are
// flushed before the end is seen.
func TestGRPCTrailersOnly(t *testing.T) {
	n, listen := serving(t, api.ProtocolAuto, grpcPod(t, openGate()))
	conn := grpcConn(t, listen)
	failed := map[string]int{}
	for range 1000 {
		err := conn.Invoke(t.Context(), "/test.Echo/Nothing", wrapperspb.String("hello"), new(wrapperspb.StringValue))
		if status.Code(err) != codes.Unimplemented {
			failed[fmt.Sprint(err)]++
		}
	}
	if len(failed) > 0 {
		t.Errorf("of 1000 calls: %v", failed)
	}
	n.idle()
}

// An app that gives up a call after its deadline resets the stream. A client whose clock is a little late must not think that the app
// was unreachable, because it would try again.
func TestGRPCAppGivesUp(t *testing.T) {
	g := newGate()
	n, listen := serving(t, api.ProtocolAuto, grpcPod(t, g))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url(listen, "/test.Echo/Unary"),
		strings.NewReader("\x00\x00\x00\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Grpc-Timeout": {"100m"}}
	resp, err := (&http.Client{Transport: h2cTransport(t), Timeout: within}).Do(req)
	if err == nil { // otherwise the reset was passed on
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		code := resp.Header.Get("Grpc-Status") + resp.Trailer.Get("Grpc-Status")
		if resp.StatusCode != 200 || code != "4" && code != "1" { // deadline exceeded, or cancelled
			t.Errorf("got %d with grpc-status %q", resp.StatusCode, code)
		}
	}
	n.idle()
}
