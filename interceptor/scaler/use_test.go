// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
)

// TestUse tests what the injector learns about a workload's requests, in seconds.
func TestUse(t *testing.T) {
	type use struct{ pending, idle, counted int64 }
	for name, tc := range map[string]struct {
		pending bool          // at this interceptor
		ended   time.Duration // time since a request here; 0 means none
		peers   *fakePeers
		want    use
	}{
		"no request":                 {false, 0, &fakePeers{idle: never, lost: never}, use{0, int64(never.Seconds()), 3600}},
		"pending":                    {true, 0, &fakePeers{idle: never, lost: never}, use{1, 0, 3600}},
		"a minute ago":               {false, time.Minute, &fakePeers{idle: never, lost: never}, use{0, 60, 3660}},
		"pending at a peer":          {false, time.Minute, &fakePeers{pending: 2, lost: never}, use{2, 0, 3660}},
		"later at a peer":            {false, time.Minute, &fakePeers{idle: 5 * time.Second, lost: never}, use{0, 5, 3660}},
		"a peer is lost":             {false, time.Minute, &fakePeers{idle: never, lost: 7 * time.Second}, use{0, 60, 7}},
		"a peer was lost before all": {false, 0, &fakePeers{idle: never, lost: 2 * time.Hour}, use{0, int64(never.Seconds()), 3600}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table, l := newTable(nil)
				advance(time.Hour) // before there is a route to the workload
				table.SetService(service("10.0.0.1:80"))
				target := l.route.Target()
				advance(time.Hour)
				if tc.pending {
					defer target.Begin()()
				}
				if tc.ended > 0 {
					target.Begin()()
					advance(tc.ended)
				}
				table.SetService(service()) // asleep, which changes nothing
				s := NewServer(ServerOptions{Target: table.Target, Activity: &Activity{Peers: tc.peers}})
				answer, err := s.GetMetrics(t.Context(), &pb.GetMetricsRequest{
					ScaledObjectRef: ref(api.MetadataWorkload, "Deployment/web"), MetricName: api.MetricUse,
				})
				if err != nil {
					t.Fatal(err)
				}
				got := map[string]int64{}
				for _, m := range answer.GetMetricValues() {
					got[m.GetMetricName()] = m.GetMetricValue()
				}
				if got := (use{got[api.MetricPendingRequests], got[api.MetricIdle] / 1000, got[api.MetricCounted] / 1000}); got != tc.want {
					t.Errorf("got %+v, want %+v", got, tc.want)
				}
			})
		})
	}
}
