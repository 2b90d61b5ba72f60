// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build race

package forward

// raceDetector is set if the race detector runs. It makes a sync.Pool drop some of its content, so that new objects are made.
const raceDetector = true
