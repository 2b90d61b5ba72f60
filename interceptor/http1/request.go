// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

import "bytes"

// maxBlank is how many empty lines may come before a request: some old clients send one too many after a body.
const maxBlank = 4

// Request is the head of a request. The zero value is ready for Parse, which can be called repeatedly.
type Request struct {
	Head
	// Skip is the number of bytes of empty lines before the request. All positions count from there.
	Skip int
	// MethodEnd and TargetEnd are positions: the method is b[:MethodEnd], the target b[MethodEnd+1:TargetEnd].
	MethodEnd, TargetEnd int
}

// Parse parses the head of a request at the beginning of b. It returns the head's length, or 0 if more bytes are needed; only bytes
// that follow an LF can change that result. All positions and the length count from b[Skip:]. The error is a MalformedError. Some
// errors are found before the head is complete.
func (r *Request) Parse(b []byte) (int, error) {
	r.Skip = 0
	for lines := 0; BlankLine(b) > 0; lines++ {
		if lines == maxBlank {
			return 0, ErrManyEmptyLines
		}
		r.Skip += BlankLine(b)
		b = b[BlankLine(b):]
	}
	if len(b) < 2 && (len(b) == 0 || b[0] == '\r') {
		return 0, nil
	}
	at, err := r.parseLine(b)
	if err != nil || at == 0 {
		return 0, err
	}
	at, err = r.parse(b, at, false)
	if err != nil || at == 0 {
		return 0, err
	}
	if err := r.check(b); err != nil {
		return 0, err
	}
	return at, nil
}

// BlankLine returns the length of an empty line at the beginning of b, or 0. LF alone ends it too, because empty lines before a
// request are not passed on.
func BlankLine(b []byte) int {
	switch {
	case len(b) > 0 && b[0] == '\n':
		return 1
	case len(b) > 1 && b[0] == '\r' && b[1] == '\n':
		return 2
	default:
		return 0
	}
}

// Method returns the method from b, the buffer after Skip.
func (r *Request) Method(b []byte) []byte { return b[:r.MethodEnd] }

// Target returns the request target from b, the buffer after Skip.
func (r *Request) Target(b []byte) []byte { return b[r.MethodEnd+1 : r.TargetEnd] }

// parseLine reads METHOD SP TARGET SP HTTP/1.x CRLF.
func (r *Request) parseLine(b []byte) (int, error) {
	at := 0
	for at < len(b) && lowered[b[at]] != 0 {
		at++
	}
	if end, err := spaceAt(b, at, ErrBadMethod); err != nil || end == 0 {
		return 0, err
	}
	r.MethodEnd = at
	at++
	for at < len(b) && b[at] > ' ' && b[at] != 0x7f {
		at++
	}
	if end, err := spaceAt(b, at, ErrBadTarget); err != nil || end == 0 {
		return 0, err
	}
	r.TargetEnd = at
	minor, n, err := parseLineEnd(b[at+1:])
	if err != nil || n == 0 {
		return 0, err
	}
	r.Minor = minor
	if string(r.Method(b)) == "CONNECT" {
		return 0, ErrConnectMethod
	}
	if !validTarget(r.Target(b)) {
		return 0, ErrBadTarget
	}
	return at + 1 + n, nil
}

// parseLineEnd reads HTTP/1.x CRLF and returns its length, or 0 if more bytes are needed.
func parseLineEnd(b []byte) (minor, n int, _ error) {
	const end = "HTTP/1.1\r\n"
	if len(b) < len(end) {
		if bytes.IndexByte(b, '\n') >= 0 {
			return 0, 0, ErrBadStartLine
		}
		return 0, 0, nil
	}
	if b[8] != '\r' || b[9] != '\n' { // first, because fewer bytes may have shown this error already
		return 0, 0, ErrBadStartLine
	}
	minor, err := parseVersion(b)
	return minor, len(end), err
}

// spaceAt expects a space at at, where a word that must not be empty ends. It returns at, or 0 if more bytes are needed. bad is the
// error for any other byte.
func spaceAt(b []byte, at int, bad MalformedError) (int, error) {
	switch {
	case at == len(b):
		return 0, nil
	case at == 0:
		return 0, bad
	case b[at] == ' ':
		return at, nil
	case b[at] == '\r', b[at] == '\n':
		return 0, ErrBadStartLine
	default:
		return 0, bad
	}
}

// parseVersion reads HTTP/1.x from the beginning of b, which is long enough.
func parseVersion(b []byte) (int, error) {
	if string(b[:5]) != "HTTP/" || b[6] != '.' || b[5] < '0' || b[5] > '9' || b[7] < '0' || b[7] > '9' {
		return 0, ErrBadStartLine
	}
	if b[5] != '1' || b[7] > '1' {
		return 0, ErrBadVersion
	}
	return int(b[7] - '0'), nil
}

// validTarget reports whether t has one of the forms of a request to an app. Bytes that would end a target have been excluded.
func validTarget(t []byte) bool {
	if len(t) == 0 {
		return false
	}
	if t[0] == '/' {
		return true
	}
	if t[0] == '*' {
		return len(t) == 1
	}
	scheme := bytes.IndexByte(t, ':')
	return scheme > 0 && (EqualFold(t[:scheme], "http") || EqualFold(t[:scheme], "https")) &&
		len(t) > scheme+3 && t[scheme+1] == '/' && t[scheme+2] == '/'
}

// check checks what RFC 9112 demands of requests only.
func (r *Request) check(b []byte) error {
	hosts := 0
	for _, f := range r.Fields {
		if f.Name != Host {
			continue
		}
		if hosts++; hosts > 1 {
			return ErrRepeatedHost
		}
		if !validHost(b[f.ValueStart:f.ValueEnd]) {
			return ErrBadHost
		}
	}
	switch {
	case hosts == 0 && r.Minor == 1:
		return ErrMissingHost
	case r.Chunked && r.Length >= 0:
		return ErrLengthAndEncoding
	case r.Chunked && r.Minor == 0:
		return ErrEncodingInHTTP10
	}
	return nil
}

// validHost rejects a Host that could be read as two hosts or as a URL.
func validHost(h []byte) bool {
	for _, c := range h {
		switch c {
		case ' ', '\t', ',', '/', '\\', '?', '#', '@', '"', '<', '>':
			return false
		}
	}
	return true
}
