// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"
	"strings"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

func TestWakeWith(t *testing.T) {
	many := strings.Repeat("a,", api.MaxWakeWith)
	for value, want := range map[string][]string{
		"db": {"db"}, "db, worker": {"db", "worker"}, "db,db": nil, "a b": nil, "DB": nil, "other/db": nil, "-a": nil, "a,": nil, many: nil,
	} {
		s, err := ParseSettings(map[string]string{Prefix + "wake-with": value})
		if (err == nil) != (want != nil) {
			t.Errorf("%q: %v", value, err)
		}
		if err == nil {
			if got := NewRoutes(service(), s, Workload{}, nil); !slices.Equal(got.WakeWith, want) {
				t.Errorf("%q: got %q", value, got.WakeWith)
			}
		}
	}
}

// TestStackEvents: names that wake nobody are reported once, and once more when that changes.
func TestStackEvents(t *testing.T) {
	with := func(names string) func(*world) {
		return func(w *world) { w.service.Annotations = map[string]string{Prefix + "wake-with": names} }
	}
	there := func(name string, injected bool) func(*world) {
		return func(w *world) {
			if w.stack == nil {
				w.stack = map[string]bool{}
			}
			w.stack[name] = injected
		}
	}
	const note = "WakeWithIncomplete: Annotation scale-to-zero/wake-with names Services that cannot wake with web: "
	for name, tc := range map[string]struct {
		world []func(*world)
		want  []string
	}{
		"all are there": {[]func(*world){with("db,worker"), there("db", true), there("worker", true)}, nil},
		"one is not":    {[]func(*world){with("db,worker"), there("db", true)}, []string{note + "there is no Service worker"}},
		"one is not injected": {[]func(*world){with("db"), there("db", false)}, []string{
			note + "label scale-to-zero=true is missing, or has had no effect, on Service db",
		}},
		"it comes later": {[]func(*world){with("db"), func(w *world) { w.stack = map[string]bool{}; w.run() }, there("db", true)}, []string{
			note + "there is no Service db",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.world...)
			w.run()
			w.run()
			got := slices.DeleteFunc(slices.Clone(w.events), func(e string) bool { return strings.HasPrefix(e, "Injected") })
			if !slices.Equal(got, tc.want) {
				t.Errorf("events %q\nwant %q", got, tc.want)
			}
		})
	}
}
