// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package headers

import (
	"net/http"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// Request returns the fields of an HTTP/2 request as they are sent to the pod. host is the request's host. The values are shared with
// in.
func Request(in http.Header, host string, w Way) http.Header {
	out := make(http.Header, len(in)+3)
	for name, values := range in {
		switch ofRequest(http1.NameOf(name)) {
		case passes, nominable: // HTTP/2 has no Connection field that could name it
			if w.Trusted != 0 || !tellsWay(name) {
				out[name] = values
			}
		case trusted:
			if w.Trusted != 0 {
				out[name] = values
			}
		case trailers:
			for _, v := range values {
				if hasToken([]byte(v), "trailers") {
					out[name] = []string{"trailers"}
				}
			}
		default:
		}
	}
	out[forwardedFor] = []string{w.hops(in)}
	if _, named := out["X-Forwarded-Host"]; !named {
		out["X-Forwarded-Host"] = []string{host}
	}
	if _, known := out["X-Forwarded-Proto"]; !known {
		out["X-Forwarded-Proto"] = []string{"http"}
	}
	return out
}

// CopyAnswer adds the fields of an HTTP/2 answer to those that are sent to the client.
func CopyAnswer(out, in http.Header) {
	for name, values := range in {
		switch ofAnswer(http1.NameOf(name)) {
		case ends, upgrade:
		default:
			out[name] = values
		}
	}
}
