// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"strings"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

func TestAwakeSetting(t *testing.T) {
	for _, value := range []string{"Mon-Fri 08:00-18:30 Asia/Seoul, Sat 10:00-12:00 Asia/Seoul", "always", "never"} {
		if s, err := ParseSettings(map[string]string{Prefix + "awake": value}); err != nil || s.Awake != value {
			t.Errorf("%q: got %q, %v", value, s.Awake, err)
		}
	}
	const allowed = `allowed is at most 20 windows such as "Mon-Fri 08:00-18:30 Asia/Seoul, Sat 10:00-12:00 Asia/Seoul", or always, or never; `
	for value, why := range map[string]string{
		"":                               "it is empty; the word never stands for no window",
		"Mon-Fri 08:00-18:30 asia/seoul": `window 1 is "Mon-Fri 08:00-18:30 asia/seoul": time zone "asia/seoul" is unknown; Asia/Seoul is known`,
	} {
		want := `annotation scale-to-zero/awake: "` + value + `" is not allowed: ` + allowed + why
		if _, err := ParseSettings(map[string]string{Prefix + "awake": value}); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", value, err, want)
		}
	}
}

// TestWindowPlans tests what is planned when a window begins, lasts and ends, with KEDA, without it, and beside an HPA. The windows are
// on days on which Berlin's clocks are set: the first ends after an hour less, and the second after an hour more.
func TestWindowPlans(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at := func(day time.Month, date, hour, minute int) func(*scaledWorld) {
		return func(w *scaledWorld) { w.now = time.Date(2026, day, date, hour, minute, 0, 0, berlin) }
	}
	open := func(w *scaledWorld) {
		w.asks[0] = askingFor("web", func(s *Settings) { s.WakeReplicas = 1 })
		w.asks[0].Routes.Awake = "Sun 01:00-05:00 Europe/Berlin"
	}
	idle := func(w *scaledWorld) { w.count = CountAnswer{Known: true} }
	asleepAt := func(change ...func(*scaledWorld)) []func(*scaledWorld) {
		return append([]func(*scaledWorld){at(time.March, 28, 23, 0), open, idle, settled, sleeps, look, look}, change...)
	}
	theyPause := func(w *scaledWorld) { setAnnotation(w.so, keda.PausedReplicasAnnotation, "0") }
	for name, tc := range map[string]struct {
		changes []func(*scaledWorld)
		want    string
	}{
		"a minute before": {asleepAt(at(time.March, 29, 0, 59)), "after 1m0s"},
		"seconds before":  {asleepAt(at(time.March, 29, 0, 59), passes(50*time.Second)), "after 10s"},
		"it begins": {
			asleepAt(at(time.March, 29, 1, 0)), "update web-deployment 1-2, scale to 1, AwakeWindow, after 1m0s",
		},
		"it has begun": {asleepAt(at(time.March, 29, 1, 0), look, isReady, look), "after 1m0s"},
		"its last seconds": {
			asleepAt(at(time.March, 29, 1, 0), look, isReady, look, passes(3*time.Hour-5*time.Second)), "after 5s",
		},
		"it ends three hours later": {
			asleepAt(at(time.March, 29, 1, 0), look, isReady, look, passes(3*time.Hour)),
			"update web-deployment 0-2, scale to 0, AwakeWindow, after 15s",
		},
		"in autumn it does not": {asleepAt(at(time.October, 25, 1, 0), look, isReady, look, passes(3*time.Hour)), "after 1m0s"},
		"in autumn it ends five later": {
			asleepAt(at(time.October, 25, 1, 0), look, isReady, look, passes(5*time.Hour)),
			"update web-deployment 0-2, scale to 0, AwakeWindow, after 15s",
		},
		"it has ended": {asleepAt(at(time.March, 29, 1, 0), look, isReady, look, passes(3*time.Hour), look), "Asleep, after 1m0s"},
		"it begins without KEDA": {
			append([]func(*scaledWorld){withoutKEDA}, asleepAt(at(time.March, 29, 1, 0))...), "scale to 1, AwakeWindow, after 1m0s",
		},
		"it lasts without KEDA": {
			append([]func(*scaledWorld){withoutKEDA}, asleepAt(at(time.March, 29, 1, 0), look, isReady, look, passes(time.Hour))...), "after 15s",
		},
		"it has ended without KEDA": {
			append([]func(*scaledWorld){withoutKEDA}, asleepAt(at(time.March, 29, 1, 0), look, isReady, look, passes(4*time.Hour))...),
			"scale to 0, AwakeWindow, after 15s",
		},
		"it begins, kept asleep": {asleepAt(keptAsleep, look, at(time.March, 29, 1, 0)), "after 1m0s"},
		"it begins, and its owner's pause": {
			asleepAt(theyPause, look, at(time.March, 29, 1, 0)), "update web-deployment 1-2, AwakeWindow, after 1m0s",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScaledWorld(t)
			for _, change := range tc.changes {
				change(w)
			}
			if got := outline(w.plan()); got != tc.want {
				t.Errorf("\n got %s\nwant %s\n%s", got, tc.want, strings.Join(w.events, "\n"))
			}
		})
	}
}
