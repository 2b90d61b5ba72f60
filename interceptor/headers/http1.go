// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package headers

import (
	"bytes"
	"net/http"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// AppendRequest appends the head of r in b as it is sent to the pod. host replaces a missing Host.
func AppendRequest(dst []byte, r *http1.Request, b []byte, w Way, host string) []byte {
	asks := upgrades(r, b)
	dst = append(dst, b[:r.TargetEnd]...)
	dst = append(dst, " HTTP/1.1\r\n"...)
	var proto, named, te bool
	from := int32(r.FirstLine) //nolint:gosec // a head is far below 2 GiB
	for _, f := range r.Fields {
		switch ofRequest(f.Name) {
		case nominable:
			lies := w.Trusted == 0 && tellsWay(b[f.Start:f.NameEnd])
			if !lies && (!r.Nominated || !r.IsNominated(b, f)) {
				continue
			}
		case trusted:
			if w.Trusted != 0 {
				named = named || f.Name == http1.XForwardedHost
				proto = proto || f.Name == http1.XForwardedProto
				continue
			}
		case trailers:
			te = te || hasToken(b[f.ValueStart:f.ValueEnd], "trailers")
		case ends, renewed:
		default:
			continue
		}
		dst = append(dst, b[from:f.Start]...)
		from = f.End
	}
	dst = append(dst, b[from:headEnd(&r.Head)]...)
	hasHost := r.Has(http1.Host)
	if !hasHost {
		dst = AppendField(dst, "Host", host)
	}
	dst = append(w.appendHops(append(dst, "X-Forwarded-For: "...), r, b), "\r\n"...)
	if !named && hasHost {
		dst = append(append(append(dst, "X-Forwarded-Host: "...), r.Value(b, http1.Host)...), "\r\n"...)
	}
	if !proto {
		dst = append(dst, "X-Forwarded-Proto: http\r\n"...)
	}
	if te {
		dst = append(dst, "TE: trailers\r\n"...)
	}
	if asks {
		dst = appendUpgrade(append(dst, "Connection: Upgrade\r\n"...), r, b)
	}
	return append(dst, "\r\n"...)
}

// headEnd returns where the fields end and the empty line begins.
func headEnd(h *http1.Head) int {
	if n := len(h.Fields); n > 0 {
		return int(h.Fields[n-1].End)
	}
	return h.FirstLine
}

// AppendField appends a field's line.
func AppendField(dst []byte, name, value string) []byte {
	return append(append(append(append(dst, name...), ": "...), value...), "\r\n"...)
}

// upgrades reports whether r asks for an upgrade that is passed on.
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

// mayUpgradeTo reports whether an upgrade to protocol is passed on. An upgrade to HTTP/2, which RFC 9113 has abolished, is not: its
// requests would bypass the counts, and the rules of a proxy before us.
func mayUpgradeTo(protocol []byte) bool { return !http1.EqualFold(protocol, "h2c") }

// appendUpgrade appends one field with all protocols to which the connection may be upgraded.
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

// Switches reports whether an answer with status 101 switches to a protocol that the request has offered.
func Switches(r *http1.Request, asked []byte, a *http1.Response, answered []byte) bool {
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

// Answer says what happens to an answer's fields about its connection.
type Answer struct {
	Upgrade bool   // 101: Connection and Upgrade pass
	Plain   bool   // the body is sent without chunks, to an HTTP/1.0 client
	Add     string // whole lines to add
}

// AppendAnswer appends the head of r in b as it is sent to the client, and reports whether it is unchanged.
func AppendAnswer(dst []byte, r *http1.Response, b []byte, a Answer) (_ []byte, same bool) {
	same = a.Add == ""
	demands := false // there is an Upgrade field
	var from int32
	for _, f := range r.Fields {
		switch ofAnswer(f.Name) {
		case upgrade:
			if a.Upgrade {
				continue
			}
			if f.Name == http1.Upgrade && r.Status == http.StatusUpgradeRequired {
				demands = true
				continue
			}
		case framing:
			// A Content-Length next to chunks has no meaning.
			if f.Name == http1.TransferEncoding && !a.Plain || f.Name == http1.ContentLength && !r.Chunked {
				continue
			}
		case nominable:
			if !r.Nominated || !r.IsNominated(b, f) {
				continue
			}
		case ends:
		default:
			continue
		}
		same = false
		dst = append(dst, b[from:f.Start]...)
		from = f.End
	}
	dst = append(dst, b[from:headEnd(&r.Head)]...)
	if demands { // RFC 9110, 7.8: the sender of Upgrade names it in Connection
		dst, same = append(dst, "Connection: Upgrade\r\n"...), false
	}
	return append(append(dst, a.Add...), "\r\n"...), same
}
