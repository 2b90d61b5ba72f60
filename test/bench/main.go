// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command bench compares the interceptor with nginx, HAProxy and Go's ReverseProxy: CPU time per request, throughput, latency
// at a fixed rate, large bodies, TCP, memory. All of them run on loopback in front of the same backend, with the same number
// of threads, and in turn, so that other load on the machine affects all alike. Goals are ratios to a reference that was
// measured in the same run, never times.
//
//	bench [-quick] [-only REGEXP] [-rounds 5] [-duration 4s] [-connections 64] [-profile DIR] [-check] [-out DIR]
//
// It exits with 1 if a ratio is above its goal, and with 2 if it could not measure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"time"
)

// errMissed says that the measurement is complete and a goal was missed.
var errMissed = errors.New("a ratio is above its goal")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := run(ctx, os.Args[1:])
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errMissed):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // the signal handler need not be undone
	default:
		fmt.Fprintln(os.Stderr, "bench: not measured:", err)
		os.Exit(2)
	}
}

// run measures, or runs as one of the processes that a measurement needs.
func run(ctx context.Context, args []string) error {
	roles := map[string]func(context.Context, []string) error{
		"backend": backend, "interceptor": serveInterceptor, "reverseproxy": serveReverseProxy,
		"rate": sendAtRate, "transfer": transfer,
	}
	if len(args) > 0 {
		if role, ok := roles[args[0]]; ok {
			return role(ctx, args[1:])
		}
	}
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	return measure(ctx, o)
}

type options struct {
	rounds      int
	duration    time.Duration
	connections int
	cores       int
	only        *regexp.Regexp
	profile     string
	out         string
	check       bool
	quick       bool
}

func parseOptions(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.rounds, "rounds", 5, "how often each proxy is measured")
	flags.DurationVar(&o.duration, "duration", 4*time.Second, "duration of one round of one proxy, in whole seconds")
	flags.IntVar(&o.connections, "connections", 64, "number of open connections")
	flags.IntVar(&o.cores, "cores", min(2, runtime.NumCPU()), "threads of each proxy")
	only := flags.String("only", "", "measure only figures whose names match this regular expression")
	flags.StringVar(&o.profile, "profile", "", "write CPU and allocation profiles of the interceptor to this folder, from separate rounds")
	flags.StringVar(&o.out, "out", "", "folder for results.json and report.html (default test/bench, or bin for a partial run)")
	flags.BoolVar(&o.check, "check", false,
		"compare each reference with its twin: ratios should be 1, and show how much they vary on this machine")
	flags.BoolVar(&o.quick, "quick", false, "short rounds, only to see that it works")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("parsing arguments: unexpected argument %q", flags.Arg(0))
	}
	if o.quick {
		o.rounds, o.duration = 2, time.Second
	}
	if o.rounds < 1 || o.connections < 1 || o.cores < 1 || o.duration < time.Second || o.duration%time.Second != 0 {
		return o, errors.New("parsing arguments: -rounds, -connections and -cores of at least 1 are needed, and a -duration in whole seconds")
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return o, fmt.Errorf("parsing arguments: -only: %w", err)
	}
	if o.out == "" {
		o.out = filepath.Join("test", "bench")
		if o.quick || o.check || *only != "" {
			o.out = "bin" // a partial run does not replace the results of a complete one
		}
	}
	return o, nil
}
