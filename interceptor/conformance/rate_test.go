// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// rated makes the interceptors count a Service's requests each second.
func rated(s route.Service) route.Service {
	s.Routes.CountsRate = true
	return unpublished(s)
}

func rateAt(tb testing.TB, c externalscaler.ExternalScalerClient) float64 {
	tb.Helper()
	got, err := c.GetMetrics(tb.Context(), &externalscaler.GetMetricsRequest{
		ScaledObjectRef: scaledObject(), MetricName: api.MetricRequestRate,
	})
	if err != nil || len(got.GetMetricValues()) != 1 {
		tb.Fatal(got, err)
	}
	return got.GetMetricValues()[0].GetMetricValueFloat()
}

// arrivals counts requests that began after a time, from the rates that interceptors tell. A rate is the average over the time since
// then, of at least 10 s and at most a minute.
type arrivals struct{ since time.Time }

func (a arrivals) are(rate float64, requests int) bool {
	over := func(seconds float64) float64 { return min(max(seconds, 10), 60) }
	seconds := time.Since(a.since).Seconds()
	return rate*over(seconds+1) >= float64(requests)-0.01 && rate*over(seconds-2) <= float64(requests)+0.01
}

// Requests arrive at two interceptors. The rate at either is the sum.
func TestRatesAddUp(t *testing.T) {
	addr := pod(t, hello)
	nodes, listen := cluster(t, "a", "b")
	since := arrivals{time.Now()}
	for i, n := range nodes {
		n.set(rated(service(listen[i], api.ProtocolAuto, addr)))
		n.applied()
	}
	for i, requests := range []int{30, 10} {
		for range requests {
			get(t, url(listen[i], "/"))
		}
	}
	for _, n := range nodes {
		keda := n.keda()
		eventually(t, "a rate of 40 requests at "+n.name, func() bool { return since.are(rateAt(t, keda), 40) })
	}
	nodes[1].stop()
	keda := nodes[0].keda()
	eventually(t, "b's are gone", func() bool { return since.are(rateAt(t, keda), 30) })
}

// What counts as a request that arrives: requests of HTTP, whatever their version, and connections of bytes on which the client says
// something. What is ignored does not.
func TestWhatArrives(t *testing.T) {
	greeter := rawPod(t, func(c net.Conn) { echoBehind(c, "220 welcome\r\n") })
	web := pod(t, hello)
	for name, tc := range map[string]struct {
		protocol, pod string
		ask           func(t *testing.T, listen int32)
		want          int
	}{
		"HTTP/1.1": {api.ProtocolAuto, web, func(t *testing.T, listen int32) {
			t.Helper()
			c := connect(t, listen)
			for range 3 { // on one connection
				c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
				c.want(http.StatusOK, "hello")
			}
		}, 3},
		"HTTP/2": {api.ProtocolAuto, web, func(t *testing.T, listen int32) {
			t.Helper()
			client := &http.Client{Transport: h2cTransport(t), Timeout: within}
			for range 3 {
				resp, err := client.Get(url(listen, "/"))
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
			}
		}, 3},
		"a probe": {api.ProtocolAuto, web, func(t *testing.T, listen int32) {
			t.Helper()
			c := connect(t, listen)
			c.send(probing + "\r\n")
			c.want(http.StatusOK, "hello")
			get(t, url(listen, "/"))
		}, 1},
		"bytes, without a protocol": {api.ProtocolAuto, rawPod(t, func(c net.Conn) { echoBehind(c, "") }), func(t *testing.T, listen int32) {
			t.Helper()
			s := openTCP("\x00hello", "")(t, listen)
			for range 2 {
				if err := s.turn(); err != nil {
					t.Error(err)
				}
			}
			s.leave()
		}, 1},
		"bytes": {api.ProtocolTCP, greeter, func(t *testing.T, listen int32) {
			t.Helper()
			for range 2 {
				s := openTCP("hello", "220 welcome\r\n")(t, listen)
				if err := s.turn(); err != nil {
					t.Error(err)
				}
				if err := s.turn(); err != nil {
					t.Error(err)
				}
				s.leave()
			}
		}, 2},
		"a connection that says nothing": {api.ProtocolTCP, greeter, func(t *testing.T, listen int32) {
			t.Helper()
			c := connect(t, listen)
			if _, err := c.r.ReadString('\n'); err != nil {
				t.Error(err)
			}
			s := openTCP("hello", "220 welcome\r\n")(t, listen)
			if err := s.turn(); err != nil {
				t.Error(err)
			}
			s.leave()
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, listen := serving(t, tc.protocol, tc.pod)
			since := arrivals{time.Now()}
			n.set(rated(service(listen, tc.protocol, tc.pod)))
			n.applied()
			tc.ask(t, listen)
			keda := n.keda()
			eventually(t, "a rate of these requests", func() bool { return since.are(rateAt(t, keda), tc.want) })
		})
	}
}
