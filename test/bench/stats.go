// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"math"
	"slices"
)

// median of values, of which there must be one.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// geometricMean of values, which must be positive. The ratio of two such means is the mean ratio of their pairs: what
// disturbed a pair alike is not in it, and all pairs are, where a median knows only the middle.
func geometricMean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += math.Log(v)
	}
	return math.Exp(sum / float64(len(values)))
}

// percentile returns the smallest of sorted values that at least p percent of them do not exceed.
func percentile[T any](sorted []T, p float64) T {
	return sorted[max(0, int(math.Ceil(p/100*float64(len(sorted))))-1)]
}

// result is a figure that has been measured, as results.json has it.
type result struct {
	Name      string   `json:"name"`
	Value     float64  `json:"value"`
	Unit      string   `json:"unit"`
	Reference float64  `json:"reference"` // the reference's value; the name says whose
	Ratio     float64  `json:"ratio"`     // smaller is better
	Goal      *float64 `json:"goal"`      // the most that Ratio may be; null where the figure only informs
}

// judge makes the result of f from the values of its rounds.
//
// The ratio is that of the medians, not the median of the rounds' ratios: a round of ours that something disturbed would
// spoil its pair, and a reader who divides the two values gets what is written.
func judge(f figure, values, references []float64) result {
	r := result{Name: f.name, Unit: f.unit, Value: significant(f.middle(values)), Reference: significant(f.middle(references))}
	r.Ratio = r.Value / r.Reference
	if f.more {
		r.Ratio = 1 / r.Ratio
	}
	r.Ratio = math.Round(r.Ratio*1000) / 1000
	if f.goal > 0 {
		r.Goal = &f.goal
	}
	return r
}

// missed says that the ratio is above its goal. No ratio at all, from values of zero, is no success either.
func (r result) missed() bool { return r.Goal != nil && !(r.Ratio <= *r.Goal) }

// Verdict is missed in a word.
func (r result) Verdict() string {
	switch {
	case r.Goal == nil:
		return "–"
	case r.missed():
		return "missed"
	default:
		return "ok"
	}
}

// significant rounds v to four digits; there is no more in it.
func significant(v float64) float64 {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return v
	}
	unit := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*unit) / unit
}
