// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A progress reports long steps to the user. It writes to standard error: standard output is for a command's result.
type progress struct {
	out      io.Writer
	terminal bool
	silent   bool // reports only begin and end
	began    time.Time
}

// aside returns a progress for what runs while another step is shown.
func (p *progress) aside() *progress {
	return &progress{out: p.out, terminal: p.terminal, silent: true, began: p.began}
}

func newProgress() *progress {
	_, err := unix.IoctlGetTermios(int(os.Stderr.Fd()), unix.TCGETS)
	return &progress{out: os.Stderr, terminal: err == nil, began: time.Now()}
}

// stage runs a short step and reports it with the time since the start.
func (p *progress) stage(what string, do func() error) error {
	if err := do(); err != nil {
		return err
	}
	fmt.Fprintf(p.out, "%7.1fs  %s\n", time.Since(p.began).Seconds(), what)
	return nil
}

// A stage is a short step.
type stage struct {
	what string
	do   func() error
}

// stages runs stages one after the other.
func (p *progress) stages(all []stage) error {
	for _, s := range all {
		if err := p.stage(s.what, s.do); err != nil {
			return err
		}
	}
	return nil
}

// long runs a step that takes minutes. On a terminal, one line counts the seconds; in a log, where every update is a new
// line, it writes one each half minute.
func (p *progress) long(what string, do func() error) error {
	began := time.Now()
	elapsed := func() time.Duration { return time.Since(began).Round(time.Second) }
	interval := 30 * time.Second
	switch {
	case p.silent:
		interval = time.Hour
		fallthrough
	case !p.terminal:
		fmt.Fprintf(p.out, "%s …\n", what)
	default:
		interval = time.Second
		fmt.Fprintf(p.out, "%s …", what)
	}
	done := make(chan error, 1)
	go func() { done <- do() }()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.line(what, elapsed(), false)
		case err := <-done:
			if err != nil && p.terminal {
				fmt.Fprintln(p.out)
			}
			if err == nil {
				p.line(what, elapsed(), true)
			}
			return err
		}
	}
}

func (p *progress) line(what string, elapsed time.Duration, last bool) {
	switch {
	case p.terminal && last:
		fmt.Fprintf(p.out, "\r\033[K%s … %s\n", what, elapsed)
	case p.terminal:
		fmt.Fprintf(p.out, "\r\033[K%s … %s", what, elapsed)
	case last:
		fmt.Fprintf(p.out, "%s … done after %s\n", what, elapsed)
	default:
		fmt.Fprintf(p.out, "%s … %s\n", what, elapsed)
	}
}
