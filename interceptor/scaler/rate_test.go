// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
)

// KEDA is offered the rate of requests only if there is a target for it.
func TestRateSpec(t *testing.T) {
	s := NewServer(ServerOptions{Activity: &Activity{Peers: newFakePeers()}})
	for value, want := range map[string]string{
		"50": "pending-requests 7 7, request-rate 50 50", "0.5": "pending-requests 7 7, request-rate 1 0.5",
		"0.001": "pending-requests 7 7, request-rate 1 0.001", "1000000": "pending-requests 7 7, request-rate 1000000 1e+06",
		"none": "pending-requests 7 7",
	} {
		r := ref(api.MetadataTargetPendingRequests, "7", api.MetadataTargetRequestRate, value)
		if value == "none" {
			delete(r.GetScalerMetadata(), api.MetadataTargetRequestRate)
		}
		spec, err := s.GetMetricSpec(t.Context(), r)
		var got []string
		for _, m := range spec.GetMetricSpecs() {
			got = append(got, fmt.Sprint(m.GetMetricName(), " ", m.GetTargetSize(), " ", m.GetTargetSizeFloat()))
		}
		if err != nil || strings.Join(got, ", ") != want {
			t.Errorf("%s: got %v, %v, want %s", value, got, err, want)
		}
	}
	for _, bad := range []string{"", "0", "-1", "0.0001", "1000001", "many", "NaN", "Inf"} {
		r := ref(api.MetadataTargetPendingRequests, "7", api.MetadataTargetRequestRate, bad)
		_, err := s.GetMetricSpec(t.Context(), r)
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), strconv.Quote(bad)) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// An answer to KEDA has the one metric that it asked for, and an answer to the injector has all.
func TestRateMetric(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, l := newTable(nil)
		service := service("10.0.0.1:80")
		service.Routes.CountsRate = true
		table.SetService(service)
		for range 5 {
			l.route.Target().Begin()()
		}
		advance(time.Second)
		peers := newFakePeers()
		peers.rate, peers.pending = 1.25, 2
		s := NewServer(ServerOptions{Target: table.Target, Activity: &Activity{Peers: peers}})
		for name, want := range map[string]string{
			api.MetricRequestRate: "request-rate 1.75", api.MetricPendingRequests: "pending-requests 2",
			api.MetricUse: "pending-requests 2, request-rate 1.75, idle-milliseconds 1000, counted-milliseconds 1000",
		} {
			metrics, err := s.GetMetrics(t.Context(), &pb.GetMetricsRequest{
				ScaledObjectRef: ref(api.MetadataWorkload, "Deployment/web"), MetricName: name,
			})
			var got []string
			for _, m := range metrics.GetMetricValues() {
				got = append(got, fmt.Sprint(m.GetMetricName(), " ", m.GetMetricValueFloat()))
				if m.GetMetricValue() != int64(m.GetMetricValueFloat()) {
					t.Errorf("%s is %d and %v", m.GetMetricName(), m.GetMetricValue(), m.GetMetricValueFloat())
				}
			}
			if err != nil || strings.Join(got, ", ") != want {
				t.Errorf("%s: got %v, %v, want %s", name, got, err, want)
			}
		}
	})
}
