// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"errors"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// goodResponses are heads with their content.
func goodResponses() map[string]struct {
	head string
	want seen
} {
	with := func(fields string) string { return "HTTP/1.1 200 OK\r\n" + fields + "\r\n" }
	saying := func(length int64, flags string, fields ...string) seen {
		return seen{First: "200 1.1", Host: "none", Length: length, Flags: flags, Fields: fields}
	}
	first := func(s string) seen { return seen{First: s, Host: "none", Length: -1} }
	return map[string]struct {
		head string
		want seen
	}{
		"least":                    {with(""), saying(-1, "")},
		"of 1.0":                   {"HTTP/1.0 200 OK\r\n\r\n", first("200 1.0")},
		"no reason":                {"HTTP/1.1 404 \r\n\r\n", first("404 1.1")},
		"no reason and no space":   {"HTTP/1.1 204\r\n\r\n", first("204 1.1")},
		"odd reason":               {"HTTP/1.1 500  a\tb: \xc3\xa4 \r\n\r\n", first("500 1.1")},
		"status that nobody knows": {"HTTP/1.1 999 x\r\n\r\n", first("999 1.1")},
		"informational":            {"HTTP/1.1 100 Continue\r\n\r\n", first("100 1.1")},
		"length":                   {with("Content-Length: 5\r\n"), saying(5, "", "Content-Length=5")},
		"same length twice":        {with("Content-Length: 5\r\ncontent-length: 5\r\n"), saying(5, "", "Content-Length=5", "content-length=5")},
		"same length by zeros": {
			with("Content-Length: 5\r\nContent-Length: 05\r\n"), saying(5, "", "Content-Length=5", "Content-Length=05"),
		},
		"chunked": {with("Transfer-Encoding: Chunked\r\n"), saying(-1, "C", "Transfer-Encoding=Chunked")},
		"chunked by 1.0": {
			"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
			seen{First: "200 1.0", Host: "none", Length: -1, Flags: "C", Fields: []string{"Transfer-Encoding=chunked"}},
		},
		"length beside chunks": {
			with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), saying(-1, "C", "Content-Length=5", "Transfer-Encoding=chunked"),
		},
		"close": {with("Connection: close\r\n"), saying(-1, "L", "Connection=close")},
		"keep-alive": {
			with("Connection: keep-alive\r\nKeep-Alive: 5\r\n"), saying(-1, "K", "Connection=keep-alive", "Keep-Alive=5"),
		},
		"upgrade": {
			"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n",
			seen{First: "101 1.1", Host: "none", Length: -1, Flags: "UH", Fields: []string{"Connection=Upgrade", "Upgrade=a"}},
		},
		"nominating":                {with("Connection: x\r\nX: y\r\n"), saying(-1, "N", "Connection=x", "X=y")},
		"control in the reason":     {"HTTP/1.1 200 O\x1bK\x7f\r\n\r\n", first("200 1.1")},
		"escapes in a value":        {with("A: \x1b[31mred\x1b[0m\r\n"), saying(-1, "", "A=\x1b[31mred\x1b[0m")},
		"nothing but controls":      {with("A:\x01\x08\x0b\x0c\x1f\x7f\r\n"), saying(-1, "", "A=\x01\x08\x0b\x0c\x1f\x7f")},
		"control beside a token":    {with("Connection: close\x01\r\n"), saying(-1, "N", "Connection=close\x01")},
		"Host, which means nothing": {with("Host: a b\r\n"), seen{First: "200 1.1", Host: "a b", Length: -1, Fields: []string{"Host=a b"}}},
	}
}

