// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"
	"unicode/utf8"
)

// DirectServiceName returns the name of the direct Service of a Service: at most 63 characters, as a Service's must be.
func DirectServiceName(service string) string { return Bounded(service, "-direct", 63) }

// AliasServiceName returns the name of the alias Service of a Service: at most 63 characters, as a Service's must be.
func AliasServiceName(service string) string { return Bounded(service, "-scale-to-zero", 63) }

// RouteSliceName returns the name of the route slice for an address type ("IPv4", "IPv6") of a Service, or of an alias
// Service.
func RouteSliceName(service, addressType string) string {
	return Bounded(service, "-scale-to-zero-"+strings.ToLower(addressType), 253)
}

// Bounded joins name and suffix. If the result is longer than limit, it cuts the name and inserts a hash of all of it, so that
// two long names do not collide.
func Bounded(name, suffix string, limit int) string {
	if len(name)+len(suffix) <= limit {
		return name + suffix
	}
	sum := sha256.Sum256([]byte(name))
	hash := "-" + hex.EncodeToString(sum[:])[:8]
	return strings.TrimRight(name[:limit-len(suffix)-len(hash)], "-.") + hash + suffix
}

// IsServiceName says whether name can be a Service's: a label of RFC 1123.
func IsServiceName(name string) bool { return isLabel(name) }

// isLabel reports whether s is a label of RFC 1123, in lower case.
func isLabel(s string) bool {
	for i, c := range []byte(s) {
		inside := i > 0 && i < len(s)-1
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || !inside) {
			return false
		}
	}
	return s != "" && len(s) <= 63
}

// isSubdomain reports whether s is a subdomain of RFC 1123, in lower case: the name of most objects. It has no slash and no "..", so
// it is safe in a path of the API server. Unlike a host's name, it may have longer labels.
func isSubdomain(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		for part := range strings.SplitSeq(label, "-") {
			if strings.ContainsFunc(part, func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') }) {
				return false
			}
		}
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return len(s) <= 253
}

// isHost reports whether s is the host of an Ingress, which may begin with a wildcard.
func isHost(s string) bool { return isSubdomain(strings.TrimPrefix(s, "*.")) }

// isKind reports whether s is the kind of an object: in lower case, it is a label that begins with a letter.
func isKind(s string) bool {
	lower := strings.ToLower(s)
	return isLabel(lower) && lower[0] >= 'a' && lower[0] <= 'z'
}

// isResource reports whether s is the plural of a kind, as a path of the API server has it.
func isResource(s string) bool { return isLabel(s) && s[0] >= 'a' && s[0] <= 'z' }

// isUID reports whether s may be the UID of an object. The API server makes UUIDs, and does not promise to.
func isUID(s string) bool {
	return s != "" && len(s) <= 128 && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-'
	})
}

// isLine reports whether s is one line of text for people, of at most longest characters.
func isLine(s string, longest int) bool {
	return utf8.RuneCountInString(s) <= longest && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) })
}
