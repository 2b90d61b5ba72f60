// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"

	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
)

// counting makes a's requests count each second, and b's not.
func counting() *side {
	s := newSide("a", "b")
	a, _ := s.Service("shop", "a")
	a.Routes.CountsRate = true
	s.SetService(a)
	return s
}

// A rate is sent while it changes, at most once a second, and then not any more.
func TestRateIsSentWhileItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		side := counting()
		o := side.options(0)
		d := newDiffer(&o, side.hub.FollowAll())
		d.changes(time.Now())
		a, b := side.Target(key("a")), side.Target(key("b"))
		for range 60 {
			a.Begin()()
			b.Begin()()
		}
		const look = 100 * time.Millisecond
		var rates []float64
		var last time.Time
		others, messages := 0, 0
		for range 80 * time.Second / look {
			for _, c := range d.changes(time.Now()) {
				if c.GetWorkload() != "Deployment/a" {
					others++
					if c.GetRequestRate() != 0 {
						t.Errorf("sent the rate %v of %s, which nobody counts", c.GetRequestRate(), c.GetWorkload())
					}
					continue
				}
				if messages++; messages > 1 && time.Since(last) < time.Second {
					t.Errorf("sent %s after the last time", time.Since(last))
				}
				last = time.Now()
				if rate := c.GetRequestRate(); len(rates) == 0 || rates[len(rates)-1] != rate {
					rates = append(rates, rate)
				}
			}
			advance(look)
		}
		// First 60 requests in 10 to 60 seconds, then none.
		if len(rates) != 52 || rates[0] != 60.0/10 || rates[50] != 60.0/60 || rates[51] != 0 {
			t.Errorf("sent %d rates: %v", len(rates), rates)
		}
		if others != 1 || messages != len(rates) {
			t.Errorf("sent %d messages about a, and %d about b", messages, others)
		}
		if len(d.due) != 0 {
			t.Errorf("%v are looked at although nothing happens", d.due)
		}
	})
}

// A steady rate is sent once, and so is another one.
func TestSteadyRateIsSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		side := counting()
		o := side.options(0)
		d := newDiffer(&o, side.hub.FollowAll())
		target := side.Target(key("a"))
		rate := func() float64 {
			rate := -1.0
			for range 5 {
				for _, c := range d.changes(time.Now()) {
					if c.GetWorkload() == "Deployment/a" {
						rate = c.GetRequestRate()
					}
				}
				target.Begin()()
				advance(200 * time.Millisecond)
			}
			return rate
		}
		for range 70 {
			rate()
		}
		if got := rate(); got != 5 {
			t.Errorf("sent %v requests a second", got) // the idle time changes
		}
	})
}

// The rates of all peers add up. An earlier version sends none, and a rate that is no number counts as none.
func TestRatesAddUp(t *testing.T) {
	p := NewPool(PoolOptions{Hub: counts.NewHub(), Log: logr.Discard()})
	defer p.Close()
	of := func(rate float64) *pb.Counts {
		return &pb.Counts{Workloads: []*pb.WorkloadCount{
			{Namespace: "shop", Workload: "Deployment/a", IdleMilliseconds: forgotten, RequestRate: rate},
		}}
	}
	peers := []*follower{{Peer{Name: "x"}}, {Peer{Name: "y"}}, {Peer{Name: "z"}}}
	for _, step := range []struct {
		peer       int
		sent, want float64
	}{{0, 1.5, 1.5}, {1, 2, 3.5}, {2, 0, 3.5}, {0, 0.25, 2.25}, {2, math.NaN(), 2.25}, {2, math.Inf(1), 2.25}, {2, -1, 2.25}, {1, 0, 0.25}} {
		p.apply(peers[step.peer], of(step.sent))
		if got := p.Rate(key("a")); got != step.want {
			t.Errorf("after %v from peer %d: %v, want %v", step.sent, step.peer, got, step.want)
		}
	}
	p.drop(peers[0], true)
	if got := p.Rate(key("a")); got != 0 {
		t.Errorf("a peer has gone, and its rate of %v is left", got)
	}
}
