// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"math"
	"testing"
)

func TestMemoryLimit(t *testing.T) {
	none := errors.New("no limit")
	for name, tc := range map[string]struct {
		flag    string
		cgroup  uint64
		err     error
		goLimit int64
		want    int64
		source  string
	}{
		"flag":               {"256Mi", 512 << 20, nil, 100 << 20, 256 << 20, "--memory-limit"},
		"decimal flag":       {"1G", 512 << 20, nil, math.MaxInt64, 1e9, "--memory-limit"},
		"container":          {"", 512 << 20, nil, 400 << 20, 512 << 20, "cgroup"},
		"tiny container":     {"", 1 << 20, nil, math.MaxInt64, minMemory, "cgroup"},
		"unlimited, as v1":   {"", math.MaxUint64, nil, math.MaxInt64, defaultMemory, "default"},
		"no cgroup":          {"", 0, none, 300 << 20, 300 << 20, "GOMEMLIMIT"},
		"nothing at all":     {"", 0, none, math.MaxInt64, defaultMemory, "default"},
		"flag is too little": {"1Mi", 0, none, math.MaxInt64, 0, ""},
		"flag is nonsense":   {"lots", 0, none, math.MaxInt64, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := memoryFlag{tc.flag}
			got, source, err := m.limit(func() (uint64, error) { return tc.cgroup, tc.err }, tc.goLimit)
			if got != tc.want || source != tc.source || (err != nil) != (tc.want == 0) {
				t.Errorf("got %d from %q (%v), want %d from %q", got, source, err, tc.want, tc.source)
			}
		})
	}
}
