// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// edges runs the apps through cycles, under disturbances, until there are enough cycles or ctx ends.
func (w *world) edges(ctx context.Context) {
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	var everybody sync.WaitGroup
	everybody.Go(func() { w.tells(ctx) })
	for i, a := range w.apps {
		everybody.Go(func() { w.cycle(ctx, a, w.random(i)) })
	}
	for i, d := range append(w.disturbances(), w.nodeDisturbances()...) {
		everybody.Go(func() { w.disturb(ctx, d, w.random(len(w.apps)+i)) })
	}
	everybody.Go(func() {
		defer enough()
		w.enough(ctx)
	})
	w.drained(&everybody)
}

// enough waits until there are enough cycles, or ctx ends.
func (w *world) enough(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for w.options.count == 0 || w.report.slept() < w.options.count {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// cycle sends requests to an app at random moments around its edges until ctx ends.
func (w *world) cycle(ctx context.Context, a *app, rng *rand.Rand) {
	for {
		w.moment(ctx, a, rng)
		if ctx.Err() != nil {
			return
		}
		w.burst(ctx, a, rng)
	}
}

// moment draws an edge and waits for it, or for a moment around it.
func (w *world) moment(ctx context.Context, a *app, rng *rand.Rand) {
	limit, never := time.Now().Add(w.restless()), func() bool { return false }
	zero, after := a.falling, time.Duration(0)
	switch n := rng.IntN(20); {
	case n < 2: // while it is awake
		zero, after = nil, 2*time.Second
	case n < 9: // when it is due to fall asleep; if the moment comes too early, it is left to do so
		if !a.until(ctx, a.due(rng), a.falling) {
			return
		}
		after = 20 * time.Millisecond
	case n < 12: // when it is scaled to zero, which the interceptors do not know yet
		after = 30 * time.Millisecond
	case n < 15: // while its pods end
		after = 1500 * time.Millisecond
	default: // while it sleeps
		zero, after = a.asleep, 500*time.Millisecond
	}
	if zero != nil && !a.until(ctx, limit, zero) && ctx.Err() == nil {
		w.report.problem("%s did not fall asleep for %s", a.name, w.restless())
	}
	a.until(ctx, time.Now().Add(draw(rng, after)), never)
}

// burst sends one request, a few in sequence, or many at once, and waits for all answers.
func (w *world) burst(ctx context.Context, a *app, rng *rand.Rand) {
	n, spread := 1, time.Duration(1)
	switch k := rng.IntN(10); {
	case k < 1:
		n = 6 + rng.IntN(15)
	case k < 6:
		n, spread = 2+rng.IntN(4), 1500*time.Millisecond // so that some arrive during a start
	}
	var all sync.WaitGroup
	defer all.Wait()
	begun := time.Now()
	for i := range n {
		p, at := a.plan(rng), begun
		if i > 0 {
			at = begun.Add(draw(rng, spread))
		}
		all.Go(func() {
			a.until(ctx, at, func() bool { return false })
			a.send(ctx, p)
		})
	}
}
