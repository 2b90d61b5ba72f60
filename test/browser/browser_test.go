// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package browser

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
)

// within is how long tests wait for what should happen soon. It is long because the machine may be busy.
const within = 30 * time.Second

// cluster is a Cluster with one Service, which the test changes.
type cluster struct{ services chan route.Service }

func (c *cluster) Watch(ctx context.Context, sink interceptor.Sink) error {
	sink.Synced()
	for {
		select {
		case s := <-c.services:
			sink.SetService(s)
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *cluster) Scale(context.Context, string, api.Workload, int32) (bool, error) {
	return false, nil
}

func (c *cluster) Replicas(context.Context, string, api.Workload) (int32, error) { return 1, nil }
func (c *cluster) WakeRequested(scaler.Wake)                                     {}
func (c *cluster) Warn(scaler.Warning)                                           {}

// app is a sleeping app behind an interceptor.
type app struct {
	t       *testing.T
	cluster cluster
	service route.Service
	health  string
	pod     string

	mu     sync.Mutex // protects visits
	visits []string   // the requests for pages that have reached the app
}

func newApp(t *testing.T) *app {
	t.Helper()
	a := &app{t: t, cluster: cluster{make(chan route.Service, 10)}, health: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	pod := httptest.NewServer(a)
	t.Cleanup(pod.Close)
	a.pod = strings.TrimPrefix(pod.URL, "http://")
	a.service = route.Service{
		Namespace: "shop", Name: "grafana",
		Routes: api.Routes{
			Service: "grafana", Workload: api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: "grafana"},
			Ports:    []api.Port{{Name: "http", Port: 80, Listen: int32(freePort(t)), Protocol: api.ProtocolAuto}},
			Cooldown: api.Duration(time.Hour), HoldTimeout: api.Duration(time.Minute),
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- interceptor.Run(ctx, interceptor.Options{
			Cluster: &a.cluster, PodName: "a", ListenHost: "127.0.0.1", DrainTimeout: time.Second, UnpublishedLinger: time.Millisecond,
			GRPCAddress: fmt.Sprintf("127.0.0.1:%d", freePort(t)), HealthAddress: a.health, PageGrace: 100 * time.Millisecond,
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	a.set(func(*route.Service) {})
	a.eventually("listening", func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", a.service.Routes.Ports[0].Listen))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return a
}

// ServeHTTP is the app itself.
func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/favicon.ico" {
		http.NotFound(w, r)
		return
	}
	a.mu.Lock()
	a.visits = append(a.visits, r.Method+" "+r.RequestURI)
	a.mu.Unlock()
	w.Header().Set("Content-Type", "text/html")
	_, _ = io.WriteString(w, "<title>Grafana</title><h1 id=there>The app itself</h1>")
}

func (a *app) set(change func(*route.Service)) {
	change(&a.service)
	a.cluster.services <- a.service
}

func (a *app) is(stage string) {
	a.set(func(s *route.Service) { s.Pods, s.Progress.Stage, s.Progress.Failing = 1, stage, "" })
}

func (a *app) isReady() {
	a.set(func(s *route.Service) { s.Pods, s.Endpoints = 1, map[string][]string{"http": {a.pod}} })
}

func (a *app) url(host string) string {
	return fmt.Sprintf("http://%s:%d/d/sales?from=now-6h", host, a.service.Routes.Ports[0].Listen)
}

// visited checks that the app got one request for its page, however long the visitor has waited.
func (a *app) visited() {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.visits) != 1 || a.visits[0] != "GET /d/sales?from=now-6h" {
		a.t.Errorf("the app was asked %q", a.visits)
	}
}

// pending waits until that many requests are counted.
func (a *app) pending(n int) {
	a.t.Helper()
	line := fmt.Sprintf("\nscale_to_zero_pending_requests{namespace=\"shop\",workload=\"Deployment/grafana\"} %d\n", n)
	a.eventually(fmt.Sprintf("%d pending", n), func() bool {
		resp, err := http.Get("http://" + a.health + "/metrics")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return err == nil && strings.Contains(string(b), line)
	})
}

func (a *app) eventually(what string, ok func() bool) {
	a.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); time.Now().Before(end); <-tick.C {
		if ok() {
			return
		}
	}
	a.t.Fatalf("not %s within %s", what, within)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// newBrowser starts Chromium and returns its context.
func newBrowser(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		// For browsers, this machine's addresses are as secure as https. This host stands for all others.
		chromedp.Flag("host-resolver-rules", "MAP app.test 127.0.0.1"),
		chromedp.Flag("no-sandbox", os.Geteuid() == 0))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting Chromium: %v", err)
	}
	return ctx
}

type action = chromedp.Action[chromedp.Void]

// tab is an open tab.
type tab struct {
	t     *testing.T
	ctx   context.Context
	close func()
}

func newTab(t *testing.T, browser context.Context, actions ...action) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // without the tab's time limit
		t.Fatalf("opening a tab: %v", err)
	}
	c := &tab{t, ctx, cancel}
	c.do("opening a tab", actions...)
	return c
}

