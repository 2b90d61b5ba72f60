// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed page.html
var page string

// report is the result of a run.
type report struct {
	Results []result
	Plots   []plot
	Facts   []fact
	Settings
}

// Settings are the settings of the run, in the page's words.
type Settings struct {
	Rounds, Connections, Cores, Idle int
	Duration                         time.Duration
	Check                            bool
}

// fact is something about the machine or a program.
type fact struct{ Name, Value string }

func newReport(ctx context.Context, o options, figures []figure, values series) report {
	r := report{Facts: facts(ctx), Settings: Settings{
		Rounds: o.rounds, Connections: o.connections, Cores: o.cores, Idle: idleConnections, Duration: o.duration, Check: o.check,
	}}
	for _, f := range figures {
		result := judge(f, values[[3]string{f.load, f.ours, f.metric}], values[[3]string{f.load, f.reference, f.metric}])
		r.Results = append(r.Results, result)
		p := plot{figure: f, Result: result}
		for _, name := range proxiesOf(figures, f.load) {
			p.rows = append(p.rows, row{name, values[[3]string{f.load, name, f.metric}]})
		}
		r.Plots = append(r.Plots, p)
	}
	return r
}

// print writes the table.
func (r report) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintln(w, "figure\tours\treference\tunit\tratio\tgoal\t")
	for _, x := range r.Results {
		goal := "–"
		if x.Goal != nil {
			goal = "≤ " + number(*x.Goal)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.3f\t%s\t%s\n", x.Name, number(x.Value), number(x.Reference), x.Unit, x.Ratio, goal, x.Verdict())
	}
}

// write writes results.json and report.html.
func (r report) write(dir string) error {
	list, err := json.MarshalIndent(r.Results, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the results: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(list, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	b, err := r.html()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "report.html"), b, 0o644); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

func (r report) html() ([]byte, error) {
	t, err := template.New("report").Funcs(template.FuncMap{"number": number}).Parse(page)
	if err != nil {
		return nil, fmt.Errorf("parsing the page: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, r); err != nil {
		return nil, fmt.Errorf("writing the page: %w", err)
	}
	return b.Bytes(), nil
}

// number formats v with at most four digits.
func number(v float64) string { return strconv.FormatFloat(significant(v), 'f', -1, 64) }

// facts describes the machine and the programs. It leaves out what it cannot find out.
func facts(ctx context.Context) []fact {
	kernel, model := "", ""
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		model = cpuModel(b)
	}
	all := []fact{
		{"time", time.Now().UTC().Format("2006-01-02 15:04 UTC")},
		{"commit", commit()},
		{"CPUs", strconv.Itoa(runtime.NumCPU()) + " " + model},
		{"kernel", kernel},
		{"Go", runtime.Version()},
		{nginx, version(ctx, nginx, "-v")},
		{haproxy, version(ctx, haproxy, "-v")},
		{"wrk", version(ctx, "wrk", "-v")},
	}
	return slices.DeleteFunc(all, func(f fact) bool { return strings.TrimSpace(f.Value) == "" })
}

// cpuModel returns the first model name in the text of /proc/cpuinfo.
func cpuModel(b []byte) string {
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	revision, modified := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = ", with changes"
		}
	}
	if revision == "" {
		return ""
	}
	return revision + modified
}

// version returns the line in which a program reports its version, on either stream and with any exit code.
func version(ctx context.Context, name string, args ...string) string {
	out := combined(ctx, name, args...)
	line, _, _ := strings.Cut(out, "\n")
	if cut, _, ok := strings.Cut(line, " ["); ok { // wrk: its event loop and authors
		line = cut
	}
	if cut, _, ok := strings.Cut(line, " - "); ok { // HAProxy: its home page
		line = cut
	}
	return strings.TrimSpace(line)
}
