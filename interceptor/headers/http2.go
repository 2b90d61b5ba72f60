// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package headers

import (
	"net/http"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// Request returns the fields of a request of HTTP/2 as they go to the pod. Host is whom it was for. The values are shared with
// in.
func Request(in http.Header, host string, w Way) http.Header {
	out := make(http.Header, len(in)+3)
	for name, values := range in {
		switch ofRequest(http1.NameOf(name)) {
		case passes, nominable: // HTTP/2 has no Connection that could name it
			out[name] = values
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

// CopyAnswer adds the fields of an answer that came by HTTP/2 to those that go to the client.
func CopyAnswer(out, in http.Header) {
	for name, values := range in {
		switch ofAnswer(http1.NameOf(name)) {
		case ends, upgrade:
		default:
			out[name] = values
		}
	}
}
