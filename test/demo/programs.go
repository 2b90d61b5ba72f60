// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// clusterProgram is test/cluster, built once: `go run` would be slow each time.
const clusterProgram = "bin/demo/cluster"

// A cluster is the viewer's own, if it has a context. Otherwise it is ours, reached through clusterProgram, which finds it by
// the checkout or by SCALE_TO_ZERO_CLUSTER.
type cluster struct {
	context string
	load    []string // loads the archive {} into the nodes
	arch    string   // of the nodes
	keda    bool
}

func (cluster) run(ctx context.Context, args ...string) (string, error) {
	return output(ctx, append([]string{clusterProgram}, args...)...)
}

func (c cluster) kubectl(ctx context.Context, args ...string) (string, error) {
	if c.context != "" {
		return output(ctx, append([]string{"kubectl", "--context", c.context}, args...)...)
	}
	return c.run(ctx, append([]string{"kubectl"}, args...)...)
}

func (c cluster) helm(ctx context.Context, args ...string) (string, error) {
	if c.context != "" {
		return output(ctx, append([]string{"helm", "--kube-context", c.context}, args...)...)
	}
	return c.run(ctx, append([]string{"helm"}, args...)...)
}

// loadImage loads an archive into the nodes.
func (c cluster) loadImage(ctx context.Context, archive string) error {
	var command []string
	for _, word := range c.load {
		command = append(command, strings.ReplaceAll(word, "{}", archive))
	}
	_, err := output(ctx, command...)
	return err
}

// output runs a program and returns its standard output. The error contains its standard error.
func output(ctx context.Context, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := program(ctx, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", fmt.Errorf("running `%s`: %w\n%s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// show runs a program whose output the viewer sees.
func show(ctx context.Context, args ...string) error {
	cmd := program(ctx, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("running `%s`: %w; see its output above", strings.Join(args, " "), err)
	}
	return nil
}

// program puts every program in a process group of its own, so that a terminal's Ctrl-C reaches it only through us, and only
// once: a program that is interrupted twice does not clean up.
func program(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}
