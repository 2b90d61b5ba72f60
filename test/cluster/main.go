// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	err := execute(ctx)
	stop()
	if err != nil {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted; `up` continues from here, `down` cleans up")
		}
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// execute prepares the environment and the working directory before cobra parses anything, because cobra does not parse
// the flags of commands that pass all arguments on.
func execute(ctx context.Context) error {
	// administrators' programs are not in every user's PATH
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return err
	}
	if err := leaveModule(); err != nil {
		return err
	}
	return rootCommand().ExecuteContext(ctx) //nolint:contextcheck // cobra passes it to the commands
}

// leaveModule undoes the change of working directory by `go run -C test/cluster`: relative paths start at the
// repository's root, also for programs that exec and helm run.
func leaveModule() error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	checkout := findCheckout(dir)
	real, err := filepath.EvalSymlinks(dir)
	if err != nil || checkout == "" || real != filepath.Join(checkout, "test", "cluster") {
		return err
	}
	if err := os.Chdir(checkout); err != nil {
		return err
	}
	return os.Setenv("PWD", checkout)
}
