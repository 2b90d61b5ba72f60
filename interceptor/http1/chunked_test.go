// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// feeding passes b through c in pieces of the lengths that next returns. It returns the data, the number of bytes that belonged to
// the body, and the error.
func feeding(c *Chunked, b []byte, next func(left int) int) (data []byte, used int, err error) {
	for used < len(b) && !c.Done() {
		piece := b[used:][:min(max(next(len(b)-used), 1), len(b)-used)]
		for len(piece) > 0 && !c.Done() {
			n, kind, err := c.Next(piece)
			if kind == Data {
				data = append(data, piece[:n]...)
			}
			used += n
			piece = piece[n:]
			if err != nil {
				return data, used, err
			}
		}
	}
	return data, used, nil
}

func whole(left int) int { return left }

func onebyone(int) int { return 1 }

// goodChunks are bodies with their data.
func goodChunks() map[string]struct{ body, data string } {
	return map[string]struct{ body, data string }{
		"empty":                   {"0\r\n\r\n", ""},
		"one":                     {"5\r\nhello\r\n0\r\n\r\n", "hello"},
		"several":                 {"1\r\na\r\n2\r\nbc\r\n3\r\n\r\n\x00\r\n0\r\n\r\n", "abc\r\n\x00"},
		"hex":                     {"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", "01234567890123456789a"},
		"leading zeros":           {"000000000000005\r\nhello\r\n000000000000000\r\n\r\n", "hello"},
		"extensions":              {"5;a=b;c=\"d e\"\r\nhello\r\n0;f\t;\xff\r\n\r\n", "hello"},
		"empty extension":         {"5;\r\nhello\r\n0;\r\n\r\n", "hello"},
		"size in an extension":    {"5;;;6\r\nhello\r\n0\r\n\r\n", "hello"},
		"trailers":                {"0\r\nA: b\r\nc:\r\nD:\t e\tf \xff\r\n\r\n", ""},
		"trailers after data":     {"2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n", "ab"},
		"trailer with long name":  {"0\r\n" + strings.Repeat("x", 1000) + ": y\r\n\r\n", ""},
		"data like a last chunk":  {"7\r\n0\r\n\r\n12\r\n0\r\n\r\n", "0\r\n\r\n12"},
		"longest line":            {"1;" + strings.Repeat("x", maxChunkLine-3) + "\r\na\r\n0\r\n\r\n", "a"},
		"largest trailer":         {"0\r\na:" + strings.Repeat("x", maxTrailer-6) + "\r\n\r\n", ""},
		"long data in one":        {"4000\r\n" + strings.Repeat("y", 0x4000) + "\r\n0\r\n\r\n", strings.Repeat("y", 0x4000)},
		"byte by byte for long":   {strings.Repeat("1\r\nz\r\n", 30000) + "0\r\n\r\n", strings.Repeat("z", 30000)},
		"trailer nearly known":    {"0\r\nContent-Lengths: 1\r\nTransfer_Encoding: 2\r\n\r\n", ""},
		"space behind the size":   {"5 \r\nhello\r\n0 \r\n\r\n", "hello"},
		"spaces behind the size":  {"5 \t  \r\nhello\r\n0\t\r\n\r\n", "hello"},
		"space before extension":  {"5 ;a\r\nhello\r\n0\t \t; b = c \r\n\r\n", "hello"},
		"two bytes at the end CR": {"2\r\n\r\n\r\n0\r\n\r\n", "\r\n"},
	}
}

