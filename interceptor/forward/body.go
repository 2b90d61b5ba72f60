// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import "github.com/scale-to-zero/scale-to-zero/interceptor/http1"

// body is what is still to come of a message's body. The zero value is no body.
type body struct {
	// left is the number of bytes; untilEnd is all until the connection ends.
	left    int64
	chunked bool
	chunks  http1.Chunked
}

const untilEnd = -1

func (b *body) ended() bool {
	if b.chunked {
		return b.chunks.Done()
	}
	return b.left == 0
}

// take goes on by those of the bytes that belong to the body and returns how many they are, and what is passed on: they
// themselves, or chunks in their place that are well-formed, in other memory. If plain, the framing of chunks is taken out,
// in place. The error is an http1.Malformed.
func (b *body) take(came []byte, plain bool) (pass []byte, n int, err error) {
	switch {
	case b.chunked && plain:
		return b.takePlain(came)
	case b.chunked:
		return b.chunks.Feed(came)
	case b.left == untilEnd:
		n = len(came)
	default:
		n = int(min(b.left, int64(len(came))))
		b.left -= int64(n)
	}
	return came[:n], n, err
}

func (b *body) takePlain(came []byte) (pass []byte, n int, err error) {
	length := 0
	for n < len(came) && !b.chunks.Done() {
		m, kind, err := b.chunks.Next(came[n:])
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

// raw is how many bytes may be passed on next without being looked at, or untilEnd.
func (b *body) raw() int64 {
	if b.chunked {
		return b.chunks.Left()
	}
	return b.left
}

// skip goes on by n of those bytes.
func (b *body) skip(n int64) {
	switch {
	case b.chunked:
		b.chunks.Skip(n)
	case b.left != untilEnd:
		b.left -= n
	}
}
