// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"strings"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const (
	chrome  = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
	firefox = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:142.0) Gecko/20100101 Firefox/142.0"
	safari  = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, " +
		"like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
)

// ignoring returns the route of a Service with these settings about ignored requests.
func ignoring(change func(*api.Routes)) *Route {
	f := newFixture(0)
	s := web()
	if change != nil {
		change(&s.Routes)
	}
	f.SetService(s)
	return f.route(10000)
}

func TestIgnoresAgents(t *testing.T) {
	own := func(r *api.Routes) { r.IgnoreAgents = []string{"Acme-Monitor", "*acmebot/"} }
	counting := func(r *api.Routes) { r.CountKnownAgents = true }
	for agent, tc := range map[string]struct {
		change func(*api.Routes)
		want   bool
	}{
		"kube-probe/1.34":                            {nil, true},
		"kube-probe/1.34 grpc-go/1.72.0":             {nil, true},
		"KUBE-PROBE/1.34":                            {nil, true},
		"GoogleHC/1.0":                               {nil, true},
		"ELB-HealthChecker/2.0":                      {nil, true},
		"Edge Health Probe":                          {nil, true},
		"Consul Health Check":                        {nil, true},
		"Prometheus/3.5.0":                           {nil, true},
		"Blackbox Exporter/0.27.0":                   {nil, true},
		"vm_promscrape":                              {nil, true},
		"Uptime-Kuma/2.0.0":                          {nil, true},
		"check_http/v2.4.12 (nagios-plugins 2.4.12)": {nil, true},
		"Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)":                                                 {nil, true},
		"Mozilla/5.0 (compatible; Pingdom.com_bot_version_1.4_(http://www.pingdom.com/))":                       {nil, true},
		"Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)":                                {nil, true},
		"UptimeRobot/2.0; http://uptimerobot.com/":                                                              {nil, true},
		"Mozilla/5.0 (compatible;Cloudflare-Healthchecks/1.0;+https://www.cloudflare.com/; healthcheck-id: f8)": {nil, true},
		"Better Stack Better Uptime Bot " + chrome:                                                              {nil, true},
		chrome + " DatadogSynthetics":                                                                           {nil, true},
		"Site24x7":                                                                                              {nil, true},

		"":                     {nil, false},
		chrome:                 {nil, false},
		firefox:                {nil, false},
		safari:                 {nil, false},
		"curl/8.5.0":           {nil, false},
		"Go-http-client/1.1":   {nil, false},
		"kube-probe":           {nil, false},
		"my kube-probe/1":      {nil, false}, // only the beginning counts
		"MyUptimeRobot/2.0":    {nil, false}, // not a word of its own
		"a (http://x/Site24x7": {nil, false}, // within an address
		"Prometheus-Apache":    {nil, false},

		"acme-monitor/7 (eu)":       {own, true},
		"the Acme-Monitor":          {own, false},
		"Mozilla/5.0 (AcmeBot/1.0)": {own, true},
		"AcmeBot/1.0":               {own, true},
		"GoogleHC/2":                {own, true}, // the annotation adds to the known agents
		"GoogleHC/3":                {counting, false},
		"UptimeRobot/3":             {counting, false},
		"Acme-Monitor/8":            {func(r *api.Routes) { own(r); counting(r) }, true},
	} {
		r := ignoring(tc.change)
		if got := r.Ignores([]byte("GET"), []byte("/"), []byte(agent)); got != tc.want {
			t.Errorf("%q: got %t", agent, got)
		}
		if r.Ignores([]byte("PUT"), []byte("/"), []byte(agent)) {
			t.Errorf("%q is ignored even when it writes", agent)
		}
	}
}

// Scrapers may write too, and what they write must reach the app.
func TestIgnoresOnlyAgentsThatLook(t *testing.T) {
	r := ignoring(nil)
	for request, want := range map[string]bool{
		"GET /": true, "HEAD /metrics": true, "POST /grpc.health.v1.Health/Check": true,
		"POST /api/v1/write": false, "POST /grpc.health.v1.Health/Watch": false, "DELETE /": false, "get /": false, "OPTIONS *": false,
	} {
		method, target, _ := strings.Cut(request, " ")
		if got := r.Ignores([]byte(method), []byte(target), []byte("Prometheus/3.5.0")); got != want {
			t.Errorf("%s: got %t", request, got)
		}
	}
}