// badChunks are malformed bodies, with the error and the byte at which it occurs.
func badChunks() map[string]struct {
	body    string
	at      int
	want    MalformedError
	lenient bool // malformed even if Lenient
} {
	type bad = struct {
		body    string
		at      int
		want    MalformedError
		lenient bool
	}
	perLine := strings.Repeat("x", 4000)
	return map[string]bad{
		"no size":                   {"\r\n", 0, ErrBadChunkSize, true},
		"LF first":                  {"\n5\r\nhello\r\n", 0, ErrBadChunkSize, true},
		"minus":                     {"-1\r\n", 0, ErrBadChunkSize, true},
		"plus":                      {"+1\r\n", 0, ErrBadChunkSize, true},
		"space first":               {" 5\r\nhello\r\n", 0, ErrBadChunkSize, true},
		"0x":                        {"0x5\r\nhello\r\n", 1, ErrBadChunkSize, true},
		"no hex":                    {"g\r\n", 0, ErrBadChunkSize, true},
		"underscore":                {"1_0\r\n", 1, ErrBadChunkSize, true},
		"16 digits":                 {"0000000000000005\r\n", 15, ErrBadChunkSize, true},
		"size that wraps":           {"10000000000000005\r\n", 15, ErrBadChunkSize, true},
		"two sizes":                 {"5 5\r\nhello\r\n", 2, ErrBadChunkSize, true},
		"vertical tab":              {"5\x0b\r\nhello\r\n", 1, ErrBadChunkSize, true},
		"endless space":             {"5" + strings.Repeat(" ", maxChunkLine), maxChunkLine, ErrChunkLineTooLong, true},
		"LF behind the size":        {"5\nhello\r\n", 1, ErrBadChunkSize, false},
		"LF behind space":           {"5 \nhello\r\n", 2, ErrBadChunkSize, false},
		"CR behind space":           {"5 \rhello\r\n", 3, ErrBadLineEnd, true},
		"CR behind the size":        {"5\rhello\r\n", 2, ErrBadLineEnd, true},
		"CR CR LF":                  {"5\r\r\nhello\r\n", 2, ErrBadLineEnd, true},
		"LF in an extension":        {"5;a\nhello\r\n", 3, ErrBadChunkLine, false},
		"CR in an extension":        {"5;a\rb\r\nhello\r\n", 4, ErrBadLineEnd, true},
		"NUL in an extension":       {"5;\x00\r\nhello\r\n", 2, ErrBadChunkLine, true},
		"DEL in an extension":       {"5;\x7f\r\nhello\r\n", 2, ErrBadChunkLine, false},
		"data too long":             {"2\r\nabc\r\n", 5, ErrBadChunkEnd, true},
		"data too short":            {"4\r\nab\r\n0\r\n\r\n", 7, ErrBadChunkEnd, true},
		"data too short by one":     {"3\r\nab\r\n0\r\n\r\n", 6, ErrBadChunkEnd, false}, // "ab\r" is the data, and an LF follows
		"LF behind data":            {"1\r\na\n0\r\n\r\n", 4, ErrBadChunkEnd, false},
		"CR behind data":            {"1\r\na\r0\r\n\r\n", 5, ErrBadChunkEnd, true},
		"size right behind data":    {"1\r\na0\r\n\r\n", 4, ErrBadChunkEnd, true},
		"LF as the end":             {"0\r\n\n", 3, ErrBadLineEnd, false},
		"CR and no LF as the end":   {"0\r\n\rGET", 4, ErrBadLineEnd, true},
		"another chunk after 0":     {"0\r\n5\r\nhello\r\n", 4, ErrBadFieldName, true},
		"trailer with LF":           {"0\r\nA: b\n\r\n", 7, ErrBadLineEnd, false},
		"trailer with CR":           {"0\r\nA: b\rc\r\n", 8, ErrBadLineEnd, true},
		"trailer folded":            {"0\r\nA: b\r\n c\r\n\r\n", 9, ErrFoldedField, true},
		"first trailer folded":      {"0\r\n A: b\r\n\r\n", 3, ErrFoldedField, true},
		"trailer without name":      {"0\r\n: b\r\n\r\n", 3, ErrBadFieldName, true},
		"trailer without colon":     {"0\r\nA\r\n\r\n", 4, ErrBadFieldName, true},
		"trailer with space":        {"0\r\nA : b\r\n\r\n", 4, ErrBadFieldName, true},
		"trailer with NUL":          {"0\r\nA: \x00\r\n\r\n", 6, ErrBadFieldValue, true},
		"trailer with DEL":          {"0\r\nA: \x7f\r\n\r\n", 6, ErrBadFieldValue, false},
		"trailer of the length":     {"0\r\nContent-Length: 1\r\n\r\n", 17, ErrBadTrailer, false},
		"trailer of the coding":     {"0\r\nA: b\r\ntransfer-ENCODING: x\r\n\r\n", 26, ErrBadTrailer, false},
		"trailer of the host":       {"0\r\nHost: x\r\n\r\n", 7, ErrBadTrailer, false},
		"trailer of the connection": {"0\r\nConnection: x\r\n\r\n", 13, ErrBadTrailer, false},
		"trailer of where it's from": {
			"0\r\nX-Forwarded-For: x\r\n\r\n", 18, ErrBadTrailer, false,
		},
		"line too long":          {"1;" + strings.Repeat("x", maxChunkLine), maxChunkLine, ErrChunkLineTooLong, true},
		"last line too long":     {"0;" + strings.Repeat("x", maxChunkLine), maxChunkLine, ErrChunkLineTooLong, true},
		"trailer too large":      {"0\r\na:" + strings.Repeat("x", maxTrailer), 3 + maxTrailer, ErrTrailerTooLarge, true},
		"many trailers":          {"0\r\n" + strings.Repeat("a:\r\n", maxTrailer), 3 + maxTrailer, ErrTrailerTooLarge, true},
		"extensions for no data": {strings.Repeat("1;"+perLine+"\r\na\r\n", 5), 4*(4000+7) + 381, ErrChunkLineTooLong, true},
	}
}