// badResponses are heads that Parse rejects, with the error.
func badResponses() map[string]struct {
	head string
	want MalformedError
} {
	with := func(fields string) string { return "HTTP/1.1 200 OK\r\n" + fields + "\r\n" }
	return map[string]struct {
		head string
		want MalformedError
	}{
		"empty line":                {"\r\nHTTP/1.1 200 OK\r\n\r\n", ErrBadStartLine},
		"short line":                {"HTTP/1.1\r\n", ErrBadStartLine},
		"LF in a short line":        {"HTTP/1.1 20\n", ErrBadStartLine},
		"other protocol":            {"ICY 200 OK\r\n\r\n    ", ErrBadStartLine},
		"request":                   {"GET / HTTP/1.1\r\n\r\n", ErrBadStartLine},
		"version 2.0":               {"HTTP/2.0 200 OK\r\n\r\n", ErrBadVersion},
		"version 1.2":               {"HTTP/1.2 200 OK\r\n\r\n", ErrBadVersion},
		"version in two digits":     {"HTTP/1.10 200 OK\r\n\r\n", ErrBadStatus},
		"two spaces":                {"HTTP/1.1  200 OK\r\n\r\n", ErrBadStatus},
		"tab":                       {"HTTP/1.1\t200 OK\r\n\r\n", ErrBadStatus},
		"status of two digits":      {"HTTP/1.1 20 OK\r\n\r\n", ErrBadStatus},
		"status of four digits":     {"HTTP/1.1 2000 OK\r\n\r\n", ErrBadStatus},
		"status with sign":          {"HTTP/1.1 +20 OK\r\n\r\n", ErrBadStatus},
		"status below 100":          {"HTTP/1.1 099 OK\r\n\r\n", ErrBadStatus},
		"status, LF":                {"HTTP/1.1 200\n\n", ErrBadStatus},
		"reason without space":      {"HTTP/1.1 200OK\r\n\r\n", ErrBadStatus},
		"reason with control":       {"HTTP/1.1 200 O\x00K\r\n\r\n", ErrBadFieldValue},
		"reason, LF":                {"HTTP/1.1 200 OK\n\n", ErrBadLineEnd},
		"CR in the reason":          {"HTTP/1.1 200 O\rK\r\n\r\n", ErrBadLineEnd},
		"LF behind a field":         {with("A: b\n"), ErrBadLineEnd},
		"folded":                    {with("A: b\r\n c\r\n"), ErrFoldedField},
		"space before colon":        {with("A : b\r\n"), ErrBadFieldName},
		"NUL in a value":            {with("A: \x00\r\n"), ErrBadFieldValue},
		"CR in a value":             {with("A: \x1b\rb\r\n"), ErrBadLineEnd},
		"control in a name":         {with("A\x1b: b\r\n"), ErrBadFieldName},
		"control in a length":       {with("Content-Length: 5\x01\r\n"), ErrBadContentLength},
		"control in a coding":       {with("Transfer-Encoding: \x0bchunked\r\n"), ErrBadTransferEncoding},
		"length that is none":       {with("Content-Length: a\r\n"), ErrBadContentLength},
		"lengths in a list":         {with("Content-Length: 5, 5\r\n"), ErrBadContentLength},
		"two lengths":               {with("Content-Length: 5\r\nContent-Length: 6\r\n"), ErrRepeatedContentLength},
		"third length":              {with("Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 6\r\n"), ErrRepeatedContentLength},
		"bad length beside chunks":  {with("Transfer-Encoding: chunked\r\nContent-Length: x\r\n"), ErrBadContentLength},
		"chunked twice":             {with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), ErrRepeatedTransferEncoding},
		"gzip":                      {with("Transfer-Encoding: gzip\r\n"), ErrUnknownTransferEncoding},
		"gzip, chunked":             {with("Transfer-Encoding: gzip, chunked\r\n"), ErrBadTransferEncoding},
		"answer's line without end": {"HTTP/1.1 200 OK\r\nA\r\n\r\n", ErrBadLineEnd},
	}
}

func lookAtResponse(r *Response, b []byte) seen { return look(&r.Head, b, strconv.Itoa(r.Status)) }

// usedResponse returns a Response that has parsed an answer in which everything is set.
func usedResponse(t *testing.T) *Response {
	t.Helper()
	const all = "HTTP/1.1 101 Switching\r\nHost: other\r\nTransfer-Encoding: chunked\r\nContent-Length: 77\r\n" +
		"Connection: close, keep-alive, upgrade, x\r\nUpgrade: y\r\n\r\n"
	r := &Response{}
	if n, err := r.Parse([]byte(all)); err != nil || n != len(all) {
		t.Fatalf("got %d, %v", n, err)
	}
	return r
}

func TestResponse(t *testing.T) {
	for name, tc := range goodResponses() {
		t.Run(name, func(t *testing.T) {
			r := usedResponse(t)
			b := []byte(tc.head + "rest: \r\n\r\n\x00")
			n, err := r.Parse(b)
			if err != nil || n != len(tc.head) {
				t.Fatalf("got %d, %v; want %d", n, err, len(tc.head))
			}
			if diff := cmp.Diff(tc.want, lookAtResponse(r, b)); diff != "" {
				t.Error(diff)
			}
			checkPositions(t, &r.Head, b, n)
		})
	}
}

func TestBadResponse(t *testing.T) {
	for name, tc := range badResponses() {
		t.Run(name, func(t *testing.T) {
			n, err := usedResponse(t).Parse([]byte(tc.head))
			if n != 0 || !errors.Is(err, tc.want) {
				t.Errorf("got %d, %v; want %v", n, err, tc.want)
			}
		})
	}
}

