// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"text/template"
	"time"
)

//go:embed nginx.conf
var nginxConf string

//go:embed haproxy.cfg
var haproxyConf string

// lab has the measured servers, and the backend behind them.
type lab struct {
	options options
	dir     string
	program string // path of this program
	backend *process
	app     string // the backend's address
	servers map[string]*server
	maximum float64 // the most requests a second that nginx answers, of which some loads send a part
}

// server is a running proxy.
type server struct {
	*process
	http, tcp string // addresses
	// profile and health are the addresses of profiles and of metrics, for our interceptor only.
	profile, health string
}

func newLab(ctx context.Context, o options) (*lab, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	l := &lab{options: o, dir: dir, program: program, servers: map[string]*server{}}
	if err := l.startBackend(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) startBackend(ctx context.Context) error {
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	l.app = ports[0]
	l.backend, err = startProcess(l.dir, "backend", spare(l.options.cores), l.program, "backend", "-listen", l.app)
	if err != nil {
		return err
	}
	return l.backend.await(ctx, func() error { return check(ctx, l.app) })
}

// spare is the environment that limits a Go process to the cores that the proxies leave. One core is enough for the
// backend and for each load; more threads would take time from the proxy only to look for work.
func spare(cores int) []string {
	return []string{"GOMAXPROCS=" + strconv.Itoa(max(1, runtime.NumCPU()-cores))}
}

// server returns the running proxy of that name, and starts it if needed.
func (l *lab) server(ctx context.Context, name string) (*server, error) {
	if s := l.servers[name]; s != nil {
		return s, nil
	}
	s, err := l.start(ctx, name)
	if err == nil {
		l.servers[name] = s
	}
	return s, err
}

// start starts a proxy that the caller has to stop.
func (l *lab) start(ctx context.Context, name string) (*server, error) {
	ports, err := freePorts(5)
	if err != nil {
		return nil, err
	}
	s := &server{http: ports[0], tcp: ports[1]}
	dir, err := os.MkdirTemp(l.dir, kindOf(name)+"-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	env := []string{"GOMAXPROCS=" + strconv.Itoa(l.options.cores)}
	var argv []string
	switch kindOf(name) {
	case nginx:
		argv = []string{"nginx", "-p", dir, "-e", "stderr", "-c", filepath.Join(dir, "nginx.conf")}
		err = l.configure(s, dir, "nginx.conf", nginxConf)
	case haproxy:
		argv = []string{"haproxy", "-db", "-f", filepath.Join(dir, "haproxy.cfg")}
		err = l.configure(s, dir, "haproxy.cfg", haproxyConf)
	case reverseProxy:
		argv = []string{l.program, reverseProxy, "-listen", s.http, "-app", l.app}
	default:
		s.profile, s.health = ports[2], ports[4]
		argv = []string{
			l.program, "interceptor", "-http", s.http, "-tcp", s.tcp, "-app", l.app,
			"-profile", s.profile, "-grpc", ports[3], "-health", s.health,
		}
	}
	if err != nil {
		return nil, err
	}
	if s.process, err = startProcess(dir, name, env, argv...); err != nil {
		return nil, err
	}
	addresses := []string{s.http, s.tcp}
	if kind := kindOf(name); kind == nginx || kind == reverseProxy {
		addresses = addresses[:1]
	}
	for _, addr := range addresses {
		if err := s.await(ctx, func() error { return check(ctx, addr) }); err != nil {
			s.stop()
			return nil, err
		}
	}
	return s, nil
}

func (l *lab) configure(s *server, dir, name, text string) error {
	t, err := template.New(name).Parse(text)
	if err != nil {
		return fmt.Errorf("configuring: %w", err)
	}
	var b bytes.Buffer
	err = t.Execute(&b, map[string]any{"Dir": dir, "Cores": l.options.cores, "HTTP": s.http, "TCP": s.tcp, "Backend": l.app})
	if err != nil {
		return fmt.Errorf("configuring: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o600)
}

// close stops everything that runs.
func (l *lab) close() {
	for _, s := range l.servers {
		s.stop()
	}
	if l.backend != nil {
		l.backend.stop()
	}
	_ = os.RemoveAll(l.dir)
}

// check returns an error unless the app answers at addr.
func check(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("asking %s: %w", addr, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("asking %s: %w", addr, err)
	}
	if resp.StatusCode != http.StatusOK || string(body) != smallBody() {
		return fmt.Errorf("asking %s: the answer is %s with %d bytes, not the app's", addr, resp.Status, len(body))
	}
	return nil
}

// freePorts returns n addresses on which nothing listens. It keeps all of them in use until it has the last, so that they
// differ.
func freePorts(n int) ([]string, error) {
	var addresses []string
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("finding a free port: %w", err)
		}
		defer listener.Close()
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses, nil
}
