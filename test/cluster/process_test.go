// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testCluster has its state in a folder of its own.
func testCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{
		name: "test", checkout: t.TempDir(), cache: t.TempDir(), kubeSum: "0123", pauseSum: "4567", traefikSum: "89ab", certManagerSum: "cdef",
		netpolSum: "0246",
	}
	if err := c.prepare(1); err != nil {
		t.Fatal(err)
	}
	return c
}

// startSleep starts a process that outlasts the test, and reaps it once it ends.
func startSleep(t *testing.T) (identity, <-chan error) {
	t.Helper()
	cmd := exec.Command("sleep", "3600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	id, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return id, done
}

func TestParseStat(t *testing.T) {
	rest := strings.Repeat(" 1", 18) + " 4711 1 1"
	for name, tc := range map[string]struct {
		stat  string
		state string
		start uint64
		fails bool
	}{
		"plain":                       {stat: "12 (sleep) S" + rest, state: "S", start: 4711},
		"zombie":                      {stat: "12 (sleep) Z" + rest, state: "Z", start: 4711},
		"a name that looks like more": {stat: "12 (a) R 9 (b) S" + rest, state: "S", start: 4711},
		"too short":                   {stat: "12 (sleep) S 1 2", fails: true},
		"empty":                       {stat: "", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			state, start, err := parseStat(tc.stat)
			if (err != nil) != tc.fails || state != tc.state && !tc.fails || start != tc.start {
				t.Errorf("got %q %d %v, want %q %d, error: %v", state, start, err, tc.state, tc.start, tc.fails)
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	id, _ := startSleep(t)
	if !id.alive() {
		t.Fatal("a process that runs is not alive")
	}
	for name, change := range map[string]func(*identity){
		"started at another time": func(id *identity) { id.Start++ },
		"before a reboot":         func(id *identity) { id.Boot = "another" },
		"another program":         func(id *identity) { id.Exe = "/bin/other" },
		"another number":          func(id *identity) { id.PID = os.Getpid() },
	} {
		t.Run(name, func(t *testing.T) {
			other := id
			change(&other)
			if other.alive() {
				t.Error("taken for the process in the pid file")
			}
		})
	}
}

func TestZombieIsNotAlive(t *testing.T) {
	cmd := exec.Command("sleep", "3600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	id, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	id.signal(syscall.SIGKILL) // and nothing reaps it yet
	if err := poll(t.Context(), 10*time.Second, "the process to end", func() (bool, error) { return !id.alive(), nil }); err != nil {
		t.Fatal(err)
	}
	if !exists(fmt.Sprintf("/proc/%d", id.PID)) {
		t.Fatal("the process was reaped: this tests nothing")
	}
}

// A stale pid file must not end the process that now has its number.
func TestStopLeavesForeignProcessesAlone(t *testing.T) {
	c := testCluster(t)
	foreign, done := startSleep(t)
	stale := foreign
	stale.Start--
	if err := c.savePID("etcd", stale); err != nil {
		t.Fatal(err)
	}
	if err := c.stop(t.Context(), time.Second, "etcd"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
		t.Fatal("a foreign process was ended")
	default:
	}
	if !foreign.alive() || exists(c.pidFile("etcd")) {
		t.Error("want the process alive and the stale file gone")
	}
}

func TestStop(t *testing.T) {
	c := testCluster(t)
	id, done := startSleep(t)
	if err := c.savePID("etcd", id); err != nil {
		t.Fatal(err)
	}
	if got, err := c.running("etcd"); err != nil || got != id {
		t.Fatalf("running: %v %v, want %v", got, err, id)
	}
	if err := c.stop(t.Context(), 5*time.Second, "etcd", "never-started"); err != nil {
		t.Fatal(err)
	}
	<-done
	if _, err := c.running("etcd"); !errors.Is(err, errNoProcess) {
		t.Errorf("running after stop: %v", err)
	}
}

func TestStopKillsWhatIgnoresIt(t *testing.T) {
	c := testCluster(t)
	cmd := exec.Command("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
	id, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.savePID("stubborn", id); err != nil {
		t.Fatal(err)
	}
	if err := c.stop(t.Context(), 100*time.Millisecond, "stubborn"); err != nil {
		t.Fatal(err)
	}
}

func TestRunningRejectsGarbage(t *testing.T) {
	c := testCluster(t)
	for name, content := range map[string]string{"empty": "", "a bare number": "1", "half": `{"pid":1,"st`, "nobody": `{"pid":0}`} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(c.pidFile("etcd"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if id, err := c.running("etcd"); err == nil {
				t.Errorf("running: %v", id)
			}
		})
	}
}

func TestRequireShowsTheLog(t *testing.T) {
	c := testCluster(t)
	if err := os.WriteFile(c.log("etcd"), []byte("first\nlast words\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := c.require("etcd")
	if err == nil || !strings.Contains(err.Error(), "last words") || !strings.Contains(err.Error(), c.log("etcd")) {
		t.Errorf("got %v, want the log and its place", err)
	}
}

func TestPoll(t *testing.T) {
	broken := errors.New("broken")
	if err := poll(t.Context(), time.Minute, "an error", func() (bool, error) { return true, broken }); !errors.Is(err, broken) {
		t.Errorf("error of the condition: %v", err)
	}
	err := poll(t.Context(), time.Millisecond, "the impossible", func() (bool, error) { return false, nil })
	if err == nil || !strings.Contains(err.Error(), "the impossible") {
		t.Errorf("time is up: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := poll(ctx, time.Minute, "x", func() (bool, error) { return false, nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestIsShimOf(t *testing.T) {
	const shim = "/usr/bin/containerd-shim-runc-v2"
	for name, tc := range map[string]struct {
		args []string
		want bool
	}{
		"ours":            {[]string{shim, "-namespace", "k8s.io", "-id", "1", "-address", "/a.sock"}, true},
		"another's":       {[]string{shim, "-id", "1", "-address", "/b.sock"}, false},
		"a mention":       {[]string{"grep", "-address", "/a.sock"}, false},
		"without a value": {[]string{shim, "-address"}, false},
		"kernel thread":   {[]string{""}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := isShimOf(tc.args, "/a.sock"); got != tc.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestCommandLine(t *testing.T) {
	id, _ := startSleep(t)
	// Start may return before the kernel has set up the new program's arguments.
	var got string
	if err := poll(t.Context(), time.Minute, "a command line", func() (bool, error) {
		got = strings.Join(commandLine(id.PID), " ")
		return got != "", nil
	}); err != nil {
		t.Fatal(err)
	}
	if got != "sleep 3600" {
		t.Errorf("got %q", got)
	}
	if got := commandLine(0); len(got) != 1 || got[0] != "" {
		t.Errorf("nobody: %q", got)
	}
}