func TestHasBody(t *testing.T) {
	for status, want := range map[int]bool{
		100: false, 101: false, 103: false, 199: false, 200: true, 201: true, 203: true, 204: false, 205: true, 206: true,
		302: true, 304: false, 305: true, 404: true, 500: true, 999: true,
	} {
		if got := (&Response{Status: status}).HasBody(); got != want {
			t.Errorf("%d: got %v", status, got)
		}
	}
}

func TestRepair(t *testing.T) {
	for name, tc := range map[string]struct {
		head string
		want string // the empty string means that the head is not complete
	}{
		"whole already":         {"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n\r\n"},
		"LF":                    {"HTTP/1.1 200 OK\nA: b\nC:d\n\n", "HTTP/1.1 200 OK\r\nA: b\r\nC:d\r\n\r\n"},
		"LF now and then":       {"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\n", "HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\n"},
		"LF but at the end":     {"HTTP/1.1 200 OK\nA: b\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n\r\n"},
		"folded":                {"HTTP/1.1 200 OK\r\nA: b\r\n  c \r\n\td\r\nE: f\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b c d\r\nE: f\r\n\r\n"},
		"folded with a colon":   {"HTTP/1.1 200 OK\nA: b\n c: d\n\n", "HTTP/1.1 200 OK\r\nA: b c: d\r\n\r\n"},
		"folded and empty":      {"HTTP/1.1 200 OK\nA: b\n \nC: d\n\n", "HTTP/1.1 200 OK\r\nA: b \r\nC: d\r\n\r\n"},
		"folded length":         {"HTTP/1.1 200 OK\nContent-Length:\n 5\n\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"},
		"space before colon":    {"HTTP/1.1 200 OK\r\nA \t: b\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n\r\n"},
		"first field folded":    {"HTTP/1.1 200 OK\n A: b\n\n", "HTTP/1.1 200 OK\r\n A: b\r\n\r\n"},
		"empty line folded":     {"HTTP/1.1 200 OK\n \nA: b\n\n", "HTTP/1.1 200 OK\r\n \r\nA: b\r\n\r\n"},
		"line without colon":    {"HTTP/1.1 200 OK\nA\n\n", "HTTP/1.1 200 OK\r\nA\r\n\r\n"},
		"CR is no line end":     {"HTTP/1.1 200 OK\nA: b\rc\n\n", "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n"},
		"CR CR LF":              {"HTTP/1.1 200 OK\nA: b\r\r\n\n", "HTTP/1.1 200 OK\r\nA: b\r\r\n\r\n"},
		"empty":                 {"\n", "\r\n"},
		"colon in the reason":   {"HTTP/1.1 200 a : b\n\n", "HTTP/1.1 200 a : b\r\n\r\n"},
		"nothing":               {"", ""},
		"no end":                {"HTTP/1.1 200 OK\nA: b\n", ""},
		"half an end":           {"HTTP/1.1 200 OK\nA: b\n\r", ""},
		"half of the last line": {"HTTP/1.1 200 OK\nA: b", ""},
	} {
		t.Run(name, func(t *testing.T) {
			const rest = "B: c\n\nrest"
			b := tc.head
			if tc.want != "" {
				b += rest
			}
			given := []byte(b)
			head, n := Repair(given)
			if tc.want == "" {
				if head != nil || n != 0 {
					t.Errorf("got %q, %d", head, n)
				}
			} else if string(head) != tc.want || n != len(tc.head) {
				t.Errorf("got %q, %d; want %q, %d", head, n, tc.want, len(tc.head))
			}
			if string(given) != b {
				t.Errorf("it has changed what it was given to %q", given)
			}
		})
	}
}

// Repair changes neither a head that Parse accepts nor its own result.
func TestRepairOfWhatIsWhole(t *testing.T) {
	heads := []string{"HTTP/1.1 200 OK\nA : b\n c\n\n", "HTTP/1.0 200\nA: b\n\tc\n d\n\n"}
	for _, tc := range goodResponses() {
		heads = append(heads, tc.head)
	}
	for _, head := range heads {
		once, _ := Repair([]byte(head))
		var r Response
		if n, err := r.Parse([]byte(head)); err == nil && n > 0 && string(once) != head {
			t.Errorf("%q became %q", head, once)
		}
		twice, n := Repair(once)
		if string(twice) != string(once) || n != len(once) {
			t.Errorf("%q became %q and then %q", head, once, twice)
		}
		if n, err := r.Parse(once); n != len(once) || err != nil {
			t.Errorf("%q became %q, of which %d are a head, %v", head, once, n, err)
		}
	}
}
