// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package busy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/notice"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

const (
	// askTimeout bounds one check. KEDA or the controller waits for it.
	askTimeout = 3 * time.Second
	// maxFailures is how many failed checks in a row make a workload count as not busy.
	maxFailures = 3
)

// ErrNoMetrics is what Metrics returns if the cluster has no metrics of pods, or if they may not be read.
var ErrNoMetrics = errors.New("there are no metrics of pods")

// Metrics reads how much CPU pods use.
type Metrics interface {
	// CPU returns how much CPU the pods use together that a label selector selects in a namespace, in thousandths of a CPU, and of how
	// many pods that is known. The error is or wraps ErrNoMetrics if there is no use in asking again soon.
	CPU(ctx context.Context, namespace, selector string) (milli int64, pods int, err error)
}

// Options configure a Checker.
type Options struct {
	// Checks returns how to check a workload, as route.BusyChecks does.
	Checks func(*route.Target) []route.BusyCheck
	// Target returns a target, or nil if it does not exist any more.
	Target func(route.Key) *route.Target
	// Metrics has the CPU usage of pods. Nil has none.
	Metrics Metrics
	// Events publishes what owners of apps should know. Nil publishes nothing.
	Events notice.Events
	// Every is how long a verdict counts. It is a little less than a minute by default, because KEDA's polls, 30 s apart, are never
	// exactly a minute apart. KEDA asks twice before an app sleeps, and gets one verdict.
	Every time.Duration
	Log   logr.Logger
}

// Checker finds out which workloads are busy. Close ends its checks.
type Checker struct {
	options Options
	client  *client
	ctx     context.Context
	cancel  context.CancelFunc

	mu      sync.Mutex // protects all below
	states  map[*route.Target]*state
	closed  bool
	running sync.WaitGroup
}

// state is what is known about a workload.
type state struct {
	told told // only the running check uses it

	mu sync.Mutex // protects all below
	// asked is when the last check began; zero if there was none. checks are what it asked by.
	asked  time.Time
	checks []route.BusyCheck
	busy   bool
	// emptied is Target.Emptied at that time.
	emptied int64
	// running is the check that is running, which closes it at the end; nil if there is none.
	running chan struct{}
}

