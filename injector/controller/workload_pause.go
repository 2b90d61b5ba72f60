// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// pause is what the owner of a workload's ScaledObject has paused by KEDA's annotations.
type pause struct {
	keda.Pause

	so *keda.ScaledObject
}

// pauseOf reads ours of a workload, which may be nil.
func pauseOf(so *keda.ScaledObject) pause {
	if so == nil || !so.DeletionTimestamp.IsZero() {
		return pause{}
	}
	return pause{keda.PauseOf(so.Annotations), so}
}

// why says it in one line, for visitors; it is empty while a request may wake the workload.
func (p pause) why() string {
	if !p.NoWake {
		return ""
	}
	return fmt.Sprintf("ScaledObject %s is paused (%s)", p.so.Name, p)
}

// progress is what the interceptors are told.
func (p pause) progress(w workload) *api.Pause {
	if !p.NoWake {
		return nil
	}
	return &api.Pause{Why: p.why(), Asleep: w.Replicas == 0}
}

// note is the message of the event about the pause. It is empty if nothing is paused.
func (p pause) note(w workload) string {
	what := "neither wakes it nor puts it to sleep. Requests get 503 with this while it has no replicas"
	switch {
	case len(p.By) == 0:
		return ""
	case !p.NoWake:
		what = "does not put it to sleep"
	case !p.NoSleep:
		what = "does not wake it. Requests get 503 with this while it has no replicas"
	}
	return fmt.Sprintf("ScaledObject %s of %s is paused (%s): scale-to-zero %s. Resume: kubectl annotate scaledobject -n %s %s %s-",
		p.so.Name, w.Ref(), p, what, p.so.Namespace, p.so.Name, strings.Join(p.By, "- "))
}

// tellPause emits an event when a pause begins, changes or ends. Before is the pause in the route slices: a controller that
// ran earlier has already reported that one.
func (r *WorkloadReconciler) tellPause(ctx context.Context, w workload, d demand, p pause, before *api.Pause) {
	key := key(w.Namespace, w.Ref())
	note := p.note(w)
	r.mu.Lock()
	life := r.lives[key]
	last := life.paused
	life.paused = note
	r.lives[key] = life
	r.mu.Unlock()
	switch {
	case note == last && (note != "" || before == nil), last == "" && p.NoWake && before != nil && before.Why == p.why():
	case note != "":
		objects := d.objects(w)
		if p.so != nil {
			objects = append(objects, client.Object(p.so))
		}
		r.stories.tell(ctx, corev1.EventTypeWarning, reasonPaused, note, objects...)
	case w.Replicas == 0:
		r.stories.tell(ctx, corev1.EventTypeNormal, reasonResumed, fmt.Sprintf("%s is no longer paused: the next request wakes it", w.Ref()), d.objects(w)...)
	default:
		r.stories.tell(ctx, corev1.EventTypeNormal, reasonResumed, fmt.Sprintf("%s is no longer paused: it sleeps when nobody uses it", w.Ref()), d.objects(w)...)
	}
}
