// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import "strings"

// AffinityAuto as Routes.AffinityCookie makes the interceptors use only a cookie of their own.
const AffinityAuto = "auto"

// maxCookieName bounds a cookie's name. The cookies of each request are compared with it.
const maxCookieName = 128

// IsCookieName reports whether name is valid for a cookie: a token (RFC 6265, 4.1.1).
func IsCookieName(name string) bool {
	return name != "" && len(name) <= maxCookieName && strings.IndexFunc(name, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, c)
	}) < 0
}