func TestChunked(t *testing.T) {
	for name, tc := range goodChunks() {
		for _, lenient := range []bool{false, true} {
			t.Run(fmt.Sprint(name, lenient), func(t *testing.T) {
				b := []byte(tc.body + "GET / HTTP/1.1\r\n")
				for how, next := range map[string]func(int) int{"whole": whole, "byte by byte": onebyone} {
					c := Chunked{Lenient: lenient}
					data, used, err := feeding(&c, b, next)
					if err != nil || used != len(tc.body) || string(data) != tc.data || !c.Done() || c.Left() != 0 {
						t.Errorf("%s: used %d of %d, got %.60q, %v", how, used, len(tc.body), data, err)
					}
				}
				c := Chunked{Lenient: lenient}
				if _, n, err := c.Feed(b); n != len(tc.body) || err != nil || !c.Done() {
					t.Errorf("feeding used %d of %d, %v", n, len(tc.body), err)
				}
				if n, _, err := c.Next(b); n != 0 || err != nil {
					t.Errorf("behind the end: %d, %v", n, err)
				}
			})
		}
	}
}

func TestBadChunks(t *testing.T) {
	for name, tc := range badChunks() {
		t.Run(name, func(t *testing.T) {
			for how, next := range map[string]func(int) int{"whole": whole, "byte by byte": onebyone} {
				_, used, err := feeding(&Chunked{}, []byte(tc.body), next)
				if !errors.Is(err, tc.want) || used != tc.at {
					t.Errorf("%s: got %v at %d, want %v at %d", how, err, used, tc.want, tc.at)
				}
			}
			_, _, err := feeding(&Chunked{Lenient: true}, []byte(tc.body), whole)
			if (err != nil) != tc.lenient {
				t.Errorf("leniently: got %v", err)
			}
		})
	}
}

func TestLenient(t *testing.T) {
	for name, tc := range map[string]struct{ body, data string }{
		"LF":                    {"5\nhello\n0\n\n", "hello"},
		"LF behind space":       {"5 \nhello\n0\t\n\n", "hello"},
		"LF behind extensions":  {"5;a\nhello\n0 ;\n\n", "hello"},
		"LF behind trailers":    {"0\nA: b\nC:\nD: e\r\n\n", ""},
		"LF now and then":       {"2\nhe\r\n3\r\nllo\n0\r\nA: b\n\r\n", "hello"},
		"data of LF":            {"1\n\n\n2\n\r\n\n0\n\n", "\n\r\n"},
		"controls":              {"5;\x1b\x01\x7f\r\nhello\r\n0\r\nA: \x1b[0m\x7f\r\n\r\n", "hello"},
		"trailer of the length": {"0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := Chunked{Lenient: true}
			data, used, err := feeding(&c, []byte(tc.body+"x"), onebyone)
			if err != nil || used != len(tc.body) || string(data) != tc.data || !c.Done() {
				t.Errorf("used %d of %d, got %q, %v", used, len(tc.body), data, err)
			}
		})
	}
}

