// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// life is how long a workload has been asleep, waking or awake.
type life struct {
	asleep, awake bool
	seen          bool      // since is when that began, and not when this controller did
	since         time.Time // of asleep, or of awake
	woken         time.Time // when it last left sleep
	uncounted     time.Time // when its traffic last went past the interceptors
	bypassing     bool      // requests may go past the interceptors: a Service is not taken over yet, or has failed open
	bypassed      time.Time // when that was last so
	paused        string    // what was told last of a pause
	within        int32     // its replica count when that was last within the limit; 0 if it has not been, or was asleep
}

// observe tells when the workload has fallen asleep or has woken since it was last looked at, and returns whether it has told
// the latter.
func (r *WorkloadReconciler) observe(ctx context.Context, key types.NamespacedName, w workload, d demand, p pause) (awoke bool) {
	now := r.Now()
	r.mu.Lock()
	was, known := r.lives[key]
	is := was.next(now, known, w, d)
	r.lives[key] = is
	r.mu.Unlock()
	if !known || len(d.services) == 0 {
		return false
	}
	objects := d.objects(w)
	switch {
	case is.asleep && !was.asleep:
		note := r.slept(ctx, was, is, w, d, p).Note(w.Ref().String())
		r.stories.tell(ctx, corev1.EventTypeNormal, reasonAsleep, note, objects...)
	case is.awake && !was.awake && !is.woken.IsZero():
		ready := fmt.Sprintf("is ready (%d of %s)", w.ReadyReplicas, replicasText(w.Replicas))
		if w.ReadyReplicas == 0 {
			ready = "takes requests before it is ready, as a Service of it asks (publishNotReadyAddresses)"
		}
		r.stories.tell(ctx, corev1.EventTypeNormal, reasonAwake,
			fmt.Sprintf("%s %s, %s after it was scaled up", w.Ref(), ready, injector.Rounded(now.Sub(is.woken))), objects...)
		return true
	}
	return false
}

// next is what is known after another look. Known says that there was one before.
func (was life) next(now time.Time, known bool, w workload, d demand) life {
	is := was
	switch asleep, awake := w.Replicas == 0, w.Replicas > 0 && w.serves; {
	case !known:
		is = life{asleep: asleep, awake: awake, since: now, woken: now}
	case asleep && !was.asleep:
		is.asleep, is.awake, is.since, is.woken, is.seen = true, false, now, time.Time{}, true
	case !asleep && was.asleep:
		is.asleep, is.awake, is.woken, is.seen = false, awake, now, true
	case awake && !was.awake:
		is.awake, is.asleep = true, false
	}
	if known && is.awake && !was.awake {
		is.since, is.seen = now, true
	}
	if is.bypassing = d.unsafe || d.open; is.bypassing || was.bypassing {
		is.bypassed = now
	}
	return is
}

// slept is how the workload has fallen asleep, of which was and is are known before and after.
func (r *WorkloadReconciler) slept(ctx context.Context, was, is life, w workload, d demand, p pause) injector.Slept {
	now := r.Now()
	s := injector.Slept{By: injector.ScaledBy(w.ManagedFields), Paused: p.why(), Ready: was.awake, Cooldown: longest(d.settings)}
	since := was.since
	if !was.awake {
		since = was.woken
	}
	if was.seen {
		s.For = now.Sub(since)
	}
	use, err := r.Counts.Use(ctx, w.Namespace, w.Ref())
	if err != nil {
		log.FromContext(ctx).Info("The interceptors do not say when an app was last used", "workload", w.Ref().String(), "error", err.Error())
	} else {
		if !is.bypassed.IsZero() {
			use.Counted = min(use.Counted, now.Sub(is.bypassed))
		}
		s.Use = &use
	}
	if p.so != nil {
		s.ToKeep = fmt.Sprintf("To keep it there: kubectl annotate scaledobject -n %s %s %s=0", p.so.Namespace, p.so.Name, keda.PausedReplicasAnnotation)
	} else {
		s.ToKeep = fmt.Sprintf("To keep it there, opt it out first (label %s=false)", injector.OptInLabel)
	}
	return s
}

// up is for how long the workload has been ready for visitors: not at all during a start that is given its time.
func (r *WorkloadReconciler) up(key types.NamespacedName, d demand) time.Duration {
	var hold time.Duration
	for i := range d.slices {
		if routes, err := api.DecodeRoutes(d.slices[i].Annotations[api.RoutesAnnotation]); err == nil {
			hold = max(hold, time.Duration(routes.HoldTimeout))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	life := r.lives[key]
	switch starting := r.Now().Sub(life.woken); {
	case life.awake:
		return r.Now().Sub(life.since)
	case starting < api.StartTime(hold) && r.starts[key].progress.Failing == "":
		return 0
	default:
		return starting
	}
}
