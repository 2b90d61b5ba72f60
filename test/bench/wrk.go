// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// small keeps a proxy as busy as possible with small requests.
func small(address func(*server) string, post bool) func(context.Context, *lab, *server, time.Duration) (sample, error) {
	return func(ctx context.Context, l *lab, s *server, d time.Duration) (sample, error) {
		args := []string{
			"--threads", strconv.Itoa(min(2, l.options.connections)), "--connections", strconv.Itoa(l.options.connections),
			"--duration", strconv.Itoa(int(d.Seconds())) + "s", "--timeout", "5s",
		}
		if post {
			script := filepath.Join(l.dir, "post.lua")
			text := `wrk.method = "POST"; wrk.body = string.rep("x", 1024)`
			if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
				return nil, fmt.Errorf("writing wrk's script: %w", err)
			}
			args = append(args, "--script", script)
		}
		before, err := s.cpu()
		if err != nil {
			return nil, err
		}
		out, err := tool(ctx, nil, "wrk", append(args, "http://"+address(s)+"/")...)
		if err != nil {
			return nil, err
		}
		after, err := s.cpu()
		if err != nil {
			return nil, err
		}
		requests, rate, err := parseWrk(out)
		if err != nil {
			return nil, err
		}
		return sample{"cpu": float64((after - before).Microseconds()) / requests, "rate": rate}, nil
	}
}

// parseWrk returns the number of requests, and the requests a second. Failed requests are an error: they cost less.
func parseWrk(out string) (requests, rate float64, err error) {
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "Socket errors:") || strings.HasPrefix(line, "Non-2xx") {
			return 0, 0, fmt.Errorf("running wrk: requests failed: %s", line)
		}
		if m := regexp.MustCompile(`^(\d+) requests in `).FindStringSubmatch(line); m != nil {
			requests, err = strconv.ParseFloat(m[1], 64)
		}
		if value, ok := strings.CutPrefix(line, "Requests/sec:"); ok {
			rate, err = strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
		if err != nil {
			return 0, 0, fmt.Errorf("parsing what wrk says: %w", err)
		}
	}
	if requests == 0 || rate == 0 {
		return 0, 0, errors.New("running wrk: it made no requests")
	}
	return requests, rate, nil
}

// tool runs a program to its end, with env added to our environment, and returns what it printed.
func tool(ctx context.Context, env []string, name string, args ...string) (string, error) {
	var said strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return "", errors.New("interrupted")
	}
	if err != nil {
		return "", fmt.Errorf("running %s: %w: %s", filepath.Base(name), err, strings.TrimSpace(said.String()))
	}
	return string(out), nil
}

// combined runs a program and returns what it printed on both streams.
func combined(ctx context.Context, name string, args ...string) string {
	out, _ := exec.CommandContext(ctx, name, args...).CombinedOutput() // some print their version and exit with an error
	return string(out)
}
