// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bufio"
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// The fuzz tests compare the parser with net/http's. What ours accepts, net/http has to accept too, and to understand in the same
// way. net/http may accept more. Exceptions are made, with their reasons, where they apply.

// remaining counts the bytes that a reader has left, buffered or not.
type remaining struct {
	*bufio.Reader
	source *bytes.Reader
}

// newRemaining reads b with a buffer that holds all of it, because net/http's limits for lines and trailers are the size of its
// buffer.
func newRemaining(b []byte) *remaining {
	source := bytes.NewReader(b)
	return &remaining{bufio.NewReaderSize(source, len(b)+64), source}
}

func (r *remaining) left() int { return r.Buffered() + r.source.Len() }

// checkFields compares all fields with a header that net/http read from the same bytes.
func checkFields(t *testing.T, h *Head, b []byte, header http.Header) {
	t.Helper()
	want := http.Header{}
	for _, f := range h.Fields {
		name := textproto.CanonicalMIMEHeaderKey(string(b[f.Start:f.NameEnd]))
		want[name] = append(want[name], string(b[f.ValueStart:f.ValueEnd]))
	}
	for name, values := range want {
		switch name {
		case "Transfer-Encoding", "Content-Length", "Trailer", "Connection": // net/http may remove these
			continue
		}
		if !slices.Equal(header[name], values) {
			t.Errorf("%s is %q, net/http has %q", name, values, header[name])
		}
	}
	for name := range header {
		if _, ok := want[name]; !ok && name != "Cache-Control" { // net/http adds this one to a Pragma
			t.Errorf("net/http has %s", name)
		}
	}
}

// forbidsTrailer reports whether Trailer announces a field that net/http does not allow there. The announcement changes nothing:
// Chunked refuses such a field when it arrives.
func forbidsTrailer(h *Head, b []byte) bool {
	found := false
	for _, f := range h.Fields {
		if f.Name != Trailer {
			continue
		}
		for name := range strings.SplitSeq(string(b[f.ValueStart:f.ValueEnd]), ",") {
			switch textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name)) {
			case "Transfer-Encoding", "Trailer", "Content-Length":
				found = true
			}
		}
	}
	return found && h.Chunked
}

func FuzzRequest(f *testing.F) {
	for _, tc := range goodRequests() {
		f.Add([]byte(tc.head))
		f.Add([]byte(strings.ReplaceAll(tc.head, "\r\n", "\n")))
	}
	for _, tc := range badRequests() {
		f.Add([]byte(tc.head))
	}
	for _, seed := range []string{
		browserRequest,
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nContent-Length : 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\x0b: chunked\r\n\r\n",
		"GET http://a:80/?b HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n",
		"GET http:///a HTTP/1.1\r\nHost: c\r\n\r\n",
		"GET //a@b:c/ HTTP/1.1\r\nHost: c\r\n\r\n",
		"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nPragma: no-cache\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n",
		"GET / HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n",
		"GET /\x80 HTTP/1.1\r\nHost: \xff\r\nX:\t\x80 \t\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Request
		n, err := r.Parse(b)
		if err != nil {
			return
		}
		in := newRemaining(b[r.Skip:])
		req, err := http.ReadRequest(in.Reader)
		if n == 0 {
			if err == nil {
				t.Error("we wait for more, and net/http has a request")
			}
			return
		}
		checkRequest(t, &r, b[r.Skip:], n, req, err, in.left())
	})
}

func checkRequest(t *testing.T, r *Request, b []byte, n int, req *http.Request, err error, left int) {
	t.Helper()
	checkPositions(t, &r.Head, b, n)
	target := string(r.Target(b))
	if err != nil {
		// A target that is not a URL is passed on unchanged: apps get many such requests, and the target does not affect where the request
		// ends.
		_, noURL := url.ParseRequestURI(target)
		if noURL == nil && !forbidsTrailer(&r.Head, b) {
			t.Errorf("net/http says %v", err)
		}
		return
	}
	// A host in the target takes precedence over Host. Both are passed on, and the app decides.
	host := string(r.Value(b, Host))
	if req.URL.Host != "" && target[0] != '/' {
		host = req.URL.Host
	}
	length := max(r.Length, 0)
	if r.Chunked {
		length = -1
	}
	switch {
	case len(b)-left != n:
		t.Errorf("%d bytes, net/http has read %d", n, len(b)-left)
	case req.Method != string(r.Method(b)), req.RequestURI != target, req.ProtoMinor != r.Minor || req.ProtoMajor != 1:
		t.Errorf("%s %s 1.%d, net/http has %s %s %s", r.Method(b), target, r.Minor, req.Method, req.RequestURI, req.Proto)
	case req.Host != host:
		t.Errorf("host %q, net/http has %q", host, req.Host)
	case req.ContentLength != length || r.Chunked != (len(req.TransferEncoding) == 1):
		t.Errorf("length %d, net/http has %d and %q", length, req.ContentLength, req.TransferEncoding)
	case req.Close != (r.Close || r.Minor == 0 && !r.KeepAlive):
		t.Errorf("close %v, keep-alive %v, net/http has close %v", r.Close, r.KeepAlive, req.Close)
	}
	if r.Has(Host) {
		req.Header["Host"] = []string{string(r.Value(b, Host))} // ReadRequest removes it
	}
	checkFields(t, &r.Head, b, req.Header)
}

