// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

// profileLimit is how long a CPU profile may be.
const profileLimit = 30 * time.Second

// profile takes CPU profiles of the controller and an interceptor until the returned function is called, or for profileLimit.
func (m *measurement) profile(ctx context.Context, during string) (stop func()) {
	if m.options.profile == "" {
		return func() {}
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, profileLimit+10*time.Second)
	var group errgroup.Group
	for _, component := range components() {
		group.Go(func() error {
			return m.fetchProfile(ctx, component, fmt.Sprintf("profile?seconds=%.0f", profileLimit.Seconds()), during+"-cpu")
		})
	}
	return func() {
		defer cancel()
		if err := group.Wait(); err != nil {
			m.say("  no profile: %v", err)
		}
		m.say("  profiles took until %s after the beginning", time.Since(began).Round(time.Second))
	}
}

func components() []string { return []string{"controller", "interceptor"} }

// heap takes heap profiles.
func (m *measurement) heap(ctx context.Context, during string) {
	if m.options.profile == "" {
		return
	}
	for _, component := range components() {
		if err := m.fetchProfile(ctx, component, "heap?gc=1", during+"-heap"); err != nil {
			m.say("  no profile: %v", err)
		}
	}
}

func (m *measurement) fetchProfile(ctx context.Context, component, what, during string) error {
	pods, err := m.pods(ctx, component)
	if err != nil || len(pods) == 0 {
		return fmt.Errorf("there is no %s: %w", component, err)
	}
	url := "http://" + net.JoinHostPort(pods[0].Status.PodIP, profilePort) + "/debug/pprof/" + what
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := os.MkdirAll(m.options.profile, 0o755); err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(m.options.profile, m.figures.prefix+component+"-"+during+".pprof"))
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(file, resp.Body)
	return err
}
