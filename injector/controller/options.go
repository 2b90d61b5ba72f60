// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	networkingv1 "k8s.io/api/networking/v1"
)

// Options are what the controllers depend on.
type Options struct {
	// Namespace is where scale-to-zero itself runs.
	Namespace string
	// InterceptorService is the interceptors' headless Service in Namespace.
	InterceptorService string
	// InterceptorAccount is the interceptors' ServiceAccount in Namespace. The controllers let it wake the apps' workloads, by Roles in
	// their namespaces. If it is empty they do not, because somebody else does, as in tests.
	InterceptorAccount string
	// ScalerAddress is where KEDA reaches the interceptors' external scaler: host:port.
	ScalerAddress string
	// Deployment is the controllers' own Deployment in Namespace. Its annotation injector.RestoringAnnotation makes the controllers
	// restore every app. Empty if there is none, as in tests.
	Deployment string
	// PortLow and PortHigh bound the interceptor ports. Default 10000 and 29999.
	PortLow, PortHigh int32
	// AliasLinger is how long an alias Service stays after the last Ingress has stopped using it. Default 30 s: ingress controllers
	// notice late, and some read Ingresses and EndpointSlices at different moments.
	AliasLinger time.Duration
	// MaxRoutesPerNamespace is how many routes the Services of a namespace may have together; 0 for no limit.
	MaxRoutesPerNamespace int
	// StartupCPU is set if CPU limits may be raised while an app starts, which takes rights that not every installation grants.
	StartupCPU bool
	// FollowPolicies is set if the interceptors' ports are bound by the NetworkPolicies of the apps' namespaces.
	FollowPolicies bool
	// AdmitInterceptors is set if NetworkPolicies are added that let the interceptors in to pods that others isolate, which takes rights
	// that not every installation grants.
	AdmitInterceptors bool
	// InterceptorIngress are the rules for the interceptors' ports outside the port range. Without any, these ports stay open. They need
	// FollowPolicies.
	InterceptorIngress []networkingv1.NetworkPolicyIngressRule
	// KEDA is how KEDA authenticates itself to the interceptors; nil if it does not.
	KEDA *KEDAAccess
	// TLS is for the connections to the interceptors, once Ready is closed. Nil is plain text.
	TLS   *tls.Config
	Ready <-chan struct{}
	// Counts asks the interceptors for their counts. Default over gRPC at ScalerAddress.
	Counts Counts
	// Learned follows what the interceptors learn. Default over gRPC at ScalerAddress.
	Learned Learned
	// Owns asks an interceptor which routes have their ports there. Default over gRPC at ScalerAddress's port.
	Owns Owns
	// Dial tries to connect to an interceptor's port. It returns nil if something accepts. Default TCP, within 500 ms.
	Dial func(ctx context.Context, address string) error
	// Reach asks an interceptor whether it can reach pods. Default over gRPC at ScalerAddress's port.
	Reach Reach
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

func (o *Options) setDefaults() {
	o.PortLow = cmp.Or(o.PortLow, 10000)
	o.PortHigh = cmp.Or(o.PortHigh, 29999)
	o.AliasLinger = cmp.Or(o.AliasLinger, 30*time.Second)
	if o.Counts == nil {
		o.Counts = &scalerClient{dialer: o.dialer(), address: o.ScalerAddress}
	}
	if o.Learned == nil {
		o.Learned = peerClient{o.dialer(), o.ScalerAddress}
	}
	if o.Dial == nil {
		o.Dial = dial
	}
	if o.Reach == nil {
		_, port, _ := net.SplitHostPort(o.ScalerAddress) // without a port no interceptor can be asked, and an event says so
		o.Reach = askReach(o.dialer(), port)
	}
	if o.Owns == nil {
		_, port, _ := net.SplitHostPort(o.ScalerAddress)
		o.Owns = askOwns(o.dialer(), port)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// interceptorDialer makes connections to the interceptors.
type interceptorDialer struct {
	tls   *tls.Config
	ready <-chan struct{}
}

func (o *Options) dialer() interceptorDialer { return interceptorDialer{o.TLS, o.Ready} }

// connect returns a connection that is dialed when it is used. It waits until there is a certificate.
func (d interceptorDialer) connect(ctx context.Context, target string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	if err := d.await(ctx); err != nil {
		return nil, err
	}
	transport := insecure.NewCredentials()
	if d.tls != nil {
		transport = credentials.NewTLS(d.tls)
	}
	return grpc.NewClient(target, append(options, grpc.WithTransportCredentials(transport))...)
}

// await waits until there is a certificate, if one is needed.
func (d interceptorDialer) await(ctx context.Context) error {
	if d.tls == nil {
		return nil
	}
	select {
	case <-d.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the controllers' certificate: %w", ctx.Err())
	}
}

func dial(ctx context.Context, address string) error {
	d := net.Dialer{Timeout: 500 * time.Millisecond}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
