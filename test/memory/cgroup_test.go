// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// limit is the chart's limit for the memory of an interceptor.
const limit = 512 << 20

// cgroup returns the folder of a new cgroup with the limit, below this process's own; empty if that is not allowed here.
func cgroup(t *testing.T) string {
	t.Helper()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(own)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		folder, file := "", ""
		switch {
		case parts[1] == "memory":
			folder, file = filepath.Join("/sys/fs/cgroup/memory", parts[2]), "memory.limit_in_bytes"
		case parts[0] == "0" && parts[1] == "":
			// A cgroup that has processes cannot give its children a limit, so the new one is a sibling.
			folder, file = filepath.Join("/sys/fs/cgroup", filepath.Dir(parts[2])), "memory.max"
		default:
			continue
		}
		made := filepath.Join(folder, fmt.Sprintf("scale-to-zero-memory-%d-%s", os.Getpid(), filepath.Base(t.Name())))
		if os.Mkdir(made, 0o755) != nil {
			continue
		}
		if os.WriteFile(filepath.Join(made, file), []byte(strconv.Itoa(limit)), 0o600) == nil {
			_ = os.WriteFile(filepath.Join(made, "memory.swap.max"), []byte("0"), 0o600)
			return made
		}
		_ = os.Remove(made)
	}
	return ""
}

// peak returns the most memory that a process has had at a time.
func peak(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10
		}
	}
	return 0
}

// charged returns the most that the cgroup was charged with, the kernel's part included; 0 if that is not known.
func charged(folder string) int64 {
	for _, file := range []string{"memory.max_usage_in_bytes", "memory.peak"} {
		if b, err := os.ReadFile(filepath.Join(folder, file)); err == nil {
			n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			return n
		}
	}
	return 0
}
