// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package headers

import (
	"bytes"
	"net/http"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// AllHops is the Way.Trusted that believes every hop.
const AllHops = -1

// forwardedFor is X-Forwarded-For as net/http writes it.
const forwardedFor = "X-Forwarded-For"

// Way is how a request came to us.
type Way struct {
	// Remote is the address that the request came from.
	Remote string
	// Trusted is how many hops before that are believed, or AllHops.
	Trusted int
}

// Named returns the visitor as the proxies before us name it: the nearest hop that is trusted and not empty. It is empty if
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

// NamedHTTP2 is Named for a request of HTTP/2. The result has its own memory.
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

// Visitor returns the visitor's address: the one named, or the one that the request came from.
func (w Way) Visitor(named []byte) string {
	if len(named) == 0 {
		return w.Remote
	}
	return string(named)
}

// nearest returns the last entry of a line of hops that is not empty, among as many as left allows. Left counts down; below 0
// it allows any number.
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

// appendHop appends one line of hops with the separator behind it. An empty line says nothing.
func appendHop(dst, line []byte) []byte {
	if len(line) == 0 {
		return dst
	}
	return append(append(dst, line...), ", "...)
}

// end completes the hops that begin at start in dst: the trusted ones of them, and then the address that the request came from.
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

// hops is appendHops for a request of HTTP/2.
func (w Way) hops(h http.Header) string {
	var dst []byte
	if w.Trusted != 0 {
		for _, line := range h[forwardedFor] {
			dst = appendHop(dst, []byte(line))
		}
	}
	return string(w.end(dst, 0))
}

// lastEntries returns the last n entries of a list in which each is followed by a comma and a space.
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
