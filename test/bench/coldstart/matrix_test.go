// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestWrite tests that a run of some trials leaves the rows of the others, in the order of the trials.
func TestWrite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.json")
	all := trials()
	first, second := row{Name: all[0].name, Value: 1}, row{Name: all[1].name, Value: 2}
	for _, rows := range [][]row{{second, {Name: "no trial any more"}}, {first}, {{Name: all[1].name, Value: 3}}} {
		if err := write(file, rows); err != nil {
			t.Fatal(err)
		}
	}
	const want = `[
  {
    "name": "listens-0ms-period-1s",
    "value": 1,
    "unit": "",
    "reference": 0,
    "ratio": 0,
    "goal": 0
  },
  {
    "name": "listens-0ms-period-5s",
    "value": 3,
    "unit": "",
    "reference": 0,
    "ratio": 0,
    "goal": 0
  }
]
`
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if write(file, nil) == nil {
		t.Error("a file that cannot be read is overwritten")
	}
}
