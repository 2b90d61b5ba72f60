// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// work begins the work that is not a request: builds, as Jenkins reports them, and work that only its CPU usage shows.
func (s *server) work(ctx context.Context, env func(string) string) error {
	n, err := strconv.ParseInt(cmp.Or(env("BUSY"), "0"), 10, 64)
	if err != nil || n < 0 {
		return fmt.Errorf("reading BUSY: want a number of executors, not %q", env("BUSY"))
	}
	s.busy.Store(n)
	burning, err := time.ParseDuration(cmp.Or(env("RUN_CPU"), "0s"))
	if err != nil {
		return fmt.Errorf("reading RUN_CPU: %w", err)
	}
	if burning > 0 {
		end := time.Now().Add(burning)
		go spin(func() bool { return ctx.Err() == nil && time.Now().Before(end) })
	}
	return nil
}

// executors is what Jenkins says about its builds.
func (s *server) executors(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"_class":"hudson.model.ComputerSet","busyExecutors":%d,"totalExecutors":2}`+"\n", s.busy.Load())
}

func (s *server) setExecutors(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
	if err != nil || n < 0 {
		http.Error(w, "want a number of executors", http.StatusBadRequest)
		return
	}
	s.busy.Store(n)
	_, _ = fmt.Fprintln(w, n)
}
