// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestScalesByRate: an app gets more replicas by how many requests come each second, although few of them are pending. KEDA's HPA has
// both metrics, and reads both.
func TestScalesByRate(t *testing.T) {
	t.Parallel()
	const annotation = "webserver.service.annotations.scale-to-zero/"
	a := newAirflow(t, "HELM", "--set-string", annotation+"max-replicas=3", "--set-string", annotation+"target-request-rate=2.5")
	a.optIn()
	a.asleep()
	// Two clients send 20 requests a second, of which two are pending.
	done := background(t, "-n", "2400", "-c", "2", a.url("/slow?for=100ms"))
	eventually(t, "KEDA's HPA has both metrics", func() error {
		got := kubectl(t, "get", "hpa", "-n", a.ns, "keda-hpa-"+webserver+"-deployment", "-o",
			`jsonpath={range .status.currentMetrics[*]}{.external.metric.name} {.external.current.averageValue};{end}`)
		if !strings.Contains(got, "pending-requests ") || !strings.Contains(got, "request-rate ") {
			return fmt.Errorf("it has %q", got)
		}
		return nil
	})
	eventually(t, "it has three replicas", func() error {
		if n := *a.deployment().Spec.Replicas; n != 3 {
			return fmt.Errorf("it has %d", n)
		}
		if pods := a.podIPs(); len(pods) != 3 {
			return fmt.Errorf("pods %v are ready", pods)
		}
		return nil
	})
	answers := <-done
	if len(answers) != 2400 {
		t.Errorf("%d answers", len(answers))
	}
	for _, one := range answers {
		if one.Status != http.StatusOK {
			t.Errorf("status %d: %s %s", one.Status, one.Body, one.Error)
		}
	}
}
