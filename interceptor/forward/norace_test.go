// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package forward

const raceDetector = false
