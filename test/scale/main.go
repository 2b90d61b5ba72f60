// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command scale measures one installation of scale-to-zero with 100, 1,000 and 10,000 apps, in a cluster of test/cluster with nodes and
// pods that kwok plays, without KEDA and with it: what an app costs in objects and bytes, what each part needs while nobody visits, and
// how long a start, a restart, a hundred wakes and the admission of Services take.
//
//	scale [-sizes 100,1000,10000] [-keda=false] [-quick] [-profile DIR] [-keep] [-out DIR]
//
// It prints a table and writes results.json. Growth is a ratio: ten times the apps may cost eleven times as much. It exits with 1 if a
// ratio is above its goal, and with 2 if it could not measure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
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
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1) //nolint:gocritic // the signal handler need not be undone
	default:
		fmt.Fprintln(os.Stderr, "scale: not measured:", err)
		os.Exit(2)
	}
}

// run makes the clusters and measures in each. Called as "inside", it is the part that runs in a cluster's network namespace.
func run(ctx context.Context, args []string) error {
	inside := len(args) > 0 && args[0] == "inside"
	if inside {
		args = args[1:]
	}
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	if inside {
		return measure(ctx, o)
	}
	return compare(ctx, o)
}

type options struct {
	sizes   []int
	keda    bool
	quick   bool
	keep    bool
	profile string
	out     string
}

// kedaLimit is the largest size that is measured with KEDA. Beyond it, KEDA's own clients take longer than the whole run may.
const kedaLimit = 1000

func parseOptions(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("scale", flag.ContinueOnError)
	sizes := flags.String("sizes", "100,1000,10000", "how many apps, in rising order")
	flags.BoolVar(&o.keda, "keda", true, fmt.Sprintf("measure with KEDA too, up to %d apps", kedaLimit))
	flags.BoolVar(&o.quick, "quick", false, "short measurements of 20 and 100 apps, only to see that it works")
	flags.BoolVar(&o.keep, "keep", false, "keep the last cluster")
	flags.StringVar(&o.profile, "profile", "", "write CPU and heap profiles of the controller and an interceptor to this folder")
	flags.StringVar(&o.out, "out", "", "folder for results.json (default test/scale, or bin for a partial run)")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("parsing arguments: unexpected argument %q", flags.Arg(0))
	}
	partial := o.quick || !o.keda
	flags.Visit(func(f *flag.Flag) { partial = partial || f.Name == "sizes" })
	if o.quick {
		*sizes = "20,100"
	}
	var err error
	if o.sizes, err = parseSizes(*sizes); err != nil {
		return o, err
	}
	if o.out == "" {
		o.out = filepath.Join("test", "scale")
		if partial {
			o.out = "bin" // a partial run does not replace the results of a complete one
		}
	}
	return o, nil
}

func parseSizes(s string) ([]int, error) {
	var sizes []int
	for text := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 || n > maxApps {
			return nil, fmt.Errorf("parsing arguments: -sizes has %q; allowed are whole numbers from 1 to %d", text, maxApps)
		}
		sizes = append(sizes, n)
	}
	if !slices.IsSorted(sizes) || len(slices.Compact(slices.Clone(sizes))) < len(sizes) {
		return nil, fmt.Errorf("parsing arguments: -sizes is %q; each size must be larger than the one before", s)
	}
	return sizes, nil
}
