// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestParseStat(t *testing.T) {
	for name, tc := range map[string]struct {
		text        string
		pid, parent int
		err         bool
	}{
		"plain":                {text: "42 (nginx) S 41 42 42 0 -1", pid: 42, parent: 41},
		"parentheses in names": {text: "42 (a) (b) S 7) R 41 1", pid: 42, parent: 41},
		"spaces in names":      {text: "42 (tmux: server) S 1 42", pid: 42, parent: 1},
		"no name":              {text: "42 nginx S 41", err: true},
		"cut":                  {text: "42 (nginx) S", err: true},
		"no number":            {text: "x (nginx) S 1", err: true},
		"empty":                {err: true},
	} {
		t.Run(name, func(t *testing.T) {
			pid, parent, err := parseStat([]byte(tc.text))
			if tc.err != (err != nil) {
				t.Fatalf("got error %v", err)
			}
			if err == nil && (pid != tc.pid || parent != tc.parent) {
				t.Errorf("got %d and %d, want %d and %d", pid, parent, tc.pid, tc.parent)
			}
		})
	}
}

func TestParseMemory(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want int64
		err  bool
	}{
		"there":     {text: "VmRSS:\t    1028 kB\nRssAnon:\t      88 kB\nRssFile:\t     940 kB\n", want: 88 << 10},
		"missing":   {text: "Name:\tkthreadd\n", err: true},
		"no number": {text: "RssAnon:\tmuch\n", err: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseMemory([]byte(tc.text))
			if tc.err != (err != nil) || got != tc.want {
				t.Errorf("got %d and %v, want %d", got, err, tc.want)
			}
		})
	}
}

func TestProcess(t *testing.T) {
	t.Run("counts a process and its children", func(t *testing.T) {
		p, err := startProcess(t.TempDir(), "shell", nil, "sh", "-c", "i=0; while [ $i -lt 9999 ]; do i=$((i+1)); done; sleep 60 & wait")
		if err != nil {
			t.Fatal(err)
		}
		defer p.stop()
		err = p.await(t.Context(), func() error {
			pids, err := p.tree()
			if err == nil && len(pids) != 2 {
				err = errors.New("it has no child yet")
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if cpu, err := p.cpu(); err != nil || cpu <= 0 {
			t.Errorf("CPU time %s, %v", cpu, err)
		}
		if memory, err := p.memory(); err != nil || memory <= 0 {
			t.Errorf("memory %d, %v", memory, err)
		}
		// The child belongs to sh, and is not stopped with it.
		pids, _ := p.tree()
		for _, pid := range pids[1:] {
			child, _ := os.FindProcess(pid)
			_ = child.Kill()
		}
	})
	t.Run("tells why one ended", func(t *testing.T) {
		p, err := startProcess(t.TempDir(), "shell", []string{"WHY=no such directive"}, "sh", "-c", "echo starting; echo $WHY; exit 3")
		if err != nil {
			t.Fatal(err)
		}
		err = p.await(t.Context(), func() error { return errors.New("not yet") })
		if err == nil || !strings.Contains(err.Error(), "shell ended (exit status 3): no such directive") {
			t.Errorf("got %v", err)
		}
		if _, err := p.cpu(); err == nil {
			t.Error("a process that has ended has a CPU time")
		}
	})
	t.Run("says what is missing", func(t *testing.T) {
		if _, err := startProcess(t.TempDir(), "proxy", nil, "/does/not/exist"); err == nil {
			t.Error("it started")
		}
	})
}
