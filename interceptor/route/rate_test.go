// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func rated(addrs ...string) Service {
	s := web(addrs...)
	s.Routes.CountsRate = true
	return s
}

// arrive lets requests arrive.
func arrive(t *Target, requests int) {
	for range requests {
		t.Begin()()
	}
}

func wantRate(t *testing.T, target *Target, what string, want float64, moves bool) {
	t.Helper()
	if got, moving := target.Rate(); math.Abs(got-want) > 1e-9 || moving != moves {
		t.Errorf("%s: %v requests a second, which moves: %v; want %v, %v", what, got, moving, want, moves)
	}
}

// The rate is the average over the last minute, or over the time since counting began if that is shorter.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		advance(time.Hour + 300*time.Millisecond)
		f.SetService(rated("10.0.0.1:80"))
		target := f.route(10000).Target()
		wantRate(t, target, "no request", 0, false)
		arrive(target, 20)
		wantRate(t, target, "in the present second", 0, true)
		advance(time.Second)
		wantRate(t, target, "a second later", 20.0/10, true)
		advance(8 * time.Second)
		arrive(target, 10)
		advance(time.Second)
		wantRate(t, target, "ten seconds later", 30.0/10, true)
		advance(10 * time.Second)
		wantRate(t, target, "twenty seconds later", 30.0/20, true)
		advance(40 * time.Second)
		wantRate(t, target, "a minute later", 30.0/60, true)
		advance(time.Second)
		wantRate(t, target, "when the first are over", 10.0/60, true)
		advance(8 * time.Second)
		wantRate(t, target, "when the others are about to be", 10.0/60, true)
		advance(time.Second)
		wantRate(t, target, "when all are", 0, false)
		advance(24 * time.Hour)
		arrive(target, 60)
		advance(time.Second)
		wantRate(t, target, "after a long sleep", 1, true)
		for range 120 {
			arrive(target, 3)
			advance(time.Second)
		}
		wantRate(t, target, "a steady rate", 3, true)
		advance(59 * time.Second)
		wantRate(t, target, "its last second", 3.0/60, true)
	})
}

// What is no request, or no request of its own, does not arrive. Nobody's requests are counted unless a route asks for it.
func TestWhatArrives(t *testing.T) {
	for name, tc := range map[string]struct {
		happens func(*Target)
		want    float64
	}{
		"a request":                        {func(t *Target) { t.Begin()() }, 1},
		"a request that goes on":           {func(t *Target) { t.Begin() }, 1},
		"a poll":                           {func(t *Target) { t.BeginAgain()() }, 0},
		"a silent connection":              {func(t *Target) { t.BeginQuiet()() }, 0},
		"a silent connection that speaks":  {func(t *Target) { t.BeginQuiet()(); t.Arrived() }, 1},
		"bytes on a connection":            {func(t *Target) { t.Touch() }, 0},
		"an event stream that is listened": {func(t *Target) { t.Begin(); t.Listen() }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(0)
				f.SetService(rated("10.0.0.1:80"))
				target := f.route(10000).Target()
				tc.happens(target)
				advance(time.Second)
				wantRate(t, target, "it", tc.want/10, tc.want > 0)
				f.SetService(web("10.0.0.1:80"))
				tc.happens(target)
				advance(time.Second)
				wantRate(t, target, "nobody asks", 0, false)
				f.SetService(rated("10.0.0.1:80"))
				wantRate(t, target, "somebody asks again", 0, false)
			})
		})
	}
}

// A workload's requests are counted while one of its Services asks for it, at whichever of them they arrive, and no update begins anew.
func TestRateOfAllServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(rated("10.0.0.1:80"))
		other := web("10.0.0.1:80")
		other.Name, other.Routes.Ports[0].Listen = "other", 10001
		f.SetService(other)
		arrive(f.route(10001).Target(), 10)
		f.SetService(rated("10.0.0.1:80", "10.0.0.2:80"))
		advance(time.Second)
		wantRate(t, f.route(10000).Target(), "both", 1, true)
		f.RemoveService("shop", "web")
		f.SetService(other)
		wantRate(t, f.route(10001).Target(), "the one that did not ask is left", 0, false)
	})
}

// Many requests at once are all counted, also when the first of a second meet.
func TestRateOfManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(rated("10.0.0.1:80"))
		target := f.route(10000).Target()
		for range 70 {
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() { arrive(target, 25) })
			}
			all.Wait()
			advance(time.Second)
		}
		wantRate(t, target, "it", 200, true)
	})
}

func BenchmarkArrivals(b *testing.B) {
	for name, s := range map[string]Service{"not counted": web("10.0.0.1:80"), "counted": rated("10.0.0.1:80")} {
		b.Run(name, func(b *testing.B) {
			f := newFixture(0)
			f.SetService(s)
			target := f.route(10000).Target()
			b.ReportAllocs()
			for b.Loop() {
				target.Begin()()
			}
		})
	}
}
