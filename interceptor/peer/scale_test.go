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

// few and many are numbers of apps. maxRatio is how much more it may cost to load many than few.
const few, many, maxRatio = 1000, 8000, 10

const rounds = 5

// load returns a side with this number of apps, and this number of them in each namespace.
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

// used returns the CPU time of this process so far.
func used(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// fill does the minimum that loading apps needs: it stores something for each in a few maps.
func fill(apps int) {
	var kept [8]map[route.Key]*[64]byte
	for i := range kept {
		kept[i] = map[route.Key]*[64]byte{}
	}
	for i := range apps {
		key := route.Key{Namespace: fmt.Sprint("ns", i/10), Workload: fmt.Sprint("web", i)}
		for _, m := range kept {
			m[key] = &[64]byte{}
		}
	}
}

// ratio returns how much more do costs for many apps than for few. In both cases it loads the same number of apps in total, and the
// cases alternate, so that other load on the machine affects both. The cheapest round counts.
func ratio(t *testing.T, do func(apps int)) float64 {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the cost of a collection depends on the rest of the heap
	least := map[int]time.Duration{few: time.Hour, many: time.Hour}
	for range rounds {
		for apps := range least {
			runtime.GC()
			began := used(t)
			for range many / apps {
				do(apps)
			}
			least[apps] = min(least[apps], (used(t)-began)*time.Duration(apps)/many)
		}
	}
	t.Logf("%d cost %s, %d cost %s", few, least[few], many, least[many])
	return float64(least[many]) / float64(least[few])
}

// Eight times as many apps cost about eight times as much to load, whether or not they share a namespace. The test excludes what
// larger maps cost because of the processor's caches, since other processes use these too.
func TestLoadingIsLinear(t *testing.T) {
	caches := max(1, ratio(t, fill)/(many/few))
	for name, inEach := range map[string]int{"one namespace": many, "ten in each": 10} {
		t.Run(name, func(t *testing.T) {
			got := ratio(t, func(apps int) { load(apps, inEach).Close() })
			t.Logf("%.1f times, of which %.2f for the caches", got, caches)
			if got/caches > maxRatio {
				t.Errorf("%d apps cost %.1f times as much to load as %d, want %d at most", many, got/caches, few, maxRatio)
			}
		})
	}
}

// A look at thousands of idle apps looks at none of them. If one is in use, a look looks at that one only.
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
