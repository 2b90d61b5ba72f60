// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package headers

import "github.com/scale-to-zero/scale-to-zero/interceptor/http1"

// fate is what becomes of a field.
type fate uint8

const (
	passes    fate = iota // whatever Connection says: it says where the message ends, or whom it is for
	nominable             // passes unless Connection names it
	ends                  // it speaks of one connection
	renewed               // we write it anew
	trusted               // passes if any hop is trusted
	trailers              // only the word "trailers" of it passes
	upgrade               // passes if it is the point of the answer
	framing               // passes unless the body is framed otherwise
)

// ofRequest is the fate of a request's field.
func ofRequest(n http1.Name) fate {
	switch n {
	case http1.Connection, http1.KeepAlive, http1.ProxyConnection, http1.ProxyAuthorization, http1.Upgrade, http1.HTTP2Settings:
		return ends
	case http1.XForwardedFor:
		return renewed
	case http1.XForwardedHost, http1.XForwardedProto:
		return trusted
	case http1.TE:
		return trailers
	case http1.Other, http1.Expect, http1.ScaleToZeroWait, http1.Trailer, http1.UserAgent:
		return nominable
	default:
		return passes
	}
}

// ofAnswer is the fate of an answer's field.
func ofAnswer(n http1.Name) fate {
	switch n {
	case http1.KeepAlive, http1.ProxyConnection, http1.ProxyAuthenticate:
		return ends
	case http1.Connection, http1.Upgrade:
		return upgrade
	case http1.TransferEncoding, http1.ContentLength:
		return framing
	case http1.Other, http1.ScaleToZeroWait, http1.Trailer, http1.UserAgent:
		return nominable
	default:
		return passes
	}
}
