// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// restarts restarts every interceptor over and over, under requests and open streams, until there are enough rounds or
// ctx ends.
func (w *world) restarts(ctx context.Context) error {
	if err := w.fits(ctx); err != nil {
		return err
	}
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	var everybody sync.WaitGroup
	everybody.Go(func() { w.tells(ctx) })
	for i, a := range w.apps {
		if !w.awake(i) {
			everybody.Go(func() { w.cycle(ctx, a, w.random(i)) })
			continue
		}
		for part := range 2 {
			everybody.Go(func() { w.load(ctx, a, w.random(100*(i+1)+part)) })
		}
		for part, s := range streams() {
			everybody.Go(func() { w.stream(ctx, a, s, w.random(100*(i+1)+10+part)) })
		}
	}
	for i, d := range w.nodeDisturbances() {
		everybody.Go(func() { w.disturb(ctx, d, w.random(1000+i)) })
	}
	var err error
	everybody.Go(func() {
		defer enough()
		for n := 0; err == nil && ctx.Err() == nil && (w.options.count == 0 || n < w.options.count); n++ {
			err = w.round(ctx)
		}
	})
	w.drained(&everybody)
	return err
}

// fits checks that the open streams can end before a draining interceptor cuts them. New connections may come for half of
// the drain time-out.
func (w *world) fits(ctx context.Context) error {
	d, err := w.component(ctx, "interceptor")
	if err != nil {
		return err
	}
	for _, arg := range d.Spec.Template.Spec.Containers[0].Args {
		if value, ok := strings.CutPrefix(arg, "--drain-timeout="); ok {
			timeout, err := time.ParseDuration(value)
			if err == nil && w.options.longest > timeout/2-5*time.Second {
				err = fmt.Errorf("-longest %s does not fit", w.options.longest)
			}
			if err != nil {
				return fmt.Errorf("looking at the drain time-out %q: %w", value, err)
			}
		}
	}
	return nil
}

// round restarts the interceptors and waits until all earlier ones are gone.
func (w *world) round(ctx context.Context) error {
	d, err := w.component(ctx, "interceptor")
	if err != nil {
		return err
	}
	before, _, err := w.podsOf(ctx, d)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := w.restart(ctx, d.Namespace, d.Name); err != nil {
		return err
	}
	err = poll(ctx, 5*time.Minute, "the interceptors to be restarted", func() (bool, error) {
		now, ready, err := w.podsOf(ctx, d)
		restarted := err == nil && ready == int(*d.Spec.Replicas) && len(now) == ready && disjoint(before, now)
		return restarted, nil //nolint:nilerr // asked again
	})
	switch {
	case err == nil:
		w.report.round(time.Since(begun))
	case errors.Is(err, context.Canceled), ctx.Err() != nil:
		return nil // time is up
	}
	return err
}

func disjoint(a, b map[types.UID]bool) bool {
	for uid := range b {
		if a[uid] {
			return false
		}
	}
	return true
}

// load sends requests one after the other until ctx ends.
func (w *world) load(ctx context.Context, a *app, rng *rand.Rand) {
	for ctx.Err() == nil {
		a.send(ctx, a.plan(rng))
		a.until(ctx, time.Now().Add(draw(rng, 200*time.Millisecond)), func() bool { return false })
	}
}
