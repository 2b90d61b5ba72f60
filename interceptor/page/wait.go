// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package page

import (
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// Wait is what is known about a start for which a client waits.
type Wait struct {
	Namespace, App string
	// Progress is how far the start has come. Its Failing is empty unless it still holds.
	Progress api.Progress
	// Elapsed is how long the start has taken so far, as far as that is known.
	Elapsed time.Duration
	// Ready is set once the start is over.
	Ready bool
}

// Failing reports whether the app cannot start at present.
func (w *Wait) Failing() bool { return w.Progress.Failing != "" }

// Paused reports whether the app must not wake at present. That is a kind of Failing.
func (w *Wait) Paused() bool { return w.Failing() && w.Progress.Reason == api.ReasonPaused }

// Usual returns how long the start takes if it goes on as earlier ones did, as the page shows it, rounded up. It is 0 if no earlier
// start is known.
//
// Until the containers run, that is the median of the earlier starts. From then on, it is what this start took until then, and the
// median of what the app itself took earlier: this time the node may have pulled the image, or had it already.
func (w *Wait) Usual() time.Duration {
	usual := medianOf(w.Progress.Starts)
	if w.Progress.Running > 0 && len(w.Progress.Apps) > 0 {
		usual = time.Duration(w.Progress.Running) + medianOf(w.Progress.Apps)
	}
	if usual == 0 {
		return 0
	}
	unit := time.Second
	switch {
	case usual > 90*time.Second:
		unit = time.Minute
	case usual > 20*time.Second:
		unit = 5 * time.Second
	}
	return max(unit, (usual + unit - 1).Truncate(unit))
}

func medianOf(all []api.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	return time.Duration(slices.Sorted(slices.Values(all))[len(all)/2])
}

// Late reports whether the start takes longer than usual.
func (w *Wait) Late() bool { return w.Usual() > 0 && w.Elapsed >= w.Usual() }

// UntilLate returns how long it takes until Late becomes true; 0 if that will not happen.
func (w *Wait) UntilLate() time.Duration {
	if w.Late() {
		return 0
	}
	return max(0, w.Usual()-w.Elapsed)
}

// State identifies what the page shows. A page that already shows this state needs no update.
func (w *Wait) State() string {
	h := fnv.New64a()
	for _, s := range []string{w.Progress.Stage, w.Progress.Failing, w.Progress.Reason, w.Usual().String(), strconv.FormatBool(w.Late())} {
		_, _ = h.Write(append([]byte(s), 0)) // never fails
	}
	return strconv.FormatUint(h.Sum64(), 36)
}
