// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// LearnedAnnotation on a route slice holds a Learned as JSON.
const LearnedAnnotation = "scale-to-zero/learned"

const (
	// LearnAfter is in how many of its wakes a workload has to find another one asleep before the two wake together.
	LearnAfter = 2
	// ForgetAfter is how many wakes in a row without a call end that.
	ForgetAfter = 10
	// CallsFor is how long after its first pod has become ready a workload's calls still belong to its wake.
	CallsFor = 30 * time.Second
	// MaxLearned is how many other workloads are remembered for one.
	MaxLearned = 20

	// maxCalls bounds the counts of Calls, of which those above LearnAfter and ForgetAfter say no more.
	maxCalls = 1000
)

// Learned is which other workloads of its namespace a workload calls soon after it wakes, by Workload.String.
type Learned map[string]Calls

// Calls is how regularly a workload calls another one.
type Calls struct {
	// Found is in how many wakes the workload called the other one and found it asleep.
	Found int `json:"found"`
	// Missed is how many wakes without any call there were since the last call.
	Missed int `json:"missed,omitempty"`
}

// Together reports whether the two workloads wake together.
func (c Calls) Together() bool { return c.Found >= LearnAfter }

// Together are the workloads that wake together with this one, sorted.
func (l Learned) Together() []string {
	return slices.Sorted(func(yield func(string) bool) {
		for other, calls := range l {
			if calls.Together() && !yield(other) {
				return
			}
		}
	})
}

// Encode returns l as the value of LearnedAnnotation. It is empty if nothing was learned.
func (l Learned) Encode() (string, error) {
	if len(l) == 0 {
		return "", nil
	}
	b, err := json.Marshal(l)
	if err != nil {
		return "", fmt.Errorf("encoding what was learned: %w", err)
	}
	return string(b), nil
}

// DecodeLearned parses the value of LearnedAnnotation. An empty value is an empty Learned.
func DecodeLearned(value string) (Learned, error) {
	if value == "" {
		return nil, nil
	}
	var l Learned
	if err := json.Unmarshal([]byte(value), &l); err != nil {
		return nil, fmt.Errorf("decoding what was learned: %w", err)
	}
	if len(l) > MaxLearned {
		return nil, fmt.Errorf("decoding what was learned: %d workloads, want at most %d", len(l), MaxLearned)
	}
	for other, calls := range l {
		if !isWorkload(other) {
			return nil, fmt.Errorf("decoding what was learned: %q is no workload", other)
		}
		if calls.Found < 0 || calls.Missed < 0 || calls.Found > maxCalls || calls.Missed > maxCalls {
			return nil, fmt.Errorf("decoding what was learned: the counts of %s are negative or higher than %d", other, maxCalls)
		}
	}
	return l, nil
}

// isWorkload reports whether s may be a Workload.String.
func isWorkload(s string) bool {
	qualified, name, found := strings.Cut(s, "/")
	kind, group, grouped := strings.Cut(qualified, ".")
	return found && isKind(kind) && isSubdomain(name) && (!grouped || isSubdomain(group))
}
