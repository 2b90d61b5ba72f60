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

// ignored decides which requests neither wake nor count. It does not change, and asking it allocates nothing.
type ignored struct {
	// What it was made of:
	paths, agents []string
	countKnown    bool

	exact        map[string]struct{} // paths
	under        []string            // how paths begin
	begin, words names               // how User-Agents begin, and how one of their words does
}

// names are beginnings in lower case, by their first letter in either case: nearly always there is none to compare with.
// Other bytes share the place of a letter, which costs a comparison.
type names [32][]string

func (n *names) add(name string) { n[name[0]&31] = append(n[name[0]&31], name) }

// begins says that text, which is not empty, begins with one of them.
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

// ignores returns what r says of the requests to ignore: the same as before if before was made of the same.
func ignores(r *api.Routes, before *snapshot) *ignored {
	if before != nil && slices.Equal(before.ignored.paths, r.IgnorePaths) &&
		slices.Equal(before.ignored.agents, r.IgnoreAgents) && before.ignored.countKnown == r.CountKnownAgents {
		return before.ignored
	}
	i := &ignored{paths: r.IgnorePaths, agents: r.IgnoreAgents, countKnown: r.CountKnownAgents, exact: map[string]struct{}{}}
	for _, p := range r.IgnorePaths {
		if prefix, ok := strings.CutSuffix(p, "*"); ok {
			i.under = append(i.under, prefix)
		} else {
			i.exact[p] = struct{}{}
		}
	}
	agents := r.IgnoreAgents
	if !r.CountKnownAgents {
		agents = append(knownAgents(), agents...)
	}
	for _, a := range agents {
		if name, ok := strings.CutPrefix(strings.ToLower(a), "*"); ok {
			i.words.add(name)
		} else {
			i.begin.add(name)
		}
	}
	return i
}

// Ignores says that a request is not a visitor's: it neither wakes nor counts. Target is the path, or the whole URL, as it
// was sent.
//
// A path is ignored whatever is done with it, since the Service's owner has named it. Of an agent only what looks is: those
// that scrape also write (Prometheus' remote write), which must not be answered by anybody but the app.
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

// pathOf is the path in a request's target, which may be a whole URL, without the query.
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

// separators are the bytes, as bits, behind which a word may begin. Behind a slash or a dot begins none, so that an address
// in a User-Agent is none of them.
const separators uint64 = 1<<' ' | 1<<'(' | 1<<';' | 1<<'+' | 1<<','
