// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package listen_test

import (
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
	"github.com/scale-to-zero/scale-to-zero/interceptor/forward"
	"github.com/scale-to-zero/scale-to-zero/interceptor/listen"
	"github.com/scale-to-zero/scale-to-zero/interceptor/metrics"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// A cluster may have thousands of apps that sleep. What an interceptor keeps for each of them must be small.
func TestIdleRouteIsSmall(t *testing.T) {
	const routes, most = 4000, 4 << 10
	engine := forward.NewEngine(forward.Options{Log: logr.Discard()})
	t.Cleanup(engine.Close)
	manager := listen.NewManager(listen.Options{Host: "127.0.0.1", Engine: engine, MaxConnections: 100, DrainTimeout: time.Second})
	hub := counts.NewHub()
	m := metrics.New(prometheus.NewRegistry())
	table := route.NewTable(route.TableOptions{
		Listeners: manager, Waker: asleep{}, RouteMetrics: m.Route, TargetMetrics: m.Target, Hub: hub, Memory: route.NewMemory(hub),
		NewPool: engine.NewPool,
	})
	t.Cleanup(table.Close)
	t.Cleanup(func() { manager.Shutdown(time.Second) })

	ports := free(t, routes)
	before, goroutines := used(), runtime.NumGoroutine()
	for i, port := range ports {
		table.SetService(sleeping(i, port))
	}
	each := (used() - before) / routes
	t.Logf("%d bytes for each idle route", each)
	if each > most {
		t.Errorf("an idle route takes %d bytes; want at most %d", each, most)
	}
	if more := runtime.NumGoroutine() - goroutines; runtime.GOOS == "linux" && more > 10 {
		t.Errorf("%d idle routes have %d goroutines", routes, more)
	}
	runtime.KeepAlive(table)
}

// used returns the bytes of the heap and of stacks that are in use.
func used() int64 {
	runtime.GC()
	runtime.GC() // the first one only empties what the pools keep
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// free returns n free ports.
func free(t *testing.T, n int) []int32 {
	t.Helper()
	var ports []int32
	for port := int32(12000); len(ports) < n && port < 30000; port++ {
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			ports = append(ports, port)
		}
	}
	if len(ports) < n {
		t.Fatalf("only %d ports are free", len(ports))
	}
	return ports
}

// sleeping is an app of its own without pods.
func sleeping(i int, port int32) route.Service {
	name := fmt.Sprintf("app-%d", i)
	return route.Service{
		Namespace: fmt.Sprintf("team-%d", i%50), Name: name, SleepID: "s1", Published: true,
		Routes: api.Routes{
			Service: name, ServiceUID: "2d1f9d40-6f0e-4c8f-9a0e-" + name, Direct: name + "-direct",
			Workload: api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: name, UID: "7f0e2d1f-9d40-4c8f-9a0e-" + name},
			Ports:    []api.Port{{Name: "http", Port: 80, Listen: port}},
			Cooldown: api.Duration(5 * time.Minute), HoldTimeout: api.Duration(5 * time.Minute),
		},
	}
}

type asleep struct{}

func (asleep) Wake(*route.Route, *route.Target, *route.Visit) {}
