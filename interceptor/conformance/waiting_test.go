// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/page"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// opens is the request of a browser that opens a page.
const opens = "GET /a?b HTTP/1.1\r\nHost: h\r\nAccept: text/html,*/*;q=0.8\r\nAccept-Language: ko-KR,ko;q=0.9\r\n" +
	"Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n\r\n"

// asks returns a poll of a page that shows this state.
func asks(state string) string {
	return "GET /a?b HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nScale-To-Zero-Wait: " + state + ",3\r\n\r\n"
}

// waits starts an interceptor that shows the page after the grace, for a sleeping Service.
func waits(t *testing.T, grace time.Duration) (*node, route.Service) {
	t.Helper()
	n := start(t, "a", nil, func(o *interceptor.Options) { o.PageGrace = grace })
	s := unpublished(service(freePort(t), api.ProtocolAuto))
	n.set(s)
	n.synced()
	n.waitReady()
	return n, s
}

func (n *node) connects(s route.Service) *wireClient {
	n.t.Helper()
	return connect(n.t, s.Routes.Ports[0].Listen)
}

// sets changes s and waits until the change has taken effect.
func (n *node) sets(s *route.Service, change func()) {
	change()
	n.set(*s)
	n.applied()
}

// isPage checks that m is the waiting page.
func isPage(t *testing.T, m *message, state string) {
	t.Helper()
	if m.status() != 503 || !strings.Contains(m.body, "<main>") || m.value("Content-Type") != "text/html; charset=utf-8" ||
		m.value("Cache-Control") != "no-store" || m.value("Retry-After") == "" || m.value("Scale-To-Zero") != state ||
		m.value("Content-Language") != "ko" || !strings.Contains(m.value("Vary"), "Accept-Language") ||
		m.value("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(m.value("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("no waiting page: %q %q %.300q", m.start, m.lines, m.body)
	}
}

// report reads the answer to a poll.
func (c *wireClient) report(state string) page.Report {
	c.t.Helper()
	m := c.answer()
	var r page.Report
	if err := json.Unmarshal([]byte(m.body), &r); err != nil || m.status() != 200 || m.value("Scale-To-Zero") != state ||
		m.value("Cache-Control") != "no-store" || m.value("Content-Type") != "application/json" {
		c.t.Fatalf("no report of %s: %q %q %q: %v", state, m.start, m.lines, m.body, err)
	}
	return r
}

// A browser that opens a page sees the waiting page, unless the page is there soon. Nobody else sees it.
func TestWaitingPage(t *testing.T) {
	app := newWirePod(t, always(ok("fine"))).addr
	n, s := waits(t, within)
	c := n.connects(s)
	c.send(opens)
	n.holds(1)
	n.sets(&s, func() { s.Endpoints = map[string][]string{"http": {app}} })
	c.want(200, "fine")

	n, s = waits(t, 50*time.Millisecond)
	fetch := n.connects(s)
	fetch.send("GET /api HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n\r\n")
	n.holds(1)
	c = n.connects(s)
	for range 2 { // twice, on one connection
		c.send(opens)
		m := c.answer()
		isPage(t, m, "starting")
		heldFor(t, m.value("Scale-To-Zero-Held"), 50*time.Millisecond)
	}
	n.holds(1)
	n.wokenOnce()
	n.sets(&s, func() { s.Endpoints = map[string][]string{"http": {app}} })
	fetch.want(200, "fine")
	c.send(opens)
	c.want(200, "fine")
	n.idle()
}

func TestWaitingPageSettings(t *testing.T) {
	n, s := waits(t, within)
	n.sets(&s, func() { s.Routes.WaitingPage = api.PageAlways })
	c := n.connects(s)
	c.send(opens)
	isPage(t, c.answer(), "starting")
	if len(n.events()) != 1 {
		t.Errorf("woken by %v", n.events())
	}
	n.idle()

	n, s = waits(t, time.Millisecond)
	n.sets(&s, func() {
		s.Routes.WaitingPage = api.PageNever
		s.Routes.HoldTimeout = api.Duration(200 * time.Millisecond)
	})
	c = n.connects(s)
	c.send(opens)
	if m := c.answer(); m.status() != 504 || m.value("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("got %q %q", m.start, m.body)
	}
}

// If an app cannot start, everybody learns of it at once, in a suitable form.
func TestWaitingPageOfAFailure(t *testing.T) {
	n, s := waits(t, within)
	c := n.connects(s)
	c.send(opens)
	n.holds(1)
	n.sets(&s, func() {
		s.Progress = api.Progress{Stage: api.StagePulling, Failing: "its image secret:2 is not there", Reason: "ErrImageNeverPull"}
	})
	for range 2 {
		m := c.answer()
		isPage(t, m, "failing")
		if !strings.Contains(m.body, "앱의 이미지가 노드에 없고") || strings.Contains(m.body, "secret") {
			t.Errorf("got %q", m.body)
		}
		c.send(opens)
	}
	isPage(t, c.answer(), "failing")
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if m := c.answer(); m.status() != 503 || !strings.Contains(m.body, "cannot start: its image is not on the node.") {
		t.Errorf("got %q %q", m.start, m.body)
	}
	n.idle()
}

