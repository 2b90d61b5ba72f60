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
	defer stop()
	context.AfterFunc(ctx, stop) // who presses Ctrl-C twice means it
	if err := execute(ctx); err != nil {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted; `up` goes on from here, `down` cleans up")
		}
		fmt.Fprintln(os.Stderr, "cluster:", err)
		stop()
		os.Exit(1)
	}
}

// execute finds out which cluster is meant before cobra does anything: commands that pass all their arguments on do not
// have theirs parsed.
func execute(ctx context.Context) error {
	// the programs of an administrator are not in everybody's PATH
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return err
	}
	if err := leaveModule(); err != nil {
		return err
	}
	return rootCommand().ExecuteContext(ctx) //nolint:contextcheck // cobra hands it to the commands
}

// leaveModule undoes what `go run -C test/cluster` does to the working directory: paths given from the repository's root
// mean there, and so does what `exec` and helm run.
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
