// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package headers

import "github.com/scale-to-zero/scale-to-zero/interceptor/http1"

// fate is what happens to a field.
type fate uint8

const (
	passes    fate = iota // even if Connection names it: it says where the message ends, or who gets it
	nominable             // passes unless Connection names it
	ends                  // it is about one connection
	renewed               // we write our own
	trusted               // passes if any hop is trusted
	trailers              // only its word "trailers" passes
	upgrade               // passes if the answer is about an upgrade
	framing               // passes unless we frame the body differently
)

// ofRequest returns the fate of a field of a request.
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

// ofAnswer returns the fate of a field of an answer.
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
