// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// database is a Service that web, which service returns, wakes with it.
func database(addrs ...string) route.Service {
	s := service(addrs...)
	s.Name, s.Routes.Service, s.SleepID = "db", "db", "d1"
	s.Routes.Workload.Name = "db"
	s.Routes.Ports = []api.Port{{Name: "http", Port: 5432, Listen: 10001, Protocol: api.ProtocolAuto}}
	return s
}

func front(addrs ...string) route.Service {
	s := service(addrs...)
	s.Routes.WakeWith = []string{"db"}
	return s
}

var databaseKey = route.Key{Namespace: "shop", Workload: "Deployment/db"}

func wantActivity(t *testing.T, a *Activity, of *route.Target, what string, active, inSight, waiting bool) {
	t.Helper()
	if a.Active(of, time.Minute) != active || a.InSight(of) != inSight || a.Waiting(of) != waiting {
		t.Errorf("%s: active %v, in sight %v, waiting %v", what, a.Active(of, time.Minute), a.InSight(of), a.Waiting(of))
	}
}

// What a workload in use leads is up as long as that is, and while it wakes.
func TestLedIsActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, _ := newTable(nil)
		peers := newFakePeers()
		a := &Activity{Peers: peers, Leaders: route.Stacks{Table: table}.Leaders}
		table.SetService(front())
		table.SetService(database())
		web, db := table.Target(deployment), table.Target(databaseKey)
		advance(time.Hour)
		want := func(what string, active, inSight, waiting bool) {
			t.Helper()
			wantActivity(t, a, db, what, active, inSight, waiting)
			if a.Waiting(web) && web.Pending() == 0 {
				t.Errorf("%s: what leads it is woken for it", what)
			}
		}
		want("nobody is there", false, false, false)
		release := web.Begin()
		want("the first request is held", true, true, true)
		table.SetService(database("10.0.0.2:5432"))
		want("it is ready before the other", true, true, false)
		release()
		advance(30 * time.Second)
		if idle, _ := a.Idle(db); idle != 30*time.Second {
			t.Errorf("idle for %s", idle)
		}
		want("the visitor has just left", true, true, false)
		advance(time.Hour)
		want("the visitor has left long ago", false, true, false)
		db.Begin()()
		advance(time.Second)
		if a.Active(web, time.Minute) {
			t.Error("what it is led by is kept up by it")
		}
	})
}

// A request wakes what it leads in the same moment, with an event of its own, and each is scaled where KEDA does not listen.
func TestWakesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		workloads, events := &fakeWorkloads{}, &fakeEvents{}
		var table *route.Table
		w := NewWaker(WakerOptions{
			Scaler: workloads, Events: events, Peers: newFakePeers(), Hub: counts.NewHub(), Log: logr.Discard(),
			Led:     func(t *route.Target) []*route.Route { return route.Stacks{Table: table}.Led(t) },
			Leaders: func(t *route.Target) []*route.Target { return route.Stacks{Table: table}.Leaders(t) },
		})
		table, _ = newTable(w)
		table.SetService(database())
		s := front()
		table.SetService(s)
		var r *route.Route
		for _, one := range table.Routes() {
			if one.Service == "web" {
				r = one
			}
		}
		picked := make(chan error, 1)
		go func() {
			e, err := r.Pick(t.Context(), &route.Visit{Method: "GET", Path: "/"})
			if err == nil {
				e.Done()
			}
			picked <- err
		}()
		synctest.Wait()
		if n := workloads.scales.Load(); n != 2 {
			t.Errorf("%d workloads were scaled", n)
		}
		if len(events.wakes) != 2 || events.wakes[1].Service != "db" ||
			events.wakes[1].Message != "waking Deployment/db together with Deployment/web" {
			t.Errorf("events %+v", events.wakes)
		}
		s.Endpoints, s.Pods = map[string][]string{"http": {"10.0.0.1:80"}}, 1
		table.SetService(s)
		if err := <-picked; err != nil {
			t.Error(err)
		}
		w.Close()
	})
}

// caller is front with a learned edge instead of a name.
func caller(addrs ...string) route.Service {
	s := front()
	s.Routes.WakeWith, s.Calls = nil, []string{databaseKey.Workload}
	if s.Pods = len(addrs); s.Pods > 0 {
		s.Endpoints = map[string][]string{"http": addrs}
	}
	return s
}

// busyElsewhere are peers that have pending requests for one workload.
type busyElsewhere struct {
	*fakePeers
	with route.Key
}

func (p *busyElsewhere) Total(key route.Key) (int64, time.Duration) {
	if key == p.with {
		return 1, 0
	}
	return p.fakePeers.Total(key)
}

// TestCalledIsActive tests that a workload is woken with one that calls it, but not kept up by it.
func TestCalledIsActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, _ := newTable(nil)
		peers := &busyElsewhere{fakePeers: newFakePeers()}
		stacks := route.Stacks{Table: table}
		a := &Activity{Peers: peers, Leaders: stacks.Leaders, Callers: stacks.Callers}
		table.SetService(caller())
		table.SetService(database())
		web, db := table.Target(deployment), table.Target(databaseKey)
		advance(time.Hour)
		want := func(what string, active, inSight, waiting bool) {
			t.Helper()
			wantActivity(t, a, db, what, active, inSight, waiting)
		}
		want("nobody is there", false, false, false)
		release := web.Begin()
		want("a request wakes its caller", true, true, true)
		table.SetService(caller("10.0.0.1:80"))
		want("its caller is ready", false, false, false)
		release()
		table.SetService(caller())
		peers.with = deployment
		want("its caller wakes at a peer", true, true, true)
		paused := caller()
		paused.Progress.Paused = &api.Pause{Why: "paused"}
		table.SetService(paused)
		want("its caller may not wake", false, false, false)
	})
}

