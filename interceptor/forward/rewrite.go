// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// The rule of forwarded requests: all bytes arrive as they were sent, but for
//
//   - the fields that speak of one connection (RFC 9110, 7.6.1), which end here: Connection and those it names,
//     Keep-Alive, Proxy-Connection, Proxy-Authorization, TE but for "trailers", and Upgrade with HTTP2-Settings unless
//     the connection is upgraded;
//   - X-Forwarded-For, at whose end stands the address that the request came from, after as many of the hops before it
//     as are trusted;
//   - X-Forwarded-Host and X-Forwarded-Proto, which are passed on if any hop is trusted, and are else, or if they are
//     missing, the request's Host and http.

// hop is what a request's forwarding fields say of the way here.
type hop struct {
	remote  string // the address that the request came from
	trusted int    // how many hops before it are believed, or AllHops
}

// appendRequest appends the head of r in b as it goes to the pod. Host stands in for a Host that is missing.
func appendRequest(dst []byte, r *http1.Request, b []byte, h hop, host string) []byte {
	upgrade := upgrades(r, b)
	dst = append(dst, b[:r.TargetEnd]...)
	dst = append(dst, " HTTP/1.1\r\n"...)
	var forwarded, proto, named, trailers bool
	from := int32(r.FirstLine) //nolint:gosec // a head is far below 2 GiB
	for _, f := range r.Fields {
		switch f.Name {
		case http1.Connection, http1.KeepAlive, http1.ProxyConnection, http1.ProxyAuthorization,
			http1.Upgrade, http1.HTTP2Settings:
		case http1.XForwardedFor:
			forwarded = true
		case http1.XForwardedHost:
			if h.trusted != 0 {
				named = true
				continue
			}
		case http1.XForwardedProto:
			if h.trusted != 0 {
				proto = true
				continue
			}
		case http1.TE:
			trailers = trailers || hasToken(b[f.ValueStart:f.ValueEnd], "trailers")
		case http1.Other, http1.Expect, http1.ScaleToZeroWait, http1.Trailer, http1.UserAgent:
			if !r.Nominated || !r.IsNominated(b, f) {
				continue
			}
		default: // what says where the request ends and whom it is for, whatever Connection says
			continue
		}
		dst = append(dst, b[from:f.Start]...)
		from = f.End
	}
	dst = append(dst, b[from:headEnd(&r.Head)]...)
	if !r.Has(http1.Host) {
		dst = appendField(dst, "Host", host)
	}
	dst = appendForwardedFor(dst, r, b, h, forwarded)
	if !named && r.Has(http1.Host) {
		dst = append(append(append(dst, "X-Forwarded-Host: "...), r.Value(b, http1.Host)...), "\r\n"...)
	}
	if !proto {
		dst = append(dst, "X-Forwarded-Proto: http\r\n"...)
	}
	if trailers {
		dst = append(dst, "TE: trailers\r\n"...)
	}
	if upgrade {
		dst = appendUpgrade(append(dst, "Connection: Upgrade\r\n"...), r, b)
	}
	return append(dst, "\r\n"...)
}

// headEnd is where the fields end and the empty line begins.
func headEnd(h *http1.Head) int {
	if n := len(h.Fields); n > 0 {
		return int(h.Fields[n-1].End)
	}
	return h.FirstLine
}

func appendField(dst []byte, name, value string) []byte {
	return append(append(append(append(dst, name...), ": "...), value...), "\r\n"...)
}

// upgrades says that r asks for an upgrade that is passed on.
func upgrades(r *http1.Request, b []byte) bool {
	found := false
	if r.HasUpgrade && r.UpgradeAllowed && r.Minor == 1 {
		r.Tokens(b, http1.Upgrade, func(t []byte) bool {
			found = mayUpgradeTo(t)
			return !found
		})
	}
	return found
}

// mayUpgradeTo says that an upgrade to protocol is passed on. One to HTTP/2 is not (RFC 9113 has abolished it): its requests
// would go past the counting, and past what a proxy before us thinks of them.
func mayUpgradeTo(protocol []byte) bool { return !http1.EqualFold(protocol, "h2c") }

