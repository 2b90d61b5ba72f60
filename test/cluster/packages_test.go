// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// onlyInPath makes PATH a folder with one program, or with none if content is empty.
func onlyInPath(t *testing.T, name, content string) {
	t.Helper()
	dir := t.TempDir()
	if content != "" {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}

func TestMissingPackagesAreNamed(t *testing.T) {
	for name, tc := range map[string]struct{ aptGet, want string }{
		"not Debian":   {"", "no apt-get"},
		"fails":        {"#!/bin/sh\necho E: Unable to locate package runc >&2\nexit 100\n", "Unable to locate package runc"},
		"does nothing": {"#!/bin/sh\nexit 0\n", "missing, although"},
	} {
		t.Run(name, func(t *testing.T) {
			onlyInPath(t, "apt-get", tc.aptGet)
			err := installPackages(t.Context(), &progress{out: t.Output()})
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "runc") {
				t.Errorf("got %v, want runc and %q", err, tc.want)
			}
		})
	}
}

func TestBuildNeedsGo(t *testing.T) {
	onlyInPath(t, "", "")
	err := testCluster(t).buildAssets(t.Context(), &progress{out: t.Output()})
	if err == nil || !strings.Contains(err.Error(), "go is not in PATH") {
		t.Errorf("got %v", err)
	}
}

// A failed build must not leave a file under the program's name.
func TestFailedBuildLeavesNothing(t *testing.T) {
	onlyInPath(t, "go", "#!/bin/sh\necho half >$6\necho broken >&2\nexit 1\n")
	c := testCluster(t)
	checkoutAt(t, c.checkout)
	err := c.build(t.Context(), &progress{out: t.Output()}, "pause")
	if err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("got %v, want what the build said", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(c.binary("pause"))); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if exists(c.cached("bin.lock")) {
		t.Error("the lock is left behind")
	}
}

func TestStateFolder(t *testing.T) {
	c := testCluster(t)
	if err := c.checkStateFolder(); err != nil && !strings.Contains(err.Error(), "overlayfs") {
		t.Error(err)
	}
	c.name = strings.Repeat("x", 100)
	if err := c.checkStateFolder(); err == nil {
		t.Error("a path that no socket can have is accepted")
	}
}
