// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// exposed returns what Prometheus would scrape, one line for each sample: its name, labels and value, or a histogram's count and sum.
func exposed(t *testing.T, r *prometheus.Registry) []string {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", f.GetName())
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			value := fmt.Sprint(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			if h := m.GetHistogram(); h != nil {
				value = fmt.Sprintf("%d in %gs", h.GetSampleCount(), h.GetSampleSum())
			}
			lines = append(lines, f.GetName()+"{"+strings.Join(labels, ",")+"} "+value)
		}
	}
	return lines
}

func TestRoute(t *testing.T) {
	r := prometheus.NewRegistry()
	one := New(r).Route("shop", "web")
	for _, status := range []int{200, 204, 302, 404, 499, 503, 101, 0, 700, -5} {
		one.Answered(status)
	}
	one.Ignored()
	one.Held(1500 * time.Millisecond)
	one.Held(500 * time.Millisecond)
	const of = "namespace=shop,service=web"
	want := []string{
		"scale_to_zero_held_seconds{" + of + "} 2 in 2s",
		"scale_to_zero_ignored_requests_total{" + of + "} 1",
		"scale_to_zero_requests_total{code=1xx," + of + "} 1",
		"scale_to_zero_requests_total{code=2xx," + of + "} 2",
		"scale_to_zero_requests_total{code=3xx," + of + "} 1",
		"scale_to_zero_requests_total{code=4xx," + of + "} 2",
		"scale_to_zero_requests_total{code=5xx," + of + "} 1",
		"scale_to_zero_requests_total{code=none," + of + "} 3",
	}
	if diff := cmp.Diff(want, exposed(t, r)); diff != "" {
		t.Error(diff)
	}
}

// listeners keep the route that a table makes.
type listeners struct{ route *route.Route }

func (l *listeners) Open(r *route.Route)                            { l.route = r }
func (l *listeners) Close(*route.Route)                             {}
func (l *listeners) Wake(*route.Route, *route.Target, *route.Visit) {}

func TestTargets(t *testing.T) {
	r := prometheus.NewRegistry()
	m := New(r)
	var l listeners
	table := route.NewTable(route.TableOptions{Listeners: &l, Waker: &l, RouteMetrics: m.Route, TargetMetrics: m.Target})
	m.Watch(table.Targets)
	s := route.Service{Namespace: "shop", Name: "web", Routes: api.Routes{
		Service: "web", Workload: api.Workload{Kind: "Deployment", Name: "web"}, Ports: []api.Port{{Name: "http", Listen: 10000}},
	}}
	table.SetService(s)
	target := l.route.Target()
	if !target.BeginWake() {
		t.Fatal("no wake has begun")
	}
	defer target.Begin()()
	const of = "{namespace=shop,workload=Deployment/web}"
	lines := exposed(t, r)
	for _, want := range []string{
		"scale_to_zero_wakes_total" + of + " 1", "scale_to_zero_pending_requests" + of + " 1", "scale_to_zero_held_requests" + of + " 0",
		"scale_to_zero_awake_seconds" + of + " 0", "scale_to_zero_cold_start_seconds" + of + " 0 in 0s",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("%q is not exposed: %q", want, lines)
		}
	}
	s.Pods, s.Endpoints = 1, map[string][]string{"http": {"10.0.0.1:80"}}
	table.SetService(s)
	lines = exposed(t, r)
	if i := slices.IndexFunc(lines, func(line string) bool {
		return strings.HasPrefix(line, "scale_to_zero_cold_start_seconds"+of+" 1 in ")
	}); i < 0 {
		t.Errorf("no cold start is exposed: %q", lines)
	}
	if slices.Contains(lines, "scale_to_zero_awake_seconds"+of+" 0") {
		t.Error("it is awake for no time")
	}
}