// appendUpgrade appends one field with all protocols that an upgrade may be to.
func appendUpgrade(dst []byte, r *http1.Request, b []byte) []byte {
	separator := "Upgrade: "
	r.Tokens(b, http1.Upgrade, func(t []byte) bool {
		if mayUpgradeTo(t) {
			dst = append(append(dst, separator...), t...)
			separator = ", "
		}
		return true
	})
	return append(dst, "\r\n"...)
}

// switches says that an answer of status 101 switches to a protocol that the request has offered.
func switches(r *http1.Request, asked []byte, a *http1.Response, answered []byte) bool {
	found := false
	a.Tokens(answered, http1.Upgrade, func(protocol []byte) bool {
		lower := string(bytes.ToLower(protocol))
		r.Tokens(asked, http1.Upgrade, func(t []byte) bool {
			found = http1.EqualFold(t, lower)
			return !found
		})
		found = found && mayUpgradeTo(protocol)
		return false
	})
	return found && upgrades(r, asked)
}

func hasToken(list []byte, lower string) bool {
	found := false
	http1.Tokens(list, func(t []byte) bool {
		found = http1.EqualFold(t, lower)
		return !found
	})
	return found
}

// appendForwardedFor appends the field with the trusted hops of all that there are, and the one that the request came
// from.
func appendForwardedFor(dst []byte, r *http1.Request, b []byte, h hop, came bool) []byte {
	return append(appendHops(append(dst, "X-Forwarded-For: "...), r, b, h, came), "\r\n"...)
}

// appendHops appends the value of that field.
func appendHops(dst []byte, r *http1.Request, b []byte, h hop, came bool) []byte {
	if !came || h.trusted == 0 {
		return append(dst, h.remote...)
	}
	start := len(dst)
	for _, f := range r.Fields {
		if f.Name == http1.XForwardedFor && f.ValueEnd > f.ValueStart {
			dst = append(append(dst, b[f.ValueStart:f.ValueEnd]...), ", "...)
		}
	}
	if h.trusted > 0 {
		dst = append(dst[:start], lastEntries(dst[start:], h.trusted)...)
	}
	return append(dst, h.remote...)
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

// lastHop is the client behind the proxy that a request came from, or who sent it if no proxy says: for the event about a
// wake. Forwarded is X-Forwarded-For as it goes to the pod, which ends with the sender.
func lastHop(forwarded string) string {
	last := strings.LastIndexByte(forwarded, ',')
	sender := strings.TrimSpace(forwarded[last+1:])
	for rest := forwarded[:max(last, 0)]; rest != ""; {
		comma := strings.LastIndexByte(rest, ',')
		if hop := strings.TrimSpace(rest[comma+1:]); hop != "" {
			return hop
		}
		rest = rest[:max(comma, 0)]
	}
	return sender
}

// answerFields is what becomes of an answer's fields about its connection.
type answerFields struct {
	upgrade bool   // 101: Connection and Upgrade stay
	plain   bool   // the chunks are taken out of the body, for a client of HTTP/1.0
	add     string // whole lines to add
}

// appendResponse appends the head of r in b as it goes to the client, and reports whether it is the same.
func appendResponse(dst []byte, r *http1.Response, b []byte, a answerFields) (_ []byte, same bool) {
	same = a.add == ""
	demands := false // an upgrade
	var from int32
	for _, f := range r.Fields {
		switch f.Name {
		case http1.Connection, http1.Upgrade:
			if a.upgrade {
				continue
			}
			if f.Name == http1.Upgrade && r.Status == http.StatusUpgradeRequired {
				demands = true
				continue
			}
		case http1.KeepAlive, http1.ProxyConnection, http1.ProxyAuthenticate:
		case http1.TransferEncoding:
			if !a.plain {
				continue
			}
		case http1.ContentLength:
			if !r.Chunked { // beside chunks it counts for nothing
				continue
			}
		case http1.Other, http1.ScaleToZeroWait, http1.Trailer, http1.UserAgent:
			if !r.Nominated || !r.IsNominated(b, f) {
				continue
			}
		default:
			continue
		}
		same = false
		dst = append(dst, b[from:f.Start]...)
		from = f.End
	}
	dst = append(dst, b[from:headEnd(&r.Head)]...)
	if demands { // RFC 9110, 7.8: whoever sends Upgrade names it in Connection
		dst, same = append(dst, "Connection: Upgrade\r\n"...), false
	}
	return append(append(dst, a.add...), "\r\n"...), same
}
