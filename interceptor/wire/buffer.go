// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import "sync"

const (
	// SmallBuffer is enough for nearly every request's head.
	SmallBuffer = 4 << 10
	// LargeBuffer is the size for reading answers and bodies.
	LargeBuffer = 32 << 10
	// headroom is free space before the bytes of a large buffer, so that an answer's head can grow a little in place.
	headroom = 128
)

// Buffer is memory. The bytes between start and end are not used yet.
type Buffer struct {
	b          []byte
	start, end int
}

// Bytes returns the unused bytes.
func (b *Buffer) Bytes() []byte { return b.b[b.start:b.end] }

// Len returns their number.
func (b *Buffer) Len() int { return b.end - b.start }

// Size returns the size of the buffer's memory.
func (b *Buffer) Size() int { return len(b.b) }

// Skip removes the first n bytes.
func (b *Buffer) Skip(n int) { b.start += n }

// Extend adds n bytes that were written to Free.
func (b *Buffer) Extend(n int) { b.end += n }

// Free returns the room after the bytes.
func (b *Buffer) Free() []byte { return b.b[b.end:] }

// Replace replaces all bytes from position at on by p. p may be the beginning of those bytes.
func (b *Buffer) Replace(at int, p []byte) {
	from := b.start + at
	if need := from + len(p); need > len(b.b) {
		larger := make([]byte, 2*need)
		copy(larger, b.b[:from])
		b.b = larger
	}
	b.end = from + len(p)
	if len(p) > 0 && &p[0] != &b.b[from] {
		copy(b.b[from:], p)
	}
}

// SetHead replaces the first n bytes by head, and reports whether there was room for it before the bytes that follow.
func (b *Buffer) SetHead(n int, head []byte) bool {
	start := b.start + n - len(head)
	if start < 0 {
		return false
	}
	copy(b.b[start:], head)
	b.start = start
	return true
}

// Buffers lends buffers of two sizes, and pipes. It does not take back buffers that have grown.
type Buffers struct {
	small, large sync.Pool
	pipes        pipes
}

// NewBuffers returns a Buffers that has lent nothing.
func NewBuffers() *Buffers {
	return &Buffers{
		small: sync.Pool{New: func() any { return &Buffer{b: make([]byte, SmallBuffer)} }},
		large: sync.Pool{New: func() any { return &Buffer{b: make([]byte, LargeBuffer)} }},
	}
}

// Get lends a small or a large buffer without bytes.
func (p *Buffers) Get(large bool) *Buffer {
	if large {
		b := p.large.Get().(*Buffer)
		b.start, b.end = headroom, headroom
		return b
	}
	b := p.small.Get().(*Buffer)
	b.start, b.end = 0, 0
	return b
}

// Put takes a buffer back.
func (p *Buffers) Put(b *Buffer) {
	switch len(b.b) {
	case SmallBuffer:
		p.small.Put(b)
	case LargeBuffer:
		p.large.Put(b)
	}
}

// Grown returns the size of the buffer that Buffers.Grow would return for b.
func (b *Buffer) Grown() int {
	switch {
	case b.start > headroom:
		return len(b.b)
	case len(b.b) == SmallBuffer:
		return LargeBuffer
	default:
		return 2 * len(b.b)
	}
}

// Grow returns b or a larger buffer in its place, with more room after the bytes.
func (p *Buffers) Grow(b *Buffer) *Buffer {
	switch {
	case b.start > headroom:
		b.end = headroom + copy(b.b[headroom:], b.Bytes())
		b.start = headroom
		return b
	case len(b.b) == SmallBuffer:
		larger := p.Get(true)
		larger.end += copy(larger.Free(), b.Bytes())
		p.Put(b)
		return larger
	}
	larger := &Buffer{b: make([]byte, 2*len(b.b)), start: headroom}
	larger.end = headroom + copy(larger.b[headroom:], b.Bytes())
	p.Put(b)
	return larger
}
