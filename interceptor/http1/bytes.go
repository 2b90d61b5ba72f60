// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

import "encoding/binary"

// lowered has for each byte that may stand in a token (RFC 9110, 5.6.2) that byte in lower case, and 0 for the others.
// It is a string because a constant cannot be changed.
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

// IsToken says that c may stand in a token.
func IsToken(c byte) bool { return lowered[c] != 0 }

// indexControl returns the position of the first control byte in b from at on, HTAB and DEL included, or len(b). It
// looks at eight bytes at a time, since nearly all that a head is made of is values.
func indexControl(b []byte, at int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; at+8 <= len(b); at += 8 {
		x := binary.LittleEndian.Uint64(b[at:])
		below := (x - ones*0x20) &^ x // high bit set in bytes below 0x20; false alarms only above a true one
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

// EqualFold says that b is lower but for the case of its letters. Lower is in lower case.
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

// Tokens calls yield with each element of a comma-separated list, without the space around it.
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

// trim takes spaces and tabs away from both ends.
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
