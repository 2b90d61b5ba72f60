// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupMounts lists the mounted cgroup hierarchies: one for each controller (v1), one for all (v2), or both.
func cgroupMounts() (v1, v2 []string, err error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	seen := map[string]bool{}
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 3 || seen[fields[1]] {
			continue
		}
		seen[fields[1]] = true
		switch fields[2] {
		case "cgroup":
			v1 = append(v1, fields[1])
		case "cgroup2":
			v2 = append(v2, fields[1])
		}
	}
	if len(v1)+len(v2) == 0 {
		return nil, nil, errors.New("no cgroups are mounted on this machine; containers need them")
	}
	return v1, v2, nil
}

// ensureCgroups makes the cgroup that holds all pods of this node. The kubelet expects it in every hierarchy and does
// not create it.
func (n node) ensureCgroups() error {
	v1, v2, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, mount := range v1 {
		dir := filepath.Join(mount, n.globalName())
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making cgroup: %w", err)
		}
		// a new cpuset is empty, and no process can run in it
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := copyFile(filepath.Join(mount, file), filepath.Join(dir, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("setting up cgroup: %w", err)
			}
		}
	}
	for _, mount := range v2 {
		if err := os.MkdirAll(filepath.Join(mount, n.globalName()), 0o755); err != nil {
			return fmt.Errorf("making cgroup: %w", err)
		}
		delegateControllers(mount)
	}
	return nil
}

// delegateControllers makes the controllers of a v2 hierarchy available below its root. It enables them one by one,
// because the kernel refuses those that a v1 hierarchy holds. If the kubelet lacks one, it says so.
func delegateControllers(mount string) {
	controllers, err := os.ReadFile(filepath.Join(mount, "cgroup.controllers"))
	if err != nil {
		return
	}
	for name := range strings.FieldsSeq(string(controllers)) {
		_ = os.WriteFile(filepath.Join(mount, "cgroup.subtree_control"), []byte("+"+name), 0o644)
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// cgroupDirs lists the cgroups whose root has the name, or one that matches the pattern, the innermost first.
func cgroupDirs(names string) ([]string, error) {
	v1, v2, err := cgroupMounts()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, mount := range append(v1, v2...) {
		roots, err := filepath.Glob(filepath.Join(mount, names))
		if err != nil {
			return nil, fmt.Errorf("listing cgroups: %w", err)
		}
		for _, root := range roots {
			err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if errors.Is(err, fs.ErrNotExist) {
					return nil // it has gone meanwhile
				}
				if err == nil && d.IsDir() {
					dirs = append([]string{path}, dirs...)
				}
				return err
			})
			if err != nil {
				return nil, fmt.Errorf("listing cgroups: %w", err)
			}
		}
	}
	return dirs, nil
}

// cgroupPIDs lists every process in the cgroups. That includes processes of pods whose shim is gone.
func cgroupPIDs(names string) ([]int, error) {
	dirs, err := cgroupDirs(names)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, dir := range dirs {
		content, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue // it has gone meanwhile
		}
		for field := range strings.FieldsSeq(string(content)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

// deleteCgroups removes the folders. A cgroup stays busy for a moment after its last process is gone.
func deleteCgroups(ctx context.Context, names string) error {
	return poll(ctx, 10*time.Second, "cgroups to become free", func() (bool, error) {
		dirs, err := cgroupDirs(names)
		for _, dir := range dirs {
			_ = unix.Rmdir(dir)
		}
		return len(dirs) == 0, err
	})
}
