package scaler

import (
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// Activity decides what is active, from the counts here and at the peers.
type Activity struct {
	Peers Peers
}

// Pending is the number of pending requests at all interceptors.
func (a *Activity) Pending(t *route.Target) int64 {
	pending, _ := a.Peers.Total(t.Key)
	return t.Pending() + pending
}

// Active says whether the workload is to be up:
//
//	a request is pending anywhere, or the last one anywhere is younger than the cool-down  → yes
//	the Service is being given back                                                       → yes, the injector decides
//	counting began less than a cool-down ago, by our start, by take-over or because the
//	  first pod came, or counts were lost by a peer's end, and the workload has pods      → yes, it may be in use
//	  and it has none                                                                     → no: to call it active would
//	                                                                                        wake every app that sleeps
//	otherwise                                                                             → no
func (a *Activity) Active(t *route.Target) bool {
	pending, idle := a.Peers.Total(t.Key)
	cooldown := t.Cooldown()
	switch {
	case pending > 0 || t.Pending() > 0 || min(idle, t.Idle()) < cooldown:
		return true
	case t.Retiring():
		return true
	default:
		return t.HasPods() && min(t.Up(), a.Peers.SinceLost()) < cooldown
	}
}

// Waiting says that requests wait for a pod.
func (a *Activity) Waiting(t *route.Target) bool {
	return !t.Retiring() && (t.Held() > 0 || !t.Ready() && a.Pending(t) > 0)
}
