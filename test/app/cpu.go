// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// burn works until this process has used that much CPU time, as an app does that compiles or loads much while it starts.
func burn(ctx context.Context, d time.Duration) {
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() { spin(func() bool { return ctx.Err() == nil && used() < d }) })
	}
	both.Wait()
}

// spin uses one CPU for as long as it may.
func spin(may func() bool) {
	var sum [sha256.Size]byte
	for may() {
		for range 1000 {
			sum = sha256.Sum256(sum[:])
		}
	}
}

// used returns the CPU time that this process has used.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuLimit reads the CPU limit of the container from the cgroups mounted at root, of either version.
func cpuLimit(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "cpu.max"))
	if errors.Is(err, fs.ErrNotExist) {
		var quota, period []byte
		quota, err = os.ReadFile(filepath.Join(root, "cpu", "cpu.cfs_quota_us"))
		if err == nil {
			period, err = os.ReadFile(filepath.Join(root, "cpu", "cpu.cfs_period_us"))
		}
		text = fmt.Appendf(nil, "%s %s", quota, period)
	}
	if err != nil {
		return "", fmt.Errorf("reading the CPU limit: %w", err)
	}
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return "", fmt.Errorf("reading the CPU limit: %q", text)
	}
	if fields[0] == "max" || fields[0] == "-1" {
		return "none", nil
	}
	quota, err := strconv.ParseFloat(fields[0], 64)
	period, err2 := strconv.ParseFloat(fields[1], 64)
	if errors.Join(err, err2) != nil || period <= 0 {
		return "", fmt.Errorf("reading the CPU limit: %q", text)
	}
	return strconv.FormatFloat(quota/period, 'f', -1, 64), nil
}
