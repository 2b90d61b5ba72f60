// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
	peerapi "github.com/scale-to-zero/scale-to-zero/interceptor/api/peer"
	reachapi "github.com/scale-to-zero/scale-to-zero/interceptor/api/reach"
	"github.com/scale-to-zero/scale-to-zero/interceptor/budget"
	"github.com/scale-to-zero/scale-to-zero/interceptor/guard"
	"github.com/scale-to-zero/scale-to-zero/interceptor/metrics"
	"github.com/scale-to-zero/scale-to-zero/interceptor/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/reach"
	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
)

// stopTimeout is how long calls and scrapes that still run at the end may take.
const stopTimeout = 2 * time.Second

// grpcServer is the server that KEDA, the peers and the injector call.
type grpcServer struct {
	server   *grpc.Server
	listener net.Listener
}

func newGRPC(
	ctx context.Context, address string, g *guard.Guard, s *scaler.Server, p *peer.Server, r *reach.Server, memory *budget.Account,
) (*grpcServer, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening for gRPC: %w", err)
	}
	listener = guard.Listen(listener)
	server := grpc.NewServer(append(g.ServerOptions(), boundCalls(memory)...)...) //nolint:contextcheck // each call has a context of its own
	externalscaler.RegisterExternalScalerServer(server, s)
	peerapi.RegisterPeerServer(server, p)
	reachapi.RegisterReachServer(server, r)
	return &grpcServer{server, listener}, nil
}

func (g *grpcServer) serve() error {
	if err := g.server.Serve(g.listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serving gRPC: %w", err)
	}
	return nil
}

// stop lets running calls end. The streams are already ending.
func (g *grpcServer) stop() {
	timer := time.AfterFunc(stopTimeout, g.server.Stop)
	defer timer.Stop()
	g.server.GracefulStop()
	_ = g.listener.Close() // serve has already closed it, if it ran
}

// health is the state that /readyz reports.
type health struct{ ready, draining atomic.Bool }

// httpServer serves health, metrics or both.
type httpServer struct {
	server   *http.Server
	listener net.Listener
}

// newHTTPServers returns the server of health and metrics, or one for each if not everybody may read metrics.
func newHTTPServers(ctx context.Context, o *Options, h *health) ([]*httpServer, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !h.ready.Load() || h.draining.Load() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	numbers := promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{})
	if o.Scrapers == nil {
		mux.Handle("/metrics", numbers)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.HealthAddress)
	if err != nil {
		return nil, fmt.Errorf("listening for health: %w", err)
	}
	servers := []*httpServer{newHTTPServer(listener, mux)}
	if o.Scrapers == nil {
		return servers, nil
	}
	listener, err = new(net.ListenConfig).Listen(ctx, "tcp", o.MetricsAddress)
	if err != nil {
		servers[0].stop(ctx)
		return nil, fmt.Errorf("listening for metrics: %w", err)
	}
	// A token in plain text would be anybody's who sees it pass.
	guarded := http.NewServeMux()
	guarded.Handle("/metrics", metrics.Guarded(numbers, o.Scrapers, o.Log.WithName("metrics")))
	return append(servers, newHTTPServer(tls.NewListener(guard.Listen(listener), o.TLS.Anybody()), guarded)), nil
}

func newHTTPServer(listener net.Listener, h http.Handler) *httpServer {
	return &httpServer{listener: listener, server: &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		WriteTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0), // anybody can make handshakes fail
	}}
}

func (h *httpServer) serve() error {
	if err := h.server.Serve(h.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving health and metrics: %w", err)
	}
	return nil
}

func (h *httpServer) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if err := h.server.Shutdown(ctx); err != nil {
		_ = h.server.Close() // a scrape that does not end is cut
	}
	_ = h.listener.Close() // serve has already closed it, if it ran
}
