// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// down removes the cluster, whatever state it is in. It looks at what is there and keeps no record of what `up` did.
func (c *cluster) down(ctx context.Context, report *progress) error {
	if os.Geteuid() != 0 {
		return errors.New("not root: only root can remove a cluster")
	}
	release, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := c.checkOwner(); err != nil {
		return err
	}
	if !exists(c.path()) && !c.namespace().exists() && !exists(c.claimFile()) {
		fmt.Fprintf(report.out, "cluster %s is not up\n", c.name)
		return nil
	}
	return report.stages([]stage{
		{"forwards, kubelet and kube-proxy stopped", func() error {
			return c.stop(ctx, 10*time.Second, slices.Concat(c.pidFiles("forward-*"), c.pidFiles("kubelet*"), c.pidFiles("kube-proxy*"))...)
		}},
		{"pods removed", func() error { return c.tryStopPods(ctx, report) }},
		{"containerd and control plane stopped", func() error { return c.stopRest(ctx) }},
		{"nothing left running", func() error { return c.killStrays(ctx) }},
		{"mounts, cgroups and network removed", func() error { return c.removeGlobals(ctx) }},
		{"machine's settings as before", func() error { return c.releaseHost(ctx) }},
		{"state deleted", c.removeState},
	})
}

// tryStopPods stops the pods through containerd. killStrays gets the rest.
func (c *cluster) tryStopPods(ctx context.Context, report *progress) error {
	err := c.each(func(n node) error {
		if n.require("containerd") != nil {
			return nil
		}
		return n.stopPods(ctx)
	})
	if err != nil {
		fmt.Fprintf(report.out, "containerd could not remove every pod, killing the rest: %v\n", err)
	}
	return nil
}

// stopRest stops containerd, and kills the control plane at once: nothing of it is kept.
func (c *cluster) stopRest(ctx context.Context) error {
	if err := c.stop(ctx, 10*time.Second, c.pidFiles("containerd*")...); err != nil {
		return err
	}
	return c.stop(ctx, 0, c.pidFiles("*")...)
}

// killStrays ends processes without a pid file: pods and shims whose containerd was killed, daemons whose `up` was killed
// before it wrote the file, and commands that were left running in a namespace.
func (c *cluster) killStrays(ctx context.Context) error {
	return poll(ctx, 20*time.Second, "the cluster's processes to end", func() (bool, error) {
		var sockets []string
		for _, n := range c.nodeFolders() {
			sockets = append(sockets, n.containerdSocket())
		}
		left, err := strays("", sockets...)
		for _, name := range c.globalNames() {
			if err == nil {
				var more []identity
				more, err = strays(name)
				left = append(left, more...)
			}
		}
		if err != nil || len(left) == 0 {
			return err == nil, err
		}
		return false, stopProcesses(ctx, left, 0)
	})
}

// globalNames are the names of all namespaces and cgroups of the cluster's nodes, those included whose folder is gone.
func (c *cluster) globalNames() []string {
	names := map[string]bool{c.globalName(): true}
	patterns := []string{filepath.Join(namespacesDir, c.globalName()+".*")}
	v1, v2, _ := cgroupMounts() // without cgroups there are none of the cluster's
	for _, mount := range append(v1, v2...) {
		patterns = append(patterns, filepath.Join(mount, c.globalName()+".*"))
	}
	for _, pattern := range patterns {
		found, _ := filepath.Glob(pattern) // the only possible error is a bad pattern
		for _, path := range found {
			names[filepath.Base(path)] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// strays finds every process in the network namespace and the cgroups of that name, and the shims of the containerds at the sockets.
func strays(name string, sockets ...string) ([]identity, error) {
	var pids []int
	if name != "" {
		grouped, err := cgroupPIDs(name)
		if err != nil {
			return nil, err
		}
		inside, err := namespace(name).pids()
		if err != nil {
			return nil, err
		}
		pids = slices.Concat(grouped, inside)
	}
	shims, err := processes(func(pid int) bool { return isShimOf(commandLine(pid), sockets...) })
	if err != nil {
		return nil, err
	}
	var ids []identity
	seen := map[int]bool{}
	for _, pid := range slices.Concat(pids, shims) {
		if id, err := identify(pid); err == nil && !seen[pid] {
			ids = append(ids, id)
		}
		seen[pid] = true
	}
	return ids, nil
}

// processes lists the machine's processes that match.
func processes(match func(pid int) bool) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && match(pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// isShimOf reads a command line: containerd-shim-runc-v2 -namespace k8s.io -id … -address SOCKET.
func isShimOf(args []string, sockets ...string) bool {
	if !strings.Contains(args[0], "containerd-shim") {
		return false
	}
	i := slices.Index(args, "-address")
	return i > 0 && i+1 < len(args) && slices.Contains(sockets, args[i+1])
}

func (c *cluster) removeGlobals(ctx context.Context) error {
	for _, n := range c.nodeFolders() {
		n.removeShimSockets()
		n.removeCNIResults()
	}
	c.removeLogLinks()
	if err := unmountBelow(c.path()); err != nil {
		return err
	}
	for _, name := range c.globalNames() {
		if err := firstError(func() error { return deleteCgroups(ctx, name) }, namespace(name).delete); err != nil {
			return err
		}
	}
	return nil
}

// mountsBelow lists what /proc/self/mounts has below a folder, the innermost first.
func mountsBelow(mounts, dir string) []string {
	var found []string
	for s := bufio.NewScanner(strings.NewReader(mounts)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 {
			continue
		}
		// spaces and other special characters are octal escapes
		path := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[1])
		if strings.HasPrefix(path, dir+"/") {
			found = append(found, path)
		}
	}
	sort.SliceStable(found, func(i, j int) bool { return len(found[i]) > len(found[j]) })
	return found
}

func unmountBelow(dir string) error {
	content, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for _, path := range mountsBelow(string(content), dir) {
		if unix.Unmount(path, unix.UMOUNT_NOFOLLOW) != nil { // it is still busy: detach it at least
			if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				return fmt.Errorf("unmounting %s: %w", path, err)
			}
		}
	}
	return nil
}

// removeState deletes the cluster's folder. It refuses while something is mounted in it.
func (c *cluster) removeState() error {
	content, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	if mounts := mountsBelow(string(content), c.path()); len(mounts) > 0 {
		return fmt.Errorf("%s is still mounted: unmount it and run `down` again", mounts[0])
	}
	return os.RemoveAll(c.path())
}
