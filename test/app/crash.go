// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
)

// crashesNow decides whether this start crashes before the app is ready: every third start does, up to CRASHES of them in one pod. The
// directory CRASH_DIR outlives the container.
func crashesNow(env func(string) string) (bool, error) {
	if env("CRASHES") == "" {
		return false, nil
	}
	most, err := strconv.Atoi(env("CRASHES"))
	if err != nil {
		return false, fmt.Errorf("reading CRASHES: %w", err)
	}
	path := filepath.Join(env("CRASH_DIR"), "crashes")
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("reading how often it has crashed: %w", err)
	}
	before := len(text)
	if before >= most || rand.IntN(3) > 0 {
		return false, nil
	}
	if err := os.WriteFile(path, append(text, 'x'), 0o600); err != nil {
		return false, fmt.Errorf("noting a crash: %w", err)
	}
	return true, nil
}
