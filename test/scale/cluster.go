// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// mode is a cluster of its own to measure in.
type mode struct {
	name  string // before the names of its figures
	sizes []int
	keda  bool
}

// modes are what the options ask for.
func (o options) modes() []mode {
	all := []mode{{name: "native", sizes: o.sizes}}
	small := slices.DeleteFunc(slices.Clone(o.sizes), func(n int) bool { return n > kedaLimit })
	if o.keda && len(small) > 0 {
		all = append(all, mode{name: "keda", sizes: small, keda: true})
	}
	return all
}

// compare measures in one cluster after the other, prints the table and writes results.json.
func compare(ctx context.Context, o options) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("making the folder for results: %w", err)
	}
	began := time.Now()
	var rows []row
	for i, m := range o.modes() {
		more, err := measureIn(ctx, o, m, o.keep && i == len(o.modes())-1)
		rows = append(rows, more...)
		if err != nil {
			printTable(os.Stdout, rows)
			return err
		}
	}
	rows = append(rows, growth(rows)...)
	printTable(os.Stdout, rows)
	fmt.Printf("It took %s\n", time.Since(began).Round(time.Second))
	if err := writeRows(filepath.Join(o.out, "results.json"), rows); err != nil {
		return err
	}
	if slices.ContainsFunc(rows, row.missed) {
		return errMissed
	}
	return nil
}

// measureIn boots a cluster, has this program measure in its network namespace, and returns what that has written.
func measureIn(ctx context.Context, o options, m mode, keep bool) (rows []row, err error) {
	c := clusterTool{}
	if err := c.boot(ctx, m); err != nil {
		return nil, err
	}
	if !keep {
		defer func() { err = errors.Join(err, c.run(context.WithoutCancel(ctx), "down")) }()
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	dir, err := os.MkdirTemp("", "scale-*")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	sizes := strings.Trim(strings.ReplaceAll(fmt.Sprint(m.sizes), " ", ","), "[]")
	args := []string{"exec", self, "inside", "-sizes", sizes, fmt.Sprintf("-keda=%t", m.keda), "-out", dir}
	if o.quick {
		args = append(args, "-quick")
	}
	if o.profile != "" {
		args = append(args, "-profile", o.profile)
	}
	measured := c.run(ctx, args...)
	rows, err = readRows(filepath.Join(dir, "results.json")) // there are some even if a later step has failed
	if measured != nil {
		return rows, fmt.Errorf("measuring %s: %w", m.name, measured)
	}
	return rows, err
}

// clusterTool runs test/cluster, which make has built beside this program, with a cluster of our own: the checkout's may be in use.
type clusterTool struct{}

const clusterName = "scale"

// boot makes a new cluster with our image and kwok's nodes.
func (c clusterTool) boot(ctx context.Context, m mode) error {
	up := []string{"up", "--large"}
	if !m.keda {
		up = append(up, "--without-keda")
	}
	for _, args := range [][]string{
		{"down"}, // one that an earlier run has left behind
		up,
		{"kwok", "--nodes", fmt.Sprint(1 + slices.Max(m.sizes)/1000)},
		{"load", filepath.Join("bin", "scale-to-zero.tar")},
	} {
		if err := c.run(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

func (clusterTool) run(ctx context.Context, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(self), "cluster"), append([]string{"--name", clusterName}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("cluster %s: %w", args[0], err)
	}
	return nil
}
