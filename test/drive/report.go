// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// result is the result of one request, or of one stream.
type result struct {
	at     time.Time // when it began
	took   time.Duration
	app    string
	kind   string
	edge   string // the app's state when it began
	id     string
	opened time.Time // when its connection was
	reused bool      // it went over a connection that had been used before
	raced  bool      // the server closed that connection before it read the request, which then went over another one
	err    error
}

// row counts the requests of one kind or at one edge.
type row struct {
	sent, reused, raced, lost int
	withNode                  int // lost, and it was under way before Kubernetes had noticed that a node was lost
	longest                   time.Duration
}

func (r *row) add(one result, lostNode string) {
	r.sent++
	if one.reused {
		r.reused++
	}
	if one.raced {
		r.raced++
	}
	switch {
	case one.err != nil && lostNode != "":
		r.withNode++
	case one.err != nil:
		r.lost++
	}
	r.longest = max(r.longest, one.took)
}

// report counts everything that happens.
type report struct {
	out   io.Writer
	began time.Time

	mu           sync.Mutex // protects all below, and the order of what is printed
	total        row
	edges, kinds map[string]*row
	cycles       map[string]int // by app
	rounds       []time.Duration
	disturbed    map[string]int
	problems     []string // other than lost requests
	closedIdle   int
	repeated     int
	losses       []loss
	exposed      int // requests that were under way while a node was lost and Kubernetes had not noticed
}

// loss is the time from a node's end until Kubernetes has noticed.
type loss struct {
	node        string
	from, until time.Time // until is zero as long as Kubernetes has not noticed
}

// lose notes that a node is about to be lost.
func (r *report) lose(node string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.losses = append(r.losses, loss{node: node, from: at})
	r.print("%s is lost", node)
}

// noticed notes that Kubernetes has noticed the last loss.
func (r *report) noticed(at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := &r.losses[len(r.losses)-1]; last.until.IsZero() {
		last.until = at
		r.print("Kubernetes has noticed that %s is lost, after %s", last.node, at.Sub(last.from).Round(time.Second))
	}
}

// lostNode returns the node that was lost, unnoticed, some time between the two; empty if there is none.
func (r *report) lostNode(from, to time.Time) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lostBetween(from, to)
}

func (r *report) lostBetween(from, to time.Time) string {
	for _, l := range r.losses {
		if to.After(l.from) && (l.until.IsZero() || from.Before(l.until)) {
			return l.node
		}
	}
	return ""
}

func newReport(out io.Writer) *report {
	return &report{
		out: out, began: time.Now(), edges: map[string]*row{}, kinds: map[string]*row{}, cycles: map[string]int{}, disturbed: map[string]int{},
	}
}

// add counts a request, and prints it if it was lost.
func (r *report) add(one result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lostNode := r.lostBetween(one.opened, one.at.Add(one.took))
	if lostNode != "" {
		r.exposed++
	}
	r.total.add(one, lostNode)
	for key, rows := range map[string]map[string]*row{one.edge: r.edges, one.kind: r.kinds} {
		if rows[key] == nil {
			rows[key] = &row{}
		}
		rows[key].add(one, lostNode)
	}
	if one.err != nil {
		over := "a new connection"
		if one.reused {
			over = "a kept connection"
		}
		what := "LOST"
		if lostNode != "" {
			what += " WITH " + lostNode
		}
		r.print("%s %s to %s, number %s, begun %s while %s over %s, after %s: %v",
			what, one.kind, one.app, one.id, one.at.Format("15:04:05.000"), one.edge, over, one.took.Round(time.Millisecond), one.err)
	}
}

// cycle counts that an app fell asleep after it was awake.
func (r *report) cycle(app string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cycles[app]++
}

// slept returns how often apps fell asleep, all together.
func (r *report) slept() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.allCycles()
}

func (r *report) allCycles() int {
	n := 0
	for c := range maps.Values(r.cycles) {
		n += c
	}
	return n
}

// round counts one restart of all interceptors.
func (r *report) round(took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rounds = append(r.rounds, took)
}

// disturb counts a disturbance.
func (r *report) disturb(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.disturbed[name]++
}

// problem reports a problem other than a lost request.
func (r *report) problem(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
	r.print("PROBLEM "+format, args...)
}

// finish adds what was counted elsewhere.
func (r *report) finish(repeated, closedIdle int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repeated, r.closedIdle = repeated, closedIdle
}

// progress prints the progress.
func (r *report) progress() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.print("%d cycles, %d rounds, %d requests, %d raced a close, %d lost; %s", r.allCycles(), len(r.rounds), r.total.sent, r.total.raced,
		r.total.lost, disturbances(r.disturbed))
}

func (r *report) print(format string, args ...any) {
	fmt.Fprintf(r.out, "%7s  %s\n", time.Since(r.began).Round(time.Second), fmt.Sprintf(format, args...))
}

func disturbances(of map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(of)) {
		all = append(all, fmt.Sprintf("%d %s", of[name], name))
	}
	return cmp.Or(strings.Join(all, ", "), "no disturbance")
}

// summary prints all counts.
func (r *report) summary(out io.Writer, seed uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, t := range []struct {
		title string
		rows  map[string]*row
	}{{"begun while the app", r.edges}, {"kind", r.kinds}, {"", map[string]*row{"all": &r.total}}} {
		fmt.Fprintf(w, "%s\tsent\tkept connection\traced a close\tlongest\tlost\t\n", t.title)
		for _, name := range slices.Sorted(maps.Keys(t.rows)) {
			one := t.rows[name]
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%d\t\n", name, one.sent, one.reused, one.raced, one.longest.Round(time.Millisecond), one.lost)
		}
	}
	_ = w.Flush()
	fmt.Fprintf(out, "seed %d, %s: %d cycles of %d apps, %s\n", seed, time.Since(r.began).Round(time.Second), r.allCycles(), len(r.cycles),
		disturbances(r.disturbed))
	if n := len(r.rounds); n > 0 {
		sorted := slices.Sorted(slices.Values(r.rounds))
		fmt.Fprintf(out, "%d times were all interceptors restarted, in %s (median; at most %s)\n", n,
			sorted[n/2].Round(100*time.Millisecond), sorted[n-1].Round(100*time.Millisecond))
	}
	fmt.Fprintf(out, "kept connections found closed: %d; closed while a request came, which was then sent again: %d\n", r.closedIdle,
		r.total.raced)
	if len(r.losses) > 0 {
		fmt.Fprintf(out, "lost with a node, before Kubernetes had noticed: %d of %d\n", r.total.withNode, r.exposed)
	}
	fmt.Fprintf(out, "carried out twice: %d\nother problems: %d\nlost: %d\n", r.repeated, len(r.problems), r.total.lost)
}

// verdict returns an error if anything is wrong, or if nothing was tested.
func (r *report) verdict() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.total.lost > 0:
		return fmt.Errorf("%d of %d requests were lost", r.total.lost, r.total.sent)
	case r.repeated > 0:
		return fmt.Errorf("%d requests were carried out twice", r.repeated)
	case len(r.problems) > 0:
		return errors.New(r.problems[0])
	case r.total.sent == 0:
		return errors.New("nothing was sent")
	}
	return nil
}
