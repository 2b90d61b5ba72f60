// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package wire

// pipes are of use on Linux only.
type pipes struct{}

// moveBulk carries what one read brings.
func (f *Flow) moveBulk(b *Body) error { return f.moveBuffer(b) }
