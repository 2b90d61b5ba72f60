// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func checkoutAt(t *testing.T, dir string) string {
	t.Helper()
	for _, file := range []string{"kube/go.mod", "keda/go.mod", "pause/main.go", "traefik/ext/ext.go", "certmanager/go.mod", "netpol/go.mod"} {
		path := filepath.Join(dir, "test", "cluster", file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("module x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestNewCluster(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	checkout := checkoutAt(t, filepath.Join(t.TempDir(), "My Checkout"))
	for name, tc := range map[string]struct {
		name, dir string
		want      string // how the cluster's name begins
		fails     string
	}{
		"from the root":   {dir: checkout, want: "my-checkout-"},
		"from deep below": {dir: filepath.Join(checkout, "test", "cluster"), want: "my-checkout-"},
		"by name":         {name: "other", dir: checkout, want: "other"},
		"outside":         {dir: "/", fails: "not in a checkout"},
		"path in a name":  {name: "../other", dir: checkout, fails: "cluster name"},
		"too long a name": {name: strings.Repeat("x", 41), dir: checkout, fails: "cluster name"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := newCluster(tc.name, tc.dir)
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Errorf("got error %v, want %q", err, tc.fails)
				}
				return
			}
			if err != nil || !strings.HasPrefix(c.name, tc.want) {
				t.Errorf("got %+v %v, want name %q", c, err, tc.want)
			}
		})
	}
}

func TestNamesOfCheckoutsDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, dir := range []string{"/a/main", "/b/main", "/a/main2", "/a/Ünïcode", "/a/---", "/a/" + strings.Repeat("long", 30)} {
		name := nameFor(dir)
		if other, taken := seen[name]; taken {
			t.Errorf("%s and %s are both %s", dir, other, name)
		}
		seen[name] = dir
		if len(name) > 40 || strings.Trim(name, "-") != name {
			t.Errorf("%s: bad name %q", dir, name)
		}
	}
}

func TestPrepareDropsStateFromBeforeAReboot(t *testing.T) {
	c := testCluster(t)
	kept := c.path("data", "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.prepare(1); err != nil || !exists(kept) {
		t.Fatalf("same boot: %v, state kept: %v", err, exists(kept))
	}
	if err := os.WriteFile(c.path("boot"), []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.prepare(1); err != nil || exists(kept) {
		t.Fatalf("after a reboot: %v, state kept: %v", err, exists(kept))
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "lock")
	release, err := lock(t.Context(), path, "a test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lock(ctx, path, "a test"); !errors.Is(err, context.Canceled) {
		t.Errorf("a second holder: %v, want to wait until canceled", err)
	}
	next := make(chan error, 1)
	go func() {
		release, err := lock(t.Context(), path, "a test")
		if err == nil {
			release()
		}
		next <- err
	}()
	release()
	if err := <-next; err != nil {
		t.Errorf("after release: %v", err)
	}
	if exists(path) {
		t.Error("the file is left behind")
	}
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for i, tc := range []struct {
		content string
		changed bool
	}{{"a", true}, {"a", false}, {"b", true}} {
		changed, err := writeFile(path, []byte(tc.content), 0o640)
		got, _ := os.ReadFile(path)
		if err != nil || changed != tc.changed || string(got) != tc.content {
			t.Errorf("%d: changed %v, content %q, %v", i, changed, got, err)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestMountsBelow(t *testing.T) {
	mounts := strings.Join([]string{
		"proc /proc proc rw 0 0",
		"tmpfs /c/one/data tmpfs rw 0 0",
		"overlay /c/one/data/deep/rootfs overlay rw 0 0",
		`tmpfs /c/one/a\040b tmpfs rw 0 0`,
		"tmpfs /c/one-more tmpfs rw 0 0",
		"tmpfs /c/one tmpfs rw 0 0",
	}, "\n")
	got := strings.Join(mountsBelow(mounts, "/c/one"), "|")
	if want := "/c/one/data/deep/rootfs|/c/one/data|/c/one/a b"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{"a b": "'a b'", "it's": `'it'\''s'`, "$HOME`x`": "'$HOME`x`'"} {
		if got := shellQuote(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestReplaceEnv(t *testing.T) {
	got := strings.Join(replaceEnv([]string{"A=1", "B=2", "C=3=4"}, []string{"B=x"}), " ")
	if want := "A=1 C=3=4 B=x"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLeaveModule(t *testing.T) {
	checkout := checkoutAt(t, t.TempDir())
	for name, tc := range map[string]struct{ from, want string }{
		"go run -C":          {filepath.Join(checkout, "test", "cluster"), checkout},
		"from the root":      {checkout, checkout},
		"from another place": {filepath.Join(checkout, "test"), filepath.Join(checkout, "test")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(tc.from)
			if err := leaveModule(); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.Getwd(); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}
