// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// significant rounds v to four digits, which is all the accuracy there is.
func significant(v float64) float64 {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return v
	}
	unit := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*unit) / unit
}

// percentile returns the smallest of values that at least p percent of them do not exceed; 0 if there are none.
func percentile[T cmp.Ordered](values []T, p float64) T {
	if len(values) == 0 {
		var none T
		return none
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, int(math.Ceil(p/100*float64(len(sorted))))-1)]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// span is when something was under way.
type span struct{ from, to time.Time }

// most returns how many of the spans were under way at a time, at most. One that ends when another begins does not overlap it.
func most(spans []span) int {
	type edge struct {
		at    time.Time
		delta int
	}
	var edges []edge
	for _, s := range spans {
		edges = append(edges, edge{s.from, 1}, edge{s.to, -1})
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.delta, b.delta)) })
	now, top := 0, 0
	for _, e := range edges {
		now += e.delta
		top = max(top, now)
	}
	return top
}

// displaced returns by how many places the items were served before or after their turn, at most: 0 is the order of arrival. The items
// are in that order, and each has the time at which it was served.
func displaced(served []time.Time) int {
	order := make([]int, len(served))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return served[a].Compare(served[b]) })
	far := 0
	for place, i := range order {
		far = max(far, place-i, i-place)
	}
	return far
}
