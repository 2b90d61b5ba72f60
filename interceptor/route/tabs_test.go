// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

func TestTabs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web())
		r := f.route(10000)
		silent := api.InactiveAfter(time.Minute)
		tab, other := Tab{Client: 1, Place: 1}, Tab{Client: 1, Place: 2}
		r.LeaveTab(tab, silent-1)
		if r.HasTabs() || r.Returns(tab) {
			t.Error("one that was not silent for long is remembered")
		}
		r.LeaveTab(tab, silent)
		if !r.HasTabs() || !r.Returns(tab) || !r.Returns(tab) {
			t.Error("one that was is not")
		}
		for _, tab := range []Tab{other, {Client: 2, Place: 1}} {
			if r.Returns(tab) {
				t.Errorf("%v is taken for it", tab)
			}
		}
		r.LeaveTab(other, silent)
		r.ForgetTabs(2)
		if !r.Returns(tab) || !r.Returns(other) {
			t.Error("it is forgotten for another client")
		}
		r.ForgetTabs(1)
		if r.HasTabs() || r.Returns(tab) || r.Returns(other) {
			t.Error("it is remembered although somebody is there")
		}
		// A tab is remembered as long as its client keeps coming back, and then for a while.
		r.LeaveTab(tab, silent)
		for range 10 {
			advance(tabFor - time.Second)
			if !r.Returns(tab) {
				t.Fatal("it is forgotten too early")
			}
		}
		advance(tabFor + time.Second)
		if r.Returns(tab) {
			t.Error("it is remembered for ever")
		}
		// An app that never sleeps has no remembered tabs.
		never := web()
		never.Routes.NeverSleeps = true
		f.SetService(never)
		if r.LeaveTab(tab, time.Hour); r.Returns(tab) {
			t.Error("it is remembered for an app that does not sleep")
		}
	})
}

func TestTabsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web())
		r := f.route(10000)
		for i := range uint64(2 * tabsPerRoute) {
			r.LeaveTab(Tab{Client: i}, time.Hour)
			advance(time.Millisecond)
		}
		if n := len(f.memory.tabs[10000]); n != tabsPerRoute || r.Returns(Tab{Client: 0}) || !r.Returns(Tab{Client: 2*tabsPerRoute - 1}) {
			t.Errorf("%d are remembered", n)
		}
		advance(tabFor + time.Second)
		r.LeaveTab(Tab{Client: 1 << 40}, time.Hour)
		if n := len(f.memory.tabs[10000]); n != 1 {
			t.Errorf("%d old ones are remembered", n-1)
		}
		f.RemoveService("shop", "web")
		advance(time.Minute)
		if len(f.memory.tabs) != 0 || len(f.memory.routes) != 0 {
			t.Error("those of a route that is gone are remembered")
		}
	})
}

// tell exchanges the tables' news until there is none.
func tell(t *testing.T, a, b *fixture, delay time.Duration) {
	t.Helper()
	var seenA, seenB uint64
	for range 10 {
		before := [2]uint64{seenA, seenB}
		var fromA, fromB News
		fromA, seenA = a.memory.News(seenA)
		fromB, seenB = b.memory.News(seenB)
		advance(delay)
		b.memory.Learn(fromA)
		a.memory.Learn(fromB)
		if before == [2]uint64{seenA, seenB} {
			return
		}
	}
	t.Fatal("they do not cease to tell each other")
}

// Peers agree about which tabs are remembered and which are forgotten, however long the news takes.
func TestNewsOfTabs(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Millisecond, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			a, b := newFixture(0), newFixture(0)
			tab := Tab{Client: 1, Place: 1}
			a.SetService(web())
			ra := a.route(10000)
			ra.LeaveTab(tab, time.Hour)
			ra.LearnServerFirst()
			tell(t, a, b, delay)
			b.SetService(web()) // the route comes later than the news
			rb := b.route(10000)
			if !rb.Returns(tab) || !rb.ServerFirst() {
				t.Error("b does not know")
			}
			advance(tabFor / 2)
			if !rb.Returns(tab) {
				t.Error("b has forgotten")
			}
			tell(t, a, b, delay)
			advance(tabFor * 3 / 4)
			if !ra.Returns(tab) {
				t.Error("a does not know that the client came to b")
			}
			tell(t, a, b, delay)
			advance(time.Second)
			ra.ForgetTabs(1)
			tell(t, a, b, delay)
			if rb.Returns(tab) || rb.HasTabs() {
				t.Error("b does not know that somebody is there")
			}
			advance(time.Minute)
			rb.LeaveTab(tab, time.Hour)
			tell(t, a, b, delay)
			if !ra.Returns(tab) {
				t.Error("a does not know that it was left again")
			}
		})
	}
}

// A quiet request neither wakes nor counts. It gets a pod if there is one, or an error that says why there is none.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web())
		r := f.route(10000)
		pick := func() <-chan error {
			got := make(chan error, 1)
			go func() {
				e, err := r.Pick(t.Context(), &Visit{Wait: Wait{Quiet: true}})
				if e != nil {
					e.Done()
				}
				got <- err
			}()
			synctest.Wait()
			return got
		}
		got := pick()
		if r.Held() != 1 || r.Target().Held() != 0 || f.waker.calls.Load() != 0 {
			t.Errorf("%d held, %d of them count, %d wakes", r.Held(), r.Target().Held(), f.waker.calls.Load())
		}
		f.SetService(web("10.0.0.1:80"))
		if err := <-got; err != nil {
			t.Errorf("got %v", err)
		}
		f.SetService(web())
		var asleep *AsleepError
		if err := <-pick(); !errors.As(err, &asleep) || !asleep.Quiet {
			t.Errorf("got %v", err)
		}
	})
}

// A quiet count makes a workload active as long as it lasts, and does not renew the idle time.
func TestBeginQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web("10.0.0.1:80"))
		target := f.route(10000).Target()
		release := target.BeginQuiet()
		if target.Pending() != 1 || target.Idle() != 0 {
			t.Errorf("%d pending, idle for %s", target.Pending(), target.Idle())
		}
		release()
		release()
		if target.Pending() != 0 || target.Idle() != never {
			t.Errorf("%d pending, idle for %s", target.Pending(), target.Idle())
		}
		// If the app may just have been put to sleep, a quiet request waits like any other.
		advance(time.Minute)
		if !f.route(10000).Drowsy() {
			t.Error("it is not drowsy")
		}
		target.BeginQuiet()()
		if f.route(10000).Settled() {
			t.Error("it does not wait")
		}
	})
}
