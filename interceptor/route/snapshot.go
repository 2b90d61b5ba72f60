// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"io"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const (
	// probeFor is how long one request has a suspect pod for itself, to find out whether it answers again. It is a
	// little longer than a dial may take.
	probeFor = 1200 * time.Millisecond
	// A pod that refuses is suspect for suspectMin, twice as long with each further time up to suspectMax. An app
	// without a readiness probe counts as ready before it listens, so that the first times have to be short.
	suspectMin = 50 * time.Millisecond
	suspectMax = time.Second
)

// Endpoint is one ready pod's port. It stays the same object for as long as the pod is in the snapshots.
type Endpoint struct {
	Addr string // ip:port
	// Pool is what TableOptions.NewPool made for this pod and route; nil if there is no NewPool. It is closed, once, when
	// the pod has left the route or the route is gone. Requests that picked the pod before may still use it then and later: what
	// runs must go on, but nothing is to be kept in it any more.
	Pool io.Closer

	clock    clock
	hash     uint64 // of Addr
	pending  atomic.Int64
	failures atomic.Int32
	// suspect is until when requests avoid this pod by clock; 0 is no suspicion. The request that finds the time over takes
	// the pod for probeFor by compare-and-swap, and the others go on waiting for what comes of it.
	suspect atomic.Int64
	// unreached is why it could not be connected to the last time; nil if it could.
	unreached atomic.Pointer[unreached]
	// recovered is called when the pod answers again, and lost when it has been out of reach for long.
	recovered, lost func()
}

// Done ends the use that began with Pick.
func (e *Endpoint) Done() {
	if e.pending.Add(-1) < 0 {
		e.pending.Add(1) // a process that survives the panic must not count on with -1
		panic("route: the use of a pod was ended more often than begun")
	}
}

// Fail says that the pod could not be reached: it is left alone for a little while.
func (e *Endpoint) Fail() {
	n := min(e.failures.Add(1), 6)
	e.suspect.Store(e.clock.now() + int64(min(suspectMin<<(n-1), suspectMax)))
}

// Failures is how often in a row the pod could not be reached.
func (e *Endpoint) Failures() int32 { return e.failures.Load() }

// Succeed says that the pod was reached.
func (e *Endpoint) Succeed() {
	if e.failures.Load() == 0 && e.suspect.Load() == 0 {
		return
	}
	// Both, each by itself: Fail, which may run at the same time, writes them one after the other.
	failures, suspect := e.failures.Swap(0), e.suspect.Swap(0)
	e.unreached.Store(nil)
	if failures != 0 || suspect != 0 {
		e.recovered()
	}
}

// snapshot is what a route's requests go by. It does not change: a new one takes its place, and changed is closed.
type snapshot struct {
	rules
	endpoints  []*Endpoint
	reach      *api.Reach
	progress   api.Progress
	progressAt int64 // since when that is known, by clock
	changed    chan struct{}
}

// rules are what can be compared as a whole: another value of any field is news to those who wait. The pointers are to what
// stays the same object as long as it says the same.
type rules struct {
	target      *Target
	holdTimeout time.Duration
	retiring    bool
	affinity    bool // each client has a pod of its own
	sticky      *Sticky
	ignored     *ignored
	sleepID     string
	startID     string // the last sleepID without pods
	protocol    string // one of api's Protocol constants
	proxies     bool   // pods are sent a PROXY header
	waitingPage string // one of api's Page constants
	gone        string // why no pod will come any more; empty while one may
}

// choose takes the client's own endpoint, or without affinity the one with the fewest pending requests. If there is none it says
// when a suspect one may be tried again by clock; 0 is not before the snapshot changes.
func (s *snapshot) choose(c clock, v *Visit) (_ *Endpoint, retry int64) {
	n := len(s.endpoints)
	if n == 0 {
		return nil, 0
	}
	if n == 1 { // nearly always
		e := s.endpoints[0]
		if e.suspect.Load() == 0 {
			return e, 0
		}
	}
	if s.sticky != nil {
		if e := s.choosePinned(c, v); e != nil {
			return e, 0
		}
		if v.Session != 0 {
			return s.chooseFor(c, v.Session)
		}
	}
	if s.affinity && v.Client.IsValid() {
		return s.chooseFor(c, hashAddr(v.Client))
	}
	var best *Endpoint
	least := int64(math.MaxInt64)
	start := rand.IntN(n) //nolint:gosec // so that equals share the work; it is no secret
	for i := range n {
		e := s.endpoints[(start+i)%n]
		until := e.suspect.Load()
		if until != 0 {
			now := c.now()
			if until > now {
				retry = earlier(retry, until)
				continue
			}
			probe := now + int64(probeFor)
			if e.suspect.CompareAndSwap(until, probe) {
				return e, 0
			}
			retry = earlier(retry, probe)
			continue
		}
		if p := e.pending.Load(); p < least {
			best, least = e, p
		}
	}
	return best, retry
}

// paused says that no request may wake the workload. While a Service is restored the injector wakes it.
func (s *snapshot) paused() bool { return s.progress.Paused != nil && !s.retiring }

// refused says that the workload is paused without replicas.
func (s *snapshot) refused() bool { return s.paused() && s.progress.Paused.Asleep }

// failed is the error for requests that wait although no pod can be expected, and else nil.
func (s *snapshot) failed(r *Route) error {
	failure := s.failure(r)
	if failure.Failing == "" {
		return nil
	}
	return &StartFailedError{Service: r.Name(), Target: s.target.Key, Progress: failure, Gone: s.gone != ""}
}

// start is how far the start has come.
func (s *snapshot) start(r *Route) Start {
	start := Start{Progress: s.progress, Elapsed: s.target.Waking()}
	failure := s.failure(r)
	start.Progress.Failing, start.Progress.Reason = failure.Failing, failure.Reason
	if len(s.endpoints) > 0 {
		start.Progress.Stage = api.StageNotReady
		if err := s.unreachable(r, true); err != nil {
			start.Progress.Failing = err.Error()
		}
	}
	return start
}

func earlier(a, b int64) int64 {
	if a == 0 {
		return b
	}
	return min(a, b)
}
