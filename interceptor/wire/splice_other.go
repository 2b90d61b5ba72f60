// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package wire

// pipes exist on Linux only.
type pipes struct{}

// moveBulk carries the bytes of one read.
func (f *Flow) moveBulk(b *Body) error { return f.moveBuffer(b) }
