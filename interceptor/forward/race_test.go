// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build race

package forward

// raceDetector makes a sync.Pool forget some of what it is given, so that what is lent is made anew.
const raceDetector = true
