// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestWaitingPage: a browser that opens a sleeping app gets the waiting page, which shows the start's progress until the
// app answers. The next time it also knows how long a start takes.
func TestWaitingPage(t *testing.T) {
	t.Parallel()
	a := newAirflow(t, "HELM", "--set", "webserver.startDelay=4s")
	a.optIn()
	open := []string{
		"-H", "Accept: text/html,application/xhtml+xml", "-H", "Host: airflow.example.com", "-H", "X-Forwarded-For: 198.18.7.7", a.url("/echo"),
	}
	stages, estimates := map[string]bool{}, map[string]bool{}
	for range 2 {
		a.asleep()
		if page := get(t, open...)[0]; page.Status != 503 || !strings.Contains(page.Body, "<title>"+webserver+" is starting</title>") {
			t.Fatalf("a browser got %d %s", page.Status, page.Body)
		}
		var report struct {
			State, Stage, Estimate string
			Ready                  bool
		}
		eventually(t, "the page may open the app", func() error {
			poll := get(t, "-H", fmt.Sprintf("Scale-To-Zero-Wait: %s,1", report.State), a.url("/echo"))[0]
			if err := json.Unmarshal([]byte(poll.Body), &report); err != nil || poll.Status != 200 {
				return fmt.Errorf("it got %d %s: %w", poll.Status, poll.Body, err)
			}
			stages[report.Stage], estimates[report.Estimate] = true, true
			if !report.Ready {
				return errors.New(poll.Body)
			}
			return nil
		})
		if app := get(t, open...)[0]; app.Status != 200 || !strings.Contains(app.Body, `"/echo"`) {
			t.Errorf("then it got %d %s", app.Status, app.Body)
		}
	}
	if !stages["not-ready"] {
		t.Errorf("it got the stages %v", stages)
	}
	if !strings.Contains(fmt.Sprint(estimates), "Usually ready in about") {
		t.Errorf("it got the estimates %v", estimates)
	}
}
