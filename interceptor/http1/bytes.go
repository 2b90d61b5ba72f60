// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

import "encoding/binary"

// lowered maps each byte that may be in a token (RFC 9110, 5.6.2) to its lower case, and all other bytes to 0. It is a string because
// a constant cannot be changed.
const lowered = "" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00!\x00#$%&'\x00\x00*+\x00-.\x00" +
	"0123456789\x00\x00\x00\x00\x00\x00" +
	"\x00abcdefghijklmno" +
	"pqrstuvwxyz\x00\x00\x00^_" +
	"`abcdefghijklmno" +
	"pqrstuvwxyz\x00|\x00~\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// IsToken reports whether c may be in a token.
func IsToken(c byte) bool { return lowered[c] != 0 }

// indexControl returns the position of the first control byte in b, starting at at, or len(b). HTAB and DEL count as control bytes.
// It looks at eight bytes at a time, because a head consists mostly of values.
func indexControl(b []byte, at int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; at+8 <= len(b); at += 8 {
		x := binary.LittleEndian.Uint64(b[at:])
		below := (x - ones*0x20) &^ x // high bit set in bytes below 0x20; false positives only above a true one
		del := x ^ ones*0x7f          // zero in bytes that are DEL
		if (below|(del-ones)&^del)&highs != 0 {
			break
		}
	}
	for ; at < len(b); at++ {
		if c := b[at]; c < 0x20 || c == 0x7f {
			return at
		}
	}
	return len(b)
}

// EqualFold reports whether b equals lower except for the case of its letters. lower must be in lower case.
func EqualFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if c != lower[i] && lowered[c] != lower[i] {
			return false
		}
	}
	return true
}

// Tokens calls yield with each element of a comma-separated list, without surrounding space.
func Tokens(list []byte, yield func([]byte) bool) {
	for len(list) > 0 {
		end := 0
		for end < len(list) && list[end] != ',' {
			end++
		}
		if t := trim(list[:end]); len(t) > 0 && !yield(t) {
			return
		}
		list = list[min(end+1, len(list)):]
	}
}

// trim removes spaces and tabs from both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }
