// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/scale-to-zero/scale-to-zero/interceptor/budget"
	"github.com/scale-to-zero/scale-to-zero/interceptor/busy"
	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
	"github.com/scale-to-zero/scale-to-zero/interceptor/forward"
	"github.com/scale-to-zero/scale-to-zero/interceptor/guard"
	"github.com/scale-to-zero/scale-to-zero/interceptor/listen"
	"github.com/scale-to-zero/scale-to-zero/interceptor/metrics"
	"github.com/scale-to-zero/scale-to-zero/interceptor/notice"
	"github.com/scale-to-zero/scale-to-zero/interceptor/page"
	"github.com/scale-to-zero/scale-to-zero/interceptor/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/reach"
	"github.com/scale-to-zero/scale-to-zero/interceptor/ready"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
)

// interceptor is one running interceptor.
type interceptor struct {
	options  Options
	engine   *forward.Engine
	pages    *page.Pages
	manager  *listen.Manager
	hub      *counts.Hub
	memory   *route.Memory
	table    *route.Table
	waker    *scaler.Waker
	prober   *ready.Prober
	busy     *busy.Checker
	scaler   *scaler.Server
	peers    *peer.Pool
	peerSide *peer.Server
	reporter *notice.Reporter
	health   *health
	budget   *budget.Pool
	calls    budget.Account // of the gRPC server
}

// Run serves until ctx is done or something breaks, and then shuts everything down in order.
func Run(ctx context.Context, o Options) error {
	if err := o.setDefaults(); err != nil {
		return err
	}
	i := assemble(o)
	grpc, err := newGRPC(ctx, o.GRPCAddress, guard.New(guard.Options{Store: o.TLS}), i.scaler, i.peerSide,
		reach.NewServer(reach.Options{Service: i.table.Service, Owned: i.table.Owned}), &i.calls)
	if err != nil {
		return err
	}
	servers, err := newHTTPServers(ctx, &o, i.health)
	if err != nil {
		grpc.stop()
		return err
	}

	// The parts outlive ctx, because the drain needs them.
	parts, stopParts := context.WithCancel(context.WithoutCancel(ctx))
	defer stopParts()
	group, parts := errgroup.WithContext(parts)
	group.Go(func() error { return o.Cluster.Watch(parts, sink{i.table, i.peers, i.pages}) })
	group.Go(func() error { return i.reporter.Run(parts) })
	group.Go(grpc.serve)
	for _, s := range servers {
		group.Go(s.serve)
	}
	group.Go(func() error { return i.becomeReady(parts) })
	// A part that breaks starts the shutdown, as the end of ctx does.
	select {
	case <-ctx.Done():
		o.Log.Info("Shutting down")
	case <-parts.Done():
	}
	i.shutdown(parts)
	grpc.stop()
	stopParts()
	for _, s := range servers {
		s.stop(context.WithoutCancel(ctx))
	}
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("running the interceptor: %w", err)
	}
	return nil
}

// assemble makes the parts and connects each with the earlier ones. Nothing runs yet.
func assemble(o Options) *interceptor {
	i := &interceptor{
		options: o, health: &health{}, pages: page.New(o.Log.WithName("page")), budget: budget.NewPool(o.Memory / 2),
	}
	i.budget.Open(&i.calls, "") // no namespace has that name
	i.engine = forward.NewEngine(forward.Options{
		Limits: o.Limits, TrustedHops: *o.TrustedHops, HideHeld: o.HideHeld, Log: o.Log.WithName("forward"),
		Pages: i.pages, PageGrace: o.PageGrace,
	})
	i.manager = listen.NewManager(listen.Options{
		Host: o.ListenHost, Engine: i.engine, MaxConnections: int64(o.Limits.MaxConnections),
		DrainTimeout: o.DrainTimeout, Log: o.Log.WithName("listen"),
	})
	i.hub = counts.NewHub()
	i.memory = route.NewMemory(i.hub)
	i.peers = peer.NewPool(peer.PoolOptions{
		Name: o.PodName, Dial: o.PeerAddress, Credentials: clientCredentials(o.TLS), Hub: i.hub, Memory: i.memory, Log: o.Log.WithName("peer"),
		Led: func(key route.Key) []route.Key { return route.Stacks{Table: i.table}.LedKeys(key) },
	})
	i.waker = scaler.NewWaker(scaler.WakerOptions{
		Led:      func(t *route.Target) []*route.Route { return route.Stacks{Table: i.table}.Led(t) },
		Leaders:  func(t *route.Target) []*route.Target { return route.Stacks{Table: i.table}.Leaders(t) },
		Callers:  func(t *route.Target) []*route.Target { return route.Stacks{Table: i.table}.Callers(t) },
		MaxWakes: o.MaxWakes, MaxWakesPerSource: o.MaxWakesPerSource,
		Scaler: o.Cluster, Events: o.Cluster, Peers: i.peers, Hub: i.hub, Log: o.Log.WithName("waker"),
	})
	i.prober = ready.New(ready.Options{
		Unready: func(t *route.Target) route.Unready { return route.EarlyPods{Table: i.table}.Unready(t) },
		Vouch:   func(t *route.Target, ip string, word route.Word) { route.EarlyPods{Table: i.table}.Vouch(t, ip, word) },
		Log:     o.Log.WithName("ready"),
	})
	m := metrics.New(o.Registry)
	i.table = route.NewTable(route.TableOptions{
		Listeners: i.manager, Waker: wakers{i.waker, i.prober}, PodsChanged: i.prober.PodsChanged, RouteMetrics: m.Route, TargetMetrics: m.Target,
		Hub: i.hub, Memory: i.memory, NewPool: i.engine.NewPool, Linger: o.Linger, Log: o.Log.WithName("route"),
		GaveUp: notice.GaveUp(o.Notices), MinGaveUp: o.MinGaveUp, Unreachable: unreachable(o.Cluster),
		Budget: i.budget, Full: notice.MemoryExhausted(o.Notices),
	})
	m.Watch(i.table.Targets)
	m.WatchMemory(i.budget.Used, i.budget.Limit())
	i.reporter = notice.NewReporter(notice.Options{Events: o.Notices, Routes: i.table.Routes, Peers: i.peers.Count})
	i.busy = busy.New(busy.Options{
		Checks: route.BusyChecks{Table: i.table}.Of, Target: i.table.Target, Metrics: o.Metrics, Events: o.Notices, Every: o.BusyEvery,
		Log: o.Log.WithName("busy"),
	})
	i.scaler = scaler.NewServer(scaler.ServerOptions{
		Target: i.table.Target, Replicas: o.Cluster.Replicas, Hub: i.hub, Work: i.busy,
		Activity: &scaler.Activity{Peers: i.peers, Leaders: route.Stacks{Table: i.table}.Leaders, Callers: route.Stacks{Table: i.table}.Callers},
	})
	i.peerSide = peer.NewServer(peer.ServerOptions{
		Targets: i.table.Targets, Target: i.table.Target, Hub: i.hub, Memory: i.memory, Log: o.Log.WithName("peer"),
	})
	return i
}

// unreachable reports ready pods that cannot be connected to.
func unreachable(events scaler.Events) func(*route.Route, *route.UnreachableError) {
	return func(r *route.Route, err *route.UnreachableError) {
		events.Warn(scaler.Warning{
			Namespace: r.Namespace, Service: r.Service, ServiceUID: r.ServiceUID, Workload: r.Target().Workload(),
			Reason: "PodsUnreachable", ID: "unreachable-" + r.SleepID(), Message: err.Error(),
		})
	}
}

// becomeReady reports ready once there is a certificate, and all routes that existed at the start are applied and open. Without a
// certificate the others could not learn what is in use here, and would put it to sleep.
func (i *interceptor) becomeReady(ctx context.Context) error {
	if err := awaitCertificate(ctx, i.options.TLS, i.options.Log); err != nil {
		return err
	}
	if err := i.table.WaitSynced(ctx); err != nil {
		return err
	}
	i.health.ready.Store(true)
	i.options.Log.Info("Ready", "targets", len(i.table.Targets()))
	return nil
}

// shutdown ends the data path in the only order that no client notices:
//
//  1. Readiness fails, so that the injector removes this interceptor from the route slices.
//  2. Everything goes on, including new connections, until no route slice lists this interceptor any more. Because kube-proxies and
//     ingress controllers lag behind, it then goes on until no connection has come for a while. This step takes at most half of the
//     drain timeout.
//  3. The ports close. Running requests finish, upgraded and TCP connections get time to end, and held requests still get their pod.
//     Everything that exceeds the drain timeout is cut.
//  4. Only then do the streams of KEDA and of the peers end: until now they counted and woke for the requests of steps 2 and 3. They end
//     cleanly, so that KEDA soon opens new streams at another interceptor.
func (i *interceptor) shutdown(parts context.Context) {
	i.health.draining.Store(true)
	limit := time.Now().Add(i.options.DrainTimeout)
	i.waitForQuiet(parts, time.Now().Add(i.options.DrainTimeout/2))
	i.manager.Shutdown(time.Until(limit))
	i.table.Close()
	i.waker.Close()
	i.prober.Close()
	i.scaler.Close()
	i.busy.Close()
	i.peerSide.Close()
	i.peers.Close()
	i.engine.Close()
}

// waitForQuiet waits until no route slice lists this interceptor and no connection has come for a while. It waits until limit at
// most.
func (i *interceptor) waitForQuiet(parts context.Context, limit time.Time) {
	if !i.table.IsSynced() {
		return
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	quiet, accepted := time.Now(), i.manager.Accepted()
	for time.Now().Before(limit) && parts.Err() == nil {
		before := accepted
		accepted = i.manager.Accepted()
		switch {
		case i.table.Published(), accepted != before:
			quiet = time.Now()
		case time.Since(quiet) >= i.options.UnpublishedLinger:
			return
		}
		select {
		case <-tick.C:
		case <-parts.Done():
		}
	}
}

// wakers wakes a workload, and has its pods probed.
type wakers struct {
	*scaler.Waker
	prober *ready.Prober
}

// Wake implements route.Waker.
func (w wakers) Wake(r *route.Route, t *route.Target, v *route.Visit) {
	w.Waker.Wake(r, t, v)
	w.prober.Wake(t)
}

// sink passes on what the watch sees to the parts that need it.
type sink struct {
	*route.Table
	*peer.Pool
	pages *page.Pages
}

func (s sink) SetTheme(namespace, source string) { s.pages.SetTheme(namespace, source) }