func (c *tab) do(what string, actions ...action) {
	c.t.Helper()
	get(c, what, chromedp.Steps(actions...))
}

// get returns the result of a.
func get[T any](c *tab, what string, a chromedp.Action[T]) T {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, within)
	defer cancel()
	v, err := chromedp.Run(ctx, a)
	if err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
	return v
}

// shows waits until the page has text.
func (c *tab) shows(text string) {
	c.t.Helper()
	c.do("showing "+text, chromedp.WaitReady(fmt.Sprintf(`//body//*[contains(text(),"%s")]`, text)))
}

// entries are the addresses of the tab's history.
func (c *tab) entries() []string {
	c.t.Helper()
	var urls []string
	for _, e := range get(c, "reading the history", chromedp.NavigationEntries()).Entries {
		urls = append(urls, e.URL)
	}
	return urls
}

// keeps stores a screenshot.
func (c *tab) keeps(name string) {
	c.t.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	picture := get(c, "taking a picture", chromedp.CaptureScreenshot())
	if err := os.WriteFile(filepath.Join(dir, "page-"+name+".png"), picture, 0o644); err != nil {
		c.t.Error(err)
	}
}

// looks sets a visitor's screen and language.
func looks(language, scheme string, width, height int64) []action {
	return []action{
		command(emulation.SetUserAgentOverride,
			emulation.SetUserAgentOverrideParams{UserAgent: "Mozilla/5.0 (X11; Linux x86_64)", AcceptLanguage: language}),
		command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		}),
		chromedp.EmulateViewport(width, height),
	}
}

// command sends a command of the protocol.
func command[P any](c cdp.Command[P, cdp.Empty], params P) action {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, c, params)
		return err
	})
}

// The page follows the start, and then becomes the app's page, at the address that was asked for and without a new
// history entry.
func TestPageOpensTheApp(t *testing.T) {
	browser := newBrowser(t)
	for name, tc := range map[string]struct {
		host, language, scheme string
		width, height          int64
		title                  string
		stages                 [2]string
		background             string
	}{
		"light-en": {
			"127.0.0.1", "en-US,en", "light", 1280, 800, "grafana is starting",
			[2]string{"Downloading the app", "Usually ready in about 12 seconds."},
			"rgb(246, 247, 249)",
		},
		"dark-ko": {
			"127.0.0.1", "ko-KR,ko", "dark", 390, 844, "grafana 시작 중",
			[2]string{"앱을 내려받고 있습니다", "준비되기까지 보통 12초쯤 걸립니다."},
			"rgb(18, 21, 26)",
		},
		"plain-http": {
			"app.test", "en-US,en", "dark", 1280, 800, "grafana is starting",
			[2]string{"Downloading the app", "Usually ready in about 12 seconds."},
			"rgb(18, 21, 26)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t)
			c := newTab(t, browser, looks(tc.language, tc.scheme, tc.width, tc.height)...)
			c.do("opening it", chromedp.Navigate(a.url(tc.host)+"#panel"))
			c.shows(tc.title)
			before := c.entries()
			c.keeps(name + "-1-asleep")
			a.is(api.StagePulling)
			c.shows(tc.stages[0])
			c.keeps(name + "-2-pulling")
			a.set(func(s *route.Service) { s.Progress.Starts = []api.Duration{api.Duration(12 * time.Second)} })
			c.shows(tc.stages[1])
			c.do("loading it anew", chromedp.Reload())
			c.shows(tc.stages[1])
			c.keeps(name + "-3-estimate")
			background := get(c, "looking at it", chromedp.Evaluate[string](`getComputedStyle(document.body).backgroundColor`))
			outside := get(c, "looking behind it", chromedp.Evaluate[string](
				`performance.getEntriesByType("resource").map(e => e.name).filter(n => n != location.href.split("#")[0]).join()`))
			if background != tc.background || outside != "" {
				t.Errorf("the background is %s; the page has loaded %q", background, outside)
			}
			a.isReady()
			c.do("seeing the app", chromedp.WaitVisible(chromedp.CSS("#there")))
			after := c.entries()
			if len(after) != len(before) || after[len(after)-1] != a.url(tc.host)+"#panel" {
				t.Errorf("the history is %q, was %q", after, before)
			}
			a.visited()
			c.do("leaving", chromedp.Navigate("about:blank"))
			a.pending(0)
		})
	}
}

