// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// fakePools makes pools and records which of them were closed.
type fakePools struct {
	table *Table

	mu     sync.Mutex // protects all below
	made   []string
	closed []string
}

type fakePool struct {
	pools *fakePools
	addr  string
}

func (p *fakePools) make(addr string) io.Closer {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made = append(p.made, addr)
	return &fakePool{p, addr}
}

// Close calls the table, which is allowed: the table's mutex is not held.
func (p *fakePool) Close() error {
	_ = p.pools.table.Published()
	p.pools.mu.Lock()
	defer p.pools.mu.Unlock()
	p.pools.closed = append(p.pools.closed, p.addr)
	return errors.New("it was closed already")
}

func newPoolFixture() (*fixture, *fakePools) {
	f, p := newFixture(0), &fakePools{}
	f.options.NewPool, p.table = p.make, f.Table
	return f, p
}

func (p *fakePools) check(t *testing.T, when string, made, closed []string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Equal(p.made, made) || !slices.Equal(slices.Sorted(slices.Values(p.closed)), closed) {
		t.Errorf("%s: made %v, closed %v; want %v, %v", when, p.made, p.closed, made, closed)
	}
}

func TestPools(t *testing.T) {
	const a, b = "10.0.0.1:80", "10.0.0.2:80"
	for name, run := range map[string]func(*testing.T, *fixture, *fakePools){
		"of a pod that goes": func(t *testing.T, f *fixture, p *fakePools) {
			t.Helper()
			f.SetService(web(a, b))
			f.SetService(web(b))
			p.check(t, "gone", []string{a, b}, []string{a})
			f.SetService(web(b))
			f.SetService(web())
			p.check(t, "both gone", []string{a, b}, []string{a, b})
		},
		"of a pod that comes back": func(t *testing.T, f *fixture, p *fakePools) {
			t.Helper()
			f.SetService(web(a))
			first := f.route(10000).TryPick(&Visit{})
			f.SetService(web())
			f.SetService(web(a))
			second := f.route(10000).TryPick(&Visit{})
			if first == second || first.Pool == second.Pool {
				t.Error("it is the same")
			}
			p.check(t, "back", []string{a, a}, []string{a})
		},
		"of pods that stay": func(t *testing.T, f *fixture, p *fakePools) {
			t.Helper()
			f.SetService(web(a, b))
			first := f.route(10000).snap.Load().endpoints[0]
			changed := web(b, a)
			changed.SleepID, changed.Routes.HoldTimeout = "x", api.Duration(time.Hour)
			f.SetService(changed)
			f.route(10000).TryPick(&Visit{}).Fail()
			f.route(10000).snap.Load().endpoints[1].Succeed()
			if second := f.route(10000).snap.Load().endpoints[1]; second != first || second.Pool.(*fakePool).addr != a {
				t.Error("it is another")
			}
			p.check(t, "changed", []string{a, b}, nil)
		},
		"of a pod that is listed twice": func(t *testing.T, f *fixture, p *fakePools) {
			t.Helper()
			f.SetService(web(a, a))
			f.SetService(web(a, b, a))
			if n := len(f.route(10000).snap.Load().endpoints); n != 2 {
				t.Errorf("%d pods", n)
			}
			f.SetService(web())
			p.check(t, "gone", []string{a, b}, []string{a, b})
		},
		"of a route that expires": func(t *testing.T, f *fixture, p *fakePools) {
			t.Helper()
			f.SetService(web(a, b))
			f.RemoveService("shop", "web")
			advance(9 * time.Second)
			p.check(t, "lingering", []string{a, b}, nil)
			advance(time.Minute)
			p.check(t, "expired", []string{a, b}, []string{a, b})
			f.Close()
			p.check(t, "closed", []string{a, b}, []string{a, b})
		},
		"of a port that goes": func(t *testing.T, f *fixture, p *fakePools) {
			t.Helper()
			s := web(a)
			s.Routes.Ports = append(s.Routes.Ports, api.Port{Name: "admin", Port: 81, Listen: 10001, Protocol: api.ProtocolAuto})
			s.Endpoints["admin"] = []string{"10.0.0.1:81"}
			f.SetService(s)
			f.SetService(web(a))
			advance(time.Minute)
			p.check(t, "gone", []string{a, "10.0.0.1:81"}, []string{"10.0.0.1:81"})
		},
		"of a table that is closed": func(t *testing.T, f *fixture, p *fakePools) {
			t.Helper()
			f.SetService(web(a))
			lingering := web(b)
			lingering.Name, lingering.Routes.Service, lingering.Routes.Ports = "other", "other", []api.Port{{Name: "http", Listen: 10001}}
			f.SetService(lingering)
			f.RemoveService("shop", "other")
			f.Close()
			p.check(t, "closed", []string{a, b}, []string{a, b})
			f.Close()
			f.SetService(web())
			advance(time.Minute)
			p.check(t, "later", []string{a, b}, []string{a, b})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, p := newPoolFixture()
				run(t, f, p)
			})
		})
	}
}

// NewPool may return nil.
func TestNoPool(t *testing.T) {
	table := NewTable(TableOptions{
		Listeners: &fakeListeners{}, Waker: &fakeWaker{}, Log: logr.Discard(), NewPool: func(string) io.Closer { return nil },
		RouteMetrics:  func(string, string) Metrics { return &fakeMetrics{} },
		TargetMetrics: func(Key) TargetMetrics { return &fakeMetrics{} },
	})
	table.SetService(web("10.0.0.1:80"))
	if pool := table.routes[table.ports[10000]].TryPick(&Visit{}).Pool; pool != nil {
		t.Errorf("the pod has pool %v", pool)
	}
	table.SetService(web())
	table.Close()
}
