// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import "strings"

const (
	// maxIgnoreLength bounds an ignored path or agent. Requests are compared with each of them.
	maxIgnoreLength = 256
	// minAgentLength keeps a slip of the finger from taking everybody for a probe.
	minAgentLength = 3
)

// IsIgnorePath says whether p can be one of Routes.IgnorePaths. `/*` cannot: nothing could wake the app.
func IsIgnorePath(p string) bool {
	path := strings.TrimSuffix(p, "*")
	return strings.HasPrefix(path, "/") && p != "/*" && len(p) <= maxIgnoreLength &&
		strings.IndexFunc(path, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '?' || c == '#' || c == '*' || c == ',' }) < 0
}

// IsIgnoreAgent says whether a can be one of Routes.IgnoreAgents.
func IsIgnoreAgent(a string) bool {
	name := strings.TrimPrefix(a, "*")
	return len(name) >= minAgentLength && len(a) <= maxIgnoreLength && strings.TrimSpace(name) == name &&
		strings.IndexFunc(name, func(c rune) bool { return c < ' ' || c >= 0x7f || c == '*' || c == ',' }) < 0
}
