// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"strings"
	"testing"
)

func TestBufferReplaces(t *testing.T) {
	for name, with := range map[string]string{
		"shorter": "a", "none": "", "as long": "cdef", "longer": strings.Repeat("x", 100), "far longer": strings.Repeat("x", 5*largeBuffer),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBuffers().get(true)
			b.end += copy(b.free(), "abcdef")
			b.replace(2, []byte(with))
			if got := string(b.bytes()); got != "ab"+with {
				t.Errorf("got %.200q", got)
			}
		})
	}
	b := newBuffers().get(true)
	b.end += copy(b.free(), "abcdef")
	if b.replace(2, b.bytes()[2:5]); string(b.bytes()) != "abcde" {
		t.Errorf("what stands there already became %q", b.bytes())
	}
}
