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
)

func sticky(addrs ...string) Service {
	s := web(addrs...)
	s.Routes.ClientAffinity = true
	return s
}

func pods(n int) []string {
	var addrs []string
	for i := range n {
		addrs = append(addrs, fmt.Sprintf("10.0.0.%d:80", i+1))
	}
	return addrs
}

// clients returns n neighbouring addresses, because clients are often neighbours.
func clients(n int) []netip.Addr {
	all := make([]netip.Addr, 0, n)
	for a := netip.MustParseAddr("10.1.0.0"); len(all) < n; a = a.Next() {
		all = append(all, a)
	}
	return all
}

// pick returns the pod of a client with affinity.
func (f *fixture) pick(client netip.Addr) string {
	return f.route(10000).TryPick(&Visit{Client: client}).Addr
}

func TestAffinity(t *testing.T) {
	f, other := newFixture(0), newFixture(0)
	f.SetService(sticky(pods(4)...))
	mirrored := pods(4)
	slices.Reverse(mirrored)
	other.SetService(sticky(mirrored...))
	before, count := map[netip.Addr]string{}, map[string]int{}
	for _, c := range clients(4000) {
		before[c] = f.pick(c)
		count[before[c]]++
		for range 3 {
			if got := f.pick(c); got != before[c] {
				t.Fatalf("%s is at %s, then at %s", c, before[c], got)
			}
		}
		if got := other.pick(c); got != before[c] {
			t.Fatalf("another interceptor sends %s to %s, not to %s", c, got, before[c])
		}
		if got := f.pick(netip.AddrFrom16(c.As16())); got != before[c] {
			t.Fatalf("%s is at %s, and by the IPv6 socket that takes both at %s", c, before[c], got)
		}
	}
	for addr, n := range count {
		if n < 850 || n > 1150 {
			t.Errorf("%s has %d of 4000 clients", addr, n)
		}
	}
	// A pod that leaves moves only its own clients.
	left := slices.DeleteFunc(pods(4), func(addr string) bool { return addr == "10.0.0.2:80" })
	f.SetService(sticky(left...))
	for c, addr := range before {
		if got := f.pick(c); (got != addr) != (addr == "10.0.0.2:80") {
			t.Errorf("%s moved from %s to %s", c, addr, got)
		}
	}
	// Its clients return with it. A new pod takes over some clients, and no client moves between other pods.
	f.SetService(sticky(pods(5)...))
	moved := 0
	for c, addr := range before {
		switch got := f.pick(c); got {
		case addr:
		case "10.0.0.5:80":
			moved++
		default:
			t.Errorf("%s moved from %s to %s", c, addr, got)
		}
	}
	if moved < 650 || moved > 950 {
		t.Errorf("the fifth pod has %d of 4000 clients", moved)
	}
}

// Interceptors of different versions have to agree: a change of these values would change every client's pod during an upgrade.
func TestAffinityIsForAllVersions(t *testing.T) {
	f := newFixture(0)
	f.SetService(sticky("10.0.0.1:8080", "10.0.0.2:8080", "[fd00::1]:8080"))
	for client, want := range map[string]string{
		"10.1.0.1": "10.0.0.1:8080", "10.1.0.2": "10.0.0.2:8080", "192.0.2.77": "10.0.0.2:8080",
		"2001:db8::1": "[fd00::1]:8080", "2001:db8::2": "10.0.0.2:8080", "fe80::1%eth0": "[fd00::1]:8080",
	} {
		if got := f.pick(netip.MustParseAddr(client)); got != want {
			t.Errorf("%q: %q, not %s", client, got, want)
		}
	}
}

func TestNoAffinity(t *testing.T) {
	client := clients(1)[0]
	for name, tc := range map[string]struct {
		service Service
		visit   Visit
	}{
		"the Service asks no longer":  {web(pods(3)...), Visit{Client: client}},
		"the client is not known":     {sticky(pods(3)...), Visit{}},
		"the event's address is none": {sticky(pods(3)...), Visit{Remote: client.String()}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(0)
			f.SetService(sticky(pods(3)...))
			f.SetService(tc.service)
			got := map[string]int{}
			for range 30 {
				got[f.route(10000).TryPick(&tc.visit).Addr]++
			}
			for addr, n := range got {
				if n != 10 {
					t.Errorf("%s has %d of 30", addr, n)
				}
			}
		})
	}
}

// While a client's own pod refuses, the client goes to one other pod, always the same, and returns afterwards.
func TestAffinityWhileSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(sticky(pods(4)...))
		r, visit := f.route(10000), Visit{Client: clients(1)[0]}
		own := r.TryPick(&visit)
		own.Fail()
		second := r.TryPick(&visit)
		for range 10 {
			if got := r.TryPick(&visit); got == own || got != second {
				t.Fatalf("%s, own %s, second %s", got.Addr, own.Addr, second.Addr)
			}
		}
		// The first visit after the suspicion probes the pod. The others do not wait for the result.
		advance(suspectMin)
		if got := r.TryPick(&visit); got != own {
			t.Errorf("%s instead of the client's own pod", got.Addr)
		}
		if got := r.TryPick(&visit); got != second {
			t.Errorf("%s while another visit finds out", got.Addr)
		}
		own.Succeed()
		if got := r.TryPick(&visit); got != own {
			t.Errorf("%s after the client's own pod is back", got.Addr)
		}
		// While all pods are suspect, the client waits until the first may be tried again.
		for range 4 {
			r.TryPick(&visit).Fail()
		}
		if got := r.TryPick(&visit); got != nil {
			t.Errorf("%s is suspect", got.Addr)
		}
		began := time.Now()
		if _, err := r.Pick(t.Context(), &visit); err != nil || time.Since(began) != suspectMin {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}

// Each change of the Service decides anew whether there is affinity.
func TestAffinityChanges(t *testing.T) {
	f := newFixture(0)
	s := web(pods(3)...)
	for _, want := range []bool{false, true, true, false} {
		s.Routes.ClientAffinity = want
		f.SetService(s)
		if got := f.route(10000).snap.Load().affinity; got != want {
			t.Errorf("affinity %t, want %t", got, want)
		}
	}
	if len(f.listeners.opened) != 1 || len(f.listeners.closed) != 0 {
		t.Error("the port was opened anew")
	}
}
