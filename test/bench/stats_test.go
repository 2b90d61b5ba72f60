// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"math"
	"testing"
)

func TestMedian(t *testing.T) {
	for name, tc := range map[string]struct {
		values []float64
		want   float64
	}{
		"one":      {[]float64{7}, 7},
		"odd":      {[]float64{9, 1, 5}, 5},
		"even":     {[]float64{9, 1, 5, 6}, 5.5},
		"outliers": {[]float64{1000, 5, 5, 5, 0}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			if got := median(tc.values); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestGeometricMean(t *testing.T) {
	for name, tc := range map[string]struct {
		values []float64
		want   float64
	}{
		"one":     {[]float64{7}, 7},
		"several": {[]float64{1, 10, 100}, 10},
	} {
		t.Run(name, func(t *testing.T) {
			if got := geometricMean(tc.values); math.Abs(got-tc.want) > 1e-9 {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	for name, tc := range map[string]struct {
		sorted []int
		p      float64
		want   int
	}{
		"99 of 100":  {hundred, 99, 99},
		"50 of 100":  {hundred, 50, 50},
		"100 of 100": {hundred, 100, 100},
		"0 of 100":   {hundred, 0, 1},
		"99 of 10":   {hundred[:10], 99, 10},
		"99 of 1":    {hundred[:1], 99, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := percentile(tc.sorted, tc.p); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	for name, tc := range map[string]struct {
		figure             figure
		values, references []float64
		ratio              float64
		verdict            string
	}{
		"less is better, met":    {figure{goal: 1.2}, []float64{12, 10, 11}, []float64{10, 10, 99}, 1.1, "ok"},
		"just met":               {figure{goal: 1.2}, []float64{12}, []float64{10}, 1.2, "ok"},
		"less is better, missed": {figure{goal: 1.2}, []float64{12.1}, []float64{10}, 1.21, "missed"},
		"more is better, met":    {figure{more: true, goal: 0.334}, []float64{3000}, []float64{1000}, 0.333, "ok"},
		"more is better, missed": {figure{more: true, goal: 0.334}, []float64{2900}, []float64{1000}, 0.345, "missed"},
		"without a goal":         {figure{}, []float64{50}, []float64{10}, 5, "–"},
		"by another mean":        {figure{mean: geometricMean, goal: 1.2}, []float64{1, 100}, []float64{10, 10}, 1, "ok"},
		"nothing measured":       {figure{goal: 1.2}, []float64{0}, []float64{0}, math.NaN(), "missed"},
	} {
		t.Run(name, func(t *testing.T) {
			got := judge(tc.figure, tc.values, tc.references)
			if got.Ratio != tc.ratio && !(math.IsNaN(got.Ratio) && math.IsNaN(tc.ratio)) {
				t.Errorf("got ratio %v, want %v", got.Ratio, tc.ratio)
			}
			if got.Verdict() != tc.verdict {
				t.Errorf("got %q, want %q", got.Verdict(), tc.verdict)
			}
		})
	}
}

func TestSignificant(t *testing.T) {
	for name, tc := range map[string]struct{ v, want float64 }{
		"large":    {123456, 123500},
		"small":    {0.00123456, 0.001235},
		"negative": {-98765, -98770},
		"short":    {1.5, 1.5},
		"zero":     {0, 0},
		"infinite": {math.Inf(1), math.Inf(1)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := significant(tc.v); math.Abs(got-tc.want) > 1e-12 {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}
