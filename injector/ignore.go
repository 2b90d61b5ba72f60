// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"
	"strings"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// maxIgnored bounds each list of what is ignored, since every request is compared with all of it.
const maxIgnored = 64

const (
	ignorePathsAllowed = "paths with commas between, each beginning with /, and with a * at its end for all that begin so, as in /healthz,/static/*; " +
		"without query, and at most 64 of at most 256 characters; not /*, since nobody could wake the app"
	ignoreAgentsAllowed = "how User-Agents begin, with commas between, each of at least 3 characters, and with a * before it to find it as any of their words, as in Acme-Monitor/,*AcmeBot; " +
		"none for counting the probes and scrapers that are known; at most 64 of at most 256 characters"
	// countKnown is the word among agents that has the known ones count.
	countKnown = "none"
)

// parseIgnorePaths reads the annotation's value, of which empty is none.
func parseIgnorePaths(value string) (paths []string, ok bool) {
	return parseList(value, api.IsIgnorePath)
}

// parseIgnoreAgents reads the annotation's value, of which empty is none.
func parseIgnoreAgents(value string) (agents []string, count, ok bool) {
	agents, ok = parseList(value, func(a string) bool { return a == countKnown || api.IsIgnoreAgent(a) })
	if i := slices.Index(agents, countKnown); i >= 0 {
		agents, count = slices.Delete(agents, i, i+1), true
	}
	if len(agents) == 0 {
		agents = nil
	}
	return agents, count, ok
}

// parseList reads a list with commas between, in which nothing comes twice.
func parseList(value string, valid func(string) bool) (list []string, ok bool) {
	if value == "" {
		return nil, true
	}
	for entry := range strings.SplitSeq(value, ",") {
		entry = strings.TrimSpace(entry)
		if !valid(entry) || slices.Contains(list, entry) || len(list) == maxIgnored {
			return nil, false
		}
		list = append(list, entry)
	}
	return list, true
}
