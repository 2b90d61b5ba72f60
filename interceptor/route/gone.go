// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"slices"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// removedGrace is how long requests stay held when the route slices of a Service disappear without notice. Somebody may have deleted
// only the slices; the injector then creates them again with the same port.
const removedGrace = time.Second

// removed is why requests for a Service whose route slices are gone get no pod.
const removed = "the Service does not exist any more, or has just left scale-to-zero; try again"

// reasonGone is the Progress.Reason once the app is gone.
const reasonGone = "Gone"

// failure says why no pod can be expected at present. It is empty while there is a ready pod, so that a restored app still serves the
// requests held for it. Once the Service or the workload is gone, nobody lists its pods any more, so a pod counts as ready only until
// it fails.
func (s *snapshot) failure(r *Route) api.Progress {
	switch {
	case slices.ContainsFunc(s.endpoints, func(e *Endpoint) bool { return s.gone == "" || e.Failures() == 0 }):
		return api.Progress{}
	case s.gone != "":
		return api.Progress{Failing: s.gone, Reason: reasonGone, Starts: s.progress.Starts}
	case s.refused():
		return api.Progress{Failing: s.says(s.progress.Paused.Why, api.ReasonPaused), Reason: api.ReasonPaused, Starts: s.progress.Starts}
	case s.progress.Failing != "" && r.clock.now()-s.progressAt < int64(api.FailingFor):
		failure := s.progress
		failure.Failing = s.says(failure.Failing, failure.Reason)
		return failure
	default:
		return api.Progress{}
	}
}

// says returns what a visitor may read about a failure.
func (s *snapshot) says(details, reason string) string {
	if s.fullDetails {
		return details
	}
	return api.FailureKind(reason)
}

// abandonLater fails the requests that r holds, once it is certain that its Service is gone. The caller holds mu.
func (t *Table) abandonLater(key routeKey, r *Route) {
	if r.Retiring() { // the end was announced, and the workload had time to come back
		t.abandon(r)
		return
	}
	r.abandoned = time.AfterFunc(min(removedGrace, t.options.Linger), func() {
		t.mu.Lock()
		defer t.unlock()
		if !t.closed && t.routes[key] == r && r.gone != nil {
			t.abandon(r)
		}
	})
}

// abandon fails the requests that r holds. The caller holds mu.
func (t *Table) abandon(r *Route) {
	s := *r.snap.Load()
	if s.gone == "" {
		s.gone = removed
		r.publish(&s)
	}
}
