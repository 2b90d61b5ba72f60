// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"
)

// TestUpgrade replaces every controller and every interceptor, as an upgrade of our chart does, under requests for an
// awake app and one for a sleeping app; none fails. It must not disturb the other tests.
func TestUpgrade(t *testing.T) {
	awake := newAirflow(t, "HELM", "--set-string", `webserver.service.annotations.scale-to-zero/cooldown=20m`)
	asleep := newAirflow(t, "HELM", "--set-string", `webserver.service.annotations.scale-to-zero/cooldown=3s`)
	awake.optIn()
	asleep.optIn()
	asleep.asleep()
	visits := background(t, "-n", "1200", "-c", "4", awake.url("/slow?for=50ms"))
	done := make(chan error, 1)
	go func() { done <- install(t.Context()) }()
	asleep.visit(1, "/echo")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	answers := <-visits
	if len(answers) != 1200 {
		t.Errorf("%d answers", len(answers))
	}
	for _, one := range answers {
		if one.Status != 200 {
			t.Errorf("status %d: %s", one.Status, one.Body)
		}
	}
	for _, a := range []*airflow{awake, asleep} {
		if got := a.events("Service", webserver); count(got, "Injected") != 1 {
			t.Errorf("it was injected again: %q", got)
		}
	}
	if got := awake.events("Service", webserver); count(got, "Asleep") > 0 {
		t.Errorf("it was put to sleep: %q", got)
	}
}
