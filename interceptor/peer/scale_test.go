// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// few and many are numbers of apps, and maxRatio is how much more it may cost to load many of them.
const few, many, maxRatio = 1000, 8000, 10

// Other processes take the processor's caches away, which costs the larger table more: then more rounds are needed until both
// have had a quiet one. A table that is quadratic is at 40, however many there are.
const minRounds, maxRounds = 3, 30

// load returns a side with so many apps, of which so many are in each namespace.
func load(apps, inEach int) *side {
	s := newSide()
	for i := range apps {
		name := fmt.Sprintf("web%d", i)
		s.SetService(route.Service{Namespace: fmt.Sprint("ns", i/inEach), Name: name, Routes: api.Routes{
			Service: name, Direct: name + "-direct", Workload: api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: name},
			Cooldown: api.Duration(time.Minute), HoldTimeout: api.Duration(time.Minute),
			Ports: []api.Port{{Name: "http", Port: 80, Listen: int32(10000 + i), Protocol: api.ProtocolAuto}},
		}})
	}
	return s
}

// used is the CPU time that this process has used.
func used(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Eight times as many apps cost about eight times as much to load, whether or not they share a namespace. As many apps are
// loaded either way, into one table or into eight, in turn, so that memory and what else the machine does cost both alike; the
// least of all rounds counts.
func TestLoadingIsLinear(t *testing.T) {
	for name, inEach := range map[string]int{"one namespace": many, "ten in each": 10} {
		t.Run(name, func(t *testing.T) {
			defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection costs by what else is there
			cost := func(apps int) time.Duration {
				runtime.GC()
				sides := make([]*side, many/apps)
				began := used(t)
				for i := range sides {
					sides[i] = load(apps, inEach)
				}
				took := used(t) - began
				for _, s := range sides {
					s.Close()
				}
				return took / time.Duration(len(sides))
			}
			least := map[int]time.Duration{few: time.Hour, many: time.Hour}
			ratio := float64(many)
			for round := 0; round < maxRounds && (round < minRounds || ratio > maxRatio); round++ {
				for apps := range least {
					least[apps] = min(least[apps], cost(apps))
				}
				ratio = float64(least[many]) / float64(least[few])
			}
			t.Logf("%d apps cost %s, %d cost %s: %.1f times", few, least[few], many, least[many], ratio)
			if ratio > maxRatio {
				t.Errorf("%d apps cost %.1f times as much to load as %d, want %d at most", many, ratio, few, maxRatio)
			}
		})
	}
}

// A look at thousands of apps of which none is in use looks at none of them, and one at an app in use looks at that one.
func TestIdleLookLooksAtNothing(t *testing.T) {
	side := load(many, many)
	defer side.Close()
	o := side.options(0)
	d := newDiffer(&o, side.hub.FollowAll())
	now := time.Now()
	if got := len(d.changes(now)); got != many || len(d.due) != 0 {
		t.Fatalf("told %d at first, and %d are due again", got, len(d.due))
	}
	if n := testing.AllocsPerRun(100, func() { d.changes(now) }); n != 0 {
		t.Errorf("an idle look allocates %v times", n)
	}
	side.Targets()[0].Begin()()
	if got := len(d.changes(now)); got != 0 || len(d.due) != 1 {
		t.Errorf("told %d so soon after the first time, and looks at %d again", got, len(d.due))
	}
	if got := len(d.changes(now.Add(time.Second))); got != 1 || len(d.due) != 0 {
		t.Errorf("told %d, want the one that was in use, and looks at %d again", got, len(d.due))
	}
}

func BenchmarkIdleLook(b *testing.B) {
	side := load(many, many)
	defer side.Close()
	o := side.options(0)
	d := newDiffer(&o, side.hub.FollowAll())
	d.changes(time.Now())
	for b.Loop() {
		d.changes(time.Now())
	}
}