// New returns a Checker.
func New(o Options) *Checker {
	o.Every = cmp.Or(o.Every, 55*time.Second)
	c := &Checker{options: o, client: newClient(), states: map[*route.Target]*state{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close ends all checks and waits for that.
func (c *Checker) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.running.Wait()
}

// checked reports whether t may be kept up by a check: it has pods that can be asked, and would sleep otherwise.
func checked(t *route.Target) bool { return t.BusyChecked() && t.Ready() && t.Sleeps() }

// Last reports whether t counts as busy for now, without asking: it may be, and nothing says that it is not.
func (c *Checker) Last(t *route.Target) bool {
	if !checked(t) {
		return false
	}
	s := c.state(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked.IsZero() || s.emptied != t.Emptied() || s.busy
}

// Busy reports whether t is busy. idle is the time since its last request. The verdict of the last check counts if it is young, and
// there was no request since. Otherwise Busy checks, or waits for the check that is running; if ctx ends before that, t counts as busy.
func (c *Checker) Busy(ctx context.Context, t *route.Target, idle time.Duration) bool {
	if !checked(t) {
		return false
	}
	checks := c.options.Checks(t)
	s := c.state(t)
	s.mu.Lock()
	age := time.Since(s.asked)
	if s.running == nil {
		if age < c.options.Every && age <= idle && s.emptied == t.Emptied() && sameChecks(s.checks, checks) {
			defer s.mu.Unlock()
			return s.busy
		}
		if !c.start(t, s, checks, idle) { //nolint:contextcheck // callers share the check, and none of them may end it for the others
			s.mu.Unlock()
			return true // this process is about to end
		}
	}
	running := s.running
	s.mu.Unlock()
	select {
	case <-running:
	case <-ctx.Done():
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy
}

// sameChecks reports whether two lists ask the same of the same Services.
func sameChecks(a, b []route.BusyCheck) bool {
	same := len(a) == len(b)
	for i := 0; same && i < len(a); i++ {
		same = a[i].Service == b[i].Service && reflect.DeepEqual(a[i].Busy, b[i].Busy)
	}
	return same
}

// state returns the state of t. Those of workloads that are gone are forgotten when another one comes.
func (c *Checker) state(t *route.Target) *state {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.states[t]
	if s == nil {
		for old := range c.states {
			if c.options.Target(old.Key) != old {
				delete(c.states, old)
			}
		}
		s = &state{}
		c.states[t] = s
	}
	return s
}

// start begins a check, and reports whether it did. The caller holds s.mu.
func (c *Checker) start(t *route.Target, s *state, checks []route.BusyCheck, idle time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	began, emptied, running := time.Now(), t.Emptied(), make(chan struct{})
	s.running = running
	if s.emptied != emptied {
		s.told = told{unmeasured: s.told.unmeasured} // another run of the app
	}
	c.running.Go(func() {
		busy, known := c.check(t, s, checks, idle)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.busy, s.running = busy, nil
		if known {
			s.asked, s.checks, s.emptied = began, checks, emptied
		}
		close(running)
	})
	return true
}

// check checks t by all of its checks at once. It is busy if one of them says so. Nothing is known if this interceptor had too much to
// do to ask, and t then counts as busy.
func (c *Checker) check(t *route.Target, s *state, checks []route.BusyCheck, idle time.Duration) (busy, known bool) {
	ctx, cancel := context.WithTimeout(c.ctx, askTimeout)
	defer cancel()
	results := make([]result, len(checks))
	var all sync.WaitGroup
	for i := range checks {
		all.Go(func() { results[i] = c.one(ctx, checks[i]) })
	}
	all.Wait()
	period := periodOf(idle)
	for i, r := range results {
		s.told.metrics(c, checks[i], r)
	}
	for i, r := range results {
		if r.busy != "" {
			s.told.busy(c, checks[i], r.busy, period)
			c.options.Log.V(1).Info("A workload is busy", "namespace", t.Key.Namespace, "workload", t.Key.Workload, "why", r.busy)
			return true, true
		}
	}
	for i, r := range results {
		switch {
		case c.ctx.Err() != nil, errors.Is(r.err, errCrowded):
			return true, false
		case r.err != nil:
			c.options.Log.Info("Finding out whether a workload is busy failed", "namespace", t.Key.Namespace, "workload", t.Key.Workload,
				"error", r.err.Error())
			return s.told.failed(c, checks[i], r.err, period), true
		}
	}
	s.told.idle()
	return false, true
}

// result is what one check says: why the workload is busy, or an error.
type result struct {
	busy string
	err  error
	// unmeasured is set if the CPU usage cannot be known, and measured if it was read.
	unmeasured error
	measured   bool
}

func (c *Checker) one(ctx context.Context, check route.BusyCheck) result {
	var r result
	var request, cpu result
	var both sync.WaitGroup
	if check.Busy.Request != nil {
		both.Go(func() { request = c.client.askAll(ctx, check) })
	}
	if check.Busy.CPU > 0 {
		both.Go(func() { cpu = c.measure(ctx, check) })
	}
	both.Wait()
	r = cpu
	r.busy, r.err = cmp.Or(request.busy, cpu.busy), cmp.Or(request.err, cpu.err)
	return r
}

// measure compares the CPU that the pods use with the limit.
func (c *Checker) measure(ctx context.Context, check route.BusyCheck) result {
	if c.options.Metrics == nil {
		return result{unmeasured: ErrNoMetrics}
	}
	milli, pods, err := c.options.Metrics.CPU(ctx, check.Namespace, check.Busy.Pods)
	switch {
	case errors.Is(err, ErrNoMetrics):
		return result{unmeasured: err}
	case err != nil:
		return result{err: fmt.Errorf("reading the CPU usage of its pods: %w", err)}
	case pods == 0:
		return result{err: fmt.Errorf("reading the CPU usage of its pods: there are no metrics of pods with the labels %s", check.Busy.Pods)}
	case milli > check.Busy.CPU:
		return result{measured: true, busy: fmt.Sprintf("its %s %dm CPU, more than the %dm of annotation scale-to-zero/busy-cpu",
			map[bool]string{true: "pod uses", false: fmt.Sprintf("%d pods use", pods)}[pods == 1], milli, check.Busy.CPU)}
	default:
		return result{measured: true}
	}
}
