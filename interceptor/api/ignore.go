// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strings"
)

const (
	// MaxIgnored bounds each list of ignored paths or agents. Every request is compared with the whole list.
	MaxIgnored = 64

	// maxIgnoreLength bounds an ignored path or agent. Every request is compared with each of them.
	maxIgnoreLength = 256
	// minAgentLength keeps a typing error from making everybody a probe.
	minAgentLength = 3
)

// Ignores are the requests of an opted-in Service that neither wake nor count.
type Ignores struct {
	// IgnorePaths are the paths of such requests. A path that ends in * stands for all paths with that prefix.
	IgnorePaths []string `json:"ignorePaths,omitempty"`
	// IgnoreAgents are the prefixes of User-Agents whose requests neither wake nor count, in addition to the probes and scrapers that
	// the interceptors know. After a *, the prefix may match any word of the User-Agent.
	IgnoreAgents []string `json:"ignoreAgents,omitempty"`
	// CountKnownAgents makes the known probes and scrapers count and wake like everybody.
	CountKnownAgents bool `json:"countKnownAgents,omitempty"`
}

func (i *Ignores) checkIgnores() error {
	if len(i.IgnorePaths) > MaxIgnored || len(i.IgnoreAgents) > MaxIgnored {
		return fmt.Errorf("%d ignored paths and %d ignored agents, want at most %d of each", len(i.IgnorePaths), len(i.IgnoreAgents), MaxIgnored)
	}
	for _, p := range i.IgnorePaths {
		if !IsIgnorePath(p) {
			return fmt.Errorf("ignored path %q is none", p)
		}
	}
	for _, a := range i.IgnoreAgents {
		if !IsIgnoreAgent(a) {
			return fmt.Errorf("ignored agent %q is none", a)
		}
	}
	return nil
}

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
