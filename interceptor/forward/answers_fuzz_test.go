// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// told is an answer as net/http reads it. body is what arrived before err.
type told struct {
	status int
	body   string
	err    error
}

// readTold reads the final answer to a POST.
func readTold(r io.Reader) told {
	b := bufio.NewReaderSize(r, maxFuzzed+4096)
	for {
		resp, err := http.ReadResponse(b, nil)
		if err != nil {
			return told{err: err}
		}
		if resp.StatusCode/100 == 1 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		return told{resp.StatusCode, string(body), err}
	}
}

// understoodOtherwise reports whether net/http reads b by rules other than ours.
func understoodOtherwise(b []byte, want told) bool {
	switch {
	case bytes.Contains(b, []byte("HTTP/1.0")) && bytes.Contains(bytes.ToLower(b), []byte("transfer-encoding")):
		return true // net/http does not read chunks from HTTP/1.0
	case regexp.MustCompile(`[ \t]:`).Match(b):
		return true // to net/http this is a different field, or none
	case want.err == nil:
		return false
	default: // several spellings of one length, trailers that net/http does not announce, or many extensions
		return regexp.MustCompile("multiple Content-Length|bad trailer key|too much non-data").MatchString(want.err.Error())
	}
}

// repaired returns the answer with chunks whose lines end in CRLF, and without space after sizes.
func repaired(b []byte) []byte {
	for at := 0; ; {
		var r http1.Response
		n, err := r.Parse(b[at:])
		if err != nil {
			head, length := http1.Repair(b[at:])
			if m, err := r.Parse(head); length == 0 || err != nil || m != len(head) {
				return b
			}
			n = length
		}
		at += n
		switch {
		case n == 0, r.Status == http.StatusSwitchingProtocols, r.Status >= http.StatusOK && (!r.Chunked || !r.HasBody()):
			return b
		case r.Status >= http.StatusOK:
			out, rest := appendNormalized(bytes.Clone(b[:at]), b[at:], http1.Chunked{Lenient: true})
			return append(out, rest...)
		}
	}
}

// FuzzAnswers lets a pod send arbitrary bytes, in two parts, and close. The client reads what net/http reads from the pod's bytes
// with repaired chunks, or a part of it followed by an error, or the engine's own answer that there was none.
func FuzzAnswers(f *testing.F) {
	for _, seed := range answerSeeds() {
		f.Add([]byte(seed), uint16(0))
		f.Add([]byte(seed), uint16(len(seed)/2))
		f.Add([]byte(seed), uint16(len(seed)-3))
	}
	type answer struct{ first, second []byte }
	var now atomic.Pointer[answer]
	r := newRig(f, Options{Tick: time.Second}, newPod(f, func(c *net.TCPConn, b *bufio.Reader) {
		req, err := http.ReadRequest(b)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		a := now.Load()
		_, _ = c.Write(a.first)
		_, _ = c.Write(a.second)
	}))
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		b = b[:min(len(b), maxFuzzed)]
		cut := int(at) % (len(b) + 1)
		now.Store(&answer{b[:cut], b[cut:]})
		conn := dial(t, r.listener.Addr().String())
		// The request must not be carried out twice, so that one request causes one answer.
		_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
		all, err := io.ReadAll(conn)
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() { //nolint:errorlint // as it comes of the connection
			t.Fatal("the connection goes on")
		}
		_ = conn.Close()
		got, want := readTold(io.MultiReader(bytes.NewReader(all), ended{err})), readTold(bytes.NewReader(repaired(b)))
		own := got.status == http.StatusBadGateway && strings.HasPrefix(got.body, "scale-to-zero: ")
		switch {
		case own, understoodOtherwise(b, want):
		case got.err == nil && want.err != nil:
			t.Errorf("the client got %d with %.100q, where net/http says %v", got.status, got.body, want.err)
		case got.err == nil && (got.status != want.status || got.body != want.body):
			t.Errorf("the client got %d with %.100q, want %d with %.100q", got.status, got.body, want.status, want.body)
		case got.status != 0 && (got.status != want.status || !strings.HasPrefix(want.body, got.body)):
			t.Errorf("the client got %d with %.100q and then %v, want %d with %.100q", got.status, got.body, got.err, want.status, want.body)
		}
	})
}

// ended is the end of a connection, or the error in its place.
type ended struct{ err error }

func (e ended) Read([]byte) (int, error) {
	if e.err == nil {
		return 0, io.EOF
	}
	return 0, e.err
}

// answerSeeds are answers of present apps, old apps, and broken apps.
func answerSeeds() []string {
	const chunks = "5\r\nhello\r\n0\r\nX-Sum: a\r\n\r\n"
	with := func(fields, rest string) string { return "HTTP/1.1 200 OK\r\n" + fields + "\r\n" + rest }
	const smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"
	return []string{
		with("Content-Length: 5\r\n", "hello"), with("Content-Length: 5\r\n", "hel"), with("Content-Length: 5\r\n", "hello"+smuggled),
		with("Transfer-Encoding: chunked\r\n", chunks), with("Transfer-Encoding: chunked\r\n", chunks[:12]),
		with("Transfer-Encoding: chunked\r\n", "5\r\nhelloX\r\n0\r\n\r\n"), with("Transfer-Encoding: chunked\r\n", "5 \r\nhello\r\n0 \r\n\r\n"),
		with("Transfer-Encoding: chunked\r\n", "5 ;a\nhello\n0\nA: b\n\n"+smuggled), with("A: \x1b[0m\x7f\r\nContent-Length: 2\r\n", "ok"),
		with("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", chunks+smuggled), with("", "until the end"),
		with("Connection: close\r\n", ""),
		with("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), with("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
		with("Content-Length: 5\r\nContent-Length: 05\r\n", "hello"), with("Content-Length : 5\r\n", "hello"),
		with("Content-Length:\r\n 5\r\n", "hello"), with("A: b\n", "x"), "HTTP/1.1 200 OK\n\nhello", "HTTP/1.1 200 OK\n A: b\n\n",
		"HTTP/1.1 200\nA: b\n c\nContent-Length: 1\n\nx",
		with("Transfer-Encoding: gzip, chunked\r\n", chunks), with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunks),
		with("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 5\r\n\r\n"),
		with("Connection: content-length\r\nContent-Length: 2\r\n", "ok"),
		"HTTP/1.0 200 OK\r\n\r\nhello", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
		"HTTP/1.1 100 Continue\r\n\r\n" + with("Content-Length: 2\r\n", "ok"), "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + with("", ""),
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\nbytes", "HTTP/1.1 100 Continue\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "SSH-2.0-x\r\n", "", "\r\n" + with("", ""), "HTTP/1.1 200 OK\r\n",
		"HTTP/1.1 999 \r\n\r\nx",
		with("Content-Length: 100000\r\n", strings.Repeat("y", 60000)), with("Content-Length: 50000\r\n", strings.Repeat("y", 50000)),
		with("X: "+strings.Repeat("z", 60000)+"\r\n", "x"),
	}
}
