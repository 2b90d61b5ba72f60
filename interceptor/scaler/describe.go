// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"net/netip"
	"strings"
	"unicode"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// Describe describes a visit in one line: "GET /login from 198.18.0.9 (curl/8.5)". An attacker may have chosen all of it, so the line
// is cleaned and cut to less than 200 bytes. Of the target it has only PublicPath.
func Describe(v *route.Visit) string {
	var b strings.Builder
	if v.Method == "" {
		b.WriteString("a connection")
	} else {
		b.WriteString(Clean(v.Method, 16))
		b.WriteByte(' ')
		b.WriteString(Clean(PublicPath(v.Path), 70))
	}
	b.WriteString(" from ")
	b.WriteString(host(v.Remote))
	if v.Agent != "" {
		b.WriteString(" (")
		b.WriteString(Clean(v.Agent, 50))
		b.WriteByte(')')
	}
	return b.String()
}

// host returns the address in remote, which may have a port; empty if there is none.
func host(remote string) string {
	if ap, err := netip.ParseAddrPort(remote); err == nil {
		return ap.Addr().Unmap().WithZone("").String()
	}
	if addr, err := netip.ParseAddr(remote); err == nil {
		return addr.Unmap().WithZone("").String()
	}
	return "an unknown address"
}

// Clean returns at most limit bytes of s, with a mark where it was cut, and replaces what does not print. Characters that could
// reverse the text after them (Cf) do not count as printable.
func Clean(s string, limit int) string {
	var b strings.Builder
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			r = '?'
		}
		if b.Len()+len(string(r)) > limit {
			b.WriteString("...")
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
