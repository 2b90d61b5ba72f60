// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A namespace is a network namespace, by its name in /run/netns.
type namespace string

func (n namespace) path() string { return namespacesDir + "/" + string(n) }

// exists tells whether the network namespace is there. A file is not enough: after a reboot or a crash it may be empty,
// with nothing mounted on it.
func (n namespace) exists() bool {
	var fs unix.Statfs_t
	return unix.Statfs(n.path(), &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// ensure makes the namespace, unless it is there.
func (n namespace) ensure() error {
	if n.exists() {
		return nil
	}
	if err := os.Remove(n.path()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// ip makes /run/netns a shared mount of its own, which later `ip netns` commands rely on
	if out, err := exec.Command("ip", "netns", "add", string(n)).CombinedOutput(); err != nil {
		return fmt.Errorf("making network namespace %s: %w: %s", n, err, out)
	}
	return nil
}

// do runs f on a thread in the namespace. What f starts or opens stays in there. The thread ends with its goroutine, so
// that no other goroutine runs in the namespace.
func (n namespace) do(f func() error) error {
	if !n.exists() {
		return fmt.Errorf("there is no network namespace %s: it is not up", n)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := enter(n.path()); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func enter(path string) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	defer ns.Close()
	if err := netns.Set(ns); err != nil {
		return fmt.Errorf("entering %s: %w", path, err)
	}
	return nil
}

// dial connects to an address inside the namespace. The address is an IP, because a name would be resolved outside.
func (n namespace) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.do(func() error {
		d := net.Dialer{Timeout: 10 * time.Second}
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// exec replaces this process by the command, inside the namespace. It returns only on errors.
func (n namespace) exec(binary string, argv, env []string) error {
	return n.do(func() error {
		return fmt.Errorf("running %s: %w", binary, syscall.Exec(binary, argv, env))
	})
}

// delete removes the namespace, and with it the interfaces, routes and rules.
func (n namespace) delete() error {
	if !exists(n.path()) {
		return nil
	}
	if n.exists() {
		if err := unix.Unmount(n.path(), unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmounting %s: %w", n.path(), err)
		}
	}
	if err := os.Remove(n.path()); err != nil {
		return fmt.Errorf("removing network namespace %s: %w", n, err)
	}
	return nil
}

// id is the target of /proc/PID/ns/net for every process in the namespace.
func (n namespace) id() (os.FileInfo, error) {
	if !n.exists() {
		return nil, os.ErrNotExist
	}
	return os.Stat(n.path())
}

// pids lists the processes in the namespace. It leaves out this process, which may have a thread in there.
func (n namespace) pids() ([]int, error) {
	id, err := n.id()
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return processes(func(pid int) bool {
		ns, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
		return err == nil && pid != os.Getpid() && os.SameFile(ns, id)
	})
}
