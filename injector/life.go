// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"time"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// Life is what is known about a workload's sleeping and waking. It is a value: each method returns the next one.
//
//	         replicas = 0          replicas > 0, none serves   replicas > 0, one serves
//	asleep   asleep                waking; Woken = now         awake; Woken = Since = now
//	waking   asleep; Since = now   waking                      awake; Since = now
//	awake    asleep; Since = now   awake                       awake
//
// An awake workload counts as awake while its last pod restarts: only zero replicas mean sleep.
type Life struct {
	// Known is set once the workload has been observed.
	Known         bool
	Asleep, Awake bool
	// Since is when the workload fell asleep or became ready. If Seen is not set, nobody saw that, and Since is when the controller
	// first looked.
	Since time.Time
	Seen  bool
	// Woken is when the workload last left sleep; zero while it is asleep.
	Woken time.Time
	// Hand is the replica count to which somebody scaled it when it last left sleep, until it is ready.
	Hand int32
	// Repeated says that it was scaled to that once more, which is not done twice before it is ready.
	Repeated bool
	// Bypassing says that requests may go past the interceptors: a Service is not redirected yet, or has failed open.
	// Bypassed is when that was last so.
	Bypassing bool
	Bypassed  time.Time
	// Uncounted is when traffic last bypassed the interceptors.
	Uncounted time.Time
	// Within is the last replica count that was within the limit; 0 if there was none, or the workload was asleep.
	Within int32
	// Paused is the last note about a pause.
	Paused string
	// Stabilization is used if there is no KEDA.
	Stabilization Stabilization
}

// Next returns what is known after another observation. serves is set if the workload's pods take requests.
func (l Life) Next(now time.Time, replicas int32, serves, bypassing bool) Life {
	is := l
	asleep, awake := replicas == 0, replicas > 0 && serves
	switch {
	case !l.Known:
		is = Life{Known: true, Asleep: asleep, Awake: awake, Since: now, Woken: now}
	case asleep && !l.Asleep:
		is.Asleep, is.Awake, is.Since, is.Woken, is.Seen = true, false, now, time.Time{}, true
	case !asleep && l.Asleep:
		is.Asleep, is.Awake, is.Woken, is.Seen = false, awake, now, true
	case awake && !l.Awake:
		is.Awake, is.Asleep = true, false
	}
	if l.Known && is.Awake && !l.Awake {
		is.Since, is.Seen = now, true
	}
	if is.Awake || is.Asleep {
		is.Hand = 0
	}
	is.Repeated = is.Repeated && !is.Awake
	if is.Bypassing = bypassing; bypassing || l.Bypassing {
		is.Bypassed = now
	}
	return is
}

// FellAsleep reports whether the workload has fallen asleep since was.
func (l Life) FellAsleep(was Life) bool { return was.Known && l.Asleep && !was.Asleep }

// Awoke reports whether the workload has become awake since was. That counts only if its wake was seen.
func (l Life) Awoke(was Life) bool { return was.Known && l.Awake && !was.Awake && !l.Woken.IsZero() }

// crossing is how long after somebody has scaled a workload up KEDA may still put it to sleep for what it found before.
const crossing = 5 * time.Second

// Crossed returns the replica count to which somebody had just scaled the workload when KEDA put it to sleep, as it had found it
// idle before; 0 if that is not what has happened since was.
func (l Life) Crossed(was Life, now time.Time) int32 {
	if !l.FellAsleep(was) || now.Sub(was.Woken) > crossing {
		return 0
	}
	return was.Hand
}

// KeptUp is how much longer an app that is up must not sleep, since it may have had visitors whom nobody counted: until one
// cool-down after its traffic last went past the interceptors. KEDA needs that time too, to find them and the app active
// before it may put it to sleep. uncounted says that traffic goes past them now.
//
// After a restart of the controller that time is unknown. If a ScaledObject keeps more replicas than the settings ask for, the
// earlier controller was still keeping the app up.
func (l Life) KeptUp(now time.Time, s Scaling, so *keda.ScaledObject, uncounted bool) (time.Duration, Life) {
	holding := so != nil && so.Spec.Idle() > s.MinReplicas
	if uncounted || l.Uncounted.IsZero() && holding {
		l.Uncounted = now
	}
	if l.Uncounted.IsZero() {
		return 0, l
	}
	return max(0, s.Cooldown-now.Sub(l.Uncounted)), l
}

// Limit returns the highest replica count that we may have caused ourselves: the maximum of the settings or, if that was lowered, the
// earlier count until those replicas are gone. Any replicas beyond it were requested by somebody else. After a restart of the
// controller, the ScaledObject shows the earlier maximum.
func (l Life) Limit(replicas int32, s Scaling, so *keda.ScaledObject) (int32, Life) {
	if l.Within == 0 && so != nil && so.Spec.MaxReplicaCount != nil {
		l.Within = *so.Spec.MaxReplicaCount
	}
	limit := max(s.MaxReplicas, l.Within)
	if replicas <= limit {
		l.Within = replicas
	}
	return limit, l
}

// Up returns how long the workload has been ready for visitors: 0 during a start that still has time. hold is the longest time that a
// request for it may be held. failing is set if the start is certain to fail.
func (l Life) Up(now time.Time, hold time.Duration, failing bool) time.Duration {
	switch starting := now.Sub(l.Woken); {
	case l.Awake:
		return now.Sub(l.Since)
	case starting < api.StartTime(hold) && !failing:
		return 0
	default:
		return starting
	}
}
