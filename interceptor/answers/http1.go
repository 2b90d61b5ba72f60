// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package answers

import (
	"net/http"
	"strconv"

	"github.com/scale-to-zero/scale-to-zero/interceptor/headers"
)

// Append appends a in the form of HTTP/1.1. ends is set if the connection ends after the answer, and head if the answer is to a HEAD
// request.
func Append(dst []byte, a Answer, ends, head bool) []byte {
	dst = append(append(append(dst, "HTTP/1.1 "...), strconv.Itoa(a.Status)...), ' ')
	dst = append(append(dst, http.StatusText(a.Status)...), "\r\n"...)
	for _, f := range a.all() {
		dst = headers.AppendField(dst, f.Name, f.Value)
	}
	dst = headers.AppendField(dst, "Content-Length", strconv.Itoa(len(a.Text)+1))
	if ends {
		dst = headers.AppendField(dst, "Connection", "close")
	}
	dst = append(dst, "\r\n"...)
	if head {
		return dst
	}
	return append(append(dst, a.Text...), '\n')
}
