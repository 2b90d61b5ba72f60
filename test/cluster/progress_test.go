// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLongWorkReports(t *testing.T) {
	for name, tc := range map[string]struct {
		terminal bool
		fails    error
		want     string
	}{
		"log":                 {want: "building X …\nbuilding X … 30s\nbuilding X … 1m0s\nbuilding X … done after 1m10s\n"},
		"log, failing":        {fails: errors.New("no"), want: "building X …\nbuilding X … 30s\nbuilding X … 1m0s\n"},
		"terminal, last line": {terminal: true, want: "\r\033[Kbuilding X … 1m10s\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				p := &progress{out: &out, terminal: tc.terminal, began: time.Now()}
				err := p.long("building X", func() error { <-time.After(70*time.Second + time.Millisecond); return tc.fails })
				if !errors.Is(err, tc.fails) || !strings.HasSuffix(out.String(), tc.want) {
					t.Errorf("got %q %v", out.String(), err)
				}
			})
		})
	}
}

// A stage that fails is the last.
func TestStagesEndWithAFailure(t *testing.T) {
	var out bytes.Buffer
	failure := errors.New("no")
	err := (&progress{out: &out, began: time.Now()}).stages([]stage{
		{"done", func() error { return nil }},
		{"failed", func() error { return failure }},
		{"never begun", func() error { t.Error("begun after a failure"); return nil }},
	})
	if !errors.Is(err, failure) || !strings.HasSuffix(out.String(), "s  done\n") {
		t.Errorf("got %q %v", out.String(), err)
	}
}

func TestReadHost(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "vm"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "vm", "overcommit_memory"), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := readHost(dir).Sysctls
	if len(got) != 1 || got["vm/overcommit_memory"] != "1" {
		t.Errorf("got %v: want what is there, and nothing that is not", got)
	}
}

func TestCommands(t *testing.T) {
	root := rootCommand()
	for _, name := range []string{
		"up", "down", "status", "kubectl", "helm", "helm3", "exec", "env", "load", "image", "forward", "build", "assets",
	} {
		cmd, _, err := root.Find([]string{name})
		if err != nil || cmd.Name() != name || cmd.Short == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, args := range map[string][]string{
		"unknown command": {"upp"}, "too few": {"image", "x"}, "no image": {"load"}, "too many": {"up", "now"}, "unknown flag": {"up", "--fast"},
	} {
		t.Run(name, func(t *testing.T) {
			root := rootCommand()
			root.SetArgs(args)
			if err := root.ExecuteContext(t.Context()); err == nil {
				t.Error("no error")
			}
		})
	}
}
