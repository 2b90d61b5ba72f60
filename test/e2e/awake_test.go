// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// TestAwakeWindow: a sleeping app wakes when its window begins, without a request, stays awake until the window ends, and sleeps after
// that. So it does with KEDA, and beside an HPA, where the controller scales.
func TestAwakeWindow(t *testing.T) {
	for name, values := range map[string][]string{
		"with KEDA":     nil,
		"beside an HPA": {"--set", "webserver.hpa.enabled=true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAirflow(t, "HELM", values...)
			if values == nil {
				a.optIn()
			} else {
				a.besideAutoscaler()
			}
			a.asleep()
			begin := time.Now().UTC().Add(10 * time.Second).Truncate(time.Minute).Add(time.Minute)
			end := begin.Add(time.Minute)
			window := fmt.Sprintf("Mon-Sun %s-%s UTC", begin.Format("15:04"), end.Format("15:04"))
			kubectl(t, "annotate", "service", "-n", a.ns, webserver, injector.Prefix+"awake="+window)
			eventually(t, "it is awake", func() error {
				if n := a.deployment().Status.ReadyReplicas; n == 0 {
					return fmt.Errorf("at %s it sleeps", time.Now().UTC())
				}
				return nil
			})
			if now := time.Now(); now.Before(begin) {
				t.Errorf("it woke at %s, before %s", now.UTC(), begin)
			}
			a.asleep()
			if now := time.Now(); now.Before(end) {
				t.Errorf("it slept at %s, before %s", now.UTC(), end)
			}
			got := a.events("Service", webserver)
			if n := count(got, injector.ReasonWindow); n != 2 {
				t.Errorf("%d events about the window: %q", n, got)
			}
			why := "is kept awake until " + end.Format("Mon 2 Jan 15:04") + " UTC"
			if count(got, "WakeRequested") > 0 || !strings.Contains(strings.Join(got, "\n"), why) {
				t.Errorf("events %q", got)
			}
		})
	}
}
