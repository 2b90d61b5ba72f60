// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// stackOf is a table with a Service for each name, at the ports from 10000 on; all have slept since the table is in sync.
func stackOf(names ...string) *fixture {
	f := newFixture(0)
	f.Synced()
	for i, name := range names {
		f.SetService(member(name, int32(10000+i)))
	}
	return f
}

// pod lists a pod for a member of a stack.
func (f *fixture) pod(name string, listen int32, ready bool, addrs ...string) {
	s := member(name, listen)
	s.Pods = len(addrs)
	for _, addr := range addrs {
		s.IPs = append(s.IPs, hostOf(addr))
	}
	if ready {
		s.Endpoints = map[string][]string{"http": addrs}
	} else {
		s.Endpoints, s.Unready = nil, map[string][]string{"http": addrs}
	}
	f.SetService(s)
}

// calls are the calls since the last time, as caller>callee with ! if the callee was asleep.
func (f *fixture) calls(since *uint64) string {
	var news News
	news, *since = f.memory.News(*since)
	var out []string
	for _, c := range news.Calls {
		mark := ""
		if c.Asleep {
			mark = "!"
		}
		out = append(out, c.Caller.Workload+">"+c.Callee+mark)
	}
	slices.Sort(out)
	return fmt.Sprint(out)
}

func TestCallsOfNewcomers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := stackOf("web", "api", "db")
		defer f.Close()
		var since uint64
		from := func(listen int32, ip string) { f.route(listen).NoteCall(netip.MustParseAddr(ip)) }
		want := func(what, want string) {
			t.Helper()
			if got := f.calls(&since); got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		}
		from(10001, "10.0.0.1")
		want("nobody has woken", "[]")

		f.pod("web", 10000, false, "10.0.0.1:80")
		from(10000, "10.0.0.9")
		from(10000, "10.0.0.1")
		want("a visitor, and itself", "[]")
		from(10001, "10.0.0.1")
		want("before it is ready", "[Deployment/web>Deployment/api!]")
		advance(time.Second)
		from(10001, "10.0.0.1")
		want("again in the same wake", "[]")
		f.pod("web", 10000, true, "10.0.0.1:80")
		f.pod("db", 10002, true, "10.0.0.3:80")
		advance(api.CallsFor - time.Second)
		from(10002, "10.0.0.1")
		want("an app that is awake", "[Deployment/web>Deployment/db]")
		advance(2 * time.Second)
		from(10002, "10.0.0.1")
		from(10001, "10.0.0.1")
		want("later", "[]")
		advance(2 * api.CallsFor)
		synctest.Wait()
		if n := f.memory.newcomers; n.some.Load() || len(n.of) > 0 || len(n.pods) > 0 || n.prune != nil {
			t.Errorf("it is still a newcomer: %+v", n)
		}

		f.pod("web", 10000, true, "10.0.0.1:80", "10.0.0.2:80")
		from(10001, "10.0.0.2")
		want("another replica", "[]")
		f.pod("db", 10002, false, "10.0.0.3:80")
		f.SetService(member("web", 10000))
		f.pod("web", 10000, false, "10.0.0.4:80")
		from(10001, "10.0.0.1")
		want("an address of the wake before", "[]")
		from(10001, "10.0.0.4")
		want("the next wake", "[Deployment/web>Deployment/api!]")
		from(10002, "10.0.0.4")
		want("an app that is up, and not ready for a moment", "[Deployment/web>Deployment/db]")
	})
}

func TestCallsThatTeachNothing(t *testing.T) {
	ip := netip.MustParseAddr("10.0.0.1")
	for name, change := range map[string]func(*fixture){
		"another namespace": func(f *fixture) {
			s := member("api", 10001)
			f.RemoveService("shop", "api")
			advance(time.Minute) // its route lingers
			s.Namespace, s.Routes.Ports[0].Listen = "elsewhere", 10005
			f.SetService(s)
		},
		"learning is off for the callee": func(f *fixture) {
			s := member("api", 10001)
			s.Routes.NoLearning = true
			f.SetService(s)
		},
		"learning is off at another Service of the callee": func(f *fixture) {
			s := member("api", 10005)
			s.Name, s.Routes.Service, s.Routes.NoLearning = "api-admin", "api-admin", true
			f.SetService(s)
		},
		"it does not become ready in time": func(*fixture) { advance(time.Hour) },
		"the address of another namespace's pod": func(f *fixture) {
			f.SetService(member("web", 10000))
			s := member("web", 10006)
			s.Namespace, s.Pods, s.IPs, s.Unready = "elsewhere", 1, []string{"10.0.0.1"}, map[string][]string{"http": {"10.0.0.1:80"}}
			f.SetService(s)
		},
		"the address of two": func(f *fixture) { f.pod("db", 10002, false, "10.0.0.1:5432") },
		"it is gone": func(f *fixture) {
			f.RemoveService("shop", "web")
			advance(time.Minute)
		},
		"it sleeps again": func(f *fixture) { f.SetService(member("web", 10000)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := stackOf("web", "api")
				defer f.Close()
				f.pod("web", 10000, false, "10.0.0.1:80")
				change(f)
				var since uint64
				for _, r := range f.Routes() {
					r.NoteCall(ip)
				}
				if got := f.calls(&since); got != "[]" {
					t.Error(got)
				}
			})
		})
	}
	t.Run("it was there at the start", func(t *testing.T) {
		f := newFixture(0)
		f.SetService(member("api", 10001))
		f.pod("web", 10000, true, "10.0.0.1:80")
		f.Synced()
		defer f.Close()
		f.route(10001).NoteCall(ip)
		var since uint64
		if got := f.calls(&since); got != "[]" {
			t.Error(got)
		}
	})
}