// A poll is answered when there is something new. Until then it keeps the wake going. It never reaches the app.
func TestPoll(t *testing.T) {
	app := newWirePod(t, always(ok("fine")))
	n, s := waits(t, time.Millisecond)
	c := n.connects(s)
	c.send(asks(""))
	first := c.report("starting")
	if first.State == "" || first.Ready || first.Failing || first.Title != "web is starting" {
		t.Errorf("got %+v", first)
	}
	follow := func(state, change string, do func()) page.Report {
		t.Helper()
		c.send(asks(state))
		n.holds(1)
		n.sets(&s, do)
		r := c.report(change)
		if r.State == state && !r.Ready {
			t.Errorf("nothing new in %+v", r)
		}
		return r
	}
	pulling := follow(first.State, "starting", func() { s.Pods, s.Progress.Stage = 1, api.StagePulling })
	failing := follow(pulling.State, "failing", func() { s.Progress.Failing, s.Progress.Reason = "no image", "ImagePullBackOff" })
	if !failing.Failing || failing.Why != "its image cannot be pulled" {
		t.Errorf("got %+v", failing)
	}
	// The same failure again is not new. An improvement is.
	recovered := follow(failing.State, "starting", func() {
		s.Progress.Seen = time.Unix(1, 0)
		n.set(s)
		n.applied()
		s.Progress = api.Progress{Stage: api.StageNotReady}
	})
	// A pod that counts as ready but does not listen is not ready; one that listens is.
	refused := follow(recovered.State, "starting", func() {
		s.Endpoints = map[string][]string{"http": {closedPort(t)}}
		s.Progress.Starts = []api.Duration{api.Duration(time.Hour)}
	})
	if refused.Ready || refused.Stage != api.StageNotReady {
		t.Errorf("got %+v", refused)
	}
	if last := follow(refused.State, "ready", func() { s.Endpoints = map[string][]string{"http": {app.addr}} }); !last.Ready {
		t.Errorf("got %+v", last)
	}
	for _, state := range []string{"", first.State} {
		c.send(asks(state))
		if r := c.report("ready"); !r.Ready {
			t.Errorf("got %+v", r)
		}
	}
	// Neither does a poll for an ignored path.
	n.sets(&s, func() { s.Routes.IgnorePaths = []string{"/a"} })
	c.send(asks(""))
	c.report("ready")
	app.mu.Lock()
	if app.got.Len() > 0 {
		t.Errorf("the app was asked %q", app.got.String())
	}
	app.mu.Unlock()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nScale-To-Zero-Wait: x\r\nContent-Length: 0\r\n\r\n")
	c.want(200, "fine")
	n.idle()
	n.measures(`scale_to_zero_held_seconds_count{namespace="shop",service="web"} 0`)
}

// A page that knows when the app is late learns of it at that moment.
func TestPollBecomesLate(t *testing.T) {
	n, s := waits(t, time.Millisecond)
	n.sets(&s, func() { s.Progress.Starts = []api.Duration{api.Duration(4 * time.Second)} })
	c := n.connects(s)
	c.send(asks(""))
	first := c.report("starting")
	c.send(asks(first.State)) // it has waited for 3 s
	if r := c.report("starting"); first.Late || !r.Late {
		t.Errorf("got %+v, then %+v", first, r)
	}
}

// When somebody closes the page, nothing is left behind.
func TestPollIsGivenUp(t *testing.T) {
	n, s := waits(t, time.Millisecond)
	c := n.connects(s)
	c.send(asks(""))
	state := c.report("starting").State
	c.send(asks(state))
	n.holds(1)
	_ = c.Close()
	n.idle()
	n.measures(`scale_to_zero_requests_total{code="4xx",namespace="shop",service="web"} 1`)
}

func TestWaitingPageByHTTP2(t *testing.T) {
	n, s := waits(t, time.Millisecond)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	ask := func(name, value string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url(s.Routes.Ports[0].Listen, "/a"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(name, value)
		resp, err := (&http.Client{Transport: transport, Timeout: within}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.ProtoMajor != 2 {
			t.Fatalf("%s: %v", resp.Proto, err)
		}
		return resp, string(b)
	}
	resp, body := ask("Accept", "text/html")
	if h := resp.Header; resp.StatusCode != 503 || !strings.Contains(body, "<main>") || h.Get("Scale-To-Zero") != "starting" ||
		h.Get("Retry-After") != "2" || h.Get("Cache-Control") != "no-store" || h.Get("Content-Security-Policy") == "" ||
		h.Get("Scale-To-Zero-Held") == "" {
		t.Errorf("got %d %v %.200q", resp.StatusCode, resp.Header, body)
	}
	var r page.Report
	resp, body = ask("Scale-To-Zero-Wait", "")
	if err := json.Unmarshal([]byte(body), &r); err != nil || resp.StatusCode != 200 || resp.Header.Get("Scale-To-Zero") != "starting" ||
		r.State == "" {
		t.Errorf("got %d %v %q", resp.StatusCode, resp.Header, body)
	}
	app := newWirePod(t, always(ok("fine")))
	go func() {
		n.holds(1)
		s.Endpoints = map[string][]string{"http": {app.addr}}
		n.set(s)
	}()
	if resp, body = ask("Scale-To-Zero-Wait", r.State+",0"); resp.Header.Get("Scale-To-Zero") != "ready" ||
		!strings.Contains(body, `"ready":true`) {
		t.Errorf("got %v %q", resp.Header, body)
	}
	app.mu.Lock()
	defer app.mu.Unlock()
	if app.got.Len() > 0 {
		t.Errorf("the app was asked %q", app.got.String())
	}
}
