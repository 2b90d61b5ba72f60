// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/http/pprof"
	"net/url"
	"strconv"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
)

// serveInterceptor runs the shipped data path, with a cluster that reports the app as awake until it is told otherwise.
func serveInterceptor(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("interceptor", flag.ContinueOnError)
	app := flags.String("app", "", "address of the backend")
	httpAddress := flags.String("http", "", "address of the route that looks at the first bytes")
	tcpAddress := flags.String("tcp", "", "address of the TCP route")
	grpc := flags.String("grpc", "", "address for KEDA and peers")
	health := flags.String("health", "", "address of health and metrics")
	profile := flags.String("profile", "", "address of the profiles")
	if err := flags.Parse(args); err != nil {
		return err
	}
	service, err := awake(*app, *httpAddress, *tcpAddress)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/cpu", pprof.Profile)
	mux.Handle("/allocs", pprof.Handler("allocs"))
	told := make(chan route.Service)
	mux.HandleFunc("/awake", func(http.ResponseWriter, *http.Request) { told <- service })
	mux.HandleFunc("/asleep", func(http.ResponseWriter, *http.Request) {
		asleep := service
		asleep.Endpoints, asleep.Pods = nil, 0
		told <- asleep
	})
	go func() { _ = listenAndServe(ctx, *profile, mux) }() // whoever asks for a profile gets none
	host, _, _ := net.SplitHostPort(*httpAddress)          // awake has already parsed it
	return interceptor.Run(ctx, interceptor.Options{
		Cluster: cluster{service, told}, PodName: "bench", GRPCAddress: *grpc, HealthAddress: *health, ListenHost: host,
		DrainTimeout: 100 * time.Millisecond, UnpublishedLinger: time.Millisecond, Log: logr.Discard(),
	})
}

// awake is a Service with two routes and one pod, at app.
func awake(app, httpAddress, tcpAddress string) (route.Service, error) {
	s := route.Service{
		Namespace: "bench", Name: "web", Published: true, SleepID: "1", Pods: 1, Endpoints: map[string][]string{},
		Routes: api.Routes{
			Service: "web", ServiceUID: "1", Direct: "web-direct",
			Workload: api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "2"},
			Cooldown: api.Duration(time.Hour), HoldTimeout: api.Duration(time.Minute),
		},
	}
	for protocol, addr := range map[string]string{api.ProtocolAuto: httpAddress, api.ProtocolTCP: tcpAddress} {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return s, fmt.Errorf("parsing addresses: %w", err)
		}
		n, err := strconv.ParseInt(port, 10, 32)
		if err != nil {
			return s, fmt.Errorf("parsing addresses: %w", err)
		}
		s.Routes.Ports = append(s.Routes.Ports, api.Port{Name: protocol, Port: int32(n), Listen: int32(n), Protocol: protocol})
		s.Endpoints[protocol] = []string{app}
	}
	return s, nil
}

// cluster is an interceptor.Cluster with one Service, which changes on request.
type cluster struct {
	service route.Service
	told    <-chan route.Service
}

func (c cluster) Watch(ctx context.Context, sink interceptor.Sink) error {
	sink.SetService(c.service)
	sink.Synced()
	for {
		select {
		case service := <-c.told:
			sink.SetService(service)
		case <-ctx.Done():
			return nil
		}
	}
}

func (cluster) Scale(context.Context, string, api.Workload, int32) (bool, error) { return false, nil }

func (cluster) Replicas(context.Context, string, api.Workload) (int32, error) { return 1, nil }

func (cluster) WakeRequested(scaler.Wake) {}
func (cluster) Warn(scaler.Warning)       {}

// serveReverseProxy is the proxy of Go's library, set up with enough idle connections: with the defaults it would open
// one for nearly every request.
func serveReverseProxy(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(reverseProxy, flag.ContinueOnError)
	listen := flags.String("listen", "", "address")
	app := flags.String("app", "", "address of the backend")
	if err := flags.Parse(args); err != nil {
		return err
	}
	target := &url.URL{Scheme: "http", Host: *app}
	return listenAndServe(ctx, *listen, &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true, IdleConnTimeout: time.Minute},
	})
}

func listenAndServe(ctx context.Context, addr string, h http.Handler) error {
	s := &http.Server{Addr: addr, Handler: h, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}
