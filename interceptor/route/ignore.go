// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"bytes"
	"slices"
	"strings"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// HealthCheck is the path of gRPC's health check, which probes call by POST.
const HealthCheck = "/grpc.health.v1.Health/Check"

// ignored decides which requests neither wake nor count. It is immutable, and matching allocates nothing.
type ignored struct {
	// The settings from which it was made:
	paths, agents []string
	countKnown    bool

	exact map[string]struct{} // paths
	under []string            // path prefixes
	*agentNames
}

// agentNames are prefixes of a User-Agent, and prefixes of one of its words.
type agentNames struct{ begin, words names }

// newAgentNames returns the names in agents, which are written as in Routes.IgnoreAgents.
func newAgentNames(agents []string) *agentNames {
	n := &agentNames{}
	for _, a := range agents {
		if name, ok := strings.CutPrefix(strings.ToLower(a), "*"); ok {
			n.words.add(name)
		} else {
			n.begin.add(name)
		}
	}
	return n
}

// names are lower-case prefixes, indexed by their first letter in either case; nearly always, none is there to compare with. Bytes
// that are not letters share an index with a letter, which only costs a comparison.
type names [32][]string

func (n *names) add(name string) { n[name[0]&31] = append(n[name[0]&31], name) }

// begins reports whether text, which must not be empty, begins with one of the names.
func (n *names) begins(text []byte) bool {
	for _, name := range n[text[0]&31] {
		if len(text) >= len(name) && beginsFold(text, name) {
			return true
		}
	}
	return false
}

func beginsFold(text []byte, lower string) bool {
	for i := range len(lower) {
		c := text[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// ignores returns what r says about ignored requests. It returns the object of before if the settings have not changed, and usual
// if there are no settings.
func ignores(r *api.Routes, before *snapshot, usual *ignored) *ignored {
	if before != nil && slices.Equal(before.ignored.paths, r.IgnorePaths) &&
		slices.Equal(before.ignored.agents, r.IgnoreAgents) && before.ignored.countKnown == r.CountKnownAgents {
		return before.ignored
	}
	if len(r.IgnorePaths) == 0 && len(r.IgnoreAgents) == 0 && !r.CountKnownAgents {
		return usual
	}
	i := &ignored{paths: r.IgnorePaths, agents: r.IgnoreAgents, countKnown: r.CountKnownAgents, agentNames: usual.agentNames}
	for _, p := range r.IgnorePaths {
		if prefix, ok := strings.CutSuffix(p, "*"); ok {
			i.under = append(i.under, prefix)
			continue
		}
		if i.exact == nil {
			i.exact = map[string]struct{}{}
		}
		i.exact[p] = struct{}{}
	}
	switch {
	case r.CountKnownAgents:
		i.agentNames = newAgentNames(r.IgnoreAgents)
	case len(r.IgnoreAgents) > 0:
		i.agentNames = newAgentNames(append(knownAgents(), r.IgnoreAgents...))
	}
	return i
}

// Ignores reports whether a request is ignored: it neither wakes nor counts. Target is the path or the whole URL, as sent.
//
// Any request for an ignored path is ignored, because the Service's owner has named the path. Of an ignored agent, only requests that
// read are ignored: scrapers also write (Prometheus' remote write), and only the app may answer a write.
func (r *Route) Ignores(method, target, agent []byte) bool {
	i := r.snap.Load().ignored
	if len(i.exact)+len(i.under) > 0 && i.path(pathOf(target)) {
		return true
	}
	return i.agent(agent) && looks(method, target)
}

func looks(method, target []byte) bool {
	switch string(method) {
	case "GET", "HEAD":
		return true
	case "POST":
		return string(pathOf(target)) == HealthCheck
	default:
		return false
	}
}

// pathOf returns the path of a request's target, without the query. The target may be a whole URL.
func pathOf(target []byte) []byte {
	if len(target) > 0 && target[0] != '/' {
		_, behind, _ := bytes.Cut(target, []byte("://"))
		slash := bytes.IndexAny(behind, "/?")
		if slash < 0 || behind[slash] == '?' {
			return []byte("/")
		}
		target = behind[slash:]
	}
	if query := bytes.IndexByte(target, '?'); query >= 0 {
		return target[:query]
	}
	return target
}

func (i *ignored) path(path []byte) bool {
	if _, ok := i.exact[string(path)]; ok {
		return true
	}
	for _, p := range i.under {
		if len(path) >= len(p) && string(path[:len(p)]) == p {
			return true
		}
	}
	return false
}

func (i *ignored) agent(agent []byte) bool {
	if len(agent) == 0 {
		return false
	}
	if i.begin.begins(agent) || i.words.begins(agent) {
		return true
	}
	for at, c := range agent[:len(agent)-1] {
		if c < 64 && separators>>c&1 != 0 && i.words.begins(agent[at+1:]) {
			return true
		}
	}
	return false
}

// separators is the set of bytes, as bits, after which a word may begin. A slash and a dot are not among them, so that an address in
// a User-Agent matches no name.
const separators uint64 = 1<<' ' | 1<<'(' | 1<<';' | 1<<'+' | 1<<','