// TestCallsReachPeers tests that calls are passed on, but neither echoed nor told twice.
func TestCallsReachPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := stackOf("web", "api"), stackOf("web", "api")
		defer one.Close()
		defer two.Close()
		for _, f := range []*fixture{one, two} {
			f.pod("web", 10000, false, "10.0.0.1:80")
		}
		one.route(10001).NoteCall(netip.MustParseAddr("10.0.0.1"))
		news, told := one.memory.News(0)
		two.memory.Learn(news)
		advance(time.Second)
		two.route(10001).NoteCall(netip.MustParseAddr("10.0.0.1"))
		back, version := two.memory.News(0)
		if len(back.Calls) != 1 || back.Calls[0].Age < time.Second || !back.Calls[0].Asleep || version != 1 {
			t.Errorf("the peer knows %+v, version %d", back.Calls, version)
		}
		one.memory.Learn(back)
		if again, _ := one.memory.News(told); len(again.Calls) > 0 {
			t.Errorf("it is told back: %+v", again.Calls)
		}
		web := Key{Namespace: "shop", Workload: "Deployment/web"}
		two.memory.Learn(News{Calls: []CallNews{{Caller: web, Callee: "Deployment/old", Age: callKept}}})
		if old, _ := two.memory.News(1); len(old.Calls) > 0 {
			t.Errorf("it learns what is long over: %+v", old.Calls)
		}
	})
}

// TestCallsAreForgotten tests that the calls of a large cluster do not pile up.
func TestCallsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		for wave := range 5 {
			for i := range manyFacts {
				f.memory.Learn(News{Calls: []CallNews{{Caller: Key{Namespace: "shop", Workload: fmt.Sprint(wave, i)}, Callee: "Deployment/api"}}})
			}
			advance(callKept + time.Second)
		}
		if n := len(f.memory.calls.all); n > 2*manyFacts {
			t.Errorf("%d calls are kept", n)
		}
	})
}

func TestCalledWakeTogether(t *testing.T) {
	calls := func(name string, listen int32, callees ...string) Service {
		s := member(name, listen)
		for _, c := range callees {
			s.Calls = append(s.Calls, "Deployment/"+c)
		}
		return s
	}
	f := newFixture(0)
	for _, s := range []Service{calls("web", 10000, "api", "none"), calls("api", 10001, "db"), calls("db", 10002), calls("other", 10003)} {
		f.SetService(s)
	}
	want := func(what, of, led, leaders, callers string) {
		t.Helper()
		target := f.Target(Key{Namespace: "shop", Workload: "Deployment/" + of})
		var routes []*Target
		for _, r := range f.stacks().Led(target) {
			routes = append(routes, r.Target())
		}
		for _, one := range []struct {
			what, want string
			got        []*Target
		}{{"leads", led, routes}, {"is led by", leaders, f.stacks().Leaders(target)}, {"is called by", callers, f.stacks().Callers(target)}} {
			if got := namesOf(one.got); got != one.want {
				t.Errorf("%s: %s %s %q, want %q", what, of, one.what, got, one.want)
			}
		}
	}
	want("at the front", "web", "api db", "", "")
	want("in the middle", "api", "db", "", "web")
	want("at the back", "db", "", "", "api web")
	want("beside it", "other", "", "", "")

	named := calls("api", 10001)
	named.Routes.WakeWith = []string{"db"}
	f.SetService(named)
	want("the second edge has a name", "web", "api db", "", "")
	want("the second edge has a name", "db", "", "api", "api web")

	for what, name := range map[string]string{"the caller learns nothing": "web", "the callee teaches nothing": "api"} {
		old, _ := f.Service("shop", name)
		off := old
		off.Routes.NoLearning = true
		f.SetService(off)
		want(what, "web", "", "", "")
		want(what, "api", "db", "", "")
		f.SetService(old)
	}
	f.SetService(calls("web", 10000))
	want("forgotten", "web", "", "", "")
	want("forgotten", "api", "db", "", "")
}

// TestStacksAreBounded tests that a look at what is above a workload costs no more than the nearest hundred, and that it is found again
// after a change only.
func TestStacksAreBounded(t *testing.T) {
	f := newFixture(0)
	for i := range 2 * maxStack {
		s := member(fmt.Sprint("app", i), int32(10000+i))
		s.Calls = []string{fmt.Sprint("Deployment/app", i+1)}
		f.SetService(s)
	}
	target := func(i int) *Target {
		return f.Target(Key{Namespace: "shop", Workload: fmt.Sprint("Deployment/app", i)})
	}
	if n := len(f.stacks().Led(target(0))); n != maxStack {
		t.Errorf("%d wake together", n)
	}
	above := f.stacks().Callers(target(2*maxStack - 1))
	if len(above) != maxStack || above[0] != target(2*maxStack-2) {
		t.Errorf("%d are above", len(above))
	}
	cached := len(f.services.stacks.above)
	ready := member("app0", 10000)
	ready.Calls, ready.Pods, ready.Endpoints = []string{"Deployment/app1"}, 1, map[string][]string{"http": {"10.0.0.1:80"}}
	f.SetService(ready)
	if cached == 0 || len(f.services.stacks.above) != cached {
		t.Error("a pod makes it look again")
	}
	f.SetService(member("app0", 10000))
	if len(f.services.stacks.above) > 0 || len(f.stacks().Callers(target(1))) > 0 {
		t.Error("an edge that has gone is still known")
	}
}
