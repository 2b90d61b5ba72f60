// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"strings"
	"testing"
)

func TestBufferReplaces(t *testing.T) {
	for name, with := range map[string]string{
		"shorter": "a", "none": "", "as long": "cdef", "longer": strings.Repeat("x", 100), "far longer": strings.Repeat("x", 5*LargeBuffer),
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBuffers().Get(true)
			b.end += copy(b.Free(), "abcdef")
			b.Replace(2, []byte(with))
			if got := string(b.Bytes()); got != "ab"+with {
				t.Errorf("got %.200q", got)
			}
		})
	}
	b := NewBuffers().Get(true)
	b.end += copy(b.Free(), "abcdef")
	if b.Replace(2, b.Bytes()[2:5]); string(b.Bytes()) != "abcde" {
		t.Errorf("what stands there already became %q", b.Bytes())
	}
}