// TestCalledWakesWithCaller tests that a wake by a learned edge lasts as long as the caller's, even if nobody calls.
func TestCalledWakesWithCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		workloads, events := &fakeWorkloads{}, &fakeEvents{}
		var stacks route.Stacks
		w := NewWaker(WakerOptions{
			Scaler: workloads, Events: events, Peers: newFakePeers(), Hub: counts.NewHub(), Log: logr.Discard(),
			Led:     func(t *route.Target) []*route.Route { return stacks.Led(t) },
			Leaders: func(t *route.Target) []*route.Target { return stacks.Leaders(t) },
			Callers: func(t *route.Target) []*route.Target { return stacks.Callers(t) },
		})
		defer w.Close()
		table, _ := newTable(w)
		stacks.Table = table
		table.SetService(database())
		table.SetService(caller())
		web, db := table.Target(deployment), table.Target(databaseKey)
		var r *route.Route
		for _, one := range table.Routes() {
			if one.Service == "web" {
				r = one
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _, _ = r.Pick(ctx, &route.Visit{Method: "GET", Path: "/"}) }()
		advance(20 * time.Second)
		if web.Waking() == 0 || db.Waking() == 0 || !db.Looping() {
			t.Errorf("waking for %s, the called one for %s, looping %v", web.Waking(), db.Waking(), db.Looping())
		}
		if len(events.wakes) != 2 || events.wakes[1].Message != "waking Deployment/db together with Deployment/web" {
			t.Errorf("events %+v", events.wakes)
		}
		table.SetService(caller("10.0.0.1:80"))
		advance(3 * time.Second)
		if db.Waking() > 0 || db.Looping() {
			t.Error("the called one still wakes when its caller is ready and has not called")
		}
	})
}

// stackRig is a Waker with a front and a back, which sleep.
func stackRig(t *testing.T, front, back route.Service) (w *Waker, table *route.Table, workloads *fakeWorkloads) {
	t.Helper()
	workloads = &fakeWorkloads{}
	var stacks route.Stacks
	w = NewWaker(WakerOptions{
		Scaler: workloads, Events: &fakeEvents{}, Peers: newFakePeers(), Hub: counts.NewHub(), Log: logr.Discard(),
		Led:     func(t *route.Target) []*route.Route { return stacks.Led(t) },
		Leaders: func(t *route.Target) []*route.Target { return stacks.Leaders(t) },
		Callers: func(t *route.Target) []*route.Target { return stacks.Callers(t) },
	})
	table, _ = newTable(w)
	stacks.Table = table
	table.SetService(back)
	table.SetService(front)
	return w, table, workloads
}

// TestCirclesEnd tests that two workloads that wake each other do not go on with that when their only visitor has left.
func TestCirclesEnd(t *testing.T) {
	for name, circle := range map[string]func(web, db *route.Service){
		"learned": func(web, db *route.Service) {
			web.Calls, db.Calls = []string{databaseKey.Workload}, []string{deployment.Workload}
		},
		"named": func(web, db *route.Service) {
			web.Routes.WakeWith, db.Routes.WakeWith = []string{"db"}, []string{"web"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				web, db := service(), database()
				circle(&web, &db)
				w, table, workloads := stackRig(t, web, db)
				defer w.Close()
				var r *route.Route
				for _, one := range table.Routes() {
					if one.Service == "web" {
						r = one
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				release := r.Target().Begin()
				_, _ = r.Pick(ctx, &route.Visit{Method: "GET", Path: "/"})
				release()
				advance(time.Minute)
				before := workloads.scales.Load()
				advance(time.Hour)
				for _, target := range table.Targets() {
					if target.Looping() || target.Waking() > 0 {
						t.Errorf("%s still wakes", target.Key)
					}
				}
				if n := workloads.scales.Load() - before; n > 0 {
					t.Errorf("scaled up %d times for nobody", n)
				}
			})
		})
	}
}

// TestCalledNeedsAWake tests that a caller wakes what it calls only while it wakes itself.
func TestCalledNeedsAWake(t *testing.T) {
	unready := func() route.Service {
		s := caller()
		s.Pods, s.Unready = 1, map[string][]string{"http": {"10.0.0.1:80"}}
		return s
	}
	for name, world := range map[string]func(table *route.Table){
		"it is awake, and one probe fails": func(table *route.Table) {
			table.SetService(caller("10.0.0.1:80"))
			advance(24 * time.Hour)
			table.SetService(unready())
		},
		"it has not become ready in time": func(table *route.Table) {
			table.SetService(unready())
			advance(24 * time.Hour)
		},
		"it cannot start": func(table *route.Table) {
			s := unready()
			s.Progress = api.Progress{Failing: "container web has ended 9 times", Reason: "CrashLoopBackOff", Seen: time.Now()}
			table.SetService(s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table, _ := newTable(nil)
				stacks := route.Stacks{Table: table}
				a := &Activity{Peers: newFakePeers(), Leaders: stacks.Leaders, Callers: stacks.Callers}
				table.SetService(database())
				world(table)
				defer table.Target(deployment).Begin()()
				advance(time.Hour)
				wantActivity(t, a, table.Target(databaseKey), name, false, false, false)
			})
		})
	}
}
