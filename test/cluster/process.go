// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// An identity distinguishes a process from every other that had or will have the same number: numbers are reused, but not
// with the same start time within one boot.
type identity struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // in clock ticks since boot
	Boot  string `json:"boot"`
	Exe   string `json:"exe"`
}

var errNoProcess = errors.New("no such process")

// identify describes a running process. A zombie does not count as one: PID 1 may take seconds to reap an orphan, and
// until then kill(pid, 0) claims that it is alive.
func identify(pid int) (identity, error) {
	id := identity{PID: pid}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return id, errNoProcess
	}
	state, start, err := parseStat(string(stat))
	if err != nil {
		return id, err
	}
	if state == "Z" || state == "X" {
		return id, errNoProcess
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return id, errNoProcess
	}
	id.Start, id.Exe = start, strings.TrimSuffix(exe, " (deleted)")
	id.Boot, err = bootID()
	return id, err
}

// parseStat reads state and start time from /proc/PID/stat. The second field is the command in parentheses and may
// contain spaces and parentheses, so fields are counted from the last parenthesis.
func parseStat(stat string) (state string, start uint64, err error) {
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return "", 0, fmt.Errorf("parsing process status %q: no command", stat)
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) < 20 {
		return "", 0, fmt.Errorf("parsing process status %q: too short", stat)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0], start, err
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

func (id identity) alive() bool {
	now, err := identify(id.PID)
	return err == nil && now == id
}

// signal reaches this process or none. os.FindProcess takes a pidfd before the identity is compared: if the number was
// reused earlier, the comparison fails; if it is reused later, the pidfd no longer reaches anything.
func (id identity) signal(sig syscall.Signal) {
	p, err := os.FindProcess(id.PID)
	if err != nil {
		return
	}
	defer p.Release()
	if id.alive() {
		_ = p.Signal(sig) // it may have just ended, as a signal would have it do
	}
}

// stopProcesses ends the processes, first with SIGTERM, and returns once they are gone.
func stopProcesses(ctx context.Context, ids []identity, grace time.Duration) error {
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGTERM, grace}, {syscall.SIGKILL, 10 * time.Second}} {
		if step.wait == 0 {
			continue
		}
		for _, id := range ids {
			id.signal(step.sig)
		}
		gone := func() (bool, error) {
			for _, id := range ids {
				if id.alive() {
					return false, nil
				}
			}
			return true, nil
		}
		if err := poll(ctx, step.wait, "processes to end", gone); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("stopping processes %v: they are still there", ids)
}

// A daemon is one long-running process of the cluster.
type daemon struct {
	name      string
	binary    string
	args      []string
	component string    // argv[0], by which hyperkube chooses; if empty, the name
	namespace namespace // if empty, the control plane's
}

// start runs the daemon inside its namespace, unless it runs already, and does not wait until it is ready. The process
// outlives us: it gets its own session, so that Ctrl-C in the terminal of `up` does not reach it.
func (c *cluster) start(ctx context.Context, d daemon) error {
	if _, err := c.running(d.name); err == nil {
		return nil
	}
	d.component, d.namespace = cmp.Or(d.component, d.name), cmp.Or(d.namespace, c.namespace())
	if err := d.stopUnclaimed(ctx); err != nil {
		return err
	}
	log, err := os.Create(c.log(d.name))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := &exec.Cmd{
		Path: d.binary, Args: append([]string{d.component}, d.args...), Dir: "/",
		Env:    []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + c.path("run"), "TMPDIR=/tmp"},
		Stdout: log, Stderr: log, SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := d.namespace.do(cmd.Start); err != nil {
		return fmt.Errorf("starting %s: %w", d.name, err)
	}
	id, err := identify(cmd.Process.Pid)
	if err != nil {
		return c.explain(d.name, errors.New("it ended at once"))
	}
	return c.savePID(d.name, id)
}

// stopUnclaimed ends a daemon without a pid file: `up` was killed before it wrote it. A new daemon could not listen while
// the old one does.
func (d daemon) stopUnclaimed(ctx context.Context) error {
	pids, err := d.namespace.pids()
	if err != nil {
		return err
	}
	var old []identity
	for _, pid := range pids {
		id, err := identify(pid)
		if err != nil || filepath.Base(id.Exe) != filepath.Base(d.binary) {
			continue
		}
		if args := commandLine(pid); args[0] == d.component {
			old = append(old, id)
		}
	}
	return stopProcesses(ctx, old, 10*time.Second)
}

// commandLine returns the arguments of a process. For one that has ended or is the kernel's it returns one empty
// argument.
func commandLine(pid int) []string {
	content, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // it may have ended
	return strings.Split(strings.TrimRight(string(content), "\x00"), "\x00")
}

func (c *cluster) savePID(name string, id identity) error {
	content, err := json.Marshal(id)
	if err != nil {
		return err
	}
	_, err = writeFile(c.pidFile(name), content, 0o644)
	return err
}

// running returns the process that a pid file names, if it still runs.
func (c *cluster) running(name string) (identity, error) {
	var id identity
	content, err := os.ReadFile(c.pidFile(name))
	if err != nil {
		return id, errNoProcess
	}
	if err := json.Unmarshal(content, &id); err != nil {
		return id, fmt.Errorf("reading %s: %w", c.pidFile(name), err)
	}
	if !id.alive() {
		return id, errNoProcess
	}
	return id, nil
}

// stop ends the named daemons together.
func (c *cluster) stop(ctx context.Context, grace time.Duration, names ...string) error {
	var ids []identity
	for _, name := range names {
		if id, err := c.running(name); err == nil {
			ids = append(ids, id)
		}
	}
	if err := stopProcesses(ctx, ids, grace); err != nil {
		return err
	}
	for _, name := range names {
		os.Remove(c.pidFile(name))
	}
	return nil
}

// pidFiles lists the names of pid files that match the pattern.
func (c *cluster) pidFiles(pattern string) []string {
	files, _ := filepath.Glob(c.pidFile(pattern)) // the only possible error is a bad pattern
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ".pid")
	}
	return files
}

// require is a condition for poll: it fails as soon as one of the daemons is gone, so that nobody waits in vain.
func (c *cluster) require(names ...string) error {
	for _, name := range names {
		if _, err := c.running(name); err != nil {
			return c.explain(name, errors.New("it has ended"))
		}
	}
	return nil
}

// explain adds the end of a daemon's log to an error about it.
func (c *cluster) explain(name string, err error) error {
	return fmt.Errorf("%s: %w; the end of %s:\n%s", name, err, c.log(name), tail(c.log(name), 15))
}

func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return "    " + strings.Join(all[max(0, len(all)-lines):], "\n    ")
}

// poll checks a condition every 25 ms. An error of the condition ends it.
func poll(ctx context.Context, limit time.Duration, what string, condition func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := condition(); err != nil || ok {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("waited %s for %s", limit, what)
			}
			return ctx.Err()
		}
	}
}
