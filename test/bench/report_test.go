// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func exampleReport(t *testing.T) report {
	t.Helper()
	figures := chosen(allFigures(), regexp.MustCompile("^(cpu-get|throughput)"), false)
	o := options{rounds: 3, connections: 64, cores: 2, duration: 4 * time.Second}
	return newReport(t.Context(), o, figures, series{
		{"get", ours, "cpu"}: {11, 10, 12}, {"get", nginx, "cpu"}: {10, 10, 10}, {"get", haproxy, "cpu"}: {20, 20, 20},
		{"get", reverseProxy, "cpu"}: {50, 50, 50},
		{"get", ours, "rate"}:        {20000, 21000, 19000}, {"get", reverseProxy, "rate"}: {10000, 10000, 10001},
		{"get", nginx, "rate"}: {30000, 30000, 30000}, {"get", haproxy, "rate"}: {25000, 25000, 25000},
	})
}

func TestPrint(t *testing.T) {
	var b bytes.Buffer
	exampleReport(t).print(&b)
	want := `figure                          ours   reference  unit        ratio  goal     
cpu-get-vs-nginx                11     10         µs          1.100  ≤ 1.2    ok
throughput-get-vs-reverseproxy  20000  10000      requests/s  0.500  ≤ 0.334  missed
cpu-get-vs-haproxy              11     20         µs          0.550  –        –
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	if err := exampleReport(t).write(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	want := []map[string]any{
		{"name": "cpu-get-vs-nginx", "value": 11.0, "unit": "µs", "reference": 10.0, "ratio": 1.1, "goal": 1.2},
		{"name": "throughput-get-vs-reverseproxy", "value": 20000.0, "unit": "requests/s", "reference": 10000.0, "ratio": 0.5, "goal": 0.334},
		{"name": "cpu-get-vs-haproxy", "value": 11.0, "unit": "µs", "reference": 20.0, "ratio": 0.55, "goal": nil},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	html, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"3 rounds of 4s each", "<td class=\"missed\">missed", "≤ 0.334", "prefers-color-scheme: dark", "<th>Go<td>go1.",
	} {
		if !strings.Contains(string(html), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if n := strings.Count(string(html), "<svg "); n != 3 {
		t.Errorf("there are %d plots, want 3", n)
	}
	if m := regexp.MustCompile(`(src|href)="[^#"]`).Find(html); m != nil {
		t.Errorf("the page needs something else: %s", m)
	}
}

func TestSVG(t *testing.T) {
	for _, p := range exampleReport(t).Plots {
		t.Run(p.name, func(t *testing.T) {
			svg := string(p.SVG())
			for d := xml.NewDecoder(strings.NewReader(svg)); ; {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("parsing %s: %v", svg, err)
				}
			}
			for what, n := range map[string]int{"<circle ": 12, `class="middle"`: 4, `class="ours"`: 1, `class="reference"`: 1} {
				if p.name == "cpu-get-vs-nginx" && strings.Count(svg, what) != n {
					t.Errorf("there are %d of %s, want %d", strings.Count(svg, what), what, n)
				}
			}
			if (p.Result.Goal != nil) != strings.Contains(svg, `class="goal"`) {
				t.Errorf("the goal's line: %s", svg)
			}
		})
	}
}

func TestGoalAt(t *testing.T) {
	goal := 0.5
	for name, tc := range map[string]struct {
		plot plot
		want float64
	}{
		"less is better": {plot{Result: result{Reference: 10, Goal: &goal}}, 5},
		"more is better": {plot{figure: figure{more: true}, Result: result{Reference: 10, Goal: &goal}}, 20},
		"no goal":        {plot{Result: result{Reference: 10}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.plot.goalAt(); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestTickStep(t *testing.T) {
	for name, tc := range map[string]struct{ top, want float64 }{
		"units":    {5, 1},
		"twos":     {9, 2},
		"fives":    {19, 5},
		"tens":     {45, 10},
		"thousand": {4500, 1000},
		"parts":    {0.45, 0.1},
		"nothing":  {0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tickStep(tc.top); got < tc.want*0.999 || got > tc.want*1.001 {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestLoad1(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want float64
	}{
		"there":   {"4.16 3.26 2.04 1/106 20802\n", 4.16},
		"missing": {"", 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := load1([]byte(tc.text)); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestCPUModel(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"there":   {"processor\t: 0\nmodel name\t: Some CPU: fast\nprocessor\t: 1\nmodel name\t: Other\n", "Some CPU: fast"},
		"missing": {"processor : 0\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := cpuModel([]byte(tc.text)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
