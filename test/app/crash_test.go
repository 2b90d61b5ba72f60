// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

// TestCrashes tests that about every third start crashes, and never more often than allowed.
func TestCrashes(t *testing.T) {
	first := 0
	for range 300 {
		dir := t.TempDir()
		env := func(key string) string { return map[string]string{"CRASHES": "2", "CRASH_DIR": dir}[key] }
		all := 0
		for start := range 20 {
			crashes, err := crashesNow(env)
			if err != nil {
				t.Fatal(err)
			}
			if crashes {
				all++
			}
			if crashes && start == 0 {
				first++
			}
		}
		if all > 2 {
			t.Fatalf("%d crashes in one pod", all)
		}
	}
	if first < 50 || first > 150 {
		t.Errorf("%d of 300 first starts crash", first)
	}
	for _, env := range []map[string]string{{"CRASHES": "many"}, {"CRASHES": "1", "CRASH_DIR": "/dev/null"}} {
		if _, err := crashesNow(func(key string) string { return env[key] }); err == nil {
			t.Errorf("%v is no error", env)
		}
	}
	if crashes, err := crashesNow(func(string) string { return "" }); crashes || err != nil {
		t.Errorf("without CRASHES: %v, %v", crashes, err)
	}
}
