// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"errors"
	"testing"
)

// parser is the common part of requests and responses.
type parser interface{ Parse([]byte) (int, error) }

// checkPrefixes checks what Parse promises about bytes that arrive little by little: only an LF can complete a head, and an error
// stays an error as more bytes arrive; for a request it even stays the same error.
func checkPrefixes(t *testing.T, p parser, b []byte) {
	t.Helper()
	_, request := p.(*Request)
	var complete int
	var failed error
	for i := range len(b) + 1 {
		n, err := p.Parse(b[:i:i])
		switch {
		case err != nil && n != 0:
			t.Fatalf("%q: %d and %v", b[:i], n, err)
		case failed != nil && err == nil, failed != nil && request && !errors.Is(err, failed):
			t.Fatalf("%q is %v, and with more bytes %q is %d, %v", b[:i-1], failed, b[:i], n, err)
		case complete > 0 && (n != complete || err != nil):
			t.Fatalf("%q had %d bytes, and with more bytes %q is %d, %v", b[:i-1], complete, b[:i], n, err)
		case complete == 0 && n > 0 && b[i-1] != '\n':
			t.Fatalf("%q is complete by a byte that is no LF", b[:i])
		}
		complete, failed = n, err
	}
}

func TestPrefixesOfRequests(t *testing.T) {
	for name, tc := range goodRequests() {
		t.Run(name, func(t *testing.T) {
			var r Request
			for i := range len(tc.head) {
				if n, err := r.Parse([]byte(tc.head[:i])); n != 0 || err != nil {
					t.Fatalf("%q: got %d, %v", tc.head[:i], n, err)
				}
			}
			checkPrefixes(t, &r, []byte(tc.head+"\r\nrest\x00"))
		})
	}
	for name, tc := range badRequests() {
		t.Run(name, func(t *testing.T) { checkPrefixes(t, &Request{}, []byte(tc.head+"\r\nrest\x00")) })
	}
}

func TestPrefixesOfResponses(t *testing.T) {
	for name, tc := range goodResponses() {
		t.Run(name, func(t *testing.T) {
			var r Response
			for i := range len(tc.head) {
				if n, err := r.Parse([]byte(tc.head[:i])); n != 0 || err != nil {
					t.Fatalf("%q: got %d, %v", tc.head[:i], n, err)
				}
			}
			checkPrefixes(t, &r, []byte(tc.head+"\r\nrest\x00"))
		})
	}
	for name, tc := range badResponses() {
		t.Run(name, func(t *testing.T) { checkPrefixes(t, &Response{}, []byte(tc.head+"\r\nrest\x00")) })
	}
}

// A caller that calls Parse only after an LF gets a request as soon as it is complete.
func TestLastByteOfHeadIsLF(t *testing.T) {
	for name, tc := range goodRequests() {
		if i := bytes.LastIndexByte([]byte(tc.head), '\n'); i != len(tc.head)-1 {
			t.Errorf("%s: the last LF is at %d of %d", name, i, len(tc.head))
		}
	}
}

// A request that follows another one in the same buffer is parsed as if it stood alone.
func TestRequestsOneAfterTheOther(t *testing.T) {
	for first, a := range goodRequests() {
		for second, b := range goodRequests() {
			r := &Request{}
			all := []byte(a.head + b.head)
			n, err := r.Parse(all)
			if err != nil {
				t.Fatalf("%s: %v", first, err)
			}
			rest := all[r.Skip+n:]
			if n, err := r.Parse(rest); err != nil || r.Skip+n != len(b.head) {
				t.Fatalf("%s after %s: got %d, %v", second, first, n, err)
			}
			if got := lookAtRequest(r, rest); got.First != b.want.First || got.Flags != b.want.Flags || got.Length != b.want.Length {
				t.Fatalf("%s after %s: got %+v, want %+v", second, first, got, b.want)
			}
		}
	}
}
