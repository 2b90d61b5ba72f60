// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"
	"strings"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const (
	ignorePathsAllowed = "paths separated by commas, each beginning with /, and ending with a * to match all that begin so, as in " +
		"/healthz,/static/*; " +
		"without a query, and at most 64 of at most 256 characters; not /*, since nothing could wake the app"
	ignoreAgentsAllowed = "the beginnings of User-Agents separated by commas, each of at least 3 characters, and with a leading * to " +
		"match any word, " +
		"as in Acme-Monitor/,*AcmeBot; none for counting the known probes and scrapers; at most 64 of at most 256 characters"
	// countKnown, in the list of agents, makes the known probes and scrapers count.
	countKnown = "none"
)

// parseIgnorePaths reads the annotation's value. An empty value means that there is none.
func parseIgnorePaths(value string) (paths []string, ok bool) {
	return parseList(value, api.IsIgnorePath)
}

// parseIgnoreAgents reads the annotation's value. An empty value means that there is none.
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

// parseList reads a comma-separated list without duplicates.
func parseList(value string, valid func(string) bool) (list []string, ok bool) {
	if value == "" {
		return nil, true
	}
	for entry := range strings.SplitSeq(value, ",") {
		entry = strings.TrimSpace(entry)
		if !valid(entry) || slices.Contains(list, entry) || len(list) == api.MaxIgnored {
			return nil, false
		}
		list = append(list, entry)
	}
	return list, true
}
