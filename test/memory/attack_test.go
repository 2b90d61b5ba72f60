// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
)

// For how long the other app is asked before an attack, and after its connections are open.
const (
	calm   = 2 * time.Second
	stormy = 4 * time.Second
)

var lasting = flag.Duration("attack", 0, "for how long each attack is repeated; 0: it is made once")

// attack runs do against a new target, while the other app is asked. Each repetition drops the connections of the one before.
func attack(t *testing.T, path string, do func(ctx context.Context, x *target)) {
	t.Helper()
	x := start(t, path)
	client := &http.Client{Timeout: 10 * time.Second}
	if err := get(client, fmt.Sprintf("http://127.0.0.1:%d/", otherPort)); err != nil {
		t.Fatal(err)
	}
	before := visit()
	wait(calm)
	usual, usual99 := before.end()

	asked, times := 0, 0
	for began := time.Now(); times == 0 || time.Since(began) < *lasting && !t.Failed(); times++ {
		ctx, cancel := context.WithCancel(t.Context())
		opening := visit()
		do(ctx, x)
		opening.end()
		open := visit()
		wait(stormy)
		median, p99 := open.end()
		lost := append(opening.failed, open.failed...)
		asked += len(opening.times) + len(open.times) + len(lost)
		if x.alive() && len(lost) > 0 {
			t.Errorf("the other app has lost %d of %d requests: %v", len(lost), asked, lost[0])
		}
		if times == 0 || t.Failed() {
			t.Logf("the other app's median %s, %.2f times the usual; 99th percentile %s, %.2f times",
				median, ratio(median, usual), p99, ratio(p99, usual99))
		}
		cancel()
	}
	most := peak(x.cmd.Process.Pid)
	if most > limit {
		t.Errorf("the interceptor had %d MiB", most>>20)
	}
	t.Logf("%d times: peak %d MiB (charged %d MiB); the other app was asked %d times", times, most>>20, charged(x.cgroup)>>20, asked)
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }

func wait(d time.Duration) { <-time.After(d) }

// swarm runs do for n clients at a time, at most 200 of which are still at it.
func swarm(n int, do func(i int)) {
	var all sync.WaitGroup
	places := make(chan struct{}, 200)
	for i := range n {
		places <- struct{}{}
		all.Go(func() {
			do(i)
			<-places
		})
	}
	all.Wait()
}

// connections keeps connections open until the context is done.
type connections struct {
	mu    sync.Mutex // protects all
	all   []net.Conn
	count atomic.Int64
}

func open(ctx context.Context) *connections {
	c := &connections{}
	context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, conn := range c.all {
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}
	})
	return c
}

// send opens a connection and sends text on it, as far as the other side takes it soon.
func (c *connections) send(port int, text string) net.Conn {
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err != nil {
		return nil
	}
	c.mu.Lock()
	c.all = append(c.all, conn)
	c.mu.Unlock()
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(conn, text); err == nil {
		c.count.Add(1)
	}
	return conn
}

func TestAttacks(t *testing.T) {
	raiseFiles(t)
	path := binary(t)
	for name, do := range map[string]func(ctx context.Context, x *target){
		"unfinished heads":   unfinishedHeads,
		"held requests":      heldRequests,
		"unread bodies":      unreadBodies(firstPort),
		"bodies nobody took": unreadBodies(awakePort),
		"long keys":          longKeys,
		"many calls":         manyCalls,
		"slow readers":       slowReaders,
		"stalled streams":    stalledStreams,
		"slow answers":       slowAnswers,
		"connections":        bareConnections,
	} {
		t.Run(name, func(t *testing.T) { attack(t, path, do) })
	}
}

// unfinishedHeads sends requests' heads that never end.
func unfinishedHeads(ctx context.Context, _ *target) {
	c := open(ctx)
	head := "GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 60<<10)
	swarm(9500, func(int) { c.send(awakePort, head) })
}