// A proxy in front of the interceptor, such as an ingress controller, changes nothing.
func TestPageBehindAProxy(t *testing.T) {
	a := newApp(t)
	to := &url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", a.service.Routes.Ports[0].Listen)}
	front := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.SetXForwarded()
		r.Out.Host = r.In.Host
	}})
	t.Cleanup(front.Close)
	c := newTab(t, newBrowser(t))
	c.do("opening it", chromedp.Navigate(front.URL+"/d/sales?from=now-6h"))
	c.shows("grafana is starting")
	a.is(api.StageStarting)
	c.shows("Starting the app")
	a.isReady()
	c.do("seeing the app", chromedp.WaitVisible(chromedp.CSS("#there")))
	a.visited()
}

// Without JavaScript the page reloads itself again and again.
func TestPageWithoutScripts(t *testing.T) {
	a := newApp(t)
	c := newTab(t, newBrowser(t), append(looks("en", "light", 390, 844), command(emulation.SetScriptExecutionDisabled,
		emulation.SetScriptExecutionDisabledParams{Value: true}))...)
	c.do("opening it", chromedp.Navigate(a.url("127.0.0.1")))
	c.shows("Waking it up")
	a.is(api.StageStarting)
	c.shows("Starting the app")
	c.keeps("without-scripts")
	a.isReady()
	c.do("seeing the app", chromedp.WaitVisible(chromedp.CSS("#there")))
	a.visited()
}

// The page of a failed start tells what kind of failure it is, without the names in it, and opens the app once it no longer fails.
func TestPageOfAFailure(t *testing.T) {
	a := newApp(t)
	browser := newBrowser(t)
	tabs := map[string]*tab{
		"light-390": newTab(t, browser, looks("ko", "light", 390, 844)...),
		"dark-1280": newTab(t, browser, looks("en", "dark", 1280, 800)...),
	}
	kinds := map[string]string{"light-390": "앱의 이미지를 내려받을 수 없습니다.", "dark-1280": "its image cannot be pulled"}
	const why = "its image registry.example.com/grafana:12.9 cannot be pulled: not found"
	for _, c := range tabs {
		c.do("opening it", chromedp.Navigate(a.url("127.0.0.1")))
	}
	a.set(func(s *route.Service) { s.Progress.Failing, s.Progress.Reason = why, "ImagePullBackOff" })
	for name, c := range tabs {
		c.shows(kinds[name])
		c.keeps("failing-" + name)
	}
	a.is(api.StageNotReady)
	for _, c := range tabs {
		c.do("recovering", chromedp.WaitNotPresent(chromedp.CSS("html[data-failing]")))
	}
	a.isReady()
	for _, c := range tabs {
		c.do("seeing the app", chromedp.WaitVisible(chromedp.CSS("#there")))
	}
}

// An open page counts as a visitor, and a closed one does not.
func TestClosedPage(t *testing.T) {
	a := newApp(t)
	c := newTab(t, newBrowser(t))
	c.do("opening it", chromedp.Navigate(a.url("127.0.0.1")))
	c.shows("Waking it up")
	a.pending(1)
	c.close()
	a.pending(0)
}
