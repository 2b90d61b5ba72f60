// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/notice"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// board collects notices.
type board struct {
	mu   sync.Mutex // protects seen
	seen []notice.Notice
}

func (b *board) Notice(n notice.Notice) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = append(b.seen, n)
}

func (b *board) notices() []notice.Notice {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]notice.Notice(nil), b.seen...)
}

// Clients that give up on held requests are noticed, whatever they speak.
func TestClientsGiveUp(t *testing.T) {
	giveUp := map[string]func(t *testing.T, listen int32, held func()){
		"HTTP/1.1": func(t *testing.T, listen int32, held func()) {
			t.Helper()
			c := connect(t, listen)
			c.send("POST /report?secret=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
			held()
			_ = c.Close()
		},
		"HTTP/2": func(t *testing.T, listen int32, held func()) {
			t.Helper()
			transport := &http.Transport{Protocols: new(http.Protocols)}
			transport.Protocols.SetUnencryptedHTTP2(true)
			defer transport.CloseIdleConnections()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, url(listen, "/report?secret=1"), nil)
				if err != nil {
					t.Error(err)
					return
				}
				if resp, err := (&http.Client{Transport: transport}).Do(req); err == nil {
					_ = resp.Body.Close()
					t.Error("the app has answered")
				}
			}()
			held()
			cancel()
			<-done
		},
		"TCP": func(t *testing.T, listen int32, held func()) {
			t.Helper()
			c := connect(t, listen)
			c.send("\x00\x01")
			held()
			_ = c.SetLinger(0) // a client that has spoken and closes without a reset may wait for an answer
			_ = c.Close()
		},
	}
	for protocol, give := range giveUp {
		t.Run(protocol, func(t *testing.T) {
			b := &board{}
			n := start(t, "a", nil, func(o *interceptor.Options) { o.Notices, o.MinGaveUp = b, time.Millisecond })
			listen := freePort(t)
			n.set(unpublished(service(listen, api.ProtocolAuto)))
			n.synced()
			n.waitReady()
			// On a busy machine the waits differ. Soon, three of them are about the same.
			for end := time.Now().Add(5 * within); len(b.notices()) == 0 && time.Now().Before(end); {
				give(t, listen, func() {
					n.measures(`scale_to_zero_held_requests{namespace="shop",workload="Deployment/web"} 1`)
				})
				n.measures(`scale_to_zero_held_requests{namespace="shop",workload="Deployment/web"} 0`)
			}
			got := b.notices()
			if len(got) != 1 || got[0].Reason != notice.ClientsGaveUp || got[0].ID != "gave-up-s1" || got[0].ServiceUID != "u1" ||
				strings.Contains(got[0].Message, "secret") || strings.Contains(got[0].Message, "POST /report from 127.0.0.1") != (protocol != "TCP") {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Requests of all kinds are counted by their source, once each. Requests that neither wake nor count are not.
func TestSourcesOfRequests(t *testing.T) {
	p := newWirePod(t, func(c *wireConn) {
		for {
			m, err := c.request()
			if err != nil {
				return
			}
			if m.path() == "/ws" {
				c.send(switched)
				_, _ = io.Copy(c, c.r)
				return
			}
			c.send(ok("ok"))
		}
	})
	n, listen := serving(t, api.ProtocolAuto, p.addr)
	ask := func(agent, more string) {
		c := connect(t, listen)
		for range 3 {
			c.send("GET /api/tick?secret HTTP/1.1\r\nHost: h\r\nUser-Agent: " + agent + "\r\n" + more + "\r\n")
			c.want(200, "ok")
		}
		_ = c.Close()
	}
	ask("script/1", "")
	ask("script/1", "X-Forwarded-For: 203.0.113.9, 192.0.2.7\r\n")
	ask("kube-probe/1.37", "")
	ws := switches(t, listen)
	ws.send("a")
	ws.reads("a")
	i := n.seen()
	var one *route.Route
	for _, r := range i.Routes() {
		one = r
	}
	type counted struct {
		requests, open int
		busy           bool
	}
	all, sources := 0, map[string]counted{}
	take := func() {
		got := one.TakeSources()
		all += int(got.All)
		for at, c := range sources {
			sources[at] = counted{c.requests, 0, c.busy}
		}
		for _, s := range got.Each {
			at := fmt.Sprintf("%s %s %s %s", s.Visit.Method, s.Visit.Path, s.Visit.Remote, s.Visit.Agent)
			sources[at] = counted{sources[at].requests + int(s.Requests), s.Open, sources[at].busy || s.Busy > 0}
		}
	}
	want := map[string]counted{
		"GET /api/tick 127.0.0.1 script/1": {requests: 3},
		"GET /api/tick 192.0.2.7 script/1": {requests: 3},
		"GET /ws 127.0.0.1 ":               {requests: 1, open: 1, busy: true},
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%d requests of %v", all, sources)
		}
	})
	// A client may have its answer before the request is no longer open.
	eventually(t, "counted", func() bool {
		take()
		return all == 7 && maps.Equal(sources, want)
	})
	_ = ws.Close()
	eventually(t, "closed", func() bool {
		take()
		return sources["GET /ws 127.0.0.1 "].open == 0
	})
	if all != 7 || len(sources) != len(want) {
		t.Errorf("%d requests", all)
	}
}
