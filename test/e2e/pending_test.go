// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"
	"time"
)

// TestOneAtATime: an app that takes one request at a time gets 500 that came while it slept, one after the other, over both interceptors.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	a := newAirflow(t, "HELM", "--set-string", "webserver.service.annotations.scale-to-zero/max-pending-per-pod=1")
	a.optIn()
	a.asleep()
	const requests, each = 500, 10 * time.Millisecond
	begin := time.Now()
	got := get(t, "-n", "500", "-c", "500", "-timeout", "2m", a.url("/slow?for="+each.String()))
	if took := time.Since(begin); took < requests*each {
		t.Errorf("%d requests of %s took %s, so several were in the app at once", requests, each, took)
	}
	if len(got) != requests {
		t.Errorf("%d answers", len(got))
	}
	for _, one := range got {
		if one.Status != 200 {
			t.Fatalf("%d %s", one.Status, one.Body)
		}
	}
}
