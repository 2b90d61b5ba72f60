// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import "sync"

const (
	// smallBuffer holds nearly every request's head.
	smallBuffer = 4 << 10
	// largeBuffer is what answers and bodies are read with.
	largeBuffer = 32 << 10
	// headroom is left free before what is read into a large buffer, so that an answer's head can become a little
	// longer where it is.
	headroom = 128
)

// buffer is memory with the bytes between start and end in it that are still to be used.
type buffer struct {
	b          []byte
	start, end int
}

func (b *buffer) bytes() []byte { return b.b[b.start:b.end] }

func (b *buffer) len() int { return b.end - b.start }

// free is the room behind the bytes.
func (b *buffer) free() []byte { return b.b[b.end:] }

// replace puts p in the place of all bytes from the one at at on. P may be the first of those.
func (b *buffer) replace(at int, p []byte) {
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

// buffers lends buffers of two sizes. Ones that have grown are not taken back.
type buffers struct{ small, large sync.Pool }

func newBuffers() *buffers {
	return &buffers{
		small: sync.Pool{New: func() any { return &buffer{b: make([]byte, smallBuffer)} }},
		large: sync.Pool{New: func() any { return &buffer{b: make([]byte, largeBuffer)} }},
	}
}

func (p *buffers) get(large bool) *buffer {
	if large {
		b := p.large.Get().(*buffer)
		b.start, b.end = headroom, headroom
		return b
	}
	b := p.small.Get().(*buffer)
	b.start, b.end = 0, 0
	return b
}

func (p *buffers) put(b *buffer) {
	switch len(b.b) {
	case smallBuffer:
		p.small.Put(b)
	case largeBuffer:
		p.large.Put(b)
	}
}

// grow returns b, or a larger one in its place, with more room behind the bytes than it had.
func (p *buffers) grow(b *buffer) *buffer {
	switch {
	case b.start > headroom:
		b.end = headroom + copy(b.b[headroom:], b.bytes())
		b.start = headroom
		return b
	case len(b.b) == smallBuffer:
		larger := p.get(true)
		larger.end += copy(larger.free(), b.bytes())
		p.put(b)
		return larger
	}
	larger := &buffer{b: make([]byte, 2*len(b.b)), start: headroom}
	larger.end = headroom + copy(larger.b[headroom:], b.bytes())
	p.put(b)
	return larger
}
