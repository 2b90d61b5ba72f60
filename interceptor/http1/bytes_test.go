// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
)

func TestLoweredIsTheTokens(t *testing.T) {
	if len(lowered) != 256 {
		t.Fatalf("the table has %d bytes", len(lowered))
	}
	for i := range 256 {
		c := byte(i)
		want := byte(0)
		if httpguts.IsTokenRune(rune(c)) {
			want = bytes.ToLower([]byte{c})[0]
		}
		if lowered[c] != want {
			t.Errorf("lowered[%q] = %q, want %q", c, lowered[c], want)
		}
	}
}

// naiveIndexControl is a simple version of indexControl.
func naiveIndexControl(b []byte, at int) int {
	for ; at < len(b); at++ {
		if b[at] < 0x20 || b[at] == 0x7f {
			return at
		}
	}
	return len(b)
}

// This tests every byte at every place of two words, between neighbours that a borrow could come from or go to.
func TestIndexControlFindsEachByteAnywhere(t *testing.T) {
	for _, filler := range []byte{' ', '!', 'a', '~', 0x80, 0x9f, 0xa0, 0xff} {
		for i := range 256 {
			for place := range 19 {
				b := bytes.Repeat([]byte{filler}, 19)
				b[place] = byte(i)
				for at := range 4 {
					if got, want := indexControl(b, at), naiveIndexControl(b, at); got != want {
						t.Fatalf("%q from %d: got %d, want %d", b, at, got, want)
					}
				}
			}
		}
	}
}

func TestIndexControlOnRandomBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	edges := []byte{0, 1, '\t', '\n', '\r', 0x1f, ' ', '!', '~', 0x7f, 0x80, 0x81, 0xfe, 0xff}
	memory := make([]byte, 64)
	for range 50000 {
		b := memory[r.IntN(8):][:r.IntN(40)] // with any alignment
		for i := range b {
			b[i] = 'a'
			switch r.IntN(20) {
			case 0:
				b[i] = edges[r.IntN(len(edges))]
			case 1:
				b[i] = byte(r.Uint32())
			}
		}
		for at := 0; at <= len(b); at++ {
			if got, want := indexControl(b, at), naiveIndexControl(b, at); got != want {
				t.Fatalf("%q from %d: got %d, want %d", b, at, got, want)
			}
		}
	}
}

func FuzzIndexControl(f *testing.F) {
	f.Add([]byte("a header's value, without end"), 0)
	f.Add([]byte("a\tb\x7f\r\n\x80\xff\x00 and more"), 3)
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		if at < 0 || at > len(b) {
			return
		}
		if got, want := indexControl(b, at), naiveIndexControl(b, at); got != want {
			t.Errorf("%q from %d: got %d, want %d", b, at, got, want)
		}
	})
}

func TestTokens(t *testing.T) {
	for list, want := range map[string][]string{
		"":                             nil,
		",":                            nil,
		" \t ":                         nil,
		", ,\t,":                       nil,
		"close":                        {"close"},
		"  close\t":                    {"close"},
		"close,keep-alive":             {"close", "keep-alive"},
		" close , \tkeep-alive ,":      {"close", "keep-alive"},
		",,close,,upgrade,,":           {"close", "upgrade"},
		"a b, c":                       {"a b", "c"},
		"\"a,b\"":                      {"\"a", "b\""},
		strings.Repeat("x", 100) + ",": {strings.Repeat("x", 100)},
	} {
		t.Run(list, func(t *testing.T) {
			var got []string
			Tokens([]byte(list), func(b []byte) bool {
				got = append(got, string(b))
				return true
			})
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestTokensStopsWhenToldTo(t *testing.T) {
	calls := 0
	Tokens([]byte("a, b, c"), func([]byte) bool {
		calls++
		return calls < 2
	})
	if calls != 2 {
		t.Errorf("%d calls, want 2", calls)
	}
}

func TestEqualFold(t *testing.T) {
	for name, tc := range map[string]struct {
		b, lower string
		want     bool
	}{
		"same":                  {"chunked", "chunked", true},
		"upper":                 {"CHUNKED", "chunked", true},
		"mixed, with dash":      {"Keep-Alive", "keep-alive", true},
		"empty":                 {"", "", true},
		"shorter":               {"chunke", "chunked", false},
		"longer":                {"chunked ", "chunked", false},
		"other letter":          {"chunkeb", "chunked", false},
		"other case of @":       {"@", "`", false},
		"other case of [":       {"[", "{", false},
		"no token, same":        {"http://", "http://", true},
		"high bit":              {"\xe3lose", "close", false},
		"Kelvin sign":           {"\u212aeep-alive", "keep-alive", false},
		"long s":                {"clo\u017fe", "close", false},
		"NUL where no token is": {"\x00", "/", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := EqualFold([]byte(tc.b), tc.lower); got != tc.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// Two bytes are equal except for case exactly if they are equal or the two cases of one letter.
func TestSameFoldOfAllPairs(t *testing.T) {
	lower := func(c int) int {
		if c >= 'A' && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}
	for a := range 256 {
		for b := range 256 {
			want := lower(a) == lower(b)
			if got := sameFold([]byte{byte(a)}, []byte{byte(b)}); got != want {
				t.Errorf("%q and %q: got %v", byte(a), byte(b), got)
			}
		}
	}
	if sameFold([]byte("ab"), []byte("a")) {
		t.Error("one that is longer is the same")
	}
}

func TestTrim(t *testing.T) {
	for b, want := range map[string]string{
		"": "", " ": "", "\t \t": "", "a": "a", " a b\t": "a b", "\ta": "a", "\x00 ": "\x00", "\r": "\r",
	} {
		if got := string(trim([]byte(b))); got != want {
			t.Errorf("trim(%q) = %q, want %q", b, got, want)
		}
	}
}
