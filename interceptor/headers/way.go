// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package headers

import (
	"bytes"
	"net/http"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// AllHops is the Way.Trusted that trusts every hop.
const AllHops = -1

// forwardedFor is X-Forwarded-For as net/http writes it.
const forwardedFor = "X-Forwarded-For"

// Way is how a request reached us.
type Way struct {
	// Remote is the address from which the request came.
	Remote string
	// Trusted is how many earlier hops are trusted, or AllHops.
	Trusted int
}

// Named returns the visitor's address according to the proxies before us: the last hop that is trusted and not empty. It is empty if
// there is none. The result is part of b.
func (w Way) Named(r *http1.Request, b []byte) []byte {
	left := w.Trusted
	for i := len(r.Fields) - 1; i >= 0 && left != 0; i-- {
		if f := r.Fields[i]; f.Name == http1.XForwardedFor {
			if hop := nearest(b[f.ValueStart:f.ValueEnd], &left); len(hop) > 0 {
				return hop
			}
		}
	}
	return nil
}

// NamedHTTP2 is Named for an HTTP/2 request. The result has its own memory.
func (w Way) NamedHTTP2(h http.Header) []byte {
	left := w.Trusted
	came := h[forwardedFor]
	for i := len(came) - 1; i >= 0 && left != 0; i-- {
		if hop := nearest([]byte(came[i]), &left); len(hop) > 0 {
			return hop
		}
	}
	return nil
}

// Visitor returns the visitor's address: named, or else the address from which the request came.
func (w Way) Visitor(named []byte) string {
	if len(named) == 0 {
		return w.Remote
	}
	return string(named)
}

// nearest returns the last entry of a line of hops that is not empty, among the last left entries. It decrements left for each entry.
// If left is negative, any number is allowed.
func nearest(line []byte, left *int) []byte {
	if len(line) == 0 {
		return nil // an empty line says nothing, as in appendHop
	}
	for *left != 0 {
		*left--
		comma := bytes.LastIndexByte(line, ',')
		if hop := bytes.TrimSpace(line[comma+1:]); len(hop) > 0 {
			return hop
		}
		if comma < 0 {
			return nil
		}
		line = line[:comma]
	}
	return nil
}

// appendHop appends a line of hops and a separator. An empty line says nothing.
func appendHop(dst, line []byte) []byte {
	if len(line) == 0 {
		return dst
	}
	return append(append(dst, line...), ", "...)
}

// end completes the hops that begin at start in dst: it keeps only the trusted ones, and appends the address from which the request
// came.
func (w Way) end(dst []byte, start int) []byte {
	if w.Trusted > 0 {
		dst = append(dst[:start], lastEntries(dst[start:], w.Trusted)...)
	}
	return append(dst, w.Remote...)
}

// appendHops appends the value of X-Forwarded-For.
func (w Way) appendHops(dst []byte, r *http1.Request, b []byte) []byte {
	start := len(dst)
	if w.Trusted != 0 {
		for _, f := range r.Fields {
			if f.Name == http1.XForwardedFor {
				dst = appendHop(dst, b[f.ValueStart:f.ValueEnd])
			}
		}
	}
	return w.end(dst, start)
}

// hops is appendHops for an HTTP/2 request.
func (w Way) hops(h http.Header) string {
	var dst []byte
	if w.Trusted != 0 {
		for _, line := range h[forwardedFor] {
			dst = appendHop(dst, []byte(line))
		}
	}
	return string(w.end(dst, 0))
}

// lastEntries returns the last n entries of a list. Each entry is followed by a comma and a space.
func lastEntries(list []byte, n int) []byte {
	rest := bytes.TrimSuffix(list, []byte(", "))
	for ; n > 0; n-- {
		comma := bytes.LastIndexByte(rest, ',')
		if comma < 0 {
			return list
		}
		rest = rest[:comma]
	}
	return bytes.TrimLeft(list[len(rest)+1:], " ")
}
