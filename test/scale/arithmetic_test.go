// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func at(seconds int) time.Time { return time.Unix(int64(seconds), 0) }

func TestMost(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		spans []span
		want  int
	}{
		"none":                 {want: 0},
		"one after the other":  {spans: []span{{at(0), at(1)}, {at(1), at(2)}}, want: 1},
		"two of three overlap": {spans: []span{{at(0), at(4)}, {at(1), at(2)}, {at(3), at(5)}}, want: 2},
		"one in the other":     {spans: []span{{at(0), at(9)}, {at(1), at(8)}, {at(2), at(7)}}, want: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := most(tc.spans); got != tc.want {
				t.Errorf("most(%v) = %d, want %d", tc.spans, got, tc.want)
			}
		})
	}
}

func TestDisplaced(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		served []time.Time
		want   int
	}{
		"none":               {want: 0},
		"in order":           {served: []time.Time{at(1), at(2), at(3)}, want: 0},
		"at the same time":   {served: []time.Time{at(1), at(1), at(1)}, want: 0},
		"neighbours swapped": {served: []time.Time{at(1), at(3), at(2)}, want: 1},
		"the first is last":  {served: []time.Time{at(9), at(1), at(2), at(3)}, want: 3},
		"the last is first":  {served: []time.Time{at(2), at(3), at(4), at(1)}, want: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := displaced(tc.served); got != tc.want {
				t.Errorf("displaced(%v) = %d, want %d", tc.served, got, tc.want)
			}
		})
	}
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	values := []float64{5, 1, 4, 2, 3}
	for p, want := range map[float64]float64{0: 1, 20: 1, 50: 3, 99: 5, 100: 5} {
		if got := percentile(values, p); got != want {
			t.Errorf("percentile %v is %v, want %v", p, got, want)
		}
	}
	if got := percentile[float64](nil, 50); got != 0 {
		t.Errorf("percentile of nothing is %v", got)
	}
	if !slices.Equal(values, []float64{5, 1, 4, 2, 3}) {
		t.Errorf("the values are now %v", values)
	}
}

func TestGrowth(t *testing.T) {
	t.Parallel()
	rows := growth([]row{
		{Name: "native-100-publish-seconds", Value: 2, Unit: "s"},
		{Name: "native-1000-publish-seconds", Value: 30, Unit: "s"},
		{Name: "native-1000-bytes-of-ours", Value: 5000}, // without a smaller size
		{Name: "keda-1000-publish-seconds", Value: 30},   // of another mode
		{Name: "native-100-idle-cpu-etcd", Value: 1},     // does not count
		{Name: "native-1000-idle-cpu-etcd", Value: 100},
		{Name: "native-100-wake-cpu-controller", Value: 0},
		{Name: "native-1000-wake-cpu-controller", Value: 3},
	})
	if len(rows) != 2 {
		t.Fatalf("there are %d rows of growth: %+v", len(rows), rows)
	}
	seconds, wake := rows[0], rows[1]
	if seconds.Name != "native-1000-growth-publish-seconds" || *seconds.Ratio != 15 || *seconds.Goal != growthGoal || !seconds.missed() {
		t.Errorf("growth of the time is %+v", seconds)
	}
	if wake.Ratio != nil || wake.Goal != nil || wake.missed() {
		t.Errorf("growth from nothing, without a goal, is %+v", wake)
	}
}

func TestMissed(t *testing.T) {
	t.Parallel()
	f := figures{prefix: "native-100-"}
	f.add("a", 1, "s")
	f.compare("b", 5, "s", 1)
	f.limit("c", 1, "s", 1, 1)
	f.limit("d", 1.01, "s", 1, 1)
	f.limit("e", 0, "s", 0, 1) // no ratio
	f.limit("f", 0, "s", 1, 0)
	var missed []string
	for _, r := range f.rows {
		if r.missed() {
			missed = append(missed, r.Name)
		}
	}
	if want := []string{"native-100-d", "native-100-e"}; !slices.Equal(missed, want) {
		t.Errorf("missed are %v, want %v", missed, want)
	}
}

func TestRowsAreReadAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	f := figures{prefix: "native-100-"}
	f.add("a", 1.23456, "s")
	f.limit("b", 2, "s", 4, 1)
	file := filepath.Join(t.TempDir(), "results.json")
	if err := writeRows(file, f.rows); err != nil {
		t.Fatal(err)
	}
	rows, err := readRows(file)
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	if a, b := rows[0], rows[1]; a.Value != 1.235 || a.Reference != nil || a.Goal != nil || *b.Ratio != 0.5 || *b.Reference != 4 {
		t.Errorf("rows are %+v", rows)
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]int{"100": {100}, "100, 1000": {100, 1000}} {
		if got, err := parseSizes(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("sizes %q are %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "x", "1000,100", "100,100", "1000000"} {
		if got, err := parseSizes(text); err == nil {
			t.Errorf("sizes %q are %v", text, got)
		}
	}
}
