// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// WakerOptions configure a Waker.
type WakerOptions struct {
	Scaler WorkloadScaler
	Events Events
	Peers  Peers
	// Hub has the streams of KEDA and of the peers that are open here.
	Hub *counts.Hub
	// Led are routes of the workloads that wake together with another one. Leaders and Callers are the workloads that have it wake, as
	// route.Stacks returns them. Nil is none.
	Led              func(*route.Target) []*route.Route
	Leaders, Callers func(*route.Target) []*route.Target
	// Repeat is how often a waking workload is looked at again. Default 1 s.
	Repeat time.Duration
	// KEDAGrace is how long KEDA has to scale the workload before we do. Default 3 s.
	KEDAGrace time.Duration
	// Linger is how long a wake goes on after the last request has stopped waiting. A waiting page without JavaScript comes again every
	// 2 s. Default 5 s.
	Linger time.Duration
	// MaxWakes is how many workloads may wake at a time. MaxWakesPerSource is how many of them the requests of one address may wake.
	// Default 200 and 100.
	MaxWakes, MaxWakesPerSource int
	// Timeout bounds one call of Scaler. Default 10 s.
	Timeout time.Duration
	Log     logr.Logger
}

func (o *WakerOptions) setDefaults() {
	if o.Led == nil {
		o.Led = func(*route.Target) []*route.Route { return nil }
	}
	if o.Leaders == nil {
		o.Leaders = func(*route.Target) []*route.Target { return nil }
	}
	if o.Callers == nil {
		o.Callers = func(*route.Target) []*route.Target { return nil }
	}
	o.Repeat = cmp.Or(o.Repeat, time.Second)
	o.KEDAGrace = cmp.Or(o.KEDAGrace, 3*time.Second)
	o.Linger = cmp.Or(o.Linger, 5*time.Second)
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.MaxWakes = cmp.Or(o.MaxWakes, DefaultMaxWakes)
	o.MaxWakesPerSource = cmp.Or(o.MaxWakesPerSource, DefaultMaxWakesPerSource)
}

// Defaults of WakerOptions.
const (
	DefaultMaxWakes          = 200
	DefaultMaxWakesPerSource = 100
)

// Waker wakes workloads. It runs one goroutine for each workload with waiting requests. Close ends them.
type Waker struct {
	options WakerOptions
	turns   *turns
	ctx     context.Context
	cancel  context.CancelFunc
	// mu makes the check of closed and the Add of loops one step.
	mu     sync.Mutex
	closed bool
	loops  sync.WaitGroup
}

// NewWaker returns a Waker.
func NewWaker(o WakerOptions) *Waker {
	o.setDefaults()
	w := &Waker{options: o, turns: newTurns(o.MaxWakes, o.MaxWakesPerSource)}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// Close ends the loops and waits for them.
func (w *Waker) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cancel()
	w.loops.Wait()
}

// Wake implements route.Waker. A wake that begins waits for its turn, if too many are under way.
func (w *Waker) Wake(r *route.Route, t *route.Target, v *route.Visit) {
	if !t.MayBeginWake() {
		w.wake(r, t, v)
		return
	}
	visit := *v // the request may have gone by then
	if w.turns.take(&turn{
		target: t, sources: sourcesOf(v), begin: func() { w.wake(r, t, &visit) },
		wanted: func() bool { return t.Awaits() || t.Idle() < w.options.Linger },
	}) {
		w.options.Log.V(1).Info("A wake waits for its turn", "namespace", t.Key.Namespace, "workload", t.Key.Workload)
	}
}

// wake wakes a workload, and what wakes together with it.
func (w *Waker) wake(r *route.Route, t *route.Target, v *route.Visit) {
	if !w.begin(r, t, func() string { return Describe(v) + ": waking " + t.Workload().String() }) {
		return
	}
	for _, led := range w.options.Led(t) {
		if to := led.Target(); !led.Retiring() && !to.Paused() {
			w.begin(led, to, func() string { return "waking " + to.Workload().String() + " together with " + t.Workload().String() })
		}
	}
}

// begin has a workload woken, by a route of it, and reports whether it slept. The message is for the event.
func (w *Waker) begin(r *route.Route, t *route.Target, message func() string) bool {
	looping := t.Looping() // before the wake begins: a loop that starts later pushes by itself
	begun := t.BeginWake()
	if t.StartLoop() {
		w.mu.Lock()
		if !w.closed {
			w.loops.Go(func() { w.loop(r, t) })
		}
		w.mu.Unlock()
	} else if begun && looping {
		w.push(t) // the loop of an earlier wake would push only at its next tick
	}
	if !begun {
		return false
	}
	w.options.Log.Info("Waking", "namespace", t.Key.Namespace, "workload", t.Key.Workload, "service", r.Service)
	w.options.Events.WakeRequested(Wake{
		Namespace: r.Namespace, Service: r.Service, ServiceUID: r.ServiceUID, Workload: t.Workload(),
		SleepID: r.SleepID(), Message: message(),
	})
	return true
}

// wanted says that the wake of t goes on: t or one of its leaders has a request, or had one a moment ago, or so has a caller that is
// waking too.
func (w *Waker) wanted(t *route.Target) bool {
	return slices.ContainsFunc(append(w.options.Leaders(t), t), func(one *route.Target) bool {
		return one.Idle() < w.options.Linger
	}) || slices.ContainsFunc(w.options.Callers(t), func(caller *route.Target) bool {
		return caller.Wakes() && (caller.Awaits() || caller.Idle() < w.options.Linger)
	})
}

// push makes KEDA's streams look at the workload, here and at the peers, and reports whether KEDA listens at all.
func (w *Waker) push(t *route.Target) (listens bool) {
	pushed := w.options.Hub.Poke(t.Key)
	w.options.Hub.Flush()
	return pushed || w.options.Peers.KEDAStream(t.Key)
}

// loop does what is necessary as long as requests wait for t; the first of them waits at r. KEDA's streams repeat their push by
// themselves. A wake ends with the first ready pod: if the pods go again, perhaps by hand, the loop must not bring them back.
func (w *Waker) loop(r *route.Route, t *route.Target) {
	began, emptied := time.Now(), t.Emptied()
	var direct attempts
	for {
		listens := w.push(t)
		if !t.Paused() && (!listens || time.Since(began) >= w.options.KEDAGrace) && direct.due(time.Now()) {
			w.scale(r, t, listens, &direct)
		}
		select {
		case <-w.ctx.Done():
			return
		case <-time.After(w.options.Repeat):
		}
		if t.Ready() || w.turns.overdue(t) {
			w.turns.give(t)
		}
		if now := t.Emptied(); now != emptied {
			began, emptied, direct = time.Now(), now, attempts{}
		}
		if t.Awaits() || t.Waking() > 0 && w.wanted(t) {
			continue
		}
		if !t.Ready() {
			t.AbandonWake() // everybody who waited has given up
		}
		if t.StopLoop() {
			w.turns.give(t)
			return
		}
	}
}
