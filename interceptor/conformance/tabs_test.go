// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const (
	opensEvents = "GET /events?since=1 HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\nUser-Agent: tab\r\n\r\n"
	events      = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
	opensSocket = "GET /ws?token=1 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUser-Agent: tab\r\n\r\n"
)

// tabApp is an app that falls asleep after a second, with its pod.
type tabApp struct {
	*node
	listen int32
	pod    *wirePod
}

// newTabApp starts a pod that answers an upgrade or an event stream and then is silent, and answers anything else.
func newTabApp(t *testing.T, n *node, listen int32) *tabApp {
	t.Helper()
	a := &tabApp{node: n, listen: listen}
	a.pod = newWirePod(t, func(c *wireConn) {
		for {
			m, err := c.request()
			switch {
			case err != nil:
				return
			case strings.HasPrefix(m.path(), "/ws"):
				c.send(switched)
				c.drain()
				return
			case strings.HasPrefix(m.path(), "/events"):
				c.send(events)
				c.drain()
				return
			}
			c.send(ok("fine"))
		}
	})
	a.awake()
	return a
}

func (a *tabApp) put(pods ...string) {
	s := unpublished(service(a.listen, api.ProtocolAuto, pods...))
	s.Routes.Cooldown = api.Duration(time.Second)
	a.set(s)
	a.applied()
}

func (a *tabApp) awake() { a.put(a.pod.addr) }

// sleeps makes the app fall asleep after a silence. Its connections end with it, as tab sees.
func (a *tabApp) sleeps(tab *wireClient) {
	a.t.Helper()
	keda := a.keda()
	eventually(a.t, "idle", func() bool { return !active(a.t, keda) })
	<-time.After(api.InactiveAfter(time.Second) + 500*time.Millisecond) // nothing may be sent for that long
	if active(a.t, keda) {
		a.t.Fatal("the tab keeps it awake")
	}
	a.put()
	for _, c := range a.pod.accepted() {
		_ = c.Close()
	}
	_, _ = io.Copy(io.Discard, tab.r) // until it is cut
	_ = tab.Close()
}

// waitsQuietly checks that a request waits that neither wakes nor counts, in addition to count earlier ones.
func (n *node) waitsQuietly(count int) {
	n.t.Helper()
	n.measures(fmt.Sprintf(`scale_to_zero_ignored_requests_total{namespace="shop",service="web"} %d`, count+1))
	target := n.seen().Target(deployment)
	if target.Held() != 0 || target.Pending() != 0 || active(n.t, n.keda()) {
		n.t.Errorf("%d held, %d pending", target.Held(), target.Pending())
	}
}

// A tab that reconnects after its app has fallen asleep neither wakes the app nor counts. It is served when somebody else wakes the
// app. When its user does something else, it counts as a visitor again.
func TestForgottenTab(t *testing.T) {
	for name, tc := range map[string]struct{ opens, status string }{
		"WebSocket":   {opensSocket, "HTTP/1.1 101 "},
		"EventSource": {opensEvents, "HTTP/1.1 200 "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, listen := serving(t, api.ProtocolAuto)
			a := newTabApp(t, n, listen)
			opens := func() *wireClient {
				c := connect(t, listen)
				c.send(strings.ReplaceAll(tc.opens, "=1", "=2"))
				return c
			}
			tab := opens()
			if m := tab.head(); !strings.HasPrefix(m.start, tc.status) {
				t.Fatalf("got %q", m.start)
			}
			a.sleeps(tab)
			tab = opens()
			a.waitsQuietly(0)
			_ = tab.Close()
			n.idle()
			tab = opens()
			a.waitsQuietly(1)
			if len(n.events()) > 0 {
				t.Errorf("woken by %v", n.events())
			}

			// Somebody else wakes the app, and the tab is connected.
			visitor := connect(t, listen)
			visitor.send("GET / HTTP/1.1\r\nHost: h\r\nUser-Agent: visitor\r\n\r\n")
			n.holds(1)
			n.wokenOnce()
			a.awake()
			visitor.want(200, "fine")
			if m := tab.head(); !strings.HasPrefix(m.start, tc.status) {
				t.Fatalf("got %q", m.start)
			}

			// The same again, and then the user clicks something.
			a.sleeps(tab)
			tab = opens()
			a.waitsQuietly(2)
			user := connect(t, listen)
			user.send("GET /other HTTP/1.1\r\nHost: h\r\nUser-Agent: tab\r\n\r\n")
			n.holds(1)
			again := opens()
			n.holds(2)
			a.awake()
			user.want(200, "fine")
			for _, c := range []*wireClient{tab, again} {
				if m := c.head(); !strings.HasPrefix(m.start, tc.status) {
					t.Errorf("got %q", m.start)
				}
				_ = c.Close()
			}
			n.idle()
		})
	}
}

