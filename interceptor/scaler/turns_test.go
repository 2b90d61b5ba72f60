// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// scan is a table of many sleeping apps and their waker, which wakes five at a time, and three for one source.
type scan struct {
	t      *testing.T
	table  *route.Table
	events *fakeEvents
	hub    *counts.Hub
	waker  *Waker
	ctx    context.Context
	leave  context.CancelFunc
	visits sync.WaitGroup
}

func newScan(t *testing.T, apps int) *scan {
	t.Helper()
	s := &scan{t: t, events: &fakeEvents{}, hub: counts.NewHub()}
	s.ctx, s.leave = context.WithCancel(t.Context())
	s.waker = NewWaker(WakerOptions{
		Scaler: &fakeWorkloads{}, Events: s.events, Peers: newFakePeers(), Hub: s.hub, Log: logr.Discard(),
		MaxWakes: 5, MaxWakesPerSource: 3,
	})
	s.table, _ = newTableOf(s.waker, s.hub)
	for n := range apps {
		s.set(n)
	}
	return s
}

func (s *scan) close() {
	s.leave()
	s.visits.Wait()
	s.waker.Close()
}

// set makes app n have these pods.
func (s *scan) set(n int, addrs ...string) {
	app := service(addrs...)
	app.Name = fmt.Sprintf("app%d", n)
	app.Routes.Service, app.Routes.Workload.Name, app.Routes.Ports[0].Listen = app.Name, app.Name, int32(10000+n)
	s.table.SetService(app)
}

func (s *scan) target(n int) *route.Target {
	return s.table.Target(route.Key{Namespace: "shop", Workload: fmt.Sprintf("Deployment/app%d", n)})
}

// visit asks app n for a page, and waits for it. The address has connected to us, and names the visitor.
func (s *scan) visit(n int, address, visitor string) (leave context.CancelFunc) {
	ctx, leave := context.WithCancel(s.ctx)
	name := fmt.Sprintf("app%d", n)
	all := s.table.Routes()
	one := all[slices.IndexFunc(all, func(r *route.Route) bool { return r.Service == name })]
	s.visits.Go(func() {
		defer one.Target().Begin()()
		if e, err := one.Pick(ctx, &route.Visit{Method: "GET", Path: "/", Remote: visitor, Client: netip.MustParseAddr(address)}); err == nil {
			e.Done()
		}
	})
	synctest.Wait()
	return leave
}

// woken returns the apps that have been woken, in order.
func (s *scan) woken() string {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	var names []string
	for _, w := range s.events.wakes {
		names = append(names, strings.TrimPrefix(w.Workload.Name, "app"))
	}
	return strings.Join(names, " ")
}

func (s *scan) want(when, woken string) {
	s.t.Helper()
	synctest.Wait()
	if got := s.woken(); got != woken {
		s.t.Errorf("%s, %q are woken, want %q", when, got, woken)
	}
}

func TestWakesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScan(t, 9)
		defer s.close()
		for n := range 6 {
			s.visit(n, "192.0.2.1", "192.0.2.1")
		}
		s.want("of one source that visits six apps", "0 1 2")
		s.visit(6, "192.0.2.2", "192.0.2.2")
		s.visit(7, "192.0.2.3", "192.0.2.3")
		s.visit(8, "192.0.2.4", "192.0.2.4")
		s.want("with two other sources", "0 1 2 6 7")

		s.set(1, "10.0.0.1:80")
		advance(time.Second)
		s.want("after one is ready, the first in the queue", "0 1 2 6 7 3")
		s.set(6, "10.0.0.6:80")
		advance(time.Second)
		s.want("a source with too many lets the next go first", "0 1 2 6 7 3 8")

		advance(turnFor)
		s.want("slow starts give up their turns", "0 1 2 6 7 3 8 4 5")
	})
}

func TestForwardedSourcesAreBounded(t *testing.T) {
	one := func(address string) func(int) string { return func(int) string { return address } }
	each := func(format string) func(int) string { return func(n int) string { return fmt.Sprintf(format, n) } }
	for name, tc := range map[string]struct {
		address, visitor func(n int) string
		woken            string
	}{
		"one proxy, many visitors":       {one("192.0.2.1"), each("198.51.100.%d"), "0 1 2"},
		"one visitor, many proxies":      {each("192.0.2.%d"), one("198.51.100.1"), "0 1 2"},
		"one IPv6 network":               {each("2001:db8::%d"), one("198.51.100.1"), "0 1 2"},
		"everybody comes from elsewhere": {each("192.0.2.%d"), each("198.51.100.%d"), "0 1 2 3 4"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScan(t, 8)
				defer s.close()
				for n := range 8 {
					s.visit(n, tc.address(n), tc.visitor(n))
				}
				s.want("at first", tc.woken)
			})
		})
	}
}

// TestQueuedIsNotActive tests that KEDA, and peers, are not told of requests whose wake has to wait: they would wake the app.
func TestQueuedIsNotActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScan(t, 4)
		defer s.close()
		a := &Activity{Peers: newFakePeers()}
		for n := range 4 {
			s.visit(n, "192.0.2.1", "192.0.2.1")
		}
		queued := s.target(3)
		if !queued.Queued() {
			t.Fatal("nothing waits for its turn")
		}
		pending, _ := queued.Look()
		if a.Active(queued, time.Minute) && a.InSight(queued) || a.Waiting(queued) || a.Pending(queued) != 0 || pending != 0 {
			t.Error("a queued app looks as if it were to wake")
		}
		if first := s.target(0); !a.Active(first, time.Minute) || !a.InSight(first) || !a.Waiting(first) {
			t.Error("an app whose turn it is does not look as if it were to wake")
		}
		release := queued.Begin() // a long request
		defer release()
		changed := s.hub.FollowAll()
		defer changed.Close()
		queued.Look()           // as a peer does
		s.set(3, "10.0.0.3:80") // somebody else has woken it
		if queued.Queued() || queued.Demand() != queued.Pending() || queued.Demand() == 0 {
			t.Error("an app with a pod still counts as queued")
		}
		if keys := changed.Take(); !slices.Contains(keys, queued.Key) {
			t.Errorf("the peers hear of %v, and not of its requests", keys)
		}

		s.set(3)
		s.visit(3, "192.0.2.1", "192.0.2.1")
		if !queued.Queued() {
			t.Error("its next wake does not wait for its turn")
		}
	})
}

func TestLeavingTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScan(t, 6)
		defer s.close()
		for n := range 3 {
			s.visit(n, "192.0.2.1", "192.0.2.1")
		}
		leave := s.visit(3, "192.0.2.1", "192.0.2.1")
		s.visit(4, "192.0.2.1", "192.0.2.1")
		s.visit(4, "192.0.2.1", "192.0.2.1") // of the same app: one turn
		leave()
		advance(6 * time.Second) // the linger of a client that may come again
		s.set(0, "10.0.0.1:80")
		s.set(1, "10.0.0.2:80")
		advance(time.Second)
		s.want("without the visitor who has left", "0 1 2 4")
		s.visit(3, "192.0.2.9", "192.0.2.9")
		s.want("when it comes again", "0 1 2 4 3")
	})
}
