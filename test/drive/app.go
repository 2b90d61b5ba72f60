// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// remembered is how many of an app's last falls asleep predict the next one.
const remembered = 16

// app is an app under test, and what the watches see of it.
type app struct {
	name   string
	lines  lines
	ledger *ledger
	report *report
	number atomic.Int64

	mu       sync.Mutex // protects all below
	replicas int32      // replicas in its Deployment's spec, -1 before it is seen
	zeroAt   time.Time  // since when there are 0
	wasUp    bool       // a pod has been ready since then
	pods     map[types.UID]podState
	answered time.Time       // time of the last request
	naps     []time.Duration // times from the last request to zeroAt, the latest ones
	changed  chan struct{}   // closed by the next change
}

type podState struct{ ready, ending bool }

func newApp(name, address string, l *ledger, r *report) *app {
	return &app{
		name: name, lines: lines{address: address}, ledger: l, report: r, replicas: -1, answered: time.Now(),
		pods: map[types.UID]podState{}, changed: make(chan struct{}),
	}
}

// sawDeployment records the Deployment's present state.
func (a *app) sawDeployment(d *appsv1.Deployment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.replicas
	if a.replicas = *d.Spec.Replicas; a.replicas == 0 && before != 0 {
		a.zeroAt = time.Now()
		if before > 0 && a.wasUp {
			a.report.cycle(a.name)
			if a.naps = append(a.naps, a.zeroAt.Sub(a.answered)); len(a.naps) > remembered {
				a.naps = a.naps[1:]
			}
		}
		a.wasUp = false
	}
	a.tell()
}

// sawPod records a pod's present state, or its end.
func (a *app) sawPod(p *corev1.Pod, gone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := podState{ending: p.DeletionTimestamp != nil, ready: slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})}
	if a.pods[p.UID] = s; gone || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		delete(a.pods, p.UID)
	}
	a.wasUp = a.wasUp || s.ready && a.replicas > 0
	a.tell()
}

func (a *app) tell() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// until waits until is holds or the given time comes, and reports whether it holds.
func (a *app) until(ctx context.Context, limit time.Time, is func() bool) bool {
	timer := time.NewTimer(time.Until(limit))
	defer timer.Stop()
	for {
		a.mu.Lock()
		ok, changed := is(), a.changed
		a.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// asleep is a condition for until: the Deployment is at zero, and all its pods are gone.
func (a *app) asleep() bool { return a.replicas == 0 && len(a.pods) == 0 }

// falling is a condition for until: the Deployment is scaled to zero, pods or not.
func (a *app) falling() bool { return a.replicas == 0 }

// due draws a moment around the time at which the app will fall asleep if no request comes. Past times predict it.
func (a *app) due(rng *rand.Rand) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	low, high := 4*time.Second, 7*time.Second
	if len(a.naps) > 0 {
		low, high = slices.Min(a.naps), slices.Max(a.naps)
	}
	low, high = low-200*time.Millisecond, min(high, low+5*time.Second)+500*time.Millisecond
	return a.answered.Add(low + draw(rng, high-low))
}

// edge names the state that the app is in.
func (a *app) edge() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	ready, ending := 0, 0
	for _, p := range a.pods {
		switch {
		case p.ending:
			ending++
		case p.ready:
			ready++
		}
	}
	switch {
	case a.replicas == 0 && len(a.pods) == 0:
		return "sleeps"
	case a.replicas == 0 && time.Since(a.zeroAt) < 50*time.Millisecond:
		return "is scaled to zero"
	case a.replicas == 0:
		return "ends its pods"
	case ready == 0:
		return "starts"
	case ending > 0:
		return "replaces a pod"
	case time.Since(a.answered) > 3*time.Second:
		return "is about to sleep"
	default:
		return "is awake"
	}
}

// plan draws a request to this app.
func (a *app) plan(rng *rand.Rand) plan {
	return newPlan(rng, fmt.Sprintf("%s-%d", a.name, a.number.Add(1)))
}

// send sends a request and reports the result. The end of ctx does not cancel it.
func (a *app) send(ctx context.Context, p plan) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*requestTimeout)
	defer cancel()
	one := result{at: time.Now(), app: a.name, kind: p.name, edge: a.edge(), id: p.id}
	one.opened, one.reused, one.err = a.try(ctx, p, p.kept)
	// A server may close an idle connection just when a request comes, and HTTP cannot prevent it (RFC 9112, 9.5). A client
	// may repeat the request if it knows that the first was not carried out, or that a second does no harm. The ledger tells
	// our client.
	if one.reused && errors.Is(one.err, errUnanswered) && (!p.once || a.ledger.came(p.id) == 0) {
		one.raced = true
		one.opened, _, one.err = a.try(ctx, p, false)
	}
	one.took = time.Since(one.at)
	if p.once {
		switch n := a.ledger.came(p.id); {
		case one.err == nil && n != 1:
			one.err = fmt.Errorf("it was answered, and carried out %d times", n)
		case one.err != nil:
			one.err = fmt.Errorf("%w (it came to the app %d times)", one.err, n)
		}
	}
	a.mu.Lock()
	a.answered = time.Now()
	a.mu.Unlock()
	a.report.add(one)
}

// try sends a request once, and reports when its connection was opened and whether that had been used before.
func (a *app) try(ctx context.Context, p plan, reuse bool) (opened time.Time, reused bool, err error) {
	opened = time.Now()
	r, err := p.request(a.lines.address)
	if err != nil {
		return opened, false, err
	}
	l, reused, err := a.lines.take(ctx, reuse)
	if err != nil {
		return opened, reused, err
	}
	got, keep, err := l.exchange(r)
	if !keep {
		_ = l.conn.Close()
	} else {
		a.lines.put(l)
	}
	if err == nil {
		err = p.check(a.name, got)
	}
	return l.opened, reused, err
}
