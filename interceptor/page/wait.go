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

// Wait is what is known of a start that a client waits for.
type Wait struct {
	Namespace, App string
	// Progress is how far it has come. Its Failing is empty unless that holds now.
	Progress api.Progress
	// Elapsed is how long it takes already, as far as that is known.
	Elapsed time.Duration
	// Ready says that it is over.
	Ready bool
}

// Failing says that the app cannot start as things are.
func (w *Wait) Failing() bool { return w.Progress.Failing != "" }

// Usual is how long the last starts took, as the page says it: the median, rounded up. It is 0 if none is known.
func (w *Wait) Usual() time.Duration {
	if len(w.Progress.Starts) == 0 {
		return 0
	}
	starts := slices.Sorted(slices.Values(w.Progress.Starts))
	usual := time.Duration(starts[len(starts)/2])
	unit := time.Second
	switch {
	case usual > 90*time.Second:
		unit = time.Minute
	case usual > 20*time.Second:
		unit = 5 * time.Second
	}
	return max(unit, (usual + unit - 1).Truncate(unit))
}

// Late says that the start takes longer than usual.
func (w *Wait) Late() bool { return w.Usual() > 0 && w.Elapsed >= w.Usual() }

// UntilLate is when Late will change, or 0 if it will not.
func (w *Wait) UntilLate() time.Duration {
	if w.Late() {
		return 0
	}
	return max(0, w.Usual()-w.Elapsed)
}

// State names what the page shows. A page that shows it already needs no news.
func (w *Wait) State() string {
	h := fnv.New64a()
	for _, s := range []string{w.Progress.Stage, w.Progress.Failing, w.Progress.Reason, w.Usual().String(), strconv.FormatBool(w.Late())} {
		_, _ = h.Write(append([]byte(s), 0)) // never fails
	}
	return strconv.FormatUint(h.Sum64(), 36)
}
