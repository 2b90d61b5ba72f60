// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/ready"
)

// Held requests go to a pod as soon as its own probe succeeds, without a word from Kubernetes. No request arrives earlier.
func TestPodSaysThatItIsReady(t *testing.T) {
	var isReady atomic.Bool
	var probes, early atomic.Int64
	addr := pod(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.UserAgent() == ready.UserAgent && isReady.Load():
			w.WriteHeader(http.StatusNoContent)
		case r.UserAgent() == ready.UserAgent:
			probes.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
		case !isReady.Load():
			early.Add(1)
		}
	})
	n, listen := serving(t, api.ProtocolAuto)
	s := unpublished(service(listen, api.ProtocolAuto))
	s.Routes.Readiness = &api.Readiness{Trust: api.Duration(time.Minute), Probes: []api.Probe{{
		HTTP: &api.HTTPProbe{Path: "/ready"}, Port: int32(netip.MustParseAddrPort(addr).Port()),
		Timeout: api.Duration(time.Second), Successes: 1,
	}}}
	n.set(s)
	c := connect(t, listen)
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	target := n.seen().Target(deployment)
	eventually(t, "held", func() bool { return target.Held() == 1 })
	s.Pods, s.Unready = 1, map[string][]string{"http": {addr}}
	n.set(s)
	eventually(t, "asked", func() bool { return probes.Load() > 3 })
	if target.Held() != 1 || target.Ready() {
		t.Fatal("it is not held any more")
	}
	isReady.Store(true)
	if m := c.answer(); m.status() != http.StatusOK || early.Load() > 0 {
		t.Errorf("%q, and %d requests came too early", m.start, early.Load())
	}
	n.idle()
}
