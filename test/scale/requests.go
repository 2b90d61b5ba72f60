// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/client-go/rest"
)

// apiRequests counts what the API server has answered, by verb and resource.
type apiRequests map[string]float64

// readRequests reads the counts from the API server's metrics.
func readRequests(ctx context.Context, c rest.Interface) (apiRequests, error) {
	b, err := c.Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the API server's metrics: %w", err)
	}
	return parseRequests(string(b)), nil
}

// parseRequests adds up apiserver_request_total of all codes and versions in a text of metrics. Its own requests for metrics and for
// health are left out.
func parseRequests(metrics string) apiRequests {
	counts := apiRequests{}
	for line := range strings.Lines(metrics) {
		labels, ok := strings.CutPrefix(line, "apiserver_request_total{")
		if !ok {
			continue
		}
		labels, value, _ := strings.Cut(labels, "} ")
		resource := label(labels, "resource")
		if resource == "" {
			continue
		}
		if sub := label(labels, "subresource"); sub != "" {
			resource += "/" + sub
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err == nil {
			counts[strings.ToLower(label(labels, "verb"))+" "+resource] += n
		}
	}
	return counts
}

// label returns the value of a label in the labels of a metric. The API server's values have no quotes in them.
func label(labels, name string) string {
	for pair := range strings.SplitSeq(labels, ",") {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}

// since returns what has come since the counts before.
func (a apiRequests) since(before apiRequests) apiRequests {
	diff := apiRequests{}
	for k, n := range a {
		if n > before[k] {
			diff[k] = n - before[k]
		}
	}
	return diff
}

func (a apiRequests) total() float64 {
	sum := 0.0
	for _, n := range a {
		sum += n
	}
	return sum
}

// writes is how many of them change something. A watch begins once and lasts.
func (a apiRequests) writes() float64 {
	sum := 0.0
	for k, n := range a {
		if verb, _, _ := strings.Cut(k, " "); isWrite(verb) {
			sum += n
		}
	}
	return sum
}

func isWrite(verb string) bool {
	return slices.Contains([]string{"create", "update", "patch", "apply", "delete", "deletecollection", "post", "put"}, verb)
}

// often returns the keys, the most frequent ones first.
func (a apiRequests) often() []string {
	return slices.SortedFunc(maps.Keys(a), func(x, y string) int {
		if a[x] != a[y] {
			return int(a[y] - a[x])
		}
		return strings.Compare(x, y)
	})
}
