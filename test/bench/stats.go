// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"math"
	"slices"
)

// median returns the median of values, of which there must be one at least.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// geometricMean returns the geometric mean of values, which must be positive. The ratio of two such means is the mean of
// the pairs' ratios: what disturbs both of a pair cancels out. Every pair counts, while a median sees only the middle.
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

// result is a measured figure, as in results.json.
type result struct {
	Name      string   `json:"name"`
	Value     float64  `json:"value"`
	Unit      string   `json:"unit"`
	Reference float64  `json:"reference"` // the reference's value; the name says whose
	Ratio     float64  `json:"ratio"`     // smaller is better
	Goal      *float64 `json:"goal"`      // the highest Ratio allowed; null where the figure only informs
}

// judge makes the result of f from the values of its rounds.
//
// It takes the ratio of the medians, not the median of the rounds' ratios: one disturbed round of ours would spoil its
// pair, and a reader who divides the two values gets the ratio that is written.
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

// missed says that the ratio is above its goal. A ratio that does not exist, because values are zero, is missed too.
func (r result) missed() bool { return r.Goal != nil && !(r.Ratio <= *r.Goal) }

// Verdict returns missed as a word.
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

// significant rounds v to four digits, which is all the accuracy there is.
func significant(v float64) float64 {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return v
	}
	unit := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*unit) / unit
}