func FuzzResponse(f *testing.F) {
	for _, tc := range goodResponses() {
		f.Add([]byte(tc.head))
		f.Add([]byte(strings.ReplaceAll(tc.head, "\r\n", "\n")))
	}
	for _, tc := range badResponses() {
		f.Add([]byte(tc.head))
	}
	for _, seed := range []string{
		appResponse,
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 05\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nContent-Length : 5\r\nA\t: b\r\n\r\nhello",
		"HTTP/1.1 200 OK\n Content-Length: 5\n\nhello",
		"HTTP/1.1 200 OK\nContent-Length:\n 5\nA: b\n\tc\n\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Trailer\r\n\r\n0\r\n\r\n",
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Response
		n, err := r.Parse(b)
		if n > 0 {
			checkResponse(t, &r, b, n)
			return
		}
		if err == nil {
			if _, err := http.ReadResponse(newRemaining(b).Reader, nil); err == nil {
				t.Error("we wait for more, and net/http has an answer")
			}
			return
		}
		given := bytes.Clone(b)
		head, length := Repair(b)
		if !bytes.Equal(b, given) {
			t.Fatal("it was changed")
		}
		if length == 0 {
			return
		}
		if n, err := r.Parse(head); err == nil && n != 0 {
			checkResponse(t, &r, head, n)
			checkRepaired(t, &r, head, b, length)
		}
	})
}

func checkResponse(t *testing.T, r *Response, b []byte, n int) {
	t.Helper()
	checkPositions(t, &r.Head, b, n)
	b = withoutControls(t, r, b, n)
	in := newRemaining(b)
	resp, err := http.ReadResponse(in.Reader, nil)
	if err != nil {
		// One length can be written in two ways, such as 5 and 05. net/http compares them as text.
		lengths := map[string]bool{}
		for _, f := range r.Fields {
			if f.Name == ContentLength {
				lengths[string(b[f.ValueStart:f.ValueEnd])] = true
			}
		}
		if len(lengths) < 2 && !forbidsTrailer(&r.Head, b) {
			t.Errorf("net/http says %v", err)
		}
		return
	}
	if len(b)-in.left() != n {
		t.Errorf("%d bytes, net/http has read %d", n, len(b)-in.left())
	}
	if resp.StatusCode != r.Status || resp.ProtoMinor != r.Minor || resp.ProtoMajor != 1 {
		t.Errorf("%d 1.%d, net/http has %d %s", r.Status, r.Minor, resp.StatusCode, resp.Proto)
	}
	checkFields(t, &r.Head, b, resp.Header)
	// net/http ignores Transfer-Encoding in HTTP/1.0. To us, chunks are chunks, whatever the version (RFC 9112, 6.3).
	if r.Chunked && r.Minor == 0 {
		return
	}
	length := r.Length
	if !r.HasBody() {
		length = 0
	}
	if resp.ContentLength != length || r.HasBody() && r.Chunked != (len(resp.TransferEncoding) == 1) {
		t.Errorf("length %d, chunked %v, net/http has %d and %q", length, r.Chunked, resp.ContentLength, resp.TransferEncoding)
	}
	closes := r.Close || r.Minor == 0 && !r.KeepAlive || length < 0 && !r.Chunked
	if resp.Close != closes {
		t.Errorf("close %v, keep-alive %v, net/http has close %v", r.Close, r.KeepAlive, resp.Close)
	}
}

// withoutControls returns b with each control byte in its head replaced by another opaque byte, because net/http accepts no control
// bytes. The replacement must not change what r says.
func withoutControls(t *testing.T, r *Response, b []byte, n int) []byte {
	t.Helper()
	b = bytes.Clone(b)
	for i, c := range b[:n] {
		if (c < ' ' || c == 0x7f) && !bytes.ContainsRune([]byte("\t\r\n"), rune(c)) {
			b[i] = 0x80
		}
	}
	var same Response
	if m, err := same.Parse(b); err != nil || m != n {
		t.Fatalf("%q is %d, %v; with control bytes %d", b, m, err, n)
	}
	if diff := cmp.Diff(*r, same, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	return b
}

// checkRepaired compares r, parsed from the repaired head, with net/http's reading of the original b, which was length bytes long.
func checkRepaired(t *testing.T, r *Response, head, b []byte, length int) {
	t.Helper()
	// To net/http, "Content-Length " is a different field from Content-Length. A proxy has to remove the space (RFC 9112, 5.1).
	if bytes.Contains(b, []byte(" :")) {
		return
	}
	in := newRemaining(b)
	resp, err := http.ReadResponse(in.Reader, nil)
	if err != nil {
		return // net/http repairs less
	}
	if len(b)-in.left() != length || resp.StatusCode != r.Status {
		t.Errorf("%d bytes, status %d; net/http has %d, %d", length, r.Status, len(b)-in.left(), resp.StatusCode)
	}
	if !r.HasBody() || r.Minor == 0 && r.Chunked {
		return
	}
	if resp.ContentLength != r.Length || r.Chunked != (len(resp.TransferEncoding) == 1) {
		t.Errorf("%q has length %d, chunked %v; net/http has %d and %q", head, r.Length, r.Chunked, resp.ContentLength, resp.TransferEncoding)
	}
}
