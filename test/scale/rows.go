// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
)

// row is a figure, as in results.json. Its name is MODE-APPS-FIGURE, as in native-1000-wake-p99.
type row struct {
	Name      string   `json:"name"`
	Value     float64  `json:"value"`
	Unit      string   `json:"unit"`
	Reference *float64 `json:"reference"` // what Value is compared with: a limit, or the same figure before; null where there is nothing
	Ratio     *float64 `json:"ratio"`     // Value to Reference, smaller is better
	Goal      *float64 `json:"goal"`      // the highest Ratio allowed; null where the figure only informs
}

// missed says that the ratio is above its goal. A ratio that does not exist is missed too.
func (r row) missed() bool { return r.Goal != nil && (r.Ratio == nil || !(*r.Ratio <= *r.Goal)) }

// figures collects the rows of one size.
type figures struct {
	prefix string
	rows   []row
}

// add adds a figure that only informs.
func (f *figures) add(name string, value float64, unit string) {
	f.rows = append(f.rows, row{Name: f.prefix + name, Value: significant(value), Unit: unit})
}

// compare adds a figure with what it is compared with.
func (f *figures) compare(name string, value float64, unit string, reference float64) {
	f.add(name, value, unit)
	last := &f.rows[len(f.rows)-1]
	last.Reference, last.Ratio = new(significant(reference)), ratio(value, reference)
}

// limit adds a figure that may be goal times the reference at most.
func (f *figures) limit(name string, value float64, unit string, reference, goal float64) {
	f.compare(name, value, unit, reference)
	f.rows[len(f.rows)-1].Goal = &goal
}

// ratio returns a / b, or nil if that is not a number.
func ratio(a, b float64) *float64 {
	r := math.Round(a/b*1000) / 1000
	if math.IsNaN(r) || math.IsInf(r, 0) {
		return nil
	}
	return &r
}

// growthGoal is what ten times the apps may cost: a tenth more than ten times as much.
const growthGoal = 11

// grows are the figures that may grow ten times at most, by the end of their names. What each app costs may not grow at all.
func grows() map[string]float64 {
	return map[string]float64{
		"publish-seconds": growthGoal, "publish-cpu-controller": growthGoal, "publish-cpu-interceptor": growthGoal,
		"memory-controller": growthGoal, "memory-interceptor": growthGoal,
		"restart-seconds": growthGoal, "restart-cpu": growthGoal, "uninstall-seconds": growthGoal,
		"bytes-of-ours": growthGoal / 10.0, "objects-of-ours": growthGoal / 10.0,
		"wake-cpu-controller": 0, "wake-cpu-interceptor": 0, // inform only: both are small beside what else runs
	}
}

// growth returns the rows that compare each size with the tenth of it.
func growth(rows []row) []row {
	values := map[string]row{}
	for _, r := range rows {
		values[r.Name] = r
	}
	var all []row
	for _, r := range rows {
		mode, apps, figure, ok := splitName(r.Name)
		goal, grows := grows()[figure]
		before, found := values[fmt.Sprintf("%s-%d-%s", mode, apps/10, figure)]
		if !ok || !grows || !found {
			continue
		}
		g := row{
			Name: fmt.Sprintf("%s-%d-growth-%s", mode, apps, figure), Value: r.Value, Unit: r.Unit,
			Reference: &before.Value, Ratio: ratio(r.Value, before.Value),
		}
		if goal > 0 {
			g.Goal = &goal
		}
		all = append(all, g)
	}
	return all
}

// splitName splits MODE-APPS-FIGURE.
func splitName(name string) (mode string, apps int, figure string, ok bool) {
	parts := strings.SplitN(name, "-", 3)
	if len(parts) < 3 {
		return "", 0, "", false
	}
	apps, err := strconv.Atoi(parts[1])
	return parts[0], apps, parts[2], err == nil
}

func printTable(out io.Writer, rows []row) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintln(w, "figure\tvalue\tunit\treference\tratio\tgoal\t")
	for _, r := range rows {
		verdict := ""
		switch {
		case r.missed():
			verdict = "missed"
		case r.Goal != nil:
			verdict = "ok"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, number(&r.Value), r.Unit, number(r.Reference), number(r.Ratio), number(r.Goal),
			verdict)
	}
}

func writeRows(file string, rows []row) error {
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the results: %w", err)
	}
	if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	return nil
}

func readRows(file string) ([]row, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the results: %w", err)
	}
	var rows []row
	if err := json.Unmarshal(b, &rows); err != nil {
		return nil, fmt.Errorf("reading the results: %w", err)
	}
	return rows, nil
}

func number(v *float64) string {
	if v == nil {
		return "–"
	}
	return strconv.FormatFloat(significant(*v), 'f', -1, 64)
}
