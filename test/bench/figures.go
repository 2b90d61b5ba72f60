// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The proxies.
const (
	ours         = "scale-to-zero"
	nginx        = "nginx"
	haproxy      = "haproxy"
	reverseProxy = "reverseproxy"

	// twin is the suffix of a second proxy of the same kind.
	twin = " (twin)"
)

// sample has the values of one round of one proxy, by metric.
type sample map[string]float64

// load is one way to keep a proxy busy.
type load struct {
	name string
	run  func(ctx context.Context, l *lab, s *server, d time.Duration) (sample, error)
	// parts is how often a round repeats the load on every proxy, each for an eighth of a round's time; 0 is once, for all
	// of it.
	parts int
}

// figure compares one value of ours with the same value of a reference.
type figure struct {
	name, title, unit string
	load, metric      string
	ours, reference   string // proxies
	more              bool   // more is better
	// mean summarizes all values; nil is their median.
	mean func(values []float64) float64
	// goal is the highest ratio allowed. A figure without a goal only informs.
	goal float64
}

// allLoads is in the order in which each round runs them.
func allLoads() []load {
	return []load{
		{name: "get", run: small(func(s *server) string { return s.http }, false)},
		{name: "post", run: small(func(s *server) string { return s.http }, true)},
		{name: "tcp", run: small(func(s *server) string { return s.tcp }, false)},
		// Whatever disturbs a hundredth of the time moves a percentile. It varies several times over from one part to the next,
		// even between two nginx. Many short parts are needed to tell two proxies apart.
		{name: "rate", run: atRate, parts: 24},
		{name: "download", run: bodies("download")},
		{name: "upload", run: bodies("upload")},
		{name: "idle", run: idle},
		{name: "held", run: held},
	}
}

func allFigures() []figure {
	return []figure{
		{
			name: "cpu-get-vs-nginx", title: "CPU time a request, answers of 100 bytes", unit: "µs", load: "get", metric: "cpu", ours: ours,
			reference: nginx, goal: 1.2,
		},
		{
			name: "throughput-get-vs-reverseproxy", title: "Throughput, answers of 100 bytes", unit: "requests/s", load: "get", metric: "rate",
			ours: ours, reference: reverseProxy, more: true, goal: 0.334,
		},
		{
			name: "p99-vs-nginx", title: "99th percentile of latency at half of nginx's maximum rate", unit: "µs", load: "rate", metric: "p99",
			ours: ours, reference: nginx, mean: geometricMean, goal: 1.2,
		},
		{
			name: "download-vs-nginx", title: "Large answers", unit: "MB/CPU second", load: "download", metric: "bytes", ours: ours,
			reference: nginx, more: true, goal: 1.112,
		},
		{
			name: "upload-vs-nginx", title: "Large requests", unit: "MB/CPU second", load: "upload", metric: "bytes", ours: ours, reference: nginx,
			more: true, goal: 1.112,
		},
		{
			name: "cpu-tcp-vs-haproxy", title: "CPU time a request in TCP mode", unit: "µs", load: "tcp", metric: "cpu", ours: ours,
			reference: haproxy, goal: 1.2,
		},
		{
			name: "cpu-post-vs-nginx", title: "CPU time a request with a body of 1 KB", unit: "µs", load: "post", metric: "cpu", ours: ours,
			reference: nginx,
		},
		{
			name: "cpu-get-vs-haproxy", title: "CPU time a request, HAProxy in HTTP mode", unit: "µs", load: "get", metric: "cpu", ours: ours,
			reference: haproxy,
		},
		{
			name: "memory-idle-vs-nginx", title: "Resident memory of an idle connection", unit: "KB", load: "idle", metric: "memory", ours: ours,
			reference: nginx,
		},
		{
			name: "memory-held-vs-nginx-idle", title: "Resident memory of one of 10,000 held requests, and of an idle connection", unit: "KB",
			load: "held", metric: "memory", ours: ours, reference: nginx,
		},
	}
}

// middle summarizes all values.
func (f figure) middle(values []float64) float64 {
	if f.mean != nil {
		return f.mean(values)
	}
	return median(values)
}

// chosen returns the figures that match. For a check, a twin of the reference takes our place, and no goal can be missed.
func chosen(figures []figure, only *regexp.Regexp, check bool) []figure {
	figures = slices.DeleteFunc(slices.Clone(figures), func(f figure) bool { return !only.MatchString(f.name) })
	if check {
		for i := range figures {
			figures[i].ours, figures[i].goal = figures[i].reference+twin, 0
		}
	}
	return figures
}

// proxiesOf returns the proxies that the figures need for a load, each once.
func proxiesOf(figures []figure, load string) []string {
	var names []string
	for _, f := range figures {
		if f.load != load {
			continue
		}
		for _, name := range []string{f.ours, f.reference} {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// rotated returns names starting at another one in each round, so that none always follows the same one.
func rotated(names []string, round int) []string {
	if len(names) == 0 {
		return nil
	}
	k := round % len(names)
	return slices.Concat(names[k:], names[:k])
}

func kindOf(name string) string { return strings.TrimSuffix(name, twin) }