// heldRequests sends long requests to sleeping apps.
func heldRequests(ctx context.Context, _ *target) {
	c := open(ctx)
	head := "GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 28<<10) + "\r\n\r\n"
	swarm(sleepers*2000, func(i int) { c.send(firstPort+i%sleepers, head) })
}

// unreadBodies sends bodies over HTTP/2 that nobody reads.
func unreadBodies(port int) func(context.Context, *target) {
	return func(ctx context.Context, _ *target) {
		c := open(ctx)
		swarm(400, func(int) {
			h := c.http2(port, 0)
			for n := range 16 {
				h.request(uint32(2*n+1), "POST", "/never", false)
			}
			for n := range 16 {
				for range 4 {
					_ = h.WriteData(uint32(2*n+1), false, make([]byte, 16<<10-100))
				}
			}
		})
	}
}

// stalledStreams asks for long answers over HTTP/2 and takes nothing of them.
func stalledStreams(ctx context.Context, _ *target) {
	c := open(ctx)
	swarm(100, func(int) {
		h := c.http2(awakePort, 0)
		for n := range 100 {
			h.request(uint32(2*n+1), "GET", "/?8000000", true)
		}
	})
}

// framer is an HTTP/2 connection that reads nothing.
type framer struct {
	*http2.Framer
	head   strings.Builder
	fields *hpack.Encoder
}

// http2 opens an HTTP/2 connection whose streams may not be answered with more than window bytes.
func (c *connections) http2(port int, window uint32) *framer {
	h := &framer{}
	conn := c.send(port, http2.ClientPreface)
	if conn == nil {
		h.Framer = http2.NewFramer(io.Discard, nil)
	} else {
		_ = conn.SetWriteDeadline(time.Now().Add(3 * time.Second))
		h.Framer = http2.NewFramer(conn, nil)
	}
	h.fields = hpack.NewEncoder(&h.head)
	_ = h.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	return h
}

func (h *framer) request(stream uint32, method, path string, end bool) {
	h.head.Reset()
	for _, f := range [][2]string{{":method", method}, {":scheme", "http"}, {":authority", "h"}, {":path", path}} {
		_ = h.fields.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	_ = h.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: []byte(h.head.String()), EndHeaders: true, EndStream: end,
	})
}

// longKeys asks for workloads with endless names, as nobody but an attacker does.
func longKeys(ctx context.Context, x *target) { calls(ctx, x, 1000, 900<<10) }

// manyCalls opens as many streams as it can.
func manyCalls(ctx context.Context, x *target) { calls(ctx, x, 20_000, 10) }

func calls(ctx context.Context, x *target, n, length int) {
	conn, err := grpc.NewClient("passthrough:///"+grpcAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		x.t.Fatal(err)
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	client := externalscaler.NewExternalScalerClient(conn)
	key := strings.Repeat("k", length)
	swarm(n, func(i int) {
		call, cancel := context.WithTimeout(ctx, 30*time.Second)
		context.AfterFunc(ctx, cancel)
		_, _ = client.StreamIsActive(call, &externalscaler.ScaledObjectRef{
			Namespace: "n", Name: "o", ScalerMetadata: map[string]string{api.MetadataWorkload: fmt.Sprint(key, i)},
		})
	})
}

// slowReaders asks for long answers and reads nothing.
func slowReaders(ctx context.Context, _ *target) {
	c := open(ctx)
	swarm(3000, func(int) { c.send(awakePort, "GET /?8000000 HTTP/1.1\r\nHost: h\r\n\r\n") })
}

// slowAnswers asks for what is never answered.
func slowAnswers(ctx context.Context, _ *target) {
	c := open(ctx)
	swarm(9000, func(int) { c.send(awakePort, "GET /never HTTP/1.1\r\nHost: h\r\n\r\n") })
}

// bareConnections opens connections of bytes, each of which has one to the app.
func bareConnections(ctx context.Context, _ *target) {
	c := open(ctx)
	swarm(9000, func(int) { c.send(tcpPort, strings.Repeat("x", 100<<10)) })
}
