// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"maps"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

func withCookie(name string, addrs ...string) Service {
	s := web(addrs...)
	s.Routes.ServiceUID, s.Routes.AffinityCookie = "5f0c", name
	return s
}

func TestStickyFollowsTheCookies(t *testing.T) {
	f := newFixture(0)
	f.SetService(withCookie("JSESSIONID", pods(4)...))
	r := f.route(10000)
	s := r.Sticky()
	for _, e := range r.snap.Load().endpoints {
		visit := Visit{Pin: ParsePodID([]byte(s.ID(e))), Session: HashSession([]byte("abc"))}
		for range 20 {
			if got := r.TryPick(&visit); got != e {
				t.Fatalf("a cookie for %s leads to %s", e.Addr, got.Addr)
			}
		}
	}
	// Sessions are spread over the pods. Each stays at its pod when another pod leaves.
	before, count := map[string]string{}, map[string]int{}
	for i := range 4000 {
		session := fmt.Sprintf("session-%d", i)
		visit := Visit{Session: HashSession([]byte(session)), Pin: 12345}
		before[session] = r.TryPick(&visit).Addr
		count[before[session]]++
	}
	for addr, n := range count {
		if n < 850 || n > 1150 {
			t.Errorf("%s has %d of 4000 sessions", addr, n)
		}
	}
	f.SetService(withCookie("JSESSIONID", pods(3)...))
	for session, addr := range before {
		if got := r.TryPick(&Visit{Session: HashSession([]byte(session))}).Addr; (got != addr) != (addr == pods(4)[3]) {
			t.Errorf("%s moved from %s to %s", session, addr, got)
		}
	}
	// Without cookies, requests go to the pod with the fewest.
	f.SetService(withCookie("JSESSIONID", "10.0.1.1:80", "10.0.1.2:80", "10.0.1.3:80"))
	fewest := map[string]int{}
	for range 30 {
		fewest[r.TryPick(&Visit{}).Addr]++
	}
	for addr, n := range fewest {
		if n != 10 {
			t.Errorf("%s has %d of 30 requests without cookies", addr, n)
		}
	}
}

// All interceptors, in whatever order they list the pods, and all ports of a pod use the same name for it. To a visitor, the name
// reveals nothing about the address, and it differs between Services.
func TestPodIDs(t *testing.T) {
	names := func(uid, port string, hosts ...string) (own string, ids map[string]string) {
		f, s := newFixture(0), withCookie(api.AffinityAuto)
		for _, host := range hosts {
			s.Endpoints["http"] = append(s.Endpoints["http"], net.JoinHostPort(host, port))
		}
		s.Routes.ServiceUID = uid
		f.SetService(s)
		sticky, ids := f.route(10000).Sticky(), map[string]string{}
		for _, e := range sticky.pods {
			host, _, _ := net.SplitHostPort(e.Addr)
			ids[host] = sticky.ID(e)
		}
		return sticky.Own, ids
	}
	own, ids := names("5f0c", "80", "10.0.0.1", "10.0.0.2", "fd00::1")
	mirroredOwn, mirrored := names("5f0c", "8080", "fd00::1", "10.0.0.2", "10.0.0.1")
	otherOwn, other := names("77aa", "80", "10.0.0.1", "10.0.0.2", "fd00::1")
	if own != mirroredOwn || own == otherOwn {
		t.Errorf("cookies %s, %s and for another Service %s", own, mirroredOwn, otherOwn)
	}
	if !maps.Equal(ids, mirrored) {
		t.Errorf("one interceptor has %v, another %v", ids, mirrored)
	}
	seen := map[string]bool{}
	for host, id := range ids {
		if len(id) != podIDLength || ParsePodID([]byte(id)) == 0 || seen[id] || other[host] == id {
			t.Errorf("%s is %q, for another Service %q", host, id, other[host])
		}
		seen[id] = true
	}
	// Interceptors of different versions have to agree: a change of these values would move every client during an upgrade.
	if own != "scale-to-zero-a79af73e" || ids["10.0.0.1"] != "e923d3b842fe04f6" {
		t.Errorf("cookie %s, pod %s", own, ids["10.0.0.1"])
	}
}

func TestParsePodIDTakesNothingElse(t *testing.T) {
	for _, value := range []string{
		"", "0000000000000000", "00000000000000a", "00000000000000a00", "000000000000000G", "000000000000000A", "10.0.0.1",
	} {
		if id := ParsePodID([]byte(value)); id != 0 {
			t.Errorf("%q is %x", value, id)
		}
	}
	if id := ParsePodID([]byte("00000000000000af")); id != 0xaf {
		t.Errorf("%x", id)
	}
}

// The clients of a pod that cannot be reached for a moment go to another pod, and return afterwards.
func TestStickyWhileSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(withCookie(api.AffinityAuto, pods(3)...))
		r := f.route(10000)
		own := r.snap.Load().endpoints[1]
		visit := Visit{Pin: ParsePodID([]byte(r.Sticky().ID(own)))}
		own.Fail()
		for range 10 {
			if got := r.TryPick(&visit); got == own {
				t.Fatal("the pod that fails is picked")
			}
		}
		advance(suspectMin)
		if got := r.TryPick(&visit); got != own {
			t.Errorf("%s finds out whether the pod is back", got.Addr)
		}
		if got := r.TryPick(&visit); got == own {
			t.Error("a second visit does not wait for what the first finds out")
		}
		own.Succeed()
		if got := r.TryPick(&visit); got != own {
			t.Errorf("%s after the pod is back", got.Addr)
		}
		r.TryPick(&visit).Fail()
		f.SetService(withCookie(api.AffinityAuto, pods(3)[1]))
		began := time.Now()
		if got, err := r.Pick(t.Context(), &visit); err != nil || got != own || time.Since(began) != suspectMin {
			t.Errorf("%v, %v after %s", got, err, time.Since(began))
		}
	})
}

func TestStickyChanges(t *testing.T) {
	f := newFixture(0)
	var before *Sticky
	for _, tc := range []struct {
		s    Service
		want string // the name of the session cookie
		same bool
	}{
		{s: withCookie("JSESSIONID", pods(2)...), want: "JSESSIONID"},
		{s: withCookie("JSESSIONID", pods(2)...), want: "JSESSIONID", same: true},
		{s: withCookie("JSESSIONID", pods(3)...), want: "JSESSIONID"},
		{s: withCookie("sid", pods(3)...), want: "sid"},
		{s: withCookie(api.AffinityAuto, pods(3)...)},
	} {
		f.SetService(tc.s)
		got := f.route(10000).Sticky()
		if got == nil || got.Session != tc.want || (got == before) != tc.same {
			t.Errorf("%+v: %+v", tc, got)
		}
		before = got
	}
	f.SetService(web(pods(3)...))
	if got := f.route(10000).Sticky(); got != nil {
		t.Errorf("%+v without the setting", got)
	}
}

// Pods in their node's network are distinguished by their ports.
func TestStickyOnOneHost(t *testing.T) {
	f := newFixture(0)
	f.SetService(withCookie(api.AffinityAuto, "10.0.0.1:81", "10.0.0.1:82"))
	r := f.route(10000)
	for _, e := range r.snap.Load().endpoints {
		for range 5 {
			if got := r.TryPick(&Visit{Pin: ParsePodID([]byte(r.Sticky().ID(e)))}); got != e {
				t.Fatalf("a cookie for %s leads to %s", e.Addr, got.Addr)
			}
		}
	}
}
