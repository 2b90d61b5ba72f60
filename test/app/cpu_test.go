// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBurn(t *testing.T) {
	want := used() + 20*time.Millisecond
	burn(t.Context(), want)
	if got := used(); got < want {
		t.Errorf("used %s, want %s", got, want)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	burn(ended, time.Hour) // a process that is told to stop stops
	var stderr bytes.Buffer
	env := func(key string) string { return map[string]string{"START_CPU": "much"}[key] }
	if code := run(t.Context(), nil, env, io.Discard, &stderr); code != 1 || !strings.Contains(stderr.String(), "START_CPU") {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
}

func TestCPULimit(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  string // empty for an error
	}{
		"half a CPU":            {map[string]string{"cpu.max": "50000 100000\n"}, "0.5"},
		"two":                   {map[string]string{"cpu.max": "200000 100000\n"}, "2"},
		"none":                  {map[string]string{"cpu.max": "max 100000\n"}, "none"},
		"version 1":             {map[string]string{"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "0.5"},
		"version 1, none":       {map[string]string{"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "none"},
		"half of version 1":     {map[string]string{"cpu/cpu.cfs_quota_us": "50000\n"}, ""},
		"no cgroups":            {nil, ""},
		"one field":             {map[string]string{"cpu.max": "50000\n"}, ""},
		"no number":             {map[string]string{"cpu.max": "much 100000\n"}, ""},
		"no time to be limited": {map[string]string{"cpu.max": "50000 0\n"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range tc.files {
				path := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := cpuLimit(root)
			if got != tc.want || (err != nil) != (tc.want == "") {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}