// What is passed on is well-formed for a strict reader: no space after a size, and CRLF at the end of each line. A body that is
// already well-formed is unchanged.
func TestFeedNormalizes(t *testing.T) {
	for name, tc := range map[string]struct{ body, want string }{
		"well-formed":            {"5;a = b \r\nhello\r\n0\r\nA: b\r\n\r\n", "5;a = b \r\nhello\r\n0\r\nA: b\r\n\r\n"},
		"space":                  {"5 \r\nhello\r\n0\t \r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"},
		"space before extension": {"5 \t;a\r\nhello\r\n0 ;\r\n\r\n", "5;a\r\nhello\r\n0;\r\n\r\n"},
		"LF":                     {"5\nhe\n o\n0\n\n", "5\r\nhe\n o\r\n0\r\n\r\n"},
		"LF and more":            {"1 \n\n\n0 ;a\nA: b\n\n", "1\r\n\n\r\n0;a\r\nA: b\r\n\r\n"},
		"LF now and then":        {"1\r\na\n0\r\nA: b\n\r\n", "1\r\na\r\n0\r\nA: b\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			for at := range len(tc.body) + 1 {
				c := Chunked{Lenient: true}
				first, n, err := c.Feed([]byte(tc.body[:at]))
				second, m, err2 := c.Feed([]byte(tc.body[at:]))
				if got := string(first) + string(second); got != tc.want || err != nil || err2 != nil || n+m != len(tc.body) {
					t.Fatalf("cut at %d: got %q, %d, %v, %v", at, got, n+m, err, err2)
				}
			}
		})
	}
	t.Run("as it is", func(t *testing.T) {
		var c Chunked
		b := []byte("5;a\r\nhello\r\n0\r\n\r\nnext")
		pass, n, err := c.Feed(b)
		if err != nil || n != len(b)-len("next") || len(pass) != n || &pass[0] != &b[0] {
			t.Errorf("got %q, %d, %v", pass, n, err)
		}
	})
}

// Extensions, including the CR of their line, may have as many bytes as the data, and some more.
func TestExtensionsInProportion(t *testing.T) {
	extension := ";" + strings.Repeat("e", 999)
	for name, tc := range map[string]struct {
		chunk string
		fits  bool
	}{
		"as much as the data":   {"3e9" + extension + "\r\n" + strings.Repeat("d", 1001) + "\r\n", true},
		"twice as much":         {"1f4" + extension + "\r\n" + strings.Repeat("d", 500) + "\r\n", false},
		"nothing but sizes":     {"1\r\nd\r\n", true},
		"short ones, tiny data": {"1;a\r\nd\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			var c Chunked
			_, _, err := c.Feed(bytes.Repeat([]byte(tc.chunk), 10000))
			if tc.fits && err != nil || !tc.fits && !errors.Is(err, ErrChunkLineTooLong) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestLeftAndSkip(t *testing.T) {
	var c Chunked
	feed := func(b string) {
		t.Helper()
		if _, n, err := c.Feed([]byte(b)); n != len(b) || err != nil {
			t.Fatalf("feeding %q: %d, %v", b, n, err)
		}
	}
	left := func(want int64) {
		t.Helper()
		if got := c.Left(); got != want {
			t.Fatalf("%d left, want %d", got, want)
		}
	}
	left(0)
	feed("10")
	left(0) // the size may continue
	feed("\r")
	left(0)
	feed("\n")
	left(16)
	feed("abc")
	left(13)
	c.Skip(3)
	left(10)
	c.Skip(10)
	left(0)
	feed("\r\nfffffffffffffff\r\n")
	left(1<<60 - 1)
	c.Skip(1<<60 - 1)
	feed("\r\n0\r\n")
	left(0)
	feed("\r\n")
	if !c.Done() {
		t.Error("it is not done")
	}
}

// The result does not depend on how a body is cut into pieces.
func TestSplitsOfChunks(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	bodies := []string{}
	for _, tc := range goodChunks() {
		bodies = append(bodies, tc.body+"rest")
	}
	for _, tc := range badChunks() {
		bodies = append(bodies, tc.body)
	}
	for _, body := range bodies {
		for _, lenient := range []bool{false, true} {
			want := Chunked{Lenient: lenient}
			data, used, failed := feeding(&want, []byte(body), whole)
			for range 20 {
				most := 1 + r.IntN(len(body))
				got := Chunked{Lenient: lenient}
				gotData, gotUsed, err := feeding(&got, []byte(body), func(int) int { return r.IntN(most) })
				if gotUsed != used || !bytes.Equal(gotData, data) || err != failed || got != want { //nolint:errorlint // the very same
					t.Fatalf("%.60q: used %d with %v, want %d with %v", body, gotUsed, err, used, failed)
				}
			}
		}
	}
}
