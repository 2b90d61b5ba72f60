// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package headers

import "strings"

// prefixForwarded begins the names of a family of fields, such as X-Forwarded-Port and X-Forwarded-Prefix.
const prefixForwarded = "x-forwarded-"

// longestForwarding bounds the names that tellsWay compares.
const longestForwarding = len("x-original-forwarded-for")

// tellsWay reports whether a field tells an app how a request came: who sent it, and for which host, port or path. Only proxies may say
// that, so a client that is not trusted must not. Servers that pass fields on in environment variables, such as those of CGI and WSGI,
// take an underscore for a hyphen.
func tellsWay[T string | []byte](name T) bool {
	var lower [longestForwarding]byte
	n := min(len(name), longestForwarding)
	for i := range n {
		switch c := name[i]; {
		case c >= 'A' && c <= 'Z':
			lower[i] = c | 0x20
		case c == '_':
			lower[i] = '-'
		default:
			lower[i] = c
		}
	}
	if strings.HasPrefix(string(lower[:n]), prefixForwarded) {
		return true
	}
	if len(name) > longestForwarding {
		return false
	}
	switch string(lower[:n]) {
	case "forwarded", "forwarded-for", "x-forwarded", "forwarded-for-ip", "x-forwarder-for", "x-original-forwarded-for",
		"x-real-ip", "x-client-ip", "x-cluster-client-ip", "x-remote-ip", "x-remote-addr", "x-originating-ip", "client-ip",
		"true-client-ip", "cf-connecting-ip", "cf-connecting-ipv6", "fastly-client-ip", "x-azure-clientip", "x-azure-socketip",
		"x-appengine-user-ip", "x-appengine-remote-addr", "x-envoy-external-address", "x-envoy-original-path",
		"x-original-host", "x-original-url", "x-original-uri", "x-original-prefix", "x-original-proto", "x-host", "x-scheme",
		"x-rewrite-url", "x-script-name", "front-end-https", "x-url-scheme":
		return true
	}
	return false
}
