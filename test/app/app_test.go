// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

func newTestServer(t *testing.T) (*server, *httptest.Server) {
	t.Helper()
	s, err := newServer("web-1")
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s.handler())
	t.Cleanup(h.Close)
	return s, h
}

// app runs a command and returns its lines of output.
func app(t *testing.T, wantCode int, args ...string) []answer {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), args, func(string) string { return "" }, &stdout, &stderr); code != wantCode {
		t.Fatalf("app %v: exit code %d, want %d\n%s%s", args, code, wantCode, &stdout, &stderr)
	}
	var answers []answer
	for line := range strings.Lines(stdout.String()) {
		var a answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		answers = append(answers, a)
	}
	return answers
}

func TestHome(t *testing.T) {
	_, h := newTestServer(t)
	if a := app(t, 0, "get", h.URL)[0]; a.Status != http.StatusOK || a.Body != "web-1, up for 0s, request 1\n" {
		t.Errorf("without Accept: %+v", a)
	}
	a := app(t, 0, "get", "-H", "Accept: text/html", h.URL)[0]
	if !strings.Contains(a.Body, "<title>web-1 is awake</title>") {
		t.Errorf("to a browser: %+v", a)
	}
}

func TestEcho(t *testing.T) {
	_, h := newTestServer(t)
	for _, path := range []string{"/echo", "/upload"} {
		a := app(t, 0, "get", "-d", "hello", "-H", "Host: airflow.example.com", "-H", "X-A: 1", "-H", "X-A: 2", h.URL+path+"?q=1&q=2")[0]
		var got echoed
		if err := json.Unmarshal([]byte(a.Body), &got); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte("hello"))
		if got.Method != "POST" || got.Host != "airflow.example.com" || got.Path != path || got.Bytes != 5 ||
			got.SHA256 != hex.EncodeToString(sum[:]) || len(got.Query["q"]) != 2 || len(got.Header["X-A"]) != 2 || got.App != "web-1" {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

// The URL names an ingress' host, which no name server knows.
func TestOnce(t *testing.T) {
	s, h := newTestServer(t)
	seen := map[string]int{}
	ledger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if seen[r.URL.Path]++; seen[r.URL.Path] > 1 {
			w.WriteHeader(http.StatusConflict)
		}
	}))
	defer ledger.Close()
	s.ledger = ledger.URL
	for _, tc := range []struct {
		id   string
		want int
	}{{"1", http.StatusOK}, {"2", http.StatusOK}, {"1", http.StatusConflict}} {
		if a := app(t, 0, "get", "-d", "x", h.URL+"/once/"+tc.id)[0]; a.Status != tc.want {
			t.Errorf("%s: %+v, want %d", tc.id, a, tc.want)
		}
	}
}

func TestConnectElsewhere(t *testing.T) {
	s, err := newServer("web-1")
	if err != nil {
		t.Fatal(err)
	}
	var serverName string
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serverName = r.TLS.ServerName
		s.handler().ServeHTTP(w, r)
	}))
	h.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes fail on purpose
	h.EnableHTTP2 = true
	h.StartTLS()
	t.Cleanup(h.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw}))
	flags := []string{"get", "-connect", h.Listener.Addr().String(), "-timeout", "5s"}
	a := app(t, 0, append(flags, "-ca", ca, "https://www.example.com/echo")...)[0]
	var got echoed
	if err := json.Unmarshal([]byte(a.Body), &got); err != nil {
		t.Fatalf("%+v: %v", a, err)
	}
	if serverName != "www.example.com" || got.Host != "www.example.com" || got.Proto != "HTTP/2.0" {
		t.Errorf("server name %q, host %q, protocol %s", serverName, got.Host, got.Proto)
	}
	for name, args := range map[string][]string{
		"a certificate of nobody we know": {"https://www.example.com/"},
		"a certificate for another name":  {"-ca", ca, "https://airflow.example.org/"},
	} {
		if a := app(t, 1, append(flags, args...)...)[0]; !strings.Contains(a.Error, "certificate") {
			t.Errorf("%s: %+v", name, a)
		}
	}
	app(t, 1, append(flags, "-ca", "none", "https://www.example.com/")...)
}

func TestStatus(t *testing.T) {
	_, h := newTestServer(t)
	for path, want := range map[string]int{
		"/status/204": 204, "/status/503": 503, "/status/302": 302, "/status/1": 400, "/status/x": 400, "/nowhere": 404,
		"/slow?for=x": 400, "/burn?for=-1s": 400, "/burn?for=1ms": 200, "/sse?n=-1": 400, "/download?bytes=x": 400, "/healthz": 200,
	} {
		if a := app(t, 0, "get", h.URL+path)[0]; a.Status != want {
			t.Errorf("%s: %+v, want %d", path, a, want)
		}
	}
}

