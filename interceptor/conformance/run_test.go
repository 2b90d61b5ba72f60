// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

func TestForwardsToAReadyPod(t *testing.T) {
	n := start(t, "a", nil, nil)
	listen := freePort(t)
	n.set(unpublished(service(listen, api.ProtocolAuto, pod(t, hello))))
	n.synced()
	n.waitReady()
	if code, body := get(t, url(listen, "/")); code != http.StatusOK || body != "hello" {
		t.Errorf("got %d %q", code, body)
	}
	if len(n.events()) != 0 || n.scales() != 0 {
		t.Errorf("woke what was awake: %v", n.events())
	}
	n.measures(`scale_to_zero_requests_total{code="2xx",namespace="shop",service="web"} 1`)
}

func TestReadyOnlyOnceSynced(t *testing.T) {
	n := start(t, "a", nil, nil)
	eventually(t, "alive", func() bool { return n.status("/healthz") == http.StatusOK })
	if got := n.status("/readyz"); got != http.StatusServiceUnavailable {
		t.Errorf("readyz is %d before anything is known", got)
	}
	n.synced()
	n.waitReady()
}

// A hundred requests for a sleeping workload cause one wake, and all are answered.
func TestOneWakeForManyRequests(t *testing.T) {
	n := start(t, "a", nil, nil)
	n.asleep = true
	listen := freePort(t)
	n.set(unpublished(service(listen, api.ProtocolAuto)))
	n.synced()
	n.waitReady()

	const requests = 100
	var all sync.WaitGroup
	for i := range requests {
		all.Go(func() {
			if code, body := get(t, url(listen, fmt.Sprintf("/%d?password=secret", i))); code != http.StatusOK || body != "hello" {
				t.Errorf("got %d %q", code, body)
			}
		})
	}
	n.measures(`scale_to_zero_held_requests{namespace="shop",workload="Deployment/web"} 100`)
	if got := n.scales(); got != 1 {
		t.Errorf("scaled %d times", got)
	}
	n.set(unpublished(service(listen, api.ProtocolAuto, pod(t, hello))))
	all.Wait()
	events := n.events()
	if len(events) != 1 || strings.Contains(events[0].Message, "secret") || events[0].SleepID != "s1" ||
		!strings.HasSuffix(events[0].Message, " from 127.0.0.1 (Go-http-client/1.1): waking Deployment/web") {
		t.Errorf("got events %+v", events)
	}
	for _, want := range []string{
		`scale_to_zero_wakes_total{namespace="shop",workload="Deployment/web"} 1`,
		`scale_to_zero_cold_start_seconds_count{namespace="shop",workload="Deployment/web"} 1`,
		`scale_to_zero_held_seconds_count{namespace="shop",service="web"} 100`,
		`scale_to_zero_pending_requests{namespace="shop",workload="Deployment/web"} 0`,
	} {
		n.measures(want)
	}
}

// If KEDA has a stream open, a request is pushed at once, and nobody scales directly while KEDA has time.
func TestPushesToKEDA(t *testing.T) {
	n := start(t, "a", nil, nil)
	listen := freePort(t)
	n.set(unpublished(service(listen, api.ProtocolAuto)))
	n.synced()
	n.waitReady()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := n.keda().StreamIsActive(ctx, scaledObject())
	if err != nil {
		t.Fatal(err)
	}
	if first, err := stream.Recv(); err != nil || first.GetResult() {
		t.Fatalf("the state at first is %v, %v; want false: it sleeps, and this process's start wakes nothing", first, err)
	}
	began := time.Now()
	go func() { _, _ = client().Get(url(listen, "/")) }()
	push, err := stream.Recv()
	if err != nil || !push.GetResult() {
		t.Fatalf("got %v, %v", push, err)
	}
	t.Logf("pushed %s after the client began", time.Since(began))
	again, err := stream.Recv()
	if err != nil || !again.GetResult() {
		t.Fatalf("got %v, %v", again, err)
	}
	if got := time.Since(began); got < 300*time.Millisecond {
		t.Errorf("repeated after %s already", got)
	}
	if n.scales() != 0 {
		t.Error("scaled directly although KEDA listens")
	}
	eventually(t, "scaling directly because KEDA does not act", func() bool { return n.scales() > 0 })
	n.set(unpublished(service(listen, api.ProtocolAuto, pod(t, hello))))
	n.stop()
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the stream ended with %v, want io.EOF", err)
		}
	}
}
