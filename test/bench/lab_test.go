// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestConfigure(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		nginx:   {nginxConf, []string{"worker_processes 3;", "listen 127.0.0.1:1 ", "server 127.0.0.1:3;"}},
		haproxy: {haproxyConf, []string{"nbthread 3\n", "bind 127.0.0.1:1\n", "bind 127.0.0.1:2\n", "server app 127.0.0.1:3\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := &lab{app: "127.0.0.1:3", options: options{cores: 3}}
			if err := l.configure(&server{http: "127.0.0.1:1", tcp: "127.0.0.1:2"}, dir, "conf", tc.text); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(dir, "conf"))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tc.want {
				if !strings.Contains(string(got), want) {
					t.Errorf("%q is missing in\n%s", want, got)
				}
			}
			if strings.Contains(string(got), "<no value>") {
				t.Errorf("something has no value in\n%s", got)
			}
		})
	}
}

// TestRoles runs the proxies that are part of this program.
func TestRoles(t *testing.T) {
	backend := app(t)
	ports, err := freePorts(6)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		role func(context.Context, []string) error
		args []string
		at   []string
	}{
		"interceptor": {serveInterceptor, []string{
			"-http", ports[0], "-tcp", ports[1], "-grpc", ports[2], "-health", ports[3], "-profile", ports[4],
		}, ports[:2]},
		"reverseproxy": {serveReverseProxy, []string{"-listen", ports[5]}, ports[5:]},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- tc.role(ctx, append(tc.args, "-app", backend)) }()
			p := &process{name: name, ended: make(chan struct{})}
			for _, addr := range tc.at {
				if err := p.await(ctx, func() error { return check(ctx, addr) }); err != nil {
					t.Error(err)
				}
			}
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(20 * time.Second):
				t.Error("it did not stop")
			}
		})
	}
}

func TestFreePorts(t *testing.T) {
	ports, err := freePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range ports {
		seen[p] = true
	}
	if len(seen) != 20 {
		t.Errorf("%d of 20 differ", len(seen))
	}
}
