// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"net/http"
)

// Response is the head of an answer. The zero value is ready for Parse, which can be called repeatedly.
type Response struct {
	Head
	Status int
}

// Parse parses the head of an answer at the beginning of b. It returns the head's length, or 0 if more bytes are needed. The error is
// a MalformedError. Repair may fix such a head.
//
// If an answer has both a Content-Length and chunks, the chunks count (RFC 9112, 6.3), and Length is -1.
func (r *Response) Parse(b []byte) (int, error) {
	at, err := r.parseLine(b)
	if err != nil || at == 0 {
		return 0, err
	}
	at, err = r.parse(b, at, true)
	if r.Chunked {
		r.Length = -1
	}
	return at, err
}

// HasBody reports whether a body follows the head, if the method of the request was not HEAD.
func (r *Response) HasBody() bool {
	return r.Status >= http.StatusOK && r.Status != http.StatusNoContent && r.Status != http.StatusNotModified
}

// parseLine reads HTTP/1.x SP STATUS [SP REASON] CRLF.
func (r *Response) parseLine(b []byte) (int, error) {
	const shortest = "HTTP/1.1 200"
	if len(b) <= len(shortest) {
		if bytes.IndexByte(b, '\n') >= 0 {
			return 0, ErrBadStartLine
		}
		return 0, nil
	}
	minor, err := parseVersion(b)
	if err != nil {
		return 0, err
	}
	r.Minor = minor
	r.Status = 0
	for _, c := range b[9:12] {
		if c < '0' || c > '9' {
			return 0, ErrBadStatus
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if b[8] != ' ' || r.Status < 100 || b[12] != ' ' && b[12] != '\r' {
		return 0, ErrBadStatus
	}
	return lineEnd(b, len(shortest), true)
}

// Repair fixes a head that Parse rejects only because of its lines: they end in LF alone, are folded, or have space before a colon.
// It returns the fixed head and the length of the old one, or 0 if the old one is not complete. Parse may still reject the result: a
// folded line after the first line stays, because nobody knows what it belongs to (RFC 9112, 2.2).
func Repair(b []byte) (head []byte, length int) {
	for at, lines := 0, 0; ; lines++ {
		end := bytes.IndexByte(b[at:], '\n')
		if end < 0 {
			return nil, 0
		}
		line := bytes.TrimSuffix(b[at:at+end], []byte("\r"))
		at += end + 1
		colon := bytes.IndexByte(line, ':')
		switch {
		case len(line) == 0:
			return append(head, '\r', '\n'), at
		case lines == 0, colon < 0 && !isSpace(line[0]), lines == 1 && isSpace(line[0]):
			head = append(head, line...)
		case isSpace(line[0]):
			head = append(append(head[:len(head)-2], ' '), trim(line)...)
		default:
			head = append(append(head, trim(line[:colon])...), line[colon:]...)
		}
		head = append(head, '\r', '\n')
	}
}
