// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import "strings"

const (
	// maxIgnoreLength bounds an ignored path or agent. Every request is compared with each of them.
	maxIgnoreLength = 256
	// minAgentLength keeps a typing error from making everybody a probe.
	minAgentLength = 3
)

// IsIgnorePath reports whether p is valid in Routes.IgnorePaths. `/*` is not: nothing could wake the app.
func IsIgnorePath(p string) bool {
	path := strings.TrimSuffix(p, "*")
	return strings.HasPrefix(path, "/") && p != "/*" && len(p) <= maxIgnoreLength &&
		strings.IndexFunc(path, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '?' || c == '#' || c == '*' || c == ',' }) < 0
}

// IsIgnoreAgent reports whether a is valid in Routes.IgnoreAgents.
func IsIgnoreAgent(a string) bool {
	name := strings.TrimPrefix(a, "*")
	return len(name) >= minAgentLength && len(a) <= maxIgnoreLength && strings.TrimSpace(name) == name &&
		strings.IndexFunc(name, func(c rune) bool { return c < ' ' || c >= 0x7f || c == '*' || c == ',' }) < 0
}
