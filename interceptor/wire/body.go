// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import "github.com/scale-to-zero/scale-to-zero/interceptor/http1"

// Body is the part of a message's body that is still to come. The zero value is no body.
type Body struct {
	// Left is the number of bytes, or UntilEnd if the body lasts until the connection ends.
	Left    int64
	Chunked bool
	Chunks  http1.Chunked
}

// UntilEnd is the Left of a body that ends with its connection.
const UntilEnd = -1

// Ended reports whether nothing more is to come.
func (b *Body) Ended() bool {
	if b.Chunked {
		return b.Chunks.Done()
	}
	return b.Left == 0
}

// Consume advances over the bytes of came that belong to the body. It returns their number, and the bytes to pass on: the same bytes
// or, where chunks have to be corrected, a copy. If plain is set, it removes the framing of chunks, in place. The error is an
// http1.MalformedError.
func (b *Body) Consume(came []byte, plain bool) (pass []byte, n int, err error) {
	switch {
	case b.Chunked && plain:
		return b.consumePlain(came)
	case b.Chunked:
		return b.Chunks.Feed(came)
	case b.Left == UntilEnd:
		n = len(came)
	default:
		n = int(min(b.Left, int64(len(came))))
		b.Left -= int64(n)
	}
	return came[:n], n, err
}

func (b *Body) consumePlain(came []byte) (pass []byte, n int, err error) {
	length := 0
	for n < len(came) && !b.Chunks.Done() {
		m, kind, err := b.Chunks.Next(came[n:])
		if err != nil {
			return nil, n, err
		}
		if kind == http1.Data {
			length += copy(came[length:], came[n:n+m])
		}
		n += m
	}
	return came[:length], n, nil
}

// raw returns how many of the next bytes may be passed on without being looked at, or UntilEnd.
func (b *Body) raw() int64 {
	if b.Chunked {
		return b.Chunks.Left()
	}
	return b.Left
}

// skip advances by n of those bytes.
func (b *Body) skip(n int64) {
	switch {
	case b.Chunked:
		b.Chunks.Skip(n)
	case b.Left != UntilEnd:
		b.Left -= n
	}
}
