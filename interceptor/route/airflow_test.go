// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"context"
	"os"
	"regexp"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// A taskClient behaves like a worker of Airflow 3 that calls its api-server. It gives up each try after a timeout. The pause between
// two tries is random: at least one second, and at most twice the last maximum, up to maxWait.
type taskClient struct {
	timeout time.Duration
	tries   int
	maxWait time.Duration
}

// start starts a task and returns how many tries it took.
func (c taskClient) start(r *Route, wait func(least, most time.Duration) time.Duration) (tries int, err error) {
	most := time.Second
	for {
		tries++
		ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
		var e *Endpoint
		e, err = r.Pick(ctx, &Visit{})
		cancel()
		if err == nil {
			e.Done()
			return tries, nil
		}
		if tries == c.tries {
			return tries, err
		}
		advance(wait(time.Second, most))
		most = min(2*most, c.maxWait)
	}
}

// sampleSettings reads the settings that config/samples recommends for Airflow 3.
func sampleSettings(t *testing.T) taskClient {
	t.Helper()
	sample, err := os.ReadFile("../../config/samples/airflow3-values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	number := func(name string) int {
		match := regexp.MustCompile(name + `: "(\d+)"`).FindSubmatch(sample)
		if match == nil {
			t.Fatalf("the sample does not set %s", name)
		}
		n, err := strconv.Atoi(string(match[1]))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return taskClient{
		timeout: time.Duration(number("execution_api_timeout")) * time.Second,
		tries:   number("execution_api_retries"),
		maxWait: time.Duration(number("execution_api_retry_wait_max")) * time.Second,
	}
}

// With Airflow's defaults, a task fails if its api-server takes longer to start than the tries last. With the settings of the sample
// it does not fail, whether or not this version of Airflow has the timeout.
func TestAirflowTaskOverAStart(t *testing.T) {
	shortest := func(least, _ time.Duration) time.Duration { return least }
	longest := func(_, most time.Duration) time.Duration { return most }
	defaults := taskClient{timeout: 5 * time.Second, tries: 5, maxWait: 90 * time.Second}
	sample := sampleSettings(t)
	sampleBefore311 := sample
	sampleBefore311.timeout = defaults.timeout
	for name, tc := range map[string]struct {
		client taskClient
		wait   func(least, most time.Duration) time.Duration
		start  time.Duration
		tries  int // 0 means any number
		fails  bool
	}{
		"defaults, an app that starts at once":     {client: defaults, wait: shortest, start: 3 * time.Second, tries: 1},
		"defaults, 30 s and short waits":           {client: defaults, wait: shortest, start: 30 * time.Second, tries: 5, fails: true},
		"defaults, 45 s and long waits":            {client: defaults, wait: longest, start: 45 * time.Second, tries: 5, fails: true},
		"the sample, 30 s":                         {client: sample, wait: shortest, start: 30 * time.Second, tries: 1},
		"the sample, 2 min":                        {client: sample, wait: longest, start: 2 * time.Minute, tries: 1},
		"the sample before 3.1.1, 30 s":            {client: sampleBefore311, wait: shortest, start: 30 * time.Second},
		"the sample before 3.1.1, 2 min":           {client: sampleBefore311, wait: longest, start: 2 * time.Minute},
		"the sample, an app that does not come up": {client: sampleBefore311, wait: shortest, start: 24 * time.Hour, tries: 30, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(0)
				s := web()
				s.Routes.HoldTimeout = api.Duration(5 * time.Minute)
				f.SetService(s)
				stop := time.AfterFunc(tc.start, func() { f.SetService(web("10.0.0.1:80")) })
				defer stop.Stop()
				tries, err := tc.client.start(f.route(10000), tc.wait)
				if (err != nil) != tc.fails || (tc.tries > 0 && tries != tc.tries) {
					t.Errorf("%d tries, %v", tries, err)
				}
				if f.waker.wakes.Load() != 1 {
					t.Errorf("woken %d times", f.waker.wakes.Load())
				}
			})
		})
	}
}
