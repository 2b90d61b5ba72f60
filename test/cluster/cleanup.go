// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
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
	if !exists(c.path()) && !c.hasNamespace() && !exists(c.claimFile()) {
		fmt.Fprintf(report.out, "cluster %s is not up\n", c.name)
		return nil
	}
	return report.stages([]stage{
		{"forwards, kubelet and kube-proxy stopped", func() error {
			return c.stop(ctx, 10*time.Second, append(c.pidFiles("forward-*"), "kubelet", "kube-proxy")...)
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
	if _, err := c.running("containerd"); err != nil {
		return nil
	}
	if err := c.stopPods(ctx); err != nil {
		fmt.Fprintf(report.out, "containerd could not remove every pod, killing the rest: %v\n", err)
	}
	return nil
}

// stopRest stops containerd, and kills the control plane at once: nothing of it is kept.
func (c *cluster) stopRest(ctx context.Context) error {
	if err := c.stop(ctx, 10*time.Second, "containerd"); err != nil {
		return err
	}
	return c.stop(ctx, 0, c.pidFiles("*")...)
}

// killStrays ends processes without a pid file: pods and shims whose containerd was killed, daemons whose `up` was killed
// before it wrote the file, and commands that were left running in the namespace.
func (c *cluster) killStrays(ctx context.Context) error {
	return poll(ctx, 20*time.Second, "the cluster's processes to end", func() (bool, error) {
		strays, err := c.strays()
		if err != nil || len(strays) == 0 {
			return err == nil, err
		}
		return false, stopProcesses(ctx, strays, 0)
	})
}

// strays finds every process that belongs to this cluster alone: those in its network namespace or cgroups, and the shims
// of its containerd.
func (c *cluster) strays() ([]identity, error) {
	pids, err := c.cgroupPIDs()
	if err != nil {
		return nil, err
	}
	inside, err := c.namespacePIDs()
	if err != nil {
		return nil, err
	}
	shims, err := processes(func(pid int) bool { return isShimOf(commandLine(pid), c.containerdSocket()) })
	if err != nil {
		return nil, err
	}
	var ids []identity
	seen := map[int]bool{}
	for _, pid := range slices.Concat(pids, inside, shims) {
		if id, err := identify(pid); err == nil && !seen[pid] {
			ids = append(ids, id)
		}
		seen[pid] = true
	}
	return ids, nil
}

// namespacePIDs lists the processes in the cluster's network namespace. It leaves out this process, which may have a
// thread in there.
func (c *cluster) namespacePIDs() ([]int, error) {
	namespace, err := c.namespaceID()
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return processes(func(pid int) bool {
		ns, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
		return err == nil && pid != os.Getpid() && os.SameFile(ns, namespace)
	})
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
func isShimOf(args []string, socket string) bool {
	if !strings.Contains(args[0], "containerd-shim") {
		return false
	}
	i := slices.Index(args, "-address")
	return i > 0 && i+1 < len(args) && args[i+1] == socket
}

func (c *cluster) removeGlobals(ctx context.Context) error {
	c.removeShimSockets()
	c.removeCNIResults()
	c.removeLogLinks()
	return firstError(c.unmountAll, func() error { return c.deleteCgroups(ctx) }, c.deleteNetwork)
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

func (c *cluster) mounts() ([]string, error) {
	content, err := os.ReadFile("/proc/self/mounts")
	return mountsBelow(string(content), c.path()), err
}

func (c *cluster) unmountAll() error {
	mounts, err := c.mounts()
	if err != nil {
		return err
	}
	for _, path := range mounts {
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
	mounts, err := c.mounts()
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("%s is still mounted: unmount it and run `down` again", mounts[0])
	}
	return os.RemoveAll(c.path())
}
