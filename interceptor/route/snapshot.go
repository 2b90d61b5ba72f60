// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const (
	// probeFor is how long one request has a suspect pod to itself, to find out whether the pod answers again. It is a little longer
	// than a dial may take.
	probeFor = 1200 * time.Millisecond
	// A pod that refuses is suspect for suspectMin, and twice as long each further time, up to suspectMax. The first times are short
	// because an app without a readiness probe counts as ready before it listens.
	suspectMin = 50 * time.Millisecond
	suspectMax = time.Second
)

// Endpoint is one port of one ready pod. It stays the same object for as long as the pod is in the snapshots.
type Endpoint struct {
	Addr string // ip:port
	// Pool is what TableOptions.NewPool made for this pod and route; nil without NewPool. It is closed once, when the pod has left the
	// route or the route is gone. Requests that picked the pod earlier may use the pool during and after Close: they go on, but they
	// must not leave anything in it.
	Pool io.Closer

	clock    clock
	hash     uint64 // of Addr
	pending  atomic.Int64
	failures atomic.Int32
	// suspect is the time, by clock, until which requests avoid this pod; 0 if it is not suspect. The first request after that time
	// takes the pod for probeFor by compare-and-swap. The others wait for the result.
	suspect atomic.Int64
	// unreached is why the last attempt to connect failed; nil if it succeeded.
	unreached atomic.Pointer[unreached]
	// recovered is called when the pod answers again, and lost when it has been unreachable for long.
	recovered, lost func()

	route *Route
	gate  *gate
	// listed is set while the endpoint is in the route's snapshot, pod is the whole pod, and own are the requests that wait for this
	// one alone. They are protected by gate.mu.
	listed bool
	pod    *pod
	own    queue
}

// Done ends one use of the pod that Pick began.
func (e *Endpoint) Done() { e.release(true) }

// release ends one use of the pod. answered is not set if the request that was given the pod has not used it.
func (e *Endpoint) release(answered bool) {
	if e.pending.Add(-1) < 0 {
		e.pending.Add(1) // if the process survives the panic, the count must not stay at -1
		panic("route: the use of a pod was ended more often than begun")
	}
	if e.gate.shut.Load() {
		e.gate.freed(e, answered)
	}
}

// Fail notes that the pod could not be reached. Requests avoid it for a little while.
func (e *Endpoint) Fail() {
	n := min(e.failures.Add(1), 6)
	now := e.clock.now()
	until := now + int64(min(suspectMin<<(n-1), suspectMax))
	if before := e.suspect.Swap(until); before <= now || until < before { // of many requests that fail at once, one says so
		e.gate.failed(e)
	}
}

// Failures returns how often in a row the pod could not be reached.
func (e *Endpoint) Failures() int32 { return e.failures.Load() }

// Succeed notes that the pod was reached.
func (e *Endpoint) Succeed() {
	if e.failures.Load() == 0 && e.suspect.Load() == 0 {
		return
	}
	// Check both: a concurrent Fail writes one after the other.
	failures, suspect := e.failures.Swap(0), e.suspect.Swap(0)
	e.unreached.Store(nil)
	if failures != 0 || suspect != 0 {
		e.recovered()
	}
}

// snapshot is all that a route's requests need to know. It is immutable: a new one replaces it, and its channel changed is closed.
type snapshot struct {
	rules
	endpoints  []*Endpoint
	reach      *api.Reach
	progress   api.Progress
	progressAt int64 // since when progress is known, by clock
	changed    chan struct{}
}

// rules are the fields that are compared as a whole: a change of any of them is news to the requests that wait. Pointers can be
// compared too, because an object is replaced only when its content changes.
type rules struct {
	target      *Target
	holdTimeout time.Duration
	retiring    bool
	affinity    bool // each client has its own pod
	sticky      *Sticky
	ignored     *ignored
	sleepID     string
	startID     string // the last sleepID at which there were no pods
	protocol    string // one of api's Protocol constants
	proxies     bool   // connections to pods begin with a PROXY header
	waitingPage string // one of api's Page constants
	fullDetails bool   // visitors may read why the app cannot start
	gone        string // why no pod will come any more; empty while one may
}

// choose returns the client's own endpoint or, without affinity, the one with the fewest pending requests. If it returns none, retry
// is when a suspect endpoint may be tried again, by clock; 0 means not before the snapshot changes.
func (s *snapshot) choose(c clock, v *Visit) (_ *Endpoint, retry int64) {
	n := len(s.endpoints)
	if n == 0 {
		return nil, 0
	}
	if n == 1 { // the usual case
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

// pick is choose that counts the use of the pod, or returns nil.
func (s *snapshot) pick(c clock, v *Visit) *Endpoint {
	e, _ := s.choose(c, v)
	if e != nil {
		e.pending.Add(1)
	}
	return e
}

// own returns the only pod that a request may use now; nil if it may use any. Unlike choose it takes no suspect pod: see gate.claim.
func (s *snapshot) own(now int64, v *Visit) *Endpoint {
	hash := v.Session
	if s.sticky != nil {
		if e := s.sticky.byID[v.Pin]; e != nil && e.suspect.Load() <= now {
			return e
		}
	} else {
		hash = 0
	}
	if hash == 0 && s.affinity && v.Client.IsValid() {
		hash = hashAddr(v.Client)
	} else if hash == 0 {
		return nil
	}
	var best *Endpoint
	var most uint64
	for _, e := range s.endpoints {
		if w := mix(hash ^ e.hash); e.suspect.Load() <= now && (best == nil || w > most) {
			best, most = e, w
		}
	}
	return best
}

// prefers reports whether any request may have a pod of its own.
func (s *snapshot) prefers() bool { return s.sticky != nil || s.affinity }

// offers reports whether a pod is ready and not suspect: a request that has to wait then waits for a place.
func (s *snapshot) offers() bool {
	return slices.ContainsFunc(s.endpoints, func(e *Endpoint) bool { return e.suspect.Load() == 0 })
}

// paused reports whether requests may not wake the workload. While a Service is being restored, the injector wakes it.
func (s *snapshot) paused() bool { return s.progress.Paused != nil && !s.retiring }

// refused reports whether the workload is paused without replicas.
func (s *snapshot) refused() bool { return s.paused() && s.progress.Paused.Asleep }

// failed returns the error for a request that waits although no pod can be expected. It returns nil if one can.
func (s *snapshot) failed(r *Route) error {
	failure := s.failure(r)
	if failure.Failing == "" {
		return nil
	}
	return &StartFailedError{Service: r.Name(), Target: s.target.Key, Progress: failure, Gone: s.gone != ""}
}

// start returns the state of the start.
func (s *snapshot) start(r *Route) Start {
	start := Start{Progress: s.progress, Elapsed: s.target.Waking()}
	failure := s.failure(r)
	start.Progress.Failing, start.Progress.Reason = failure.Failing, failure.Reason
	if len(s.endpoints) > 0 {
		start.Progress.Stage = api.StageNotReady
		if err := s.unreachable(r, true); err != nil {
			start.Progress.Failing, start.Progress.Reason = s.says(err.Error(), api.ReasonUnreachable), api.ReasonUnreachable
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
