// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scale-to-zero/scale-to-zero/interceptor/forward"
	"github.com/scale-to-zero/scale-to-zero/interceptor/headers"
	"github.com/scale-to-zero/scale-to-zero/interceptor/notice"
	"github.com/scale-to-zero/scale-to-zero/interceptor/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
)

// Sink takes what the watch of Kubernetes sees. One goroutine calls it, but for SetTheme.
type Sink interface {
	route.Sink
	// SetPeers says which other interceptors there are.
	SetPeers([]peer.Peer)
	// SetTheme says what the waiting pages of a namespace's apps are made of: see page.Pages. It may be called by
	// another goroutine than the rest.
	SetTheme(namespace, source string)
}

// Cluster is Kubernetes as the interceptor needs it. *kube.Cluster is one.
type Cluster interface {
	scaler.WorkloadScaler
	scaler.Events
	// Watch reports to sink what there is, and then what changes, until ctx is done.
	Watch(ctx context.Context, sink Sink) error
}

// Limits bound what clients may take of one interceptor.
type Limits = forward.Limits

// DefaultLimits are those that hold where nothing else is said.
func DefaultLimits() Limits {
	var l Limits
	l.SetDefaults()
	return l
}

// DefaultDrainTimeout is Options.DrainTimeout where nothing else is said.
const DefaultDrainTimeout = time.Minute

// DefaultPageGrace is Options.PageGrace where nothing else is said.
const DefaultPageGrace = forward.DefaultPageGrace

// AllHops believes every entry of X-Forwarded-For.
const AllHops = headers.AllHops

// Options configure Run.
type Options struct {
	Cluster Cluster
	// Notices publishes what owners of apps should know. Default nothing is published.
	Notices notice.Events
	// PodName is this interceptor's name to its peers.
	PodName string
	// GRPCAddress is where KEDA and the peers call. Default ":9090".
	GRPCAddress string
	// HealthAddress has /healthz, /readyz and /metrics. Default ":8081".
	HealthAddress string
	// DrainTimeout bounds the shutdown: the time until no traffic comes any more and the time for what runs then.
	// Default DefaultDrainTimeout.
	DrainTimeout time.Duration
	// ListenHost is the address that routes listen on. Default all addresses.
	ListenHost string
	// Linger is how long removed routes go on accepting for the sake of kube-proxies that are late. Default route.TableOptions' own.
	// UnpublishedLinger is how long no new connection has to have come to an interceptor that is to end, once it is
	// unpublished: a node where kube-proxy is late goes on sending them. Default 2 s.
	Linger, UnpublishedLinger time.Duration
	// Limits bound what clients may take. Each has its own default.
	Limits Limits
	// TrustedHops is how many entries at the end of X-Forwarded-For are believed: one for each proxy before us. With 0 all
	// that such headers say of the way before us is dropped. Default AllHops.
	TrustedHops *int
	// HideHeld leaves out of answers how long their requests were held, which Scale-To-Zero-Held says else.
	HideHeld bool
	// PageGrace is how long a browser that opens a page waits until it is shown ours. Default DefaultPageGrace.
	PageGrace time.Duration
	// PeerAddress returns the address to dial for a peer. Default its IP and GRPCAddress's port.
	PeerAddress func(peer.Peer) string
	// Registry takes the metrics. Default a new one.
	Registry *prometheus.Registry
	// MinGaveUp is the shortest wait behind which a client that leaves counts as having given up. Default route.TableOptions' own.
	MinGaveUp time.Duration
	Log       logr.Logger
}

func (o *Options) setDefaults() error {
	if o.Cluster == nil {
		return errors.New("checking options: cluster is missing")
	}
	o.GRPCAddress = cmp.Or(o.GRPCAddress, ":9090")
	o.HealthAddress = cmp.Or(o.HealthAddress, ":8081")
	o.DrainTimeout = cmp.Or(o.DrainTimeout, DefaultDrainTimeout)
	o.UnpublishedLinger = cmp.Or(o.UnpublishedLinger, 2*time.Second)
	o.Limits.SetDefaults()
	o.TrustedHops = cmp.Or(o.TrustedHops, new(AllHops))
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.PeerAddress == nil {
		_, port, err := net.SplitHostPort(o.GRPCAddress)
		if err != nil {
			return fmt.Errorf("checking options: gRPC address: %w", err)
		}
		o.PeerAddress = func(p peer.Peer) string { return net.JoinHostPort(p.Addr, port) }
	}
	return nil
}