func TestHealthDoesNotCount(t *testing.T) {
	s, h := newTestServer(t)
	app(t, 0, "get", h.URL+"/healthz")
	if n := s.requests.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// TestTooEarly: an app that has not said yet that it is ready refuses requests.
func TestTooEarly(t *testing.T) {
	s, h := newTestServer(t)
	s.early.Store(true)
	s.readyAt = time.Now().Add(time.Hour)
	want := func(path string, status int) {
		t.Helper()
		if a := app(t, 0, "get", h.URL+path)[0]; a.Status != status {
			t.Errorf("%s: got %d, want %d", path, a.Status, status)
		}
	}
	want("/echo", http.StatusTooEarly)
	want("/healthz", http.StatusServiceUnavailable)
	want("/echo", http.StatusTooEarly)
	s.readyAt = time.Now()
	want("/healthz", http.StatusOK)
	want("/echo", http.StatusOK)
}

func TestDownload(t *testing.T) {
	_, h := newTestServer(t)
	a := app(t, 0, "get", h.URL+"/download?bytes=100000")[0]
	if a.Bytes != 100000 || len(a.Body) != shown || len(a.SHA256) != 64 || a.FirstByteMs <= 0 || a.Ms < a.FirstByteMs {
		t.Errorf("%+v", a)
	}
}

func TestEventsArriveOneByOne(t *testing.T) {
	_, h := newTestServer(t)
	a := app(t, 0, "get", h.URL+"/sse?n=3")[0]
	if strings.Count(a.Body, "data: web-1\n\n") != 3 || a.Ms-a.FirstByteMs < 150 {
		t.Errorf("%+v", a)
	}
}

func TestWebSocketEchoes(t *testing.T) {
	_, h := newTestServer(t)
	c, response, err := websocket.Dial(t.Context(), h.URL+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.Body != nil {
		defer func() { _ = response.Body.Close() }()
	}
	for _, message := range []string{"one", "two"} {
		if err := c.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(t.Context()); err != nil || string(got) != message {
			t.Errorf("%q, %v", got, err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
}

func TestCrash(t *testing.T) {
	s, h := newTestServer(t)
	code := make(chan int, 1)
	s.exit = func(c int) { code <- c }
	app(t, 0, "get", h.URL+"/crash")
	if got := <-code; got != 1 {
		t.Errorf("exit code %d", got)
	}
}

func TestManyRequests(t *testing.T) {
	s, h := newTestServer(t)
	if got := app(t, 0, "get", "-n", "20", "-c", "4", h.URL); len(got) != 20 || s.requests.Load() != 20 {
		t.Errorf("%d answers to %d requests", len(got), s.requests.Load())
	}
}

func TestTransportFailure(t *testing.T) {
	_, h := newTestServer(t)
	h.Close()
	got := app(t, 1, "get", "-n", "2", "-timeout", "5s", h.URL)
	if len(got) != 2 || got[0].Error == "" || got[0].Status != 0 {
		t.Errorf("%+v", got)
	}
	_, h = newTestServer(t)
	if got := app(t, 1, "get", "-timeout", "10ms", h.URL+"/slow?for=200ms"); got[0].Error == "" {
		t.Errorf("%+v", got)
	}
}

func TestCommands(t *testing.T) {
	for _, args := range [][]string{{"fly"}, {"get"}, {"get", "-n", "0", "http://localhost"}, {"get", "-H", "x", "http://localhost"}} {
		app(t, 2, args...)
	}
	var out bytes.Buffer
	if run(t.Context(), []string{"version"}, nil, &out, io.Discard) != 0 || !strings.HasPrefix(out.String(), "go") {
		t.Errorf("version %q", &out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if run(ctx, []string{"sleep"}, nil, &out, io.Discard) != 0 {
		t.Error("sleep failed")
	}
}

func TestStartDelay(t *testing.T) {
	var stderr bytes.Buffer
	env := func(key string) string { return map[string]string{"START_DELAY": "soon"}[key] }
	if code := run(t.Context(), nil, env, io.Discard, &stderr); code != 1 || !strings.Contains(stderr.String(), "START_DELAY") {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		env := func(key string) string { return map[string]string{"START_DELAY": "1h", "NAME": "x"}[key] }
		if code := run(ctx, nil, env, io.Discard, io.Discard); code != 0 || time.Since(begin) != time.Minute {
			t.Errorf("told to stop while starting: exit code %d after %s", code, time.Since(begin))
		}
	})
}

// When the server is told to stop, it answers a request in flight. One that never ends is cut.
func TestDrain(t *testing.T) {
	s, err := newServer("web-1")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, listener) }()
	url := "http://127.0.0.1:" + strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	answers := make(chan answer, 2)
	client := &http.Client{}
	for _, path := range []string{"/slow?for=300ms", "/sse?n=100000"} {
		go func() {
			answers <- request(context.WithoutCancel(ctx), client, getOptions{method: "GET", url: url + path, header: header{}})
		}()
	}
	for deadline := time.Now().Add(5 * time.Second); s.requests.Load() < 2 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) //nolint:forbidigo // a goroutine that blocks on a socket gives no sign
	}
	stop()
	for range 2 {
		if a := <-answers; a.Error != "" || a.Status != http.StatusOK {
			t.Errorf("%+v", a)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
