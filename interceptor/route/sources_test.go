// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func sighting(target, agent, remote string) *Sighting {
	return &Sighting{
		Method: []byte("GET"), Target: []byte(target), Agent: []byte(agent), Remote: []byte(remote), Client: netip.MustParseAddr("10.1.0.9"),
	}
}

// String returns the sources, one in each line.
func (s Sources) String() string {
	var lines []string
	for _, e := range s.Each {
		v := e.Visit
		lines = append(lines, fmt.Sprintf("%s %s more=%t %s %s: %d busy %d open %d, %s ago", v.Method, v.Path, e.More, v.Remote, v.Agent,
			e.Requests, e.Busy, e.Open, e.Last))
	}
	return fmt.Sprintf("%d in %s\n", s.All, s.Period) + strings.Join(lines, "\n")
}

func TestSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web("10.0.0.1:80"))
		r := f.route(10000)
		for range 30 {
			r.See(sighting("/api/tick?secret=1", "python-requests/2.32", "")).End()
			advance(2 * time.Second)
		}
		r.See(sighting("/api/items/17", "curl/8", "192.0.2.7")).End()
		r.See(sighting("http://h/api/items/18", "curl/8", "192.0.2.7")).End()
		socket := r.See(&Sighting{Client: netip.MustParseAddr("10.1.0.8")})
		advance(time.Second)
		want := "33 in 1m1s\n" +
			"GET /api/tick more=false 10.1.0.9 python-requests/2.32: 30 busy 0 open 0, 3s ago\n" +
			"GET /api/items/ more=true 192.0.2.7 curl/8: 2 busy 0 open 0, 1s ago\n" +
			"  more=false 10.1.0.8 : 1 busy 0 open 1, 1s ago"
		if got := r.TakeSources().String(); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
		// A new period begins. Open requests continue.
		for range 5 {
			socket.Busy()
		}
		advance(time.Minute)
		if got, want := r.TakeSources().String(), "0 in 1m0s\n  more=false 10.1.0.8 : 0 busy 5 open 1, 1m0s ago"; got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
		socket.End()
		if got, want := r.TakeSources().String(), "0 in 0s\n"; got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	})
}

func TestPathPrefix(t *testing.T) {
	long := "/" + strings.Repeat("a", 100)
	for target, want := range map[string]string{
		"/": "/", "/a": "/a", "/a/b": "/a/b", "/a/b/": "/a/b/+", "/a/b/c/d": "/a/b/+", "/a?b/c/d": "/a", "": "", "*": "/", "//": "//",
		"///": "///+",
		long:  long[:maxSourceText] + "+", "http://h/a/b/c": "/a/b/+", "http://h": "/",
	} {
		prefix, more := pathPrefix([]byte(target))
		if got := string(prefix) + map[bool]string{true: "+"}[more]; got != want {
			t.Errorf("%q: %q, want %q", target, got, want)
		}
	}
}

// Among any number of sources, the frequent ones are kept, with at most as many requests as they have sent, and the total includes
// the others.
func TestSourcesAreBounded(t *testing.T) {
	f := newFixture(0)
	f.SetService(web("10.0.0.1:80"))
	r := f.route(10000)
	open := r.See(sighting("/events", "browser", ""))
	for i := range 10000 {
		r.See(sighting(fmt.Sprintf("/%d", i), "crawler", "")).End()
		if i%4 == 0 {
			r.See(sighting("/tick", "script", "")).End()
		}
	}
	got := r.TakeSources()
	if len(got.Each) > maxSources || got.All != 12501 {
		t.Fatalf("%d sources, %d requests", len(got.Each), got.All)
	}
	if top := got.Each[0]; top.Visit.Path != "/tick" || top.Requests > 2500 || top.Requests < 2000 {
		t.Errorf("the first of\n%s", got)
	}
	found := false
	for _, e := range got.Each {
		found = found || e.Visit.Path == "/events" && e.Open == 1
	}
	if !found {
		t.Errorf("an open request is not among\n%s", got)
	}
	// If all sources have open requests, none makes room, and no request counts twice.
	var all []Seen
	for i := range 40 {
		all = append(all, r.See(sighting(fmt.Sprintf("/open/%d", i), "", "")))
	}
	if got := r.TakeSources(); len(got.Each) != maxSources || got.All != 40 {
		t.Errorf("%s", got)
	}
	for _, s := range append(all, open) {
		s.End()
	}
	if got := r.TakeSources(); len(got.Each) != 0 {
		t.Errorf("after all have ended: %s", got)
	}
}

// Concurrent requests leave nothing open, and no source has more requests than there were.
func TestSourcesAtTheSameTime(t *testing.T) {
	f := newFixture(0)
	f.SetService(web("10.0.0.1:80"))
	r := f.route(10000)
	var wait sync.WaitGroup
	for worker := range 8 {
		wait.Go(func() {
			for i := range 3000 {
				seen := r.See(sighting(fmt.Sprintf("/%d", (i*7+worker)%40), "", ""))
				seen.Busy()
				again := seen.Again()
				seen.End()
				again.End()
			}
		})
	}
	wait.Wait()
	got := r.TakeSources()
	if got.All != 8*3000 {
		t.Errorf("%d requests", got.All)
	}
	for _, e := range got.Each {
		if e.Open != 0 || e.Requests > 8*3000 {
			t.Errorf("%+v", e)
		}
	}
}

func TestSeeingAllocatesNothing(t *testing.T) {
	f := newFixture(0)
	f.SetService(web("10.0.0.1:80"))
	r := f.route(10000)
	known := sighting("/api/tick", "python-requests/2.32", "192.0.2.7")
	if n := testing.AllocsPerRun(100, func() { r.See(known).End() }); n != 0 {
		t.Errorf("%v allocations for a known source", n)
	}
	i, target := 0, []byte("/0000")
	if n := testing.AllocsPerRun(1000, func() {
		i++
		target[1], target[2], target[3] = byte('0'+i%10), byte('0'+i/10%10), byte('0'+i/100%10)
		r.See(&Sighting{Method: known.Method, Target: target, Agent: known.Agent, Client: known.Client}).End()
	}); n != 0 {
		t.Errorf("%v allocations for a new source", n)
	}
}

func BenchmarkSee(b *testing.B) {
	f := newFixture(0)
	f.SetService(web("10.0.0.1:80"))
	r := f.route(10000)
	known := sighting("/api/tick", "python-requests/2.32", "192.0.2.7")
	b.ReportAllocs()
	for b.Loop() {
		r.See(known).End()
	}
}
