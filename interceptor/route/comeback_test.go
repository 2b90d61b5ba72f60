// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"testing"
	"testing/synctest"
	"time"
)

// A workload that is opted in again may have had visitors that nobody here counted. So it is not idle since its last request here,
// even while its pods are not listed yet. A workload that had no request here does not count as active.
func TestIdleAfterComingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, tc := range map[string]struct {
			asked bool
			pods  []string
			want  time.Duration
		}{
			"asked before":               {true, []string{"10.0.0.1:80"}, 0},
			"asked before, no pods yet":  {true, nil, 0},
			"never asked":                {false, []string{"10.0.0.1:80"}, never},
			"never asked, and it sleeps": {false, nil, never},
		} {
			f := newFixture(0)
			f.SetService(web(tc.pods...))
			target := f.route(10000).Target()
			if tc.asked {
				release := target.Begin()
				release()
			}
			advance(4 * time.Second)
			f.SetService(web(tc.pods...)) // it was known all the time
			if got := target.Idle(); got != never && got != 4*time.Second {
				t.Errorf("%s: idle for %s although nothing has changed", name, got)
			}
			f.RemoveService("shop", "web")
			advance(time.Second)
			f.SetService(web(tc.pods...))
			if got := target.Idle(); got != tc.want || f.route(10000).Target() != target {
				t.Errorf("%s: idle for %s, want %s", name, got, tc.want)
			}
			f.RemoveService("shop", "web")
			advance(time.Minute)
		}
	})
}
