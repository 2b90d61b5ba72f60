// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"net/http"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
)

// cluster starts interceptors that know each other, in front of a sleeping workload.
func cluster(t *testing.T, names ...string) (nodes []*node, listen []int32) {
	t.Helper()
	book := &addresses{}
	for _, name := range names {
		n := start(t, name, book, nil)
		port := freePort(t)
		n.set(unpublished(service(port, api.ProtocolAuto)))
		n.synced()
		nodes, listen = append(nodes, n), append(listen, port)
	}
	for _, n := range nodes {
		n.setPeers(names...)
		n.waitReady()
	}
	return nodes, listen
}

func pending(t *testing.T, c externalscaler.ExternalScalerClient) int64 {
	t.Helper()
	got, err := c.GetMetrics(t.Context(), &externalscaler.GetMetricsRequest{
		ScaledObjectRef: scaledObject(), MetricName: api.MetricPendingRequests,
	})
	if err != nil {
		t.Fatal(err)
	}
	return got.GetMetricValues()[0].GetMetricValue()
}

func active(tb testing.TB, c externalscaler.ExternalScalerClient) bool {
	tb.Helper()
	got, err := c.IsActive(tb.Context(), scaledObject())
	if err != nil {
		tb.Fatal(err)
	}
	return got.GetResult()
}

// KEDA is connected to one interceptor, and a visitor to another. The push still goes out, nobody scales directly, and every
// interceptor reports the same total.
func TestPeersPushAndTotal(t *testing.T) {
	nodes, listen := cluster(t, "a", "b", "c")
	keda := nodes[0].keda()
	stream, err := keda.StreamIsActive(t.Context(), scaledObject())
	if err != nil {
		t.Fatal(err)
	}
	if first, err := stream.Recv(); err != nil || first.GetResult() {
		t.Fatalf("got %v, %v", first, err)
	}
	// b has to know about the stream at a before it can rely on it. a has no counts, so it reports only the stream.
	eventually(t, "following", func() bool { return follows(nodes[1]) && follows(nodes[2]) })
	began := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2 {
			_, _ = client().Get(url(listen[1], "/"))
		}
	}()
	go func() { _, _ = client().Get(url(listen[2], "/")) }()
	push, err := stream.Recv()
	if err != nil || !push.GetResult() {
		t.Fatalf("got %v, %v", push, err)
	}
	t.Logf("pushed by way of a peer %s after the client began", time.Since(began))
	for _, n := range nodes {
		k := n.keda()
		eventually(t, "a total of 2 at "+n.name, func() bool { return pending(t, k) == 2 })
		if !active(t, k) {
			t.Errorf("%s says inactive", n.name)
		}
	}
	for _, n := range nodes[1:] {
		if n.scales() > 0 {
			t.Errorf("%s scaled directly although KEDA listens at a", n.name)
		}
	}
	addr := pod(t, hello)
	for i, n := range nodes {
		n.set(unpublished(service(listen[i], api.ProtocolAuto, addr)))
	}
	<-done
	eventually(t, "a total of 0", func() bool { return pending(t, keda) == 0 })
	if !active(t, keda) {
		t.Error("inactive right after the last request")
	}
}

// A peer's counts disappear with the peer. The workload then counts as just used if it is awake, and is not woken if it sleeps.
func TestPeerLost(t *testing.T) {
	nodes, listen := cluster(t, "a", "b")
	release := make(chan struct{})
	defer close(release)
	addr := pod(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-release
	})
	nodes[1].set(unpublished(service(listen[1], api.ProtocolAuto, addr)))
	resp, err := client().Get(url(listen[1], "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	keda := nodes[0].keda()
	eventually(t, "b's request at a", func() bool { return pending(t, keda) == 1 && active(t, keda) })
	nodes[1].stop()
	// b's last message is that its request has just ended. That is forgotten only when b has gone too.
	eventually(t, "b's request is gone", func() bool { return pending(t, keda) == 0 && !active(t, keda) })
	nodes[0].set(unpublished(service(listen[0], api.ProtocolAuto, addr)))
	eventually(t, "active because counts were lost", func() bool { return active(t, keda) })
}
