// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// upkeep is what keeps a target's workload up while it has no requests.
type upkeep struct {
	cooldown atomic.Int64 // the longest of all routes
	drowsy   atomic.Int64 // the idle time after which the workload may be scaled to zero; 0 if it may not
	settled  atomic.Int64 // until when, by clock, the workload may turn out to have been scaled to zero; 0 if it will not

	windows atomic.Pointer[api.Windows] // those of all routes; nil if there is none
	texts   []string                    // of windows, sorted; protected by Table.mu
}

// windowEdge is how long before the beginning of a window, or before its end by another machine's clock, somebody may have decided to
// put the workload to sleep who acts on it later.
const windowEdge = time.Minute

// Cooldown is how long the workload stays up after its last request.
func (u *upkeep) Cooldown() time.Duration { return time.Duration(u.cooldown.Load()) }

// Sleeps reports whether the workload is put to sleep when it has no visits.
func (u *upkeep) Sleeps() bool { return u.drowsy.Load() > 0 }

// KeptAwake reports whether the workload's owner wants it awake now, even without requests.
func (u *upkeep) KeptAwake(now time.Time) bool {
	w := u.windows.Load()
	return w != nil && w.Contains(now)
}

// surelyAwake reports whether the workload cannot have been put to sleep, because it is kept awake, and not only since a moment ago.
func (u *upkeep) surelyAwake() bool {
	if u.windows.Load() == nil {
		return false
	}
	now := time.Now()
	return u.KeptAwake(now.Add(-windowEdge)) && u.KeptAwake(now) && u.KeptAwake(now.Add(windowEdge))
}

// setWindows sets the texts of the windows of all routes. Those of a valid Routes parse. The caller holds Table.mu.
func (u *upkeep) setWindows(texts []string) {
	slices.Sort(texts)
	texts = slices.Compact(texts)
	if slices.Equal(texts, u.texts) {
		return
	}
	u.texts = texts
	var all api.Windows
	for _, text := range texts {
		if w, err := api.ParseWindows(text); err == nil {
			all = all.Join(w)
		}
	}
	if all.Empty() {
		u.windows.Store(nil)
		return
	}
	u.windows.Store(&all)
}
