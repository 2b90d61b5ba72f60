// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package ready

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// portOf returns the port of a server on loopback.
func portOf(t *testing.T, addr string) int32 {
	t.Helper()
	_, text, err := net.SplitHostPort(strings.TrimPrefix(strings.TrimPrefix(addr, "https://"), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return int32(n)
}

func probe(port int32) api.Probe {
	return api.Probe{Port: port, Timeout: api.Duration(time.Second), Successes: 1}
}

// TestGET tests the kubelet's rules.
func TestGET(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("a redirect out of the pod was followed")
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer elsewhere.Close()
	mux := http.NewServeMux()
	for _, status := range []int{200, 204, 302, 399, 400, 404, 503} {
		mux.HandleFunc(fmt.Sprintf("/%d", status), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
	}
	mux.Handle("/to200", http.RedirectHandler("/200", http.StatusFound))
	mux.Handle("/to503", http.RedirectHandler("/503", http.StatusFound))
	mux.Handle("/round", http.RedirectHandler("/round", http.StatusFound))
	mux.Handle("/away", http.RedirectHandler(strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1), http.StatusFound))
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("short"))
	})
	mux.HandleFunc("/query", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("full") != "a b" {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	mux.HandleFunc("/fields", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "app.example" || r.Header.Get("X-Probe") != "1" || r.UserAgent() != UserAgent || r.Header.Get("Accept") != "*/*" {
			t.Errorf("host %q, fields %v", r.Host, r.Header)
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	mux.HandleFunc("/agent", func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() != "own/1" {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	plain, secure := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	defer plain.Close()
	defer secure.Close()
	fields := []api.Header{{Name: "host", Value: "app.example"}, {Name: "x-probe", Value: "1"}}
	for name, tc := range map[string]struct {
		get  api.HTTPProbe
		want bool
	}{
		"200": {api.HTTPProbe{Path: "/200"}, true}, "204": {api.HTTPProbe{Path: "/204"}, true},
		"302": {api.HTTPProbe{Path: "/302"}, true}, // without Location
		"399": {api.HTTPProbe{Path: "/399"}, true}, "400": {api.HTTPProbe{Path: "/400"}, false},
		"404": {api.HTTPProbe{Path: "/404"}, false}, "503": {api.HTTPProbe{Path: "/503"}, false},
		"a redirect to 200":     {api.HTTPProbe{Path: "/to200"}, true},
		"a redirect to 503":     {api.HTTPProbe{Path: "/to503"}, false},
		"a redirect in a round": {api.HTTPProbe{Path: "/round"}, true},
		"a redirect away":       {api.HTTPProbe{Path: "/away"}, true},
		"a long answer":         {api.HTTPProbe{Path: "/long"}, true},
		"an answer cut short":   {api.HTTPProbe{Path: "/cut"}, false},
		"a query":               {api.HTTPProbe{Path: "/query?full=a+b"}, true},
		"header fields":         {api.HTTPProbe{Path: "/fields", Headers: fields}, true},
		"its own User-Agent":    {api.HTTPProbe{Path: "/agent", Headers: []api.Header{{Name: "user-agent", Value: "own/1"}}}, true},
		"HTTPS, unverified":     {api.HTTPProbe{HTTPS: true, Path: "/200"}, true},
		"HTTPS, 503":            {api.HTTPProbe{HTTPS: true, Path: "/503"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := probe(portOf(t, plain.URL))
			if p.HTTP = &tc.get; tc.get.HTTPS {
				p.Port = portOf(t, secure.URL)
			}
			if err := newClient().run(t.Context(), "127.0.0.1", &p); (err == nil) != tc.want {
				t.Errorf("got %v, want success %v", err, tc.want)
			}
		})
	}
}

func TestTCPSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := probe(portOf(t, l.Addr().String()))
	if err := newClient().run(t.Context(), "127.0.0.1", &p); err != nil {
		t.Errorf("got %v from a server that listens", err)
	}
	_ = l.Close()
	if err := newClient().run(t.Context(), "127.0.0.1", &p); err == nil {
		t.Error("a server that does not listen succeeds")
	}
}

func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, states := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(server, states)
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	states.SetServingStatus("db", healthpb.HealthCheckResponse_NOT_SERVING)
	for service, want := range map[string]bool{"": true, "db": false, "unknown": false} {
		p := probe(portOf(t, l.Addr().String()))
		p.GRPC = &api.GRPCProbe{Service: service}
		if err := newClient().run(t.Context(), "127.0.0.1", &p); (err == nil) != want {
			t.Errorf("service %q: got %v, want success %v", service, err, want)
		}
	}
}

// TestTimeout tests that a probe respects its timeout, and that a slow probe can be distinguished from a failed one.
func TestTimeout(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer silent.Close()
	p := probe(portOf(t, silent.URL))
	p.HTTP, p.Timeout = &api.HTTPProbe{Path: "/"}, api.Duration(50*time.Millisecond)
	if err := newClient().run(t.Context(), "127.0.0.1", &p); !slow(err) {
		t.Errorf("got %v, want a time-out", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newClient().run(ctx, "127.0.0.1", &p); err == nil || slow(err) {
		t.Errorf("got %v from a probe that was ended", err)
	}
}
