// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

const (
	// rightSoon is the pause before the second attempt to scale a workload for which we have no right. It doubles, until it is
	// rightTries times as long. The API server usually notices a new Role within that time.
	rightSoon  = 50 * time.Millisecond
	rightTries = 8
	// rightLate is how long the right has to be missing before an event says so.
	rightLate = 5 * time.Second
)

// scale scales a workload by ourselves.
func (w *Waker) scale(r *route.Route, t *route.Target, kedaListens bool, a *attempts) {
	log := w.options.Log.WithValues("namespace", t.Key.Namespace, "workload", t.Key.Workload, "kedaListens", kedaListens)
	scaled, err := w.try(t, a)
	refused, _ := errors.AsType[*RefusedError](err)
	switch {
	case w.ctx.Err() != nil:
	case err == nil && scaled:
		log.Info("Scaled up directly")
	case refused != nil && refused.NoRight:
		a.soon(time.Now())
		if a.lacking(time.Now()) < rightLate {
			log.V(1).Info("No right to scale up yet", "error", err.Error())
			return
		}
		w.refused(r, t, "the interceptors have no right to scale it up. The controllers grant it by a Role in this namespace: see the events "+
			"of the Service, and whether the controllers run. It is tried again every second: "+refused.Error())
	case refused != nil:
		w.refused(r, t, "the API server refuses to scale it up: "+refused.Error())
	}
	if err != nil && w.ctx.Err() == nil {
		log.Error(err, "Scaling up directly failed")
	}
}

// try scales a workload. If we have no right to, it tries a few times, since the right may have just been granted.
func (w *Waker) try(t *route.Target, a *attempts) (scaled bool, err error) {
	for pause := rightSoon; ; pause *= 2 {
		ctx, cancel := context.WithTimeout(w.ctx, w.options.Timeout)
		scaled, err = w.options.Scaler.Scale(ctx, t.Key.Namespace, t.Workload(), t.WakeTo())
		cancel()
		refused, _ := errors.AsType[*RefusedError](err)
		if refused == nil || !refused.NoRight || pause > rightTries*rightSoon || a.lacking(time.Now()) >= w.options.Repeat {
			return scaled, err
		}
		select {
		case <-w.ctx.Done():
			return false, err
		case <-time.After(pause):
		}
	}
}

func (w *Waker) refused(r *route.Route, t *route.Target, why string) {
	w.options.Events.Warn(Warning{
		Namespace: r.Namespace, Service: r.Service, ServiceUID: r.ServiceUID, Workload: t.Workload(),
		Reason: "WakeRefused", ID: "wake-refused-" + r.SleepID(),
		Message: fmt.Sprintf("%s cannot be woken: %s", t.Key.Workload, Clean(why, 700)),
	})
}

// attempts spaces out the attempts to scale a workload.
type attempts struct {
	backoff

	since time.Time // when we first had no right to
}

// lacking returns for how long we have had no right.
func (a *attempts) lacking(now time.Time) time.Duration {
	if a.since.IsZero() {
		a.since = now
	}
	return now.Sub(a.since)
}

// soon makes the next attempt due at once, without growing pauses: requests are held meanwhile, and it costs one call that is refused.
func (a *attempts) soon(now time.Time) { a.backoff = backoff{next: now} }

// backoff spaces out repeated actions: the first is due at once, the second after 2 s, and then the pause doubles up to 16 s.
type backoff struct {
	next time.Time
	wait time.Duration
}

func (b *backoff) due(now time.Time) bool {
	if now.Before(b.next) {
		return false
	}
	b.wait = min(max(2*time.Second, 2*b.wait), 16*time.Second)
	b.next = now.Add(b.wait)
	return true
}
