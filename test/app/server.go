// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

//go:embed page.html
var pageSource string

// drain is how long requests in flight may take to end after SIGTERM.
const drain = 30 * time.Second

type server struct {
	name     string
	page     *template.Template
	started  time.Time
	requests atomic.Int64
	ledger   string // URL of the ledger for requests of /once/, or empty
	next     string // the next app of a chain, as in callNext, or empty
	exit     func(code int)
	busy     atomic.Int64
	// readyAt is when it begins to be ready. Where early is set, requests before its first good word get an error.
	readyAt time.Time
	early   atomic.Bool
}

func newServer(name string) (*server, error) {
	page, err := template.New("page").Parse(pageSource)
	if err != nil {
		return nil, fmt.Errorf("parsing the page: %w", err)
	}
	return &server{name: name, page: page, started: time.Now(), exit: os.Exit}, nil
}

// serve starts after the configured delay, and ends when ctx and all requests have ended.
func serve(ctx context.Context, env func(string) string, stderr io.Writer) error {
	delay, err := time.ParseDuration(cmp.Or(env("START_DELAY"), "0s"))
	if err != nil {
		return fmt.Errorf("reading START_DELAY: %w", err)
	}
	name := env("NAME")
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return fmt.Errorf("reading the host name: %w", err)
		}
	}
	fmt.Fprintf(stderr, "app: starting, which takes %s\n", delay)
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(delay):
	}
	work, err := time.ParseDuration(cmp.Or(env("START_CPU"), "0s"))
	if err != nil {
		return fmt.Errorf("reading START_CPU: %w", err)
	}
	burn(ctx, work)
	s, err := newServer(name)
	if err != nil {
		return err
	}
	s.ledger, s.next = env("LEDGER"), env("CALLS")
	if value := env("READY_DELAY"); value != "" {
		delay, err := time.ParseDuration(value)
		if err != nil {
			return fmt.Errorf("reading READY_DELAY: %w", err)
		}
		s.readyAt = time.Now().Add(delay)
		s.early.Store(true)
	}
	crashes, err := crashesNow(env)
	if err = errors.Join(err, s.work(ctx, env)); err != nil {
		return err
	}
	if crashes {
		defer time.AfterFunc(time.Until(s.readyAt)/2, func() { s.exit(1) }).Stop()
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+cmp.Or(env("PORT"), "8080"))
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	if port := env("TCP_PORT"); port != "" {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+port)
		if err != nil {
			return fmt.Errorf("listening: %w", err)
		}
		go func() {
			if err := s.speakTCP(ctx, l); err != nil {
				fmt.Fprintf(stderr, "app: %s\n", err)
			}
		}()
	}
	fmt.Fprintf(stderr, "app: %s serves on %s\n", name, listener.Addr())
	return s.run(ctx, listener)
}

func (s *server) run(ctx context.Context, listener net.Listener) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	h := &http.Server{
		Handler: s.handler(), Protocols: protocols, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		// It ends WebSockets and streams; other requests do not use it.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := h.Shutdown(ending); err != nil {
		return fmt.Errorf("letting requests end: %w", err)
	}
	return nil
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", s.home)
	mux.HandleFunc("/healthz", s.health)
	mux.HandleFunc("/echo", s.echo)
	mux.HandleFunc("/upload", s.echo)
	mux.HandleFunc("/once/{id}", s.echo)
	mux.HandleFunc("/status/{code}", s.status)
	mux.HandleFunc("/slow", s.slow)
	mux.HandleFunc("/burn", s.burn)
	mux.HandleFunc("/chain", s.chain)
	mux.HandleFunc("GET /computer/api/json", s.executors)
	mux.HandleFunc("POST /computer/busy/{n}", s.setExecutors)
	mux.HandleFunc("/sse", s.events)
	mux.HandleFunc("/ws", s.socket)
	mux.HandleFunc("/download", s.download)
	mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { s.exit(1) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-App", s.name)
		if r.URL.Path != "/healthz" {
			s.requests.Add(1)
			if s.early.Load() {
				http.Error(w, "this request came before the app had said that it is ready", http.StatusTooEarly)
				return
			}
		}
		mux.ServeHTTP(w, r)
	})
}

// health is what probes ask.
func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	if time.Now().Before(s.readyAt) {
		http.Error(w, "not ready yet", http.StatusServiceUnavailable)
		return
	}
	s.early.Store(false)
	_, _ = io.WriteString(w, "ok\n")
}

