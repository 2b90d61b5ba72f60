// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A cluster is a name and the folders that belong to it. All state is in files: another process with the same cluster
// value sees the same state.
type cluster struct {
	name     string
	checkout string // the repository this runs in
	cache    string // shared by all clusters of this user
	large    bool   // while `up` runs: for thousands of apps

	kubeSum, kedaFilesSum, pauseSum, traefikSum, certManagerSum, netpolSum string // of the sources below the checkout
}

// newCluster finds the cluster that belongs to dir's checkout, or the one called name if that is not empty.
func newCluster(name, dir string) (*cluster, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("finding the cache folder: %w; set HOME or XDG_CACHE_HOME", err)
	}
	c := &cluster{name: name, checkout: findCheckout(dir), cache: filepath.Join(cache, "scale-to-zero")}
	if c.checkout == "" {
		return nil, fmt.Errorf("%s is not in a checkout of scale-to-zero: change into one", dir)
	}
	if c.name == "" {
		c.name = nameFor(c.checkout)
	}
	if !regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`).MatchString(c.name) {
		return nil, fmt.Errorf("cluster name %q: use at most 40 of a-z, 0-9 and -, beginning and ending with a letter or digit", c.name)
	}
	for folder, sum := range map[string]*string{
		"kube": &c.kubeSum, "keda": &c.kedaFilesSum, "pause": &c.pauseSum, "traefik": &c.traefikSum, "certmanager": &c.certManagerSum,
		"netpol": &c.netpolSum,
	} {
		if *sum, err = sumFiles(filepath.Join(c.checkout, "test", "cluster", folder)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// nameFor makes a readable name that differs for every checkout path.
func nameFor(checkout string) string {
	sum := sha256.Sum256([]byte(checkout))
	base := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(filepath.Base(checkout)), "-"), "-")
	if len(base) > 24 {
		base = strings.TrimRight(base[:24], "-")
	}
	return strings.TrimLeft(base+"-"+hex.EncodeToString(sum[:3]), "-")
}

// findCheckout walks up from dir to the folder that holds test/cluster.
func findCheckout(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	for ; ; dir = filepath.Dir(dir) {
		if exists(filepath.Join(dir, "test", "cluster", "kube", "go.mod")) {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}

func (c *cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.cache, "clusters", c.name}, elem...)...)
}

func (c *cluster) cached(elem ...string) string {
	return filepath.Join(append([]string{c.cache}, elem...)...)
}

func (c *cluster) pki(file string) string     { return c.path("pki", file) }
func (c *cluster) kubeconfig() string         { return c.pki("admin.kubeconfig") }
func (c *cluster) globalName() string         { return "scale-to-zero-" + c.name }
func (c *cluster) log(name string) string     { return c.path("logs", name+".log") }
func (c *cluster) pidFile(name string) string { return c.path("run", name+".pid") }

// namespace is where the control plane runs, and the first node.
func (c *cluster) namespace() namespace { return namespace(c.globalName()) }

// bridge is the namespace of the bridge between several nodes.
func (c *cluster) bridge() namespace { return namespace(c.globalName() + ".bridge") }

// dial connects to an address inside the cluster's namespace.
func (c *cluster) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return c.namespace().dial(ctx, network, address)
}

// prepare makes the folders. It deletes a state folder from before a reboot: the processes, namespace and mounts are
// gone, and containerd would try to resume tasks that no longer exist.
func (c *cluster) prepare(nodes int) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(c.path("boot")); err == nil && string(old) != boot {
		if err := os.RemoveAll(c.path()); err != nil {
			return fmt.Errorf("removing the state from before the reboot: %w", err)
		}
	}
	for _, dir := range []string{"logs", "bin"} {
		if err := os.MkdirAll(c.path(dir), 0o755); err != nil {
			return err
		}
	}
	for number := range nodes {
		if err := (node{c, number + 1}).makeFolders(); err != nil {
			return err
		}
	}
	_, err = writeFile(c.path("boot"), []byte(boot), 0o644)
	return err
}

// lock keeps two commands from changing the same thing at once. The kernel frees the lock of a killed process. Release
// also deletes the file, so the check after locking makes sure that the locked file is still the one that others lock.
func lock(ctx context.Context, path, what string) (release func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		if err := flock(ctx, f, what); err != nil {
			f.Close()
			return nil, err
		}
		if sameFile(f, path) {
			if err := f.Truncate(0); err == nil {
				fmt.Fprintf(f, "%d\n", os.Getpid())
			}
			return func() { os.Remove(path); f.Close() }, nil
		}
		f.Close()
	}
}

// flock waits for up to an hour: the longest step under a lock builds everything.
func flock(ctx context.Context, f *os.File, what string) error {
	told := false
	return poll(ctx, time.Hour, "others to be done with "+what, func() (bool, error) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err == nil, err
		}
		if !told {
			holder := make([]byte, 16)
			n, _ := f.ReadAt(holder, 0) // the holder may not have written its number yet
			fmt.Fprintf(os.Stderr, "waiting for process %s, which works on %s\n", strings.TrimSpace(string(holder[:n])), what)
			told = true
		}
		return false, nil
	})
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

func (c *cluster) lock(ctx context.Context) (release func(), err error) {
	return lock(ctx, c.cached("clusters", c.name+".lock"), "cluster "+c.name)
}

// change does something with the running cluster, while nobody else does.
func (c *cluster) change(ctx context.Context, do func() error) error {
	release, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	return firstError(c.checkOwner, c.mustBeUp, do)
}

// extend builds a component that is added on demand, and adds it to the running cluster in a stage with that title.
func (c *cluster) extend(ctx context.Context, report *progress, component, title string, add func() error) error {
	if err := c.checkMachine(); err != nil {
		return err
	}
	if err := c.build(ctx, report, component); err != nil {
		return err
	}
	return c.change(ctx, func() error { return report.stage(title, add) })
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// writeFile replaces the file in one step, and only if its content changes: kube-proxy exits when its configuration file
// is written, even with the same content.
func writeFile(path string, content []byte, mode fs.FileMode) (changed bool, err error) {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(content) {
		return false, nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name()) // already renamed if all went well
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return false, err
	}
	return true, os.Rename(f.Name(), path)
}
