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

	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls"
	"github.com/scale-to-zero/scale-to-zero/interceptor/busy"
	"github.com/scale-to-zero/scale-to-zero/interceptor/forward"
	"github.com/scale-to-zero/scale-to-zero/interceptor/headers"
	"github.com/scale-to-zero/scale-to-zero/interceptor/metrics"
	"github.com/scale-to-zero/scale-to-zero/interceptor/notice"
	"github.com/scale-to-zero/scale-to-zero/interceptor/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
)

// Sink receives what the watch of Kubernetes sees. Only one goroutine calls it, except for SetTheme.
type Sink interface {
	route.Sink
	// SetPeers sets the other interceptors.
	SetPeers([]peer.Peer)
	// SetTheme sets the source of the waiting pages for a namespace's apps: see page.Pages. Another goroutine may call it.
	SetTheme(namespace, source string)
}

// Cluster is the interceptor's view of Kubernetes. *kube.Cluster implements it.
type Cluster interface {
	scaler.WorkloadScaler
	scaler.Events
	// Watch reports to sink what exists, and then what changes, until ctx is done.
	Watch(ctx context.Context, sink Sink) error
}

// Limits bound what clients may use of one interceptor.
type Limits = forward.Limits

// DefaultLimits returns the default of Options.Limits.
func DefaultLimits() Limits {
	var l Limits
	l.SetDefaults()
	return l
}

// DefaultDrainTimeout is the default of Options.DrainTimeout.
const DefaultDrainTimeout = time.Minute

// DefaultPageGrace is the default of Options.PageGrace.
const DefaultPageGrace = forward.DefaultPageGrace

// Defaults of Options.MaxWakes and Options.MaxWakesPerSource.
const (
	DefaultMaxWakes          = scaler.DefaultMaxWakes
	DefaultMaxWakesPerSource = scaler.DefaultMaxWakesPerSource
)

// DefaultMemory is the default of Options.Memory.
const DefaultMemory = 512 << 20

// AllHops trusts every entry of X-Forwarded-For.
const AllHops = headers.AllHops

// Options configure Run.
type Options struct {
	Cluster Cluster
	// Notices publishes what owners of apps should know. Default none.
	Notices notice.Events
	// Metrics has the CPU usage of pods. Default none.
	Metrics busy.Metrics
	// BusyEvery is how long it counts what an app has said about whether it is busy. Default that of busy.Options.
	BusyEvery time.Duration
	// PodName is this interceptor's name to its peers.
	PodName string
	// GRPCAddress is where KEDA and the peers connect. Default ":9090".
	GRPCAddress string
	// TLS has this interceptor's certificate for that address and for the peers. Nil is plain text, without any authentication.
	TLS *mtls.Store
	// HealthAddress serves /healthz, /readyz and, without Scrapers, /metrics. Default ":8081".
	HealthAddress string
	// Scrapers says who may read /metrics. Then that is at MetricsAddress, with TLS, which has to be set. Nil is everybody.
	Scrapers metrics.Reviewer
	// MetricsAddress is for Scrapers. Default ":8443".
	MetricsAddress string
	// DrainTimeout bounds the shutdown: the time until no traffic comes any more, and the time for the rest to finish. Default
	// DefaultDrainTimeout.
	DrainTimeout time.Duration
	// ListenHost is the address that routes listen on. Default all addresses.
	ListenHost string
	// Linger is how long a removed route still accepts connections, because kube-proxies lag behind. Default that of route.TableOptions.
	// UnpublishedLinger is how long an unpublished interceptor that is shutting down must have had no new connection: a node whose
	// kube-proxy lags behind still sends them. Default 5 s.
	Linger, UnpublishedLinger time.Duration
	// Limits bound what clients may use. Each has its own default.
	Limits Limits
	// MaxWakes and MaxWakesPerSource are those of scaler.WakerOptions.
	MaxWakes, MaxWakesPerSource int
	// Memory is how many bytes this process may use. Half of it is for connections and requests, which share it (package budget); the
	// rest is for what cannot be counted. Default DefaultMemory.
	Memory int64
	// TrustedHops is how many entries at the end of X-Forwarded-For are trusted: one for each proxy before us. With 0, everything that
	// such headers say about earlier hops is dropped. Default AllHops.
	TrustedHops *int
	// HideHeld omits from answers how long their requests were held. Otherwise Scale-To-Zero-Held says so.
	HideHeld bool
	// PageGrace is how long a browser that opens a page waits before it sees our page. Default DefaultPageGrace.
	PageGrace time.Duration
	// PeerAddress returns the address to dial for a peer. Default its IP and GRPCAddress's port.
	PeerAddress func(peer.Peer) string
	// Registry gets the metrics. Default a new one.
	Registry *prometheus.Registry
	// MinGaveUp is the shortest wait after which a client that leaves counts as having given up. Default that of route.TableOptions.
	MinGaveUp time.Duration
	Log       logr.Logger
}

func (o *Options) setDefaults() error {
	if o.Cluster == nil {
		return errors.New("checking options: cluster is missing")
	}
	o.GRPCAddress = cmp.Or(o.GRPCAddress, ":9090")
	o.HealthAddress = cmp.Or(o.HealthAddress, ":8081")
	o.MetricsAddress = cmp.Or(o.MetricsAddress, ":8443")
	if o.Scrapers != nil && o.TLS == nil {
		return errors.New("checking options: who may read metrics is known only with TLS")
	}
	o.DrainTimeout = cmp.Or(o.DrainTimeout, DefaultDrainTimeout)
	o.UnpublishedLinger = cmp.Or(o.UnpublishedLinger, 5*time.Second)
	o.Limits.SetDefaults()
	o.Memory = cmp.Or(o.Memory, DefaultMemory)
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
