// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// ledger counts the requests that must not come twice. The apps' pods come and go, and report these requests here.
type ledger struct {
	server *http.Server
	url    string

	mu    sync.Mutex // protects all below
	times map[string]int
	twice int
}

// newLedger serves a ledger on this machine's or pod's address from which near can be reached.
func newLedger(ctx context.Context, near string) (*ledger, error) {
	probe, err := new(net.Dialer).DialContext(ctx, "udp", near) // UDP: sends nothing
	if err != nil {
		return nil, fmt.Errorf("finding an address for the ledger: %w", err)
	}
	host, _, err := net.SplitHostPort(probe.LocalAddr().String())
	_ = probe.Close()
	if err != nil {
		return nil, fmt.Errorf("finding an address for the ledger: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("serving the ledger: %w", err)
	}
	l := &ledger{url: "http://" + listener.Addr().String(), times: map[string]int{}}
	l.server = &http.Server{Handler: l, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = l.server.Serve(listener) }() // until close
	return l, nil
}

// ServeHTTP implements http.Handler.
func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := r.URL.Path[1:]
	if l.times[id]++; l.times[id] > 1 {
		l.twice++
		w.WriteHeader(http.StatusConflict)
	}
}

// came returns how often a request has come.
func (l *ledger) came(id string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.times[id]
}

// repeated returns how many requests have come more than once.
func (l *ledger) repeated() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.twice
}

func (l *ledger) close() { _ = l.server.Close() }
