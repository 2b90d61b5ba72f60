// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
	peerapi "github.com/scale-to-zero/scale-to-zero/interceptor/api/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
)

// within is how long tests wait for what should happen soon. It is long because the machine may be busy.
const within = 20 * time.Second

// fakeCluster is a Cluster whose slices the test sets.
type fakeCluster struct {
	services chan func(interceptor.Sink)
	parts    chan parts // has the visible parts of the interceptor, once it watches

	mu     sync.Mutex // protects all below
	scaled []string
	wakes  []scaler.Wake
	warned []scaler.Warning
	asleep bool              // makes Scale find no replicas
	last   route.Service     // the Service that was last set: Replicas finds its pods
	onWake func(scaler.Wake) // called for each event
}

func newFakeCluster() *fakeCluster {
	return &fakeCluster{services: make(chan func(interceptor.Sink), 100), parts: make(chan parts, 1)}
}

// parts is the part of a running interceptor that tests see: the Sink, which is its table and its peers.
type parts interface {
	Target(key route.Key) *route.Target
	Targets() []*route.Target
	Routes() []*route.Route
	InUse() int64
	KEDAStream(key route.Key) bool
}

func (c *fakeCluster) Watch(ctx context.Context, sink interceptor.Sink) error {
	c.parts <- sink.(parts)
	for {
		select {
		case f := <-c.services:
			f(sink)
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *fakeCluster) Scale(_ context.Context, namespace string, w api.Workload, _ int32) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scaled = append(c.scaled, namespace+"/"+w.String())
	return c.asleep, nil
}

func (c *fakeCluster) Replicas(context.Context, string, api.Workload) (int32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int32(c.last.Pods), nil
}

func (c *fakeCluster) WakeRequested(w scaler.Wake) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wakes = append(c.wakes, w)
	if c.onWake != nil {
		c.onWake(w)
	}
}

func (c *fakeCluster) Warn(w scaler.Warning) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warned = append(c.warned, w)
}

func (c *fakeCluster) warnings() []scaler.Warning {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]scaler.Warning(nil), c.warned...)
}

func (c *fakeCluster) scales() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.scaled)
}

func (c *fakeCluster) events() []scaler.Wake {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]scaler.Wake(nil), c.wakes...)
}

// node is a running interceptor.
type node struct {
	*fakeCluster
	t      testing.TB
	name   string
	grpc   string
	health string
	stop   context.CancelFunc
	done   chan error
}

// follows reports whether n knows that a peer has a KEDA stream.
func follows(n *node) bool {
	return n.seen().KEDAStream(deployment)
}

// deployment is the key of the tests' workload.
var deployment = route.Key{Namespace: "shop", Workload: "Deployment/web"}

// seen returns the visible parts of the interceptor.
func (n *node) seen() parts {
	i := <-n.parts
	n.parts <- i
	return i
}

// addresses maps peers' names to their addresses in a test.
type addresses struct{ m sync.Map }

// nextPort is the port that freePort tries next. It begins at a random number, so that two test processes seldom try the same one.
var nextPort = func() *atomic.Int32 {
	var n atomic.Int32
	n.Store(rand.Int32N(lastPort - firstPort))
	return &n
}()

// Tests use the range of route ports, below the range from which the kernel takes ports for connections. So a port that is free when
// it is checked stays free until it is opened.
const firstPort, lastPort = 10000, 30000

// freePort returns a TCP port that is free, and reserves it for the test. No test uses UDP: a UDP socket on the same number keeps the port
// from other test processes.
func freePort(tb testing.TB) int32 {
	tb.Helper()
	for range lastPort - firstPort {
		port := firstPort + nextPort.Add(1)%(lastPort-firstPort)
		address := fmt.Sprintf("127.0.0.1:%d", port)
		reservation, err := net.ListenPacket("udp", address)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			_ = reservation.Close()
			continue
		}
		_ = l.Close()
		tb.Cleanup(func() { _ = reservation.Close() })
		return port
	}
	tb.Fatal("all ports are in use")
	return 0
}

func start(tb testing.TB, name string, book *addresses, change func(*interceptor.Options)) *node {
	tb.Helper()
	n := &node{
		fakeCluster: newFakeCluster(), t: tb, name: name, done: make(chan error, 1),
		grpc: fmt.Sprintf("127.0.0.1:%d", freePort(tb)), health: fmt.Sprintf("127.0.0.1:%d", freePort(tb)),
	}
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	o := interceptor.Options{
		Cluster: n, PodName: name, GRPCAddress: n.grpc, HealthAddress: n.health, ListenHost: "127.0.0.1",
		DrainTimeout: 5 * time.Second, Linger: 100 * time.Millisecond, UnpublishedLinger: 50 * time.Millisecond,
		Log: logr.Discard(),
	}
	if testing.Verbose() {
		o.Log = testr.NewWithInterface(quietT{tb}, testr.Options{Verbosity: 1}).WithName(name)
	}
	if book != nil {
		book.m.Store(name, n.grpc)
		o.PeerAddress = func(p peer.Peer) string {
			addr, _ := book.m.Load(p.Name)
			return addr.(string)
		}
	}
	if change != nil {
		change(&o)
	}
	go func() { n.done <- interceptor.Run(ctx, o) }()
	tb.Cleanup(func() { n.shutdown() })
	return n
}