// A tab that waits in vain gets an answer that says so. A connection that its client has ended does not count as a tab that was left
// open.
func TestForgottenTabEnds(t *testing.T) {
	t.Parallel()
	n, listen := serving(t, api.ProtocolAuto)
	a := newTabApp(t, n, listen)
	tab := connect(t, listen)
	tab.send(opensSocket)
	tab.head()
	a.sleeps(tab)
	s := unpublished(service(listen, api.ProtocolAuto))
	s.Routes.Cooldown, s.Routes.HoldTimeout = api.Duration(time.Second), api.Duration(50*time.Millisecond)
	n.set(s)
	n.applied()
	tab = connect(t, listen)
	tab.send(opensSocket)
	if m := tab.answer(); m.status() != 503 || m.value("Retry-After") == "" || m.value("Scale-To-Zero") != "asleep" {
		t.Errorf("got %q %q", m.start, m.lines)
	}
	if len(n.events()) > 0 {
		t.Errorf("woken by %v", n.events())
	}
}

// If an interceptor's connection was cut by sleep, the other interceptors know it.
func TestForgottenTabAtAnother(t *testing.T) {
	book := &addresses{}
	port := freePort(t)
	begin := func(name, host string) *node {
		n := start(t, name, book, func(o *interceptor.Options) { o.ListenHost = host })
		n.set(unpublished(service(port, api.ProtocolAuto)))
		n.synced()
		n.waitReady()
		return n
	}
	other, n := begin("a", "127.0.0.2"), begin("b", "127.0.0.1")
	other.setPeers("a", "b")
	n.setPeers("a", "b")
	a := newTabApp(t, n, port)
	tab := connect(t, port)
	tab.send(opensSocket)
	tab.head()
	a.sleeps(tab)
	eventually(t, "the other one knows", func() bool {
		tabs := other.news().GetTabs()
		return len(tabs) == 1 && tabs[0].GetListen() == port && !tabs[0].GetForgotten()
	})
}

// An HTTP/2 event stream counts by its bytes. Reopening it after the app has fallen asleep does not wake the app.
func TestForgottenTabOfHTTP2(t *testing.T) {
	t.Parallel()
	n, listen := serving(t, api.ProtocolAuto)
	cut := make(chan struct{})
	addr := pod(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/events" {
			hello(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-cut:
			panic(http.ErrAbortHandler)
		case <-r.Context().Done():
		}
	})
	put := func(pods ...string) {
		s := unpublished(service(listen, api.ProtocolAuto, pods...))
		s.Routes.Cooldown = api.Duration(time.Second)
		n.set(s)
		n.applied()
	}
	put(addr)
	only2 := new(http.Protocols)
	only2.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: only2}}
	defer client.CloseIdleConnections()
	ask := func(ctx context.Context, path string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url(listen, path), nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set("User-Agent", "tab")
		if strings.HasPrefix(path, "/events") {
			r.Header.Set("Accept", "text/event-stream")
		}
		return client.Do(r)
	}
	tab, err := ask(t.Context(), "/events?since=1")
	if err != nil || tab.StatusCode != http.StatusOK || tab.ProtoMajor != 2 {
		t.Fatalf("got %v, %v", tab, err)
	}
	defer tab.Body.Close()
	keda := n.keda()
	eventually(t, "idle", func() bool { return !active(t, keda) })
	<-time.After(api.InactiveAfter(time.Second) + 500*time.Millisecond) // nothing may be sent for that long
	put()
	close(cut)
	if _, err := io.Copy(io.Discard, tab.Body); err == nil {
		t.Error("the stream has ended in order")
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		resp, err := ask(ctx, "/events?since=2")
		if err == nil {
			_ = resp.Body.Close()
		}
		done <- err
	}()
	n.waitsQuietly(0)
	if len(n.events()) > 0 {
		t.Errorf("woken by %v", n.events())
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("the tab was answered")
	}
	n.idle()

	// The user clicks something.
	go func() {
		resp, err := ask(t.Context(), "/other")
		if err == nil {
			_ = resp.Body.Close()
		}
		done <- err
	}()
	n.holds(1)
	put(addr)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(n.events()) != 1 {
		t.Errorf("woken by %v", n.events())
	}
}
