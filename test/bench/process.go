// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a server that runs until it is stopped.
type process struct {
	name  string
	pid   int
	log   string
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended
}

// startProcess starts argv and writes its output to a file in dir. The caller must be on a locked thread that lives as
// long as this program, because the kernel takes the end of that thread for the end of the parent.
func startProcess(dir, name string, env []string, argv ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer log.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// An interrupt from the terminal reaches us alone. If we are killed, the process ends too.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p.pid = p.cmd.Process.Pid
	go func() {
		_ = p.cmd.Wait() // whoever waits for it sees how it ended
		close(p.ended)
	}()
	return p, nil
}

// stop ends the process and waits for it.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// died describes an unexpected end, with the last output of the process.
func (p *process) died() error {
	said, _ := os.ReadFile(p.log)
	lines := bytes.Split(bytes.TrimSpace(said), []byte("\n"))
	return fmt.Errorf("%s ended (%s): %s", p.name, p.cmd.ProcessState, lines[len(lines)-1])
}

// await waits until try succeeds, or the process has ended.
func (p *process) await(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return p.died()
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", p.name, errors.Join(ctx.Err(), err))
		}
	}
}

// tree returns the process and its children: nginx does its work in children.
func (p *process) tree() ([]int, error) {
	select {
	case <-p.ended:
		return nil, p.died()
	default:
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	pids := []int{p.pid}
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended meanwhile
		}
		pid, parent, err := parseStat(b)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		if parent == p.pid {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// cpu returns the CPU time that the process and its children have used.
func (p *process) cpu() (time.Duration, error) {
	pids, err := p.tree()
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, pid := range pids {
		// The CPU clock of all threads of a process, ended ones included, in nanoseconds; /proc/PID/stat has it in hundredths
		// of a second. The arithmetic is that of clock_getcpuclockid(3).
		var t unix.Timespec
		if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
			return 0, fmt.Errorf("reading the CPU time of %s: %w", p.name, err)
		}
		sum += time.Duration(t.Nano())
	}
	return sum, nil
}

// memory returns the resident memory of the process and its children that no file backs, in bytes.
func (p *process) memory() (int64, error) {
	pids, err := p.tree()
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, pid := range pids {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		if err != nil {
			return 0, fmt.Errorf("reading the memory of %s: %w", p.name, err)
		}
		bytes, err := parseMemory(b)
		if err != nil {
			return 0, fmt.Errorf("reading the memory of %s: %w", p.name, err)
		}
		sum += bytes
	}
	return sum, nil
}

// parseStat returns the process and its parent from the text of /proc/PID/stat. The name between them is in parentheses
// and may contain any character, parentheses too.
func parseStat(b []byte) (pid, parent int, err error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return 0, 0, fmt.Errorf("parsing %q: no name", b)
	}
	var state string
	if _, err := fmt.Sscan(string(b[:open]), &pid); err != nil {
		return 0, 0, fmt.Errorf("parsing %q: %w", b, err)
	}
	if _, err := fmt.Sscan(string(b[end+1:]), &state, &parent); err != nil {
		return 0, 0, fmt.Errorf("parsing %q: %w", b, err)
	}
	return pid, parent, nil
}

// parseMemory returns the bytes of RssAnon in the text of /proc/PID/status.
func parseMemory(b []byte) (int64, error) {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("RssAnon:")); ok {
			var kb int64
			if _, err := fmt.Sscanf(string(rest), "%d kB", &kb); err != nil {
				return 0, fmt.Errorf("parsing %q: %w", line, err)
			}
			return kb << 10, nil
		}
	}
	return 0, errors.New("parsing status: RssAnon is missing")
}
