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
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// measure measures the figures that o chooses, prints and writes them, and returns errMissed if a goal is missed.
func measure(ctx context.Context, o options) error {
	// See startProcess: the thread that starts processes must not end.
	runtime.LockOSThread()
	figures := chosen(allFigures(), o.only, o.check)
	if len(figures) == 0 {
		return fmt.Errorf("parsing arguments: no figure's name matches %q", o.only)
	}
	for _, name := range []string{"wrk", "nginx", "haproxy"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s is missing; on Debian: apt-get install wrk nginx-light haproxy", name)
		}
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("making the folder for the results: %w", err)
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil && load1(b) > 0.5 {
		progress("other programs are busy here (load %.2f): the figures will vary, -check shows how much", load1(b))
	}
	l, err := newLab(ctx, o)
	if err != nil {
		return err
	}
	defer l.close()
	values, err := l.rounds(ctx, figures)
	if err != nil {
		return err
	}
	if o.profile != "" {
		if err := l.profiles(ctx, figures); err != nil {
			return err
		}
	}
	report := newReport(ctx, o, figures, values)
	report.print(os.Stdout)
	if err := report.write(o.out); err != nil {
		return err
	}
	progress("wrote results.json and report.html to %s", o.out)
	if slices.ContainsFunc(report.Results, result.missed) {
		return errMissed
	}
	return nil
}

// series has the values of all rounds by load, proxy and metric.
type series map[[3]string][]float64

// rounds runs all loads that figures need. A round runs every load on every proxy, one right after the other: a
// disturbance of the machine affects all proxies of some rounds, and the medians leave these out.
func (l *lab) rounds(ctx context.Context, figures []figure) (series, error) {
	values := series{}
	for round := -1; round < l.options.rounds; round++ {
		duration := l.options.duration
		if round < 0 {
			duration = time.Second
			progress("warming up")
		} else {
			progress("round %d of %d", round+1, l.options.rounds)
		}
		for _, load := range allLoads() {
			names := proxiesOf(figures, load.name)
			parts, d := load.parts, duration/8
			if parts == 0 || round < 0 {
				parts, d = 1, duration
			}
			for part := range parts {
				if err := l.each(ctx, load, rotated(names, max(0, round)*parts+part), d, values); err != nil {
					return nil, err
				}
			}
		}
		if round < 0 {
			clear(values)
		}
	}
	return values, nil
}

// each runs a load on each proxy, and adds the results to values.
func (l *lab) each(ctx context.Context, load load, names []string, d time.Duration, values series) error {
	for _, name := range names {
		got, err := l.once(ctx, load, name, d)
		if err != nil {
			return fmt.Errorf("load %s on %s: %w", load.name, name, err)
		}
		for metric, value := range got {
			key := [3]string{load.name, name, metric}
			values[key] = append(values[key], value)
		}
	}
	return nil
}

// once runs a load on a proxy.
func (l *lab) once(ctx context.Context, load load, name string, d time.Duration) (sample, error) {
	s, err := l.server(ctx, name)
	if err != nil {
		return nil, err
	}
	got, err := load.run(ctx, l, s, d)
	if err != nil && ctx.Err() != nil {
		return nil, errors.New("interrupted")
	}
	return got, err
}

// load1 returns the load of the last minute in the text of /proc/loadavg.
func load1(b []byte) float64 {
	first, _, _ := strings.Cut(string(b), " ")
	load, _ := strconv.ParseFloat(first, 64) // it only decides on a remark
	return load
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