func (s *server) home(w http.ResponseWriter, r *http.Request) {
	view := struct {
		Name     string
		Uptime   time.Duration
		Requests int64
	}{s.name, time.Since(s.started).Round(time.Second), s.requests.Load()}
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		_, _ = fmt.Fprintf(w, "%s, up for %s, request %d\n", view.Name, view.Uptime, view.Requests)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = s.page.Execute(w, view) // the visitor has gone
}

// echoed is what reached the app.
type echoed struct {
	App    string      `json:"app"`
	Method string      `json:"method"`
	Proto  string      `json:"proto"`
	Host   string      `json:"host"`
	Path   string      `json:"path"`
	Query  url.Values  `json:"query"`
	Header http.Header `json:"headers"`
	Bytes  int64       `json:"bodyBytes"`
	SHA256 string      `json:"bodySha256"`
	Remote string      `json:"remoteAddress"`
}

func (s *server) echo(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		http.Error(w, "reading the body: "+err.Error(), http.StatusBadRequest)
		return
	}
	if id := r.PathValue("id"); id != "" {
		if err := s.note(context.WithoutCancel(r.Context()), id); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(echoed{
		App: s.name, Method: r.Method, Proto: r.Proto, Host: r.Host, Path: r.URL.EscapedPath(), Query: r.URL.Query(),
		Header: r.Header, Bytes: n, SHA256: hex.EncodeToString(sum.Sum(nil)), Remote: r.RemoteAddr,
	})
}

// note reports a request that must not come twice to the ledger, which outlives the pods. The ledger refuses a request
// that it knows already.
func (s *server) note(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, drain)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.ledger+"/"+url.PathEscape(id), nil)
	if err != nil {
		return fmt.Errorf("noting %s: %w", id, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("noting %s: %w", id, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("noting %s: the ledger answers %s", id, response.Status)
	}
	return nil
}

func (s *server) status(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(r.PathValue("code"))
	if err != nil || code < 200 || code > 599 {
		http.Error(w, "want a status from 200 to 599", http.StatusBadRequest)
		return
	}
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, code, http.StatusText(code)) // some have no body
}

// durationOf reads for=DURATION. If it is none, it answers and returns false.
func durationOf(w http.ResponseWriter, r *http.Request) (time.Duration, bool) {
	d, err := time.ParseDuration(cmp.Or(r.FormValue("for"), "1s"))
	if err != nil || d < 0 {
		http.Error(w, "want for=DURATION, as in for=2s", http.StatusBadRequest)
		return 0, false
	}
	return d, true
}

// burn uses a CPU for a while.
func (s *server) burn(w http.ResponseWriter, r *http.Request) {
	d, ok := durationOf(w, r)
	if !ok {
		return
	}
	began := time.Now()
	spin(func() bool { return time.Since(began) < d })
	_, _ = fmt.Fprintf(w, "%s worked for %s\n", s.name, d)
}

func (s *server) slow(w http.ResponseWriter, r *http.Request) {
	pause, ok := durationOf(w, r)
	if !ok {
		return
	}
	// Not the request's context: SIGTERM ends that, and a request in flight must be answered.
	time.Sleep(pause) //nolint:forbidigo // it is what was asked for
	_, _ = fmt.Fprintf(w, "%s took %s\n", s.name, pause)
}

func (s *server) events(w http.ResponseWriter, r *http.Request) {
	n, err := number(r, "n", 10)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	stream := http.NewResponseController(w)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := range n {
		if _, err := fmt.Fprintf(w, "id: %d\ndata: %s\n\n", i, s.name); err != nil || stream.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

func (s *server) socket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // any origin: it only echoes
	if err != nil {
		return // Accept has answered already
	}
	defer func() { _ = c.CloseNow() }()
	for {
		kind, message, err := c.Read(r.Context())
		if errors.Is(err, context.Canceled) {
			_ = c.Close(websocket.StatusGoingAway, "shutting down")
		}
		if err != nil || c.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}

func (s *server) download(w http.ResponseWriter, r *http.Request) {
	n, err := number(r, "bytes", 1<<20)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	_, _ = io.CopyN(w, &pattern{}, n)
}

// pattern reads the alphabet over and over, so that each byte can be checked by its offset.
type pattern struct{ next int }

func (a *pattern) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a' + byte((a.next+i)%26)
	}
	a.next = (a.next + len(p)) % 26
	return len(p), nil
}

func number(r *http.Request, key string, otherwise int64) (int64, error) {
	value := r.FormValue(key)
	if value == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("want %s=NUMBER, not negative", key)
	}
	return n, nil
}
