// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package busy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/notice"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

type fakeMetrics struct{}

func (fakeMetrics) Woken()                  {}
func (fakeMetrics) ColdStart(time.Duration) {}
func (fakeMetrics) Held(time.Duration)      {}
func (fakeMetrics) Answered(int)            {}
func (fakeMetrics) Ignored()                {}

type fakeListeners struct{}

func (fakeListeners) Open(*route.Route)  {}
func (fakeListeners) Close(*route.Route) {}

// rig is a Checker with one workload, whose pods answer what the test sets.
type rig struct {
	t       *testing.T
	table   *route.Table
	checker *Checker

	mu      sync.Mutex // protects all below
	asked   []*http.Request
	answer  func(*http.Request) (*http.Response, error)
	notices []notice.Notice
	cpu     func() (int64, int, error)
}

const idle = 5 * time.Minute

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, answer: says200(`{"busyExecutors": 0}`)}
	r.table = route.NewTable(route.TableOptions{
		Listeners: fakeListeners{}, Log: logr.Discard(),
		RouteMetrics:  func(string, string) route.Metrics { return fakeMetrics{} },
		TargetMetrics: func(route.Key) route.TargetMetrics { return fakeMetrics{} },
	})
	r.checker = New(Options{
		Checks: route.BusyChecks{Table: r.table}.Of, Target: r.table.Target, Metrics: r, Events: r, Log: logr.Discard(),
	})
	r.checker.client.plain, r.checker.client.announcing = r, r
	t.Cleanup(r.checker.Close)
	r.table.SetService(jenkins("10.0.0.1:8080"))
	return r
}

// jenkins is a Service that is asked whether it is busy.
func jenkins(addrs ...string) route.Service {
	return route.Service{
		Namespace: "ci", Name: "jenkins", Pods: len(addrs), SleepID: "s1", Endpoints: map[string][]string{"http": addrs},
		Routes: api.Routes{
			Service: "jenkins", ServiceUID: "u1", Direct: "jenkins-direct",
			Workload: api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: "jenkins"},
			Ports:    []api.Port{{Name: "http", Port: 80, Listen: 10000, Protocol: api.ProtocolAuto}},
			Cooldown: api.Duration(idle), HoldTimeout: api.Duration(time.Minute),
			Busy: &api.Busy{Request: &api.BusyRequest{
				Method: "GET", Path: "/computer/api/json?token=secret", Port: 80, When: "json.busyExecutors > 0",
			}},
		},
	}
}

func says200(body string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

// RoundTrip implements http.RoundTripper.
func (r *rig) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	r.asked = append(r.asked, req)
	answer := r.answer
	r.mu.Unlock()
	return answer(req)
}

// Notice implements notice.Events.
func (r *rig) Notice(n notice.Notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notices = append(r.notices, n)
}

// CPU implements Metrics.
func (r *rig) CPU(_ context.Context, namespace, selector string) (int64, int, error) {
	if namespace != "ci" || selector != "app=jenkins" {
		return 0, 0, fmt.Errorf("asked for %s in %s", selector, namespace)
	}
	return r.cpu()
}

func (r *rig) set(answer func(*http.Request) (*http.Response, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// asks returns how many pods were asked since it was last called.
func (r *rig) asks() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.asked)
	r.asked = nil
	return n
}

// told returns the notices since it was last called.
func (r *rig) told() []notice.Notice {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.notices
	r.notices = nil
	return all
}

func (r *rig) target() *route.Target {
	return r.table.Target(route.Key{Namespace: "ci", Workload: "Deployment/jenkins"})
}

// busy asks as KEDA's poll does that finds no requests for idle.
func (r *rig) busy(idle time.Duration) bool {
	r.t.Helper()
	return r.checker.Busy(r.t.Context(), r.target(), idle)
}

// wants checks the verdict, and how many pods were asked for it.
func (r *rig) wants(what string, busy bool, asks int) {
	r.t.Helper()
	if got, asked := r.busy(idle), r.asks(); got != busy || asked != asks {
		r.t.Errorf("%s: busy is %t and %d pods were asked, want %t and %d", what, got, asked, busy, asks)
	}
}

// advance lets time pass in a bubble.
func advance(d time.Duration) { <-time.After(d) }
