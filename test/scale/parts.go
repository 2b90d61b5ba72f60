// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// part is a process of the cluster.
type part struct {
	name string // such as controller or kube-apiserver; two interceptors have the same
	pid  int
}

// usage is what a process has used, or uses.
type usage struct {
	cpu    time.Duration
	memory float64 // resident bytes that no file backs
}

// daemons are processes of test/cluster that are measured besides the pods.
func daemons() []string { return []string{"etcd", "kube-apiserver", "kube-controller-manager"} }

// findParts finds the processes: daemons by the files that test/cluster writes, and pods by their command lines.
func findParts() ([]part, error) {
	var parts []part
	for _, name := range daemons() {
		b, err := os.ReadFile(filepath.Join(stateFolder(), "run", name+".pid"))
		if err != nil {
			return nil, fmt.Errorf("finding %s: %w", name, err)
		}
		var id struct{ PID int }
		if err := json.Unmarshal(b, &id); err != nil {
			return nil, fmt.Errorf("finding %s: %w", name, err)
		}
		parts = append(parts, part{name, id.PID})
	}
	pods, err := findPods()
	return append(parts, pods...), err
}

// stateFolder is the cluster's. test/cluster says where its commands are, which is a folder in there.
func stateFolder() string { return filepath.Dir(os.Getenv("SCALE_TO_ZERO_BIN")) }

// findPods finds the processes of this cluster's pods by its cgroup, since other clusters may run on this machine.
func findPods() ([]part, error) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	cgroup := []byte("/scale-to-zero-" + os.Getenv("SCALE_TO_ZERO_CLUSTER") + "/")
	var parts []part
	for _, folder := range folders {
		line, err := os.ReadFile(filepath.Join(folder, "cmdline"))
		if err != nil {
			continue // it has ended
		}
		name := partName(strings.Split(string(line), "\x00"))
		groups, err := os.ReadFile(filepath.Join(folder, "cgroup"))
		if name == "" || err != nil || !bytes.Contains(groups, cgroup) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(folder))
		if err != nil {
			return nil, fmt.Errorf("listing processes: %w", err)
		}
		parts = append(parts, part{name, pid})
	}
	return parts, nil
}

// partName returns what a command line runs, or nothing if it is not one of ours or of KEDA.
func partName(args []string) string {
	switch {
	case len(args) > 1 && args[0] == "/scale-to-zero" && slices.Contains([]string{"controller", "interceptor"}, args[1]):
		return args[1]
	case args[0] == "/keda":
		return "keda-operator"
	case args[0] == "/keda-adapter":
		return "keda-adapter"
	default:
		return ""
	}
}

// use returns what a process uses.
func (p part) use() (usage, error) {
	// The CPU clock of all threads of a process, ended ones included, in nanoseconds. The arithmetic is that of clock_getcpuclockid(3).
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^p.pid<<3|2), &t); err != nil {
		return usage{}, fmt.Errorf("reading the CPU time of %s: %w", p.name, err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return usage{}, fmt.Errorf("reading the memory of %s: %w", p.name, err)
	}
	memory, err := parseMemory(string(b))
	if err != nil {
		return usage{}, fmt.Errorf("reading the memory of %s: %w", p.name, err)
	}
	return usage{time.Duration(t.Nano()), memory}, nil
}

// parseMemory reads RssAnon from the text of /proc/PID/status, in bytes.
func parseMemory(status string) (float64, error) {
	for line := range strings.Lines(status) {
		if text, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kilobytes, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 64)
			return kilobytes * 1024, err
		}
	}
	return 0, fmt.Errorf("there is no RssAnon in %.40q", status)
}

// usages are those of all parts, by name. Of several processes with one name it is the highest.
func usages() (map[string]usage, error) {
	parts, err := findParts()
	if err != nil {
		return nil, err
	}
	all := map[string]usage{}
	for _, p := range parts {
		u, err := p.use()
		if err != nil {
			return nil, err
		}
		all[p.name] = usage{max(all[p.name].cpu, u.cpu), max(all[p.name].memory, u.memory)}
	}
	return all, nil
}
