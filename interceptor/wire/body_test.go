// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

func chunkedBody() Body { return Body{Chunked: true} }

func TestBodyTakes(t *testing.T) {
	for name, tc := range map[string]struct {
		body  Body
		came  string
		plain bool
		pass  string
		used  int
		ended bool
	}{
		"none":                  {Body{}, "next", false, "", 0, true},
		"length, part":          {Body{Left: 5}, "abc", false, "abc", 3, false},
		"length, all":           {Body{Left: 3}, "abc", false, "abc", 3, true},
		"length, more":          {Body{Left: 3}, "abcnext", false, "abc", 3, true},
		"until the end":         {Body{Left: UntilEnd}, "abc", false, "abc", 3, false},
		"chunks, part":          {chunkedBody(), "3\r\nab", false, "3\r\nab", 5, false},
		"chunks, all":           {chunkedBody(), "3\r\nabc\r\n0\r\n\r\n", false, "3\r\nabc\r\n0\r\n\r\n", 13, true},
		"chunks, more":          {chunkedBody(), "0\r\nA: b\r\n\r\nnext", false, "0\r\nA: b\r\n\r\n", 11, true},
		"plain, part":           {chunkedBody(), "3\r\nab", true, "ab", 5, false},
		"plain, framing alone":  {chunkedBody(), "3\r", true, "", 2, false},
		"plain, several":        {chunkedBody(), "3\r\nabc\r\n2;x\r\nde\r\n0\r\nA: b\r\n\r\nnext", true, "abcde", 28, true},
		"plain, none":           {chunkedBody(), "0\r\n\r\n", true, "", 5, true},
		"length is never plain": {Body{Left: 3}, "1\r\nx", true, "1\r\n", 3, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := tc.body
			pass, n, err := b.Consume([]byte(tc.came), tc.plain)
			if err != nil || string(pass) != tc.pass || n != tc.used || b.Ended() != tc.ended {
				t.Errorf("got %q, %d, %v; ended %v", pass, n, err, b.Ended())
			}
		})
	}
}

func TestBodyTakesNoBadChunks(t *testing.T) {
	for _, plain := range []bool{false, true} {
		b := chunkedBody()
		if _, n, err := b.Consume([]byte("1\r\nab"), plain); n != 4 || !errors.Is(err, http1.ErrBadChunkEnd) {
			t.Errorf("plain %v: got %d, %v", plain, n, err)
		}
	}
}

// The data of chunks is the same, however the chunks are cut.
func TestPlainInPieces(t *testing.T) {
	const chunks = "3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n1\r\n\n\r\n0\r\nA: b\r\n\r\n"
	const want = "abc0123456789abcdef\n"
	r := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		b, got := chunkedBody(), ""
		for rest := []byte(chunks + "next"); !b.Ended(); {
			pass, n, err := b.Consume(bytes.Clone(rest[:1+r.IntN(len(rest))]), true)
			if err != nil {
				t.Fatal(err)
			}
			got += string(pass)
			rest = rest[n:]
		}
		if got != want {
			t.Fatalf("got %q", got)
		}
	}
}

func TestBodyRawAndSkip(t *testing.T) {
	length := Body{Left: 10}
	length.skip(4)
	if length.raw() != 6 || length.Ended() {
		t.Errorf("%d left", length.raw())
	}
	length.skip(6)
	if !length.Ended() {
		t.Error("it goes on")
	}
	open := Body{Left: UntilEnd}
	open.skip(1 << 40)
	if open.raw() != UntilEnd || open.Ended() {
		t.Errorf("%d left of what has no end", open.raw())
	}
	chunks := chunkedBody()
	if chunks.raw() != 0 {
		t.Errorf("%d bytes of a chunk without a size", chunks.raw())
	}
	if _, _, err := chunks.Consume([]byte("10\r\nab"), false); err != nil || chunks.raw() != 14 {
		t.Fatalf("%d left, %v", chunks.raw(), err)
	}
	chunks.skip(14)
	if _, n, err := chunks.Consume([]byte("\r\n0\r\n\r\n"), false); err != nil || n != 7 || !chunks.Ended() {
		t.Errorf("used %d, %v", n, err)
	}
}

func TestBufferGrows(t *testing.T) {
	fill := func(b *Buffer, text string) { b.end += copy(b.Free(), text) }
	pool := NewBuffers()
	t.Run("to a large one", func(t *testing.T) {
		b := pool.Get(false)
		fill(b, strings.Repeat("a", SmallBuffer))
		b = pool.Grow(b)
		fill(b, "b")
		if len(b.b) != LargeBuffer || b.start != headroom || b.Len() != SmallBuffer+1 || string(b.Bytes()[SmallBuffer-1:]) != "ab" {
			t.Errorf("it holds %d of %d", b.Len(), len(b.b))
		}
	})
	t.Run("by moving", func(t *testing.T) {
		b := pool.Get(false)
		fill(b, strings.Repeat("a", SmallBuffer-3)+"xyz")
		b.start = SmallBuffer - 3
		b = pool.Grow(b)
		if len(b.b) != SmallBuffer || b.start != headroom || string(b.Bytes()) != "xyz" {
			t.Errorf("%d at %d of %d: %q", b.Len(), b.start, len(b.b), b.Bytes())
		}
	})
	// If only a little has been used, the rest is not moved: otherwise each growth would gain little.
	t.Run("by doubling, with some used", func(t *testing.T) {
		b := pool.Get(true)
		fill(b, strings.Repeat("a", LargeBuffer))
		b = pool.Grow(b)
		if len(b.b) != 2*LargeBuffer || b.start != headroom || b.Len() != LargeBuffer-headroom {
			t.Errorf("%d at %d of %d", b.Len(), b.start, len(b.b))
		}
	})
	t.Run("always", func(t *testing.T) {
		b := pool.Get(false)
		for range 100 {
			fill(b, strings.Repeat("a", 1+rand.IntN(5000)))
			b.start += rand.IntN(b.Len() + 1)
			if len(b.Free()) > 0 {
				continue
			}
			before := string(b.Bytes())
			if b = pool.Grow(b); len(b.Free()) == 0 || string(b.Bytes()) != before {
				t.Fatalf("%d of %d free", len(b.Free()), len(b.b))
			}
		}
	})
}

func TestBuffersAreLentEmpty(t *testing.T) {
	lender := NewBuffers()
	for range 100 {
		for _, large := range []bool{false, true} {
			b := lender.Get(large)
			size, start := SmallBuffer, 0
			if large {
				size, start = LargeBuffer, headroom
			}
			if b.Len() != 0 || len(b.b) != size || b.start != start {
				t.Fatalf("got %d at %d of %d", b.Len(), b.start, len(b.b))
			}
			b.end = len(b.b)
			if rand.IntN(2) == 0 {
				b = NewBuffers().Grow(b) // a buffer of this size is not lent again
			}
			lender.Put(b)
		}
	}
}
