// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// singleThreaded is an app that breaks if it ever has two requests at once. It keeps the order in which they came, by their path.
type singleThreaded struct {
	addr string
	busy atomic.Int32

	mu    sync.Mutex // protects order
	order []int
}

func newSingleThreaded(t *testing.T) *singleThreaded {
	t.Helper()
	a := &singleThreaded{}
	a.addr = pod(t, func(w http.ResponseWriter, r *http.Request) {
		defer a.busy.Add(-1)
		if a.busy.Add(1) > 1 {
			http.Error(w, "two at once", http.StatusInternalServerError)
			return
		}
		n, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		a.mu.Lock()
		a.order = append(a.order, n)
		a.mu.Unlock()
	})
	return a
}

// oneAtATime is service with max-pending-per-pod 1.
func oneAtATime(listen int32, addrs ...string) route.Service {
	s := unpublished(service(listen, api.ProtocolAuto, addrs...))
	s.Routes.MaxPendingPerPod = 1
	return s
}

// crowd sends requests one after the other, so that their order is known, and waits until all are held. It returns the results in the
// order in which they were sent.
func (n *node) crowd(c *http.Client, listen int32, size int) (results []chan error, leave []context.CancelFunc) {
	n.t.Helper()
	for i := range size {
		ctx, cancel := context.WithCancel(n.t.Context())
		result := make(chan error, 1)
		results, leave = append(results, result), append(leave, cancel)
		go func() { result <- fetchOK(ctx, c, url(listen, "/"+strconv.Itoa(i))) }()
		eventually(n.t, "held", func() bool { return n.held() == int64(i+1) })
	}
	return results, leave
}

func (n *node) held() int64 { return n.seen().Target(deployment).Held() }

// fetchOK returns an error unless the answer is 200.
func fetchOK(ctx context.Context, c *http.Client, u string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%d %s %w", resp.StatusCode, b, err)
	}
	return nil
}

// An app that handles one request after the other gets the held requests one by one, in their order, and not those of clients that
// have gone.
func TestMaxPendingPerPod(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
		for _, leaves := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, clients leave: %t", protocol, leaves), func(t *testing.T) {
				const size = 500
				n := start(t, "a", nil, nil)
				listen := freePort(t)
				n.set(oneAtATime(listen))
				n.synced()
				n.waitReady()
				transport := &http.Transport{Protocols: new(http.Protocols), DisableKeepAlives: protocol == "HTTP/1.1"}
				transport.Protocols.SetHTTP1(protocol == "HTTP/1.1")
				transport.Protocols.SetUnencryptedHTTP2(protocol != "HTTP/1.1")
				defer transport.CloseIdleConnections()
				results, leave := n.crowd(&http.Client{Transport: transport}, listen, size)
				var want []int
				for i := range size {
					if leaves && i%3 == 1 {
						leave[i]()
						continue
					}
					want = append(want, i)
				}
				eventually(t, "gone", func() bool { return n.held() == int64(len(want)) })
				app := newSingleThreaded(t)
				n.set(oneAtATime(listen, app.addr))
				for i, result := range results {
					if err := <-result; err != nil && (!leaves || i%3 != 1) {
						t.Errorf("request %d: %v", i, err)
					}
				}
				app.mu.Lock()
				defer app.mu.Unlock()
				if !slices.Equal(app.order, want) {
					t.Errorf("the app got %v", app.order)
				}
			})
		}
	}
}

// A connection has a place for as long as it lasts, whatever it carries.
func TestConnectionsHaveAPlace(t *testing.T) {
	app := pod(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ws":
			ws, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			_, _, _ = ws.Read(r.Context())
			_ = ws.CloseNow()
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: 1\n\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	})
	for name, open := range map[string]func(*testing.T, int32) io.Closer{
		"WebSocket": func(t *testing.T, listen int32) io.Closer {
			t.Helper()
			ws, _, err := websocket.Dial(t.Context(), url(listen, "/ws"), nil)
			if err != nil {
				t.Error(err)
			}
			return closer(func() error { return ws.CloseNow() })
		},
		"EventSource": func(t *testing.T, listen int32) io.Closer {
			t.Helper()
			resp, err := (&http.Client{Transport: &http.Transport{}}).Get(url(listen, "/events"))
			if err != nil {
				t.Error(err)
				return closer(func() error { return nil })
			}
			return resp.Body
		},
		"bytes": openBytes,
	} {
		t.Run(name, func(t *testing.T) {
			addr := app
			if name == "bytes" {
				addr = rawPod(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c); _ = c.Close() })
			}
			n := start(t, "a", nil, nil)
			listen := freePort(t)
			n.set(oneAtATime(listen, addr))
			n.synced()
			n.waitReady()
			conn := open(t, listen)
			eventually(t, "connected", func() bool { return n.seen().InUse() == 1 })
			next := make(chan io.Closer, 1)
			go func() { next <- open(t, listen) }()
			eventually(t, "held", func() bool { return n.held() == 1 })
			if n.seen().Target(deployment).Awaits() || n.scales() > 0 || len(n.events()) > 0 {
				t.Error("a request that waits for a place wakes the app")
			}
			_ = conn.Close()
			eventually(t, "the next has its place", func() bool { return n.held() == 0 && n.seen().InUse() == 1 })
			_ = (<-next).Close()
			n.idle()
		})
	}
}

// openBytes opens a connection of bytes, which nobody answers.
func openBytes(t *testing.T, listen int32) io.Closer {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", listen))
	if err != nil {
		t.Error(err)
		return closer(func() error { return nil })
	}
	_, _ = io.WriteString(c, "\x16\x03\x01 not HTTP\r\n")
	return c
}

type closer func() error

func (c closer) Close() error { return c() }

// A request that has waited for a place for too long gets a 504 that says so.
func TestNoPlaceInTime(t *testing.T) {
	ends := make(chan struct{})
	n := start(t, "a", nil, nil)
	listen := freePort(t)
	s := oneAtATime(listen, pod(t, func(http.ResponseWriter, *http.Request) { <-ends }))
	s.Routes.HoldTimeout = api.Duration(100 * time.Millisecond)
	n.set(s)
	n.synced()
	n.waitReady()
	first := make(chan error, 1)
	go func() { first <- fetchOK(context.Background(), client(), url(listen, "/")) }()
	eventually(t, "served", func() bool { return n.seen().InUse() == 1 })
	status, text := get(t, url(listen, "/"))
	want := "scale-to-zero: the only ready pod of Deployment/web has the 1 pending requests that max-pending-per-pod allows"
	if status != http.StatusGatewayTimeout || !strings.HasPrefix(text, want) {
		t.Errorf("got %d %s", status, text)
	}
	close(ends)
	if err := <-first; err != nil {
		t.Error(err)
	}
}