// quietT does not fail if something is logged late.
type quietT struct{ testing.TB }

func (q quietT) Log(args ...any) {
	defer func() { _ = recover() }()
	q.TB.Log(args...)
}

func (n *node) shutdown() {
	n.t.Helper()
	n.stop()
	select {
	case err := <-n.done:
		if err != nil {
			n.t.Errorf("running %s: %v", n.name, err)
		}
		n.done <- nil
		n.leaksNothing()
	case <-time.After(within):
		n.t.Errorf("%s did not stop", n.name)
	}
}

// leaksNothing checks that every count is 0 again once everything has ended. A negative count panics by itself.
func (n *node) leaksNothing() {
	n.t.Helper()
	select {
	case i := <-n.parts:
		n.parts <- i
		for _, target := range i.Targets() {
			if target.Pending() != 0 || target.Held() != 0 {
				n.t.Errorf("%s has ended with %d pending and %d held requests of %s", n.name, target.Pending(), target.Held(), target.Key)
			}
		}
		if used := i.InUse(); used != 0 {
			n.t.Errorf("%s has ended with %d pods in use", n.name, used)
		}
	default: // it never started
	}
}

func (n *node) set(s route.Service) {
	n.services <- func(sink interceptor.Sink) {
		n.mu.Lock()
		n.last = s
		n.mu.Unlock()
		sink.SetService(s)
	}
}

// applied waits until the last change has taken effect.
func (n *node) applied() {
	done := make(chan struct{})
	n.services <- func(interceptor.Sink) { close(done) }
	<-done
}

// news returns what the interceptor tells its peers about connections.
func (n *node) news() *peerapi.Counts {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	defer cancel()
	stream, err := peerapi.NewPeerClient(n.dial()).Watch(ctx, &peerapi.WatchRequest{Subscriber: "test", OnlyLearned: true})
	if err != nil {
		n.t.Fatal(err)
	}
	counts, err := stream.Recv()
	if err != nil {
		n.t.Fatal(err)
	}
	return counts
}

func (n *node) synced() { n.services <- func(sink interceptor.Sink) { sink.Synced() } }

func (n *node) setPeers(names ...string) {
	var peers []peer.Peer
	for _, name := range names {
		if name != n.name {
			peers = append(peers, peer.Peer{Name: name, Addr: name})
		}
	}
	n.services <- func(sink interceptor.Sink) { sink.SetPeers(peers) }
}

func (n *node) status(path string) int {
	resp, err := http.Get("http://" + n.health + path)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// measures waits until the metrics contain line.
func (n *node) measures(line string) {
	n.t.Helper()
	eventually(n.t, "measuring "+line, func() bool { return strings.Contains(n.metrics(), "\n"+line+"\n") })
}

func (n *node) metrics() string {
	resp, err := http.Get("http://" + n.health + "/metrics")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

func (n *node) waitReady() {
	n.t.Helper()
	eventually(n.t, "ready", func() bool { return n.status("/readyz") == http.StatusOK })
}

func (n *node) keda() externalscaler.ExternalScalerClient {
	n.t.Helper()
	return externalscaler.NewExternalScalerClient(n.dial())
}

// dial connects to the interceptor's gRPC server.
func (n *node) dial() *grpc.ClientConn {
	n.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+n.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func scaledObject() *externalscaler.ScaledObjectRef {
	return &externalscaler.ScaledObjectRef{Namespace: "shop", Name: "web", ScalerMetadata: map[string]string{
		api.MetadataWorkload: "Deployment/web", api.MetadataTargetPendingRequests: "100",
	}}
}

// service returns a Service with one port and pods at addrs.
func service(listen int32, protocol string, addrs ...string) route.Service {
	return route.Service{
		Namespace: "shop", Name: "web", Published: true, SleepID: "s1", Pods: len(addrs),
		Endpoints: map[string][]string{"http": addrs},
		Routes: api.Routes{
			Service: "web", ServiceUID: "u1", Direct: "web-direct",
			Workload: api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "u2"},
			Ports:    []api.Port{{Name: "http", Port: 80, Listen: listen, Protocol: protocol}},
			Cooldown: api.Duration(time.Hour), HoldTimeout: api.Duration(time.Minute),
		},
	}
}

func unpublished(s route.Service) route.Service {
	s.Published = false
	return s
}

// pod starts an HTTP server and returns its address.
func pod(tb testing.TB, h http.HandlerFunc) string {
	tb.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	tb.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); time.Now().Before(end); <-tick.C {
		if ok() {
			return
		}
	}
	tb.Fatalf("not %s within %s", what, within)
}

func url(listen int32, path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", listen, path) }

// client returns a client that keeps no connections, so that tests do not wait for idle ones.
func client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}, Timeout: within}
}

func get(t *testing.T, u string) (int, string) {
	t.Helper()
	resp, err := client().Get(u)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
