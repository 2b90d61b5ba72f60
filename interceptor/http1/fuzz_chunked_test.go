// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

func addChunks(f *testing.F, add func(string)) {
	f.Helper()
	for _, tc := range goodChunks() {
		if len(tc.body) < 1000 {
			add(tc.body + "GET /next HTTP/1.1\r\n")
		}
	}
	for _, tc := range badChunks() {
		if len(tc.body) < 1000 {
			add(tc.body)
		}
	}
	for _, seed := range []string{
		"5 \r\nhello\r\n0 \r\n\r\n",
		"5\nhello\n0 \nA: b\n\n",
		"5 ;a=b\r\nhello\r\n0\r\n\r\n",
		"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
		"1;" + strings.Repeat("a", 200) + "\r\nb\r\n0\r\n\r\n",
		"5;a=\"\\\"\r\nhello\r\n0;b\r\nA: b\r\nC: d\r\n\r\n",
		"2;\nxx\r\n4c\r\n0\r\n\r\n",
	} {
		add(seed)
	}
}

func FuzzChunked(f *testing.F) {
	addChunks(f, func(s string) { f.Add([]byte(s)) })
	f.Fuzz(func(t *testing.T, b []byte) {
		var strict Chunked
		data, used, err := feeding(&strict, b, whole)
		checkPassed(t, Chunked{}, b, data, used, err)
		lenient := Chunked{Lenient: true}
		lenientData, lenientUsed, lenientErr := feeding(&lenient, b, whole)
		checkPassed(t, Chunked{Lenient: true}, b, lenientData, lenientUsed, lenientErr)
		if err == nil && (lenientErr != nil || lenientUsed != used || !bytes.Equal(lenientData, data)) {
			t.Errorf("leniently %d bytes, %v; strictly %d", lenientUsed, lenientErr, used)
		}
		// If net/http accepts the original bytes, it gives them the same meaning.
		wanted, wantedUsed, failed := readChunked(b)
		if failed == nil && lenientErr == nil && (lenientUsed != wantedUsed || !bytes.Equal(lenientData, wanted)) {
			t.Errorf("%d bytes with %q, net/http has %d with %q", lenientUsed, lenientData, wantedUsed, wanted)
		}
	})
}

// checkPassed feeds b to c. It checks that net/http reads from the result what feeding has read from b.
func checkPassed(t *testing.T, c Chunked, b, data []byte, used int, err error) {
	t.Helper()
	given := bytes.Clone(b)
	pass, n, failed := c.Feed(b)
	if n != used || failed != err || !bytes.Equal(b, given) { //nolint:errorlint // the very same
		t.Fatalf("%d bytes, %v; piece by piece %d, %v; of %q", n, failed, used, err, b)
	}
	if err != nil {
		return
	}
	var again Chunked
	again.Lenient = c.Lenient
	if same, m, err := again.Feed(pass); err != nil || m != len(pass) || !bytes.Equal(same, pass) || again.Done() != c.Done() {
		t.Errorf("%q goes on as %q, and that as %q, %v", b, pass, same, err)
	}
	wanted, wantedUsed, failed := readChunked(append(bytes.Clone(pass), b[used:]...))
	if failed != nil && c.Lenient && strings.Contains(failed.Error(), "malformed MIME header line") {
		return // control bytes, which net/http accepts in no trailer
	}
	checkChunked(t, c.Done(), data, len(pass), wanted, wantedUsed, failed)
}

// readChunked reads a chunked body with net/http, and returns how many bytes the body had.
func readChunked(b []byte) (data []byte, used int, err error) {
	const head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
	in := newRemaining(append([]byte(head), b...))
	req, err := http.ReadRequest(in.Reader)
	if err != nil {
		return nil, 0, err
	}
	data, err = io.ReadAll(req.Body)
	return data, len(b) - in.left(), err
}

func checkChunked(t *testing.T, done bool, data []byte, used int, wanted []byte, wantedUsed int, failed error) {
	t.Helper()
	switch {
	case failed != nil && strings.Contains(failed.Error(), "too much non-data"):
		// net/http forgets how much data came before the extensions. We allow as many bytes of extensions as of data.
	case !done && failed == nil:
		t.Error("we wait for more, and net/http has the end")
	case done && failed != nil:
		t.Errorf("net/http says %v", failed)
	case done && (used != wantedUsed || !bytes.Equal(data, wanted)):
		t.Errorf("%d bytes with %q, net/http has %d with %q", used, data, wantedUsed, wanted)
	}
}

// Bytes in two pieces have the same result as in one.
func FuzzSplit(f *testing.F) {
	for _, tc := range goodRequests() {
		f.Add([]byte(tc.head), uint16(len(tc.head)/2))
	}
	for _, tc := range badRequests() {
		f.Add([]byte(tc.head), uint16(len(tc.head)/3))
	}
	for _, tc := range goodResponses() {
		f.Add([]byte(tc.head), uint16(len(tc.head)/2))
	}
	for _, tc := range badResponses() {
		f.Add([]byte(tc.head), uint16(len(tc.head)/3))
	}
	addChunks(f, func(s string) { f.Add([]byte(s), uint16(len(s)/2)) })
	f.Add([]byte("GET / HTTP/2.0\n "), uint16(15))
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		cut := int(at) % (len(b) + 1)
		checkSplit(t, &Request{}, &Request{}, b, cut)
		checkSplit(t, &Response{}, &Response{}, b, cut)
		for _, lenient := range []bool{false, true} {
			one, two := Chunked{Lenient: lenient}, Chunked{Lenient: lenient}
			pass, n, err := one.Feed(b)
			first, m, err2 := two.Feed(b[:cut])
			if err2 == nil && m == cut {
				rest, more, failed := two.Feed(b[cut:])
				m, err2 = m+more, failed
				if err2 == nil && string(pass) != string(first)+string(rest) {
					t.Errorf("%q goes on in one, and %q and %q in two", pass, first, rest)
				}
			}
			if n != m || err != err2 || one != two { //nolint:errorlint // the very same
				t.Errorf("chunks: %d, %v in one, and %d, %v in two", n, err, m, err2)
			}
		}
	})
}

func checkSplit(t *testing.T, fresh, used parser, b []byte, cut int) {
	t.Helper()
	n, err := fresh.Parse(b)
	if n != 0 && err != nil {
		t.Fatalf("%d and %v", n, err)
	}
	first, failed := used.Parse(b[:cut:cut])
	m, again := used.Parse(b)
	_, request := used.(*Request)
	switch {
	case m != n || again != err: //nolint:errorlint // the very same
		t.Errorf("%d, %v, and after other bytes %d, %v", n, err, m, again)
	case failed != nil && err == nil, failed != nil && request && err != failed: //nolint:errorlint // the very same
		t.Errorf("%d, %v, and without the end %v", n, err, failed)
	case first != 0 && first != n:
		t.Errorf("%d, %v, and without the end %d", n, err, first)
	case first == 0 && failed == nil && n != 0 && bytes.IndexByte(b[cut:], '\n') < 0:
		t.Error("complete without another LF")
	}
}
