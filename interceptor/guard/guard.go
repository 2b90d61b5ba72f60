// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls"
	peerapi "github.com/scale-to-zero/scale-to-zero/interceptor/api/peer"
	reachapi "github.com/scale-to-zero/scale-to-zero/interceptor/api/reach"
)

// Options configure a Guard.
type Options struct {
	// Store has our certificate. If it is nil, everybody may call everything in plain text, as behind a service mesh that has its own
	// mutual TLS.
	Store *mtls.Store
	// MaxStreams is how many streams may be open, and MaxOfNamespace and MaxOfWorkload how many of them for the workloads of one namespace
	// and for one workload. Default 20,000, 4,000 and 16: KEDA has one for each ScaledObject, and for a moment two while it changes.
	MaxStreams, MaxOfNamespace, MaxOfWorkload int
	// MaxPeers is how many interceptors and controllers may follow the counts. Default 100.
	MaxPeers int
}

// Guard decides on calls.
type Guard struct {
	options Options
	streams *quota
	peers   chan struct{} // holds one element for each follower
}

// New returns a Guard.
func New(o Options) *Guard {
	o.MaxStreams = cmp.Or(o.MaxStreams, 20_000)
	o.MaxOfNamespace = cmp.Or(o.MaxOfNamespace, 4_000)
	o.MaxOfWorkload = cmp.Or(o.MaxOfWorkload, 16)
	o.MaxPeers = cmp.Or(o.MaxPeers, 100)
	return &Guard{
		options: o, peers: make(chan struct{}, o.MaxPeers),
		streams: newQuota(o.MaxStreams, o.MaxOfNamespace, o.MaxOfWorkload),
	}
}

const (
	// maxMessage is the size of the largest request: each is about one workload.
	maxMessage = 64 << 10
	// maxHeader is the size of the largest header of a call. gRPC clients send a few hundred bytes.
	maxHeader = 16 << 10
	// maxCalls is how many calls that are no streams may run at a time on a connection.
	maxCalls = 1_000
	// handshake is how long a client may take until it can make calls.
	handshake = 5 * time.Second
	// idle is how long a connection without calls stays. After a change of its certificate, KEDA 2.21 opens another connection and never
	// closes the first.
	idle = 5 * time.Minute
)

// ServerOptions are the options of the gRPC server. They bound what a client can use before a call is decided on.
func (g *Guard) ServerOptions() []grpc.ServerOption {
	options := []grpc.ServerOption{
		// The keepalive notices a KEDA operator or a peer that vanished silently. This matters because its stream counts as a listener.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 7 * time.Second, Timeout: 3 * time.Second, MaxConnectionIdle: idle}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.ConnectionTimeout(handshake),
		// More than there may be streams: those beyond are refused, and calls on the same connection go on.
		grpc.MaxConcurrentStreams(uint32(g.options.MaxStreams + maxCalls)), //nolint:gosec // it is a small number of our own
		grpc.UnaryInterceptor(g.unary),
		grpc.StreamInterceptor(g.stream),
	}
	if g.options.Store != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(g.options.Store.Server())))
	}
	return options
}

// callers returns who may call a service.
func callers(service string) []mtls.Identity {
	switch service {
	case externalscaler.ExternalScaler_ServiceDesc.ServiceName:
		return []mtls.Identity{mtls.KEDA, mtls.Controller}
	case peerapi.Peer_ServiceDesc.ServiceName:
		return []mtls.Identity{mtls.Interceptor, mtls.Controller}
	case reachapi.Reach_ServiceDesc.ServiceName:
		return []mtls.Identity{mtls.Controller}
	default:
		return nil
	}
}

// authorize decides whether the caller may call a method, as in /package.Service/Method.
func (g *Guard) authorize(ctx context.Context, method string) error {
	if g.options.Store == nil {
		return nil
	}
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	var who mtls.Identity
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			who = mtls.Of(info.State)
		}
	}
	// KEDA alone has a stream that counts as a listener: for as long as there is one, nobody else wakes an app at once.
	streams := method == externalscaler.ExternalScaler_StreamIsActive_FullMethodName
	if !slices.Contains(callers(service), who) || streams && who != mtls.KEDA {
		return status.Errorf(codes.PermissionDenied, "a certificate of %q does not allow calls of %s", who, method)
	}
	return nil
}

func (g *Guard) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := g.authorize(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	if _, err := keyOf(request); err != nil {
		return nil, err
	}
	return handle(ctx, request)
}

func (g *Guard) stream(server any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := g.authorize(s.Context(), info.FullMethod); err != nil {
		return err
	}
	if strings.HasPrefix(info.FullMethod, "/"+peerapi.Peer_ServiceDesc.ServiceName+"/") {
		select {
		case g.peers <- struct{}{}:
			defer func() { <-g.peers }()
		default:
			return status.Errorf(codes.ResourceExhausted, "%d followers are too many", cap(g.peers))
		}
		return handle(server, s)
	}
	c := &counted{ServerStream: s, quota: g.streams}
	defer c.end()
	return handle(server, c)
}