func TestIgnoresPaths(t *testing.T) {
	r := ignoring(func(r *api.Routes) { r.IgnorePaths = []string{"/healthz", "/static/*", "/v1*"} })
	for target, want := range map[string]bool{
		"/healthz": true, "/healthz?full=1": true, "/static/": true, "/static/a/b.js?v=1": true, "/v1": true, "/v1beta": true,
		"http://h/healthz": true, "https://h:80/static/x": true, "http://h/healthz?x=//": true,
		"/": false, "/healthz/": false, "/Healthz": false, "/static": false, "/x?/healthz": false, "/%68ealthz": false, "/a/healthz": false,
		"*": false, "http://h": false, "http://h?/healthz": false, "http://healthz/": false, "//healthz": false,
	} {
		for _, method := range []string{"GET", "POST"} {
			if got := r.Ignores([]byte(method), []byte(target), []byte(chrome)); got != want {
				t.Errorf("%s %s: got %t", method, target, got)
			}
		}
	}
}

// A snapshot with the same ignored requests does not compile them again. A snapshot with other ones does.
func TestIgnoredIsCompiledOnce(t *testing.T) {
	f := newFixture(0)
	s := web()
	s.Routes.IgnorePaths = []string{"/healthz"}
	f.SetService(s)
	r := f.route(10000)
	before := r.snap.Load()
	s.Routes.IgnorePaths = []string{"/healthz"}
	s.SleepID = "other"
	f.SetService(s)
	if now := r.snap.Load(); now == before || now.ignored != before.ignored {
		t.Error("it was compiled anew, or nothing was published")
	}
	for name, change := range map[string]func(*api.Routes){
		"paths":  func(r *api.Routes) { r.IgnorePaths = []string{"/livez"} },
		"agents": func(r *api.Routes) { r.IgnoreAgents = []string{"Acme"} },
		"known":  func(r *api.Routes) { r.CountKnownAgents = true },
	} {
		before := r.snap.Load()
		change(&s.Routes)
		f.SetService(s)
		if now := r.snap.Load(); now.ignored == before.ignored {
			t.Errorf("other %s were not published", name)
		}
	}
}

// The built-in entries must have the format that users have to use.
func TestKnownAgents(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range knownAgents() {
		if !api.IsIgnoreAgent(a) || seen[strings.ToLower(a)] {
			t.Errorf("%q is no agent, or there twice", a)
		}
		seen[strings.ToLower(a)] = true
	}
}

func TestIgnoringAllocatesNothing(t *testing.T) {
	r := ignoring(func(r *api.Routes) { r.IgnorePaths = []string{"/healthz", "/static/*"} })
	method, target := []byte("GET"), []byte("/assets/app.js?v=12")
	for _, agent := range []string{chrome, "kube-probe/1.34", ""} {
		b := []byte(agent)
		if n := testing.AllocsPerRun(100, func() { r.Ignores(method, target, b) }); n != 0 {
			t.Errorf("%q: %v allocations", agent, n)
		}
	}
}

func BenchmarkIgnores(b *testing.B) {
	paths := func(r *api.Routes) { r.IgnorePaths = []string{"/healthz", "/static/*"} }
	for name, tc := range map[string]struct {
		change func(*api.Routes)
		agent  string
	}{
		"browser": {nil, chrome}, "phone": {nil, safari}, "curl": {nil, "curl/8.5.0"}, "probe": {nil, "kube-probe/1.34"},
		"browser, paths": {paths, chrome}, "nobody": {nil, ""},
	} {
		b.Run(name, func(b *testing.B) {
			r := ignoring(tc.change)
			method, target, agent := []byte("GET"), []byte("/assets/app.js?v=12"), []byte(tc.agent)
			b.ReportAllocs()
			for b.Loop() {
				r.Ignores(method, target, agent)
			}
		})
	}
}
