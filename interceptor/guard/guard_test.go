// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls/mtlstest"
	peerapi "github.com/scale-to-zero/scale-to-zero/interceptor/api/peer"
	reachapi "github.com/scale-to-zero/scale-to-zero/interceptor/api/reach"
)

// services answer everything that the guard lets through. A stream says one thing and stays open.
type services struct {
	externalscaler.UnimplementedExternalScalerServer
	peerapi.UnimplementedPeerServer
	reachapi.UnimplementedReachServer
}

func (services) IsActive(context.Context, *externalscaler.ScaledObjectRef) (*externalscaler.IsActiveResponse, error) {
	return &externalscaler.IsActiveResponse{}, nil
}

func (services) GetMetrics(context.Context, *externalscaler.GetMetricsRequest) (*externalscaler.GetMetricsResponse, error) {
	return &externalscaler.GetMetricsResponse{}, nil
}

func (services) StreamIsActive(_ *externalscaler.ScaledObjectRef, s externalscaler.ExternalScaler_StreamIsActiveServer) error {
	if err := s.Send(&externalscaler.IsActiveResponse{}); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

func (services) Watch(_ *peerapi.WatchRequest, s peerapi.Peer_WatchServer) error {
	if err := s.Send(&peerapi.Counts{}); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

func (services) Pods(context.Context, *reachapi.PodsRequest) (*reachapi.PodsResponse, error) {
	return &reachapi.PodsResponse{}, nil
}

// serve runs a guarded server until the test ends, and returns its address.
func serve(t *testing.T, o Options) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(New(o).ServerOptions()...)
	externalscaler.RegisterExternalScalerServer(server, services{})
	peerapi.RegisterPeerServer(server, services{})
	reachapi.RegisterReachServer(server, services{})
	done := make(chan error, 1)
	go func() { done <- server.Serve(Listen(l)) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return l.Addr().String()
}

func dial(t *testing.T, address string, c credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func ref(namespace, workload string) *externalscaler.ScaledObjectRef {
	metadata := map[string]string{api.MetadataWorkload: workload}
	return &externalscaler.ScaledObjectRef{Namespace: namespace, Name: "web", ScalerMetadata: metadata}
}

// calls has one call of each method; a stream is called when it has said something.
func calls() map[string]func(context.Context, *grpc.ClientConn) error {
	return map[string]func(context.Context, *grpc.ClientConn) error{
		"IsActive": func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := externalscaler.NewExternalScalerClient(c).IsActive(ctx, ref("shop", "Deployment/web"))
			return err
		},
		"GetMetrics": func(ctx context.Context, c *grpc.ClientConn) error {
			request := &externalscaler.GetMetricsRequest{ScaledObjectRef: ref("shop", "Deployment/web")}
			_, err := externalscaler.NewExternalScalerClient(c).GetMetrics(ctx, request)
			return err
		},
		"StreamIsActive": func(ctx context.Context, c *grpc.ClientConn) error {
			stream, err := externalscaler.NewExternalScalerClient(c).StreamIsActive(ctx, ref("shop", "Deployment/web"))
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
		"Watch": func(ctx context.Context, c *grpc.ClientConn) error {
			stream, err := peerapi.NewPeerClient(c).Watch(ctx, &peerapi.WatchRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
		"Pods": func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := reachapi.NewReachClient(c).Pods(ctx, &reachapi.PodsRequest{})
			return err
		},
	}
}

// TestWhoMayCallWhat has every identity call every method.
func TestWhoMayCallWhat(t *testing.T) {
	ours, foreign := mtlstest.NewAuthority(t), mtlstest.NewAuthority(t)
	nobody := mtls.New(nil)
	if err := nobody.Set(ours.Issue(mtlstest.Leaf{Names: []string{"web.shop.svc"}})); err != nil {
		t.Fatal(err)
	}
	all := "GetMetrics IsActive Pods StreamIsActive Watch"
	callers := map[string]struct {
		with credentials.TransportCredentials
		may  string
		code codes.Code // of what it may not
	}{
		"KEDA": {credentials.NewTLS(ours.Store(mtls.KEDA).Client()), "GetMetrics IsActive StreamIsActive", codes.PermissionDenied},
		"a controller": {
			credentials.NewTLS(ours.Store(mtls.Controller).Client()), "GetMetrics IsActive Pods Watch", codes.PermissionDenied,
		},
		"an interceptor":      {credentials.NewTLS(ours.Store(mtls.Interceptor).Client()), "Watch", codes.PermissionDenied},
		"another of ours":     {credentials.NewTLS(nobody.Client()), "", codes.PermissionDenied},
		"a foreign authority": {credentials.NewTLS(foreign.Store(mtls.KEDA).Client()), "", codes.Unavailable},
		"plain text":          {insecure.NewCredentials(), "", codes.Unavailable},
	}
	address := serve(t, Options{Store: ours.Store(mtls.Interceptor)})
	for name, tc := range callers {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, address, tc.with)
			for method, call := range calls() {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				err := call(ctx, conn)
				cancel()
				want := tc.code
				if strings.Contains(" "+tc.may+" ", " "+method+" ") {
					want = codes.OK
				}
				if status.Code(err) != want {
					t.Errorf("%s: %v", method, err)
				}
			}
		})
	}
	t.Run("without TLS", func(t *testing.T) {
		conn := dial(t, serve(t, Options{}), insecure.NewCredentials())
		for method, call := range calls() {
			if err := call(t.Context(), conn); err != nil || !strings.Contains(all, method) {
				t.Errorf("%s: %v", method, err)
			}
		}
	})
}

// TestRotationCutsNothing: a stream goes on while the certificates of both sides are replaced, the authority too, and new connections
// use the new ones.
func TestRotationCutsNothing(t *testing.T) {
	before, after := mtlstest.NewAuthority(t), mtlstest.NewAuthority(t)
	server, client := before.Store(mtls.Interceptor), before.Store(mtls.KEDA)
	address := serve(t, Options{Store: server})
	open := func() (*grpc.ClientConn, externalscaler.ExternalScaler_StreamIsActiveClient) {
		conn := dial(t, address, credentials.NewTLS(client.Client()))
		stream, err := externalscaler.NewExternalScalerClient(conn).StreamIsActive(t.Context(), ref("shop", "Deployment/web"))
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
		return conn, stream
	}
	conn, stream := open()
	ended := make(chan error, 1)
	go func() {
		_, err := stream.Recv()
		ended <- err
	}()
	before.Trusted, after.Trusted = []*mtlstest.Authority{after}, []*mtlstest.Authority{before}
	for _, signer := range []*mtlstest.Authority{before, before, after} {
		for store, who := range map[*mtls.Store]mtls.Identity{server: mtls.Interceptor, client: mtls.KEDA} {
			if err := store.Set(signer.For(who)); err != nil {
				t.Fatal(err)
			}
			open()
		}
	}
	after.Trusted = nil
	for store, who := range map[*mtls.Store]mtls.Identity{server: mtls.Interceptor, client: mtls.KEDA} {
		if err := store.Set(after.For(who)); err != nil {
			t.Fatal(err)
		}
	}
	open()
	if _, err := externalscaler.NewExternalScalerClient(conn).IsActive(t.Context(), ref("shop", "Deployment/web")); err != nil {
		t.Errorf("the first connection does not work any more: %v", err)
	}
	select {
	case err := <-ended:
		t.Errorf("the first stream has ended: %v", err)
	default:
	}
	// Who has slept through the rotation does not get in.
	late := dial(t, address, credentials.NewTLS(before.Store(mtls.KEDA).Client()))
	if err := calls()["IsActive"](t.Context(), late); status.Code(err) != codes.Unavailable {
		t.Errorf("the old certificate: %v", err)
	}
}

// TestSizes: names that cannot be any, and requests that are too large, do not come through.
func TestSizes(t *testing.T) {
	conn := dial(t, serve(t, Options{}), insecure.NewCredentials())
	long := strings.Repeat("x", 900_000)
	for name, tc := range map[string]struct {
		ref  *externalscaler.ScaledObjectRef
		want codes.Code
	}{
		"the longest names": {ref(strings.Repeat("n", 63), strings.Repeat("w", 317)), codes.OK},
		"a long namespace":  {ref(strings.Repeat("n", 64), "Deployment/web"), codes.InvalidArgument},
		"a long workload":   {ref("shop", strings.Repeat("w", 318)), codes.InvalidArgument},
		"a long name": {
			&externalscaler.ScaledObjectRef{Namespace: "shop", Name: strings.Repeat("n", 254)}, codes.InvalidArgument,
		},
		"900 KB": {ref("shop", long), codes.ResourceExhausted},
		"900 KB elsewhere": {
			&externalscaler.ScaledObjectRef{Namespace: "shop", ScalerMetadata: map[string]string{"x": long}}, codes.ResourceExhausted,
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := externalscaler.NewExternalScalerClient(conn)
			if _, err := client.IsActive(t.Context(), tc.ref); status.Code(err) != tc.want {
				t.Errorf("IsActive: %v", err)
			}
			if _, err := client.GetMetrics(t.Context(), &externalscaler.GetMetricsRequest{ScaledObjectRef: tc.ref}); status.Code(err) != tc.want {
				t.Errorf("GetMetrics: %v", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stream, err := client.StreamIsActive(ctx, tc.ref)
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != tc.want {
				t.Errorf("StreamIsActive: %v", err)
			}
		})
	}
}

// TestStreamsAreBounded: the bounds hold for all, a namespace and a workload, and a stream that ends makes room.
func TestStreamsAreBounded(t *testing.T) {
	client := externalscaler.NewExternalScalerClient(dial(t,
		serve(t, Options{MaxStreams: 8, MaxOfNamespace: 5, MaxOfWorkload: 2}), insecure.NewCredentials()))
	open := func(namespace string, workload int) (end func(), _ error) {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := client.StreamIsActive(ctx, ref(namespace, fmt.Sprintf("Deployment/%d", workload)))
		if err == nil {
			_, err = stream.Recv()
		}
		return cancel, err
	}
	var ends []func()
	for _, step := range []struct {
		namespace string
		workload  int
		refused   string
	}{
		{"a", 1, ""},
		{"a", 1, ""},
		{"a", 1, "2 streams of Deployment/1 in namespace a"},
		{"a", 2, ""},
		{"a", 3, ""},
		{"a", 4, ""},
		{"a", 5, "5 streams of namespace a"},
		{"b", 1, ""},
		{"b", 2, ""},
		{"c", 1, ""},
		{"d", 1, "8 streams are open"},
	} {
		end, err := open(step.namespace, step.workload)
		if (err != nil) != (step.refused != "") || err != nil && !strings.Contains(err.Error(), step.refused) {
			t.Fatalf("%+v: %v", step, err)
		}
		if err == nil {
			ends = append(ends, end)
		}
	}
	ends[len(ends)-1]()
	for deadline := time.Now().Add(10 * time.Second); ; {
		_, err := open("d", 1)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("there is no room: %v", err)
		}
	}
}

// TestFollowersAreBounded: an interceptor has a bounded number of followers.
func TestFollowersAreBounded(t *testing.T) {
	conn := dial(t, serve(t, Options{MaxPeers: 2}), insecure.NewCredentials())
	for n := range 3 {
		err := calls()["Watch"](t.Context(), conn)
		if want := n == 2; (status.Code(err) == codes.ResourceExhausted) != want {
			t.Errorf("follower %d: %v", n, err)
		}
	}
}

// TestConnectionsOfOneSource: connections beyond the bound are closed, and the closed ones make room.
func TestConnectionsOfOneSource(t *testing.T) {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Listen(raw).(*listener)
	defer l.Close()
	l.ofSource = 2
	accepted := make(chan net.Conn, 10)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- conn
		}
	}()
	connect := func() net.Conn {
		conn, err := net.Dial("tcp", raw.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		return conn
	}
	connect()
	first := <-accepted
	connect()
	<-accepted
	if _, err := connect().Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the third connection is open: %v", err)
	}
	_ = first.Close()
	_ = first.Close() // which counts once
	connect()
	<-accepted
	if _, err := connect().Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("a connection too many is open: %v", err)
	}
}

// TestSourceOf: what one machine can choose freely is one source.
func TestSourceOf(t *testing.T) {
	for address, want := range map[string]string{
		"10.1.0.9:1":               "10.1.0.9",
		"[::ffff:10.1.0.9]:1":      "10.1.0.9",
		"[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::",
		"[fe80::1:2:3:4%eth0]:1":   "fe80::",
		"/run/somewhere.sock":      "invalid IP",
	} {
		if got := sourceOf(addr(address)).String(); got != want {
			t.Errorf("%s: %s", address, got)
		}
	}
}

type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }
